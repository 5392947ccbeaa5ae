"""Random calls, one after the other with no pause, as several impatient clients make them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime
from typing import Any

import requests
from urllib3.exceptions import NewConnectionError

from tests.faults.chronicle import Deed, Outcome
from tests.faults.counting import prompt as counting_prompt
from tests.faults.scene import BACK, Prompt, Scene, Subject, Written

ASYNC = {"Prefer": "respond-async"}

MOST_PROMPTS = 12
"""Of a session in one round, so that all can be worked off in the quiet after it."""

MOST_BACKUPS = 25
CROWDED = 0.7
TRIES = 8
AWAY = 0.05
"""s after a call that was not answered: while nothing runs there is nothing to be quick for."""

MANY = 1_000
"""Files of a folder that makes a backup take its time."""

OVERTAKEN = ("start_failed", "stop_failed", "teardown_failed", "superseded", "request_in_progress")
"""Codes of a 409 to a call that had its effect before it waited."""


class Actor(threading.Thread):
    """Calls until `over`. What it does is chosen by `chance`, as far as the answers allow; `without` these calls, and
    most of it with the session of the slot `crowd`, if one is given."""

    def __init__(
        self,
        scene: Scene,
        name: str,
        chance: random.Random,
        over: threading.Event,
        without: Collection[str] = (),
        crowd: int | None = None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.without, self.crowd = without, crowd
        self.scene, self.chance, self.over = scene, chance, over
        self.prompts: dict[str, int] = {}
        self.beside: list[threading.Thread] = []

    def run(self) -> None:
        while not self.over.is_set():
            self.step()
        for thread in self.beside:
            thread.join()

    def step(self) -> None:
        """One thing at random."""
        slot = self.chance.randrange(self.scene.slots)
        if self.crowd is not None and self.chance.random() < CROWDED:
            slot = self.crowd
        subject = self.scene.at(slot)
        act = self.choose()
        if subject is None:
            if not self.scene.reserve(slot):
                return
            subject = self.make()
            self.scene.fill(slot, subject)
            if subject is None or self.chance.random() < 0.5:
                return
        elif subject.possible("delete", "delete unsaved") and self.chance.random() < 0.5:
            self.scene.leave(subject)
            return
        act(subject)

    def choose(self) -> Callable[[Subject], None]:
        """What to do next with a session."""
        acts: list[tuple[Callable[[Subject], None], int]] = [
            (self.sleep, 10), (self.wake, 6), (self.scale, 4), (self.chat, 14), (self.chat_again, 4),
            (self.stream, 4), (self.hang_up, 3), (self.cancel, 3), (self.back_up, 5), (self.write, 6),
            (self.delete, 3), (self.drop_backup, 4), (self.revoke, 2), (self.open, 2), (self.keep_up, 2),
            (self.look, 3), (self.save, 6), (self.roll_back, 8), (self.fork, 8),
        ]  # fmt: skip
        acts = [each for each in acts if each[0].__name__ not in self.without]
        return self.chance.choices([each for each, _ in acts], [weight for _, weight in acts])[0]

    # The calls

    def make(self) -> Subject | None:
        """A new session, of a backup's files or none; the call is repeated until it is answered."""
        backup = self.chance.choice(sorted(self.scene.backups) or [""]) if self.chance.random() < 0.4 else ""
        by_name = bool(backup) and self.chance.random() < 0.5
        mark = self.scene.mark()
        idle, ttl = (self.chance.choice(choice) for choice in ((0, 0, 0, 3, 6), (0,) * 8 + (2, 10)))
        if "idle" in self.without:
            idle = ttl = 0
        body: dict[str, Any] = {"user_id": mark}
        if not by_name:
            body |= {"idle_timeout": idle, "ttl": ttl} | ({"restore_from": backup} if backup else {})
        path = f"/backups/{backup}/restore" if by_name else "/session/create"
        headers = dict(self.chance.choice([ASYNC, ASYNC, {"Prefer": "wait=2"}]))
        if self.chance.random() < 0.8:
            headers["Idempotency-Key"] = mark
            self.scene.keyed.add(mark)
        for _ in range(TRIES if mark in self.scene.keyed else 1):
            what = "restore" if backup else "create"
            deed, answer = self.do(None, what, "POST", path, body, headers, about=backup)
            self.scene.makings[mark].append(deed)
            if deed.accepted and answer is not None:
                uuid = deed.uuid = str(answer.json()["uuid"])
                if by_name:
                    idle = ttl = 0
                return Subject(uuid, mark, idle, ttl, backup, self.scene.makings[mark])
            if not deed.possible or self.over.wait(0.3):
                break
        return None

    def sleep(self, subject: Subject) -> None:
        self.do(subject, "sleep", "POST", f"/session/{subject.uuid}/sleep", None, self.patience())

    def wake(self, subject: Subject) -> None:
        self.do(subject, "wake", "POST", f"/session/{subject.uuid}/wake", None, self.patience())

    def scale(self, subject: Subject) -> None:
        what = self.chance.choice(["scale-up", "scale-down"])
        self.do(subject, what, "POST", f"/session/{subject.uuid}/{what}", None, {"Prefer": "wait=2"})

    def chat(self, subject: Subject) -> None:
        """A new prompt."""
        if prompt := self.new_prompt(subject):
            self.bring(subject, prompt, "chat", self.patience())

    def chat_again(self, subject: Subject) -> None:
        """A prompt that came before."""
        if subject.prompts:
            prompt = self.chance.choice(list(subject.prompts.values()))
            self.bring(subject, prompt, "chat again", self.patience())

    def hang_up(self, subject: Subject) -> None:
        """A prompt whose caller goes away while it waits for the answer; maybe it calls again."""
        if prompt := self.new_prompt(subject):
            self.bring(subject, prompt, "chat", {"Prefer": "wait=20"}, timeout=self.chance.choice([0.02, 0.1, 0.5]))
            if self.chance.random() < 0.5:
                self.bring(subject, prompt, "chat again", ASYNC)

    def stream(self, subject: Subject) -> None:
        """A prompt whose caller reads some of the events and goes away."""
        prompt = self.new_prompt(subject)
        if prompt is None:
            return
        most = self.chance.choice([1, 3, 100])
        deed = self.scene.chronicle.begin("chat", self.name, subject.uuid, prompt.id)
        self.noted(subject, deed)
        prompt.brought.append(deed)
        outcome, seen = Outcome.UNKNOWN, 0
        try:
            with self.scene.place.call(
                "POST",
                f"/session/{subject.uuid}/chat",
                self.body(prompt),
                {"Accept": "text/event-stream"},
                3,
                stream=True,
            ) as answer:
                outcome = self.judged(deed, answer)
                if outcome is Outcome.ACCEPTED:
                    outcome = Outcome.UNKNOWN
                    for line in answer.iter_lines(chunk_size=1):
                        seen += line.startswith(b"event:")
                        # The first thing told is told because it was taken.
                        outcome = Outcome.ACCEPTED if seen else outcome
                        if seen >= most:
                            break
        except (requests.RequestException, AttributeError) as error:
            outcome = Outcome.REFUSED if _never_arrived(error) else outcome
        self.scene.chronicle.end(deed, outcome, f"stream, {seen} events")

    def cancel(self, subject: Subject) -> None:
        if subject.prompts:
            prompt = self.chance.choice(list(subject.prompts.values())[-3:])
            path = f"/session/{subject.uuid}/messages/{prompt.id}/cancel"
            self.do(subject, "cancel", "POST", path, None, {}, about=prompt.id)

    def back_up(self, subject: Subject) -> None:
        self.do(subject, "backup", "POST", f"/session/{subject.uuid}/backup", None, {})

    def save(self, subject: Subject) -> None:
        self.do(subject, "point", "POST", f"/session/{subject.uuid}/restore-points", None, self.patience())

    def point(self, subject: Subject) -> dict[str, Any]:
        """One of the session's restore points, {} where it has none."""
        path = f"/session/{subject.uuid}/restore-points"
        deed, answer = self.do(subject, "list points", "GET", path, None, {})
        listed = answer.json()["restore_points"] if deed.accepted and answer is not None else []
        return self.chance.choice([each for each in listed if not each["broken"]] or [{}])

    def roll_back(self, subject: Subject) -> None:
        """To a restore point, or to before a prompt."""
        path = f"/session/{subject.uuid}/rollback"
        if subject.prompts and self.chance.random() < 0.4:
            prompt = self.chance.choice(sorted(subject.prompts))
            if self.is_up(subject):
                self.do(subject, "undo", "POST", path, {"message_id": prompt}, self.patience(), about=prompt)
        elif point := self.point(subject):
            body = {"restore_point": point["id"]}
            self.do(subject, "rollback", "POST", path, body, self.patience(), about=point["id"])

    def is_up(self, subject: Subject) -> bool:
        """Whether it is active, with its files."""
        with suppress(requests.RequestException):
            seen = self.scene.place.call("GET", f"/session/{subject.uuid}", None, {}, 5).json().get("session", {})
            return bool(seen.get("status") == "active" and not seen.get("restore_from"))
        return False

    def fork(self, subject: Subject) -> None:
        """A new session of the same or of another user, with the files of a restore point, or from before a prompt."""
        wanted = self.state_to_fork(subject)
        slot = next((slot for slot in range(self.scene.slots) if self.scene.reserve(slot)), None) if wanted else None
        if slot is None:
            return
        same = self.chance.random() < 0.5
        user = subject.user if same else self.scene.mark()
        path, body = f"/session/{subject.uuid}/fork", {"user_id": user, **wanted}
        deed, answer = self.do(None, "fork", "POST", path, body, ASYNC, about=next(iter(wanted.values())))
        deeds = [deed] if same else self.scene.makings[user]
        (self.scene.forkings if same else self.scene.makings)[user].append(deed)
        made = None
        if deed.accepted and answer is not None:
            told = answer.json()
            deed.uuid = str(told["uuid"])
            before = datetime.fromisoformat(told["files_of"]).timestamp()
            made = Subject(deed.uuid, user, deeds=deeds)
            made.inherited = {} if subject.possible(*BACK) else subject.certain(before)
            if same:
                made.idle_timeout, made.ttl = subject.idle_timeout, subject.ttl
                made.inherited_prompts = frozenset(subject.prompts) | subject.inherited_prompts
                made.forked_before = wanted.get("message_id", "")
        self.scene.fill(slot, made)

    def state_to_fork(self, subject: Subject) -> dict[str, str]:
        """A restore point of the session, or a prompt; {} for neither."""
        if subject.prompts and self.chance.random() < 0.4:
            return {"message_id": self.chance.choice(sorted(subject.prompts))}
        point = self.point(subject)
        return {"restore_point": str(point["id"])} if point else {}

    def write(self, subject: Subject) -> None:
        """A file, now and then a folder of many, where the session is up and has its files."""
        if not self.is_up(subject):
            return
        with suppress(requests.RequestException):
            name = f"f{self.scene.number()}"
            if self.chance.random() < 0.1:
                files = {f"{name}/{n}": self.chance.randbytes(64) for n in range(MANY)}
            else:
                files = {name: self.chance.randbytes(self.chance.choice([10, 10_000, 500_000]))}
            deed = self.scene.chronicle.begin("write", self.name, subject.uuid, name)
            there = self.scene.place.write(subject.uuid, files)
            self.scene.chronicle.end(deed, Outcome.ACCEPTED if there else Outcome.REFUSED)
            if there:
                subject.written.append(Written.of(files, deed))

    def delete(self, subject: Subject) -> None:
        how = self.chance.choice(["", "", "?backup=true", "?backup=false"])
        what = "delete unsaved" if "false" in how else "delete"
        self.do(subject, what, "DELETE", f"/session/{subject.uuid}{how}", None, self.patience())

    def drop_backup(self, _: Subject) -> None:
        """Delete a backup while others may be using it; or only look which there are."""
        deed, answer = self.do(None, "list backups", "GET", "/backups?limit=1000", None, {})
        if answer is None or not deed.accepted:
            return
        names = [backup["name"] for backup in answer.json()["backups"] if self.scene.ours(backup["name"])]
        self.scene.backups.update(names)
        if names and (len(names) > MOST_BACKUPS or self.chance.random() < 0.4):
            name = self.chance.choice(names)
            if self.chance.random() < 0.3:
                self.contend(name)
            self.do(None, "drop backup", "DELETE", f"/backups/{name}", None, {}, about=name)

    def contend(self, name: str) -> None:
        """Restore this backup at the same moment as it is deleted."""
        for slot in range(self.scene.slots):
            if self.scene.reserve(slot):
                mark = self.scene.mark()

                def restore(slot: int = slot, mark: str = mark) -> None:
                    path, body = f"/backups/{name}/restore", {"user_id": mark}
                    deed, answer = self.do(None, "restore", "POST", path, body, ASYNC, about=name)
                    self.scene.makings[mark].append(deed)
                    subject = None
                    if deed.accepted and answer is not None:
                        deed.uuid = str(answer.json()["uuid"])
                        subject = Subject(deed.uuid, mark, origin=name, deeds=self.scene.makings[mark])
                    self.scene.fill(slot, subject)

                self.beside.append(threading.Thread(target=restore, name=f"{self.name}+", daemon=True))
                self.beside[-1].start()
                return

    def revoke(self, subject: Subject) -> None:
        self.do(subject, "revoke", "POST", f"/session/{subject.uuid}/revoke", None, {})

    def open(self, subject: Subject) -> None:
        """A token; or a link, which is followed."""
        if self.chance.random() < 0.5:
            deed, answer = self.do(subject, "token", "POST", f"/session/{subject.uuid}/token", None, {})
            if deed.accepted and answer is not None:
                subject.tokens.append((answer.json()["token"], deed))
            return
        deed, answer = self.do(subject, "open", "POST", f"/session/{subject.uuid}/open", None, {})
        if deed.accepted and answer is not None:
            visit = self.scene.chronicle.begin("visit", self.name, subject.uuid)
            self.noted(subject, visit)
            seen = ""
            with suppress(requests.RequestException):
                seen = self.scene.place.visit(answer.json()["url"])
            self.scene.chronicle.end(visit, Outcome.UNKNOWN, seen)

    def keep_up(self, subject: Subject) -> None:
        body = {"seconds": self.chance.choice([0, 2, 5])}
        self.do(subject, "keepalive", "POST", f"/session/{subject.uuid}/keepalive", body, {})

    def look(self, subject: Subject) -> None:
        """What only reads must answer all the time."""
        own = f"/session/{subject.uuid}"
        path = self.chance.choice(
            ["/sessions", "/sessions?status=active", f"/sessions?user_id={subject.user}", own, f"{own}/messages",
             f"{own}/activity", f"{own}/backups", "/metrics"]
        )  # fmt: skip
        self.do(subject, "look", "GET", path, None, {}, about=path)

    # How they are made

    def patience(self) -> dict[str, str]:
        return self.chance.choice([ASYNC, ASYNC, ASYNC, {"Prefer": "wait=1"}])

    def new_prompt(self, subject: Subject) -> Prompt | None:
        if self.prompts.setdefault(subject.uuid, 0) >= MOST_PROMPTS // 3:
            return None
        self.prompts[subject.uuid] += 1
        name = f"{subject.uuid}.{self.scene.number()}"
        prompt = Prompt(name, counting_prompt(name, self.chance.choice([0, 20, 100, 400, 1200])))
        subject.prompts[name] = prompt
        return prompt

    def body(self, prompt: Prompt) -> dict[str, str]:
        return {"message": prompt.text, "id": prompt.id}

    def bring(self, subject: Subject, prompt: Prompt, what: str, headers: dict[str, str], timeout: float = 20) -> None:
        path = f"/session/{subject.uuid}/chat"
        self.do(
            subject, what, "POST", path, self.body(prompt), headers, about=prompt.id, timeout=timeout, prompt=prompt
        )

    def noted(self, subject: Subject | None, deed: Deed) -> None:
        if subject is not None:
            subject.deeds.append(deed)

    def do(
        self,
        subject: Subject | None,
        what: str,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str],
        *,
        about: str = "",
        timeout: float = 20.0,
        prompt: Prompt | None = None,
    ) -> tuple[Deed, requests.Response | None]:
        """Make a call and note what became of it; the answer, None where there was none."""
        deed = self.scene.chronicle.begin(what, self.name, subject.uuid if subject else "", about)
        self.noted(subject, deed)
        if prompt is not None:
            prompt.brought.append(deed)
        answer = None
        try:
            answer = self.scene.place.call(method, path, body, headers, timeout)
            outcome, detail = self.judged(deed, answer), f"{answer.status_code} {answer.text}"
        except requests.RequestException as error:
            outcome = Outcome.REFUSED if _never_arrived(error) else Outcome.UNKNOWN
            detail = type(error).__name__
            self.over.wait(AWAY)
        self.scene.chronicle.end(deed, outcome, detail)
        return deed, answer

    def judged(self, deed: Deed, answer: requests.Response) -> Outcome:
        """What an answer says of its call; one that no fault explains is noted as trouble."""
        status = answer.status_code
        if status < 400:
            return Outcome.ACCEPTED
        code = _code(answer)
        if status == 500 or (status != 502 and not code):
            self.scene.trouble("internal error", deed.uuid, f"{deed.what} {deed.about}: {status} {answer.text[:500]}")
        if status >= 500 or code in OVERTAKEN:
            return Outcome.UNKNOWN
        return Outcome.REFUSED


def _code(answer: requests.Response) -> str:
    with suppress(ValueError, AttributeError):
        return str(answer.json().get("error", ""))
    return ""


def _never_arrived(error: Exception) -> bool:
    """Whether nobody listened where the call went."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError)
