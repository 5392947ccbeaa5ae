"""Random calls, one after the other with no pause, as several impatient clients make them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime
from typing import Any

import requests

from tests.faults.caller import ASYNC, Caller
from tests.faults.chronicle import Outcome
from tests.faults.counting import prompt as counting_prompt
from tests.faults.scene import BACK, Prompt, Scene, Subject, Written
from tests.faults.working import Working

MOST_PROMPTS = 12
"""Of a session in one round, so that all can be worked off in the quiet after it."""

MOST_BACKUPS = 25
CROWDED = 0.7
TRIES = 8
MANY = 1_000
"""Files of a folder that makes a backup take its time."""


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
        self.caller = Caller(scene, name, chance, over)
        self.working = Working(self.caller)
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
            (self.look, 3), (self.save, 6), (self.roll_back, 8), (self.fork, 8), *self.working.acts(),
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
            deed, answer = self.caller.do(None, what, "POST", path, body, headers, about=backup)
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
        self.caller.do(subject, "sleep", "POST", f"/session/{subject.uuid}/sleep", None, self.caller.patience())

    def wake(self, subject: Subject) -> None:
        self.caller.do(subject, "wake", "POST", f"/session/{subject.uuid}/wake", None, self.caller.patience())

    def scale(self, subject: Subject) -> None:
        what = self.chance.choice(["scale-up", "scale-down"])
        self.caller.do(subject, what, "POST", f"/session/{subject.uuid}/{what}", None, {"Prefer": "wait=2"})

    def chat(self, subject: Subject) -> None:
        """A new prompt."""
        if prompt := self.new_prompt(subject):
            self.bring(subject, prompt, "chat", self.caller.patience())

    def chat_again(self, subject: Subject) -> None:
        """A prompt that came before."""
        if subject.prompts:
            prompt = self.chance.choice(list(subject.prompts.values()))
            self.bring(subject, prompt, "chat again", self.caller.patience())

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
        self.caller.follow(
            subject, "chat", f"/session/{subject.uuid}/chat", self.body(prompt),
            about=prompt.id, timeout=3, most=most, noting=prompt.brought.append,
        )  # fmt: skip

    def cancel(self, subject: Subject) -> None:
        if subject.prompts:
            prompt = self.chance.choice(list(subject.prompts.values())[-3:])
            path = f"/session/{subject.uuid}/messages/{prompt.id}/cancel"
            self.caller.do(subject, "cancel", "POST", path, None, {}, about=prompt.id)

    def back_up(self, subject: Subject) -> None:
        self.caller.do(subject, "backup", "POST", f"/session/{subject.uuid}/backup", None, {})

    def save(self, subject: Subject) -> None:
        self.caller.do(
            subject, "point", "POST", f"/session/{subject.uuid}/restore-points", None, self.caller.patience()
        )

    def point(self, subject: Subject) -> dict[str, Any]:
        """One of the session's restore points, {} where it has none."""
        path = f"/session/{subject.uuid}/restore-points"
        deed, answer = self.caller.do(subject, "list points", "GET", path, None, {})
        listed = answer.json()["restore_points"] if deed.accepted and answer is not None else []
        return self.chance.choice([each for each in listed if not each["broken"]] or [{}])

    def roll_back(self, subject: Subject) -> None:
        """To a restore point, or to before a prompt."""
        path = f"/session/{subject.uuid}/rollback"
        if subject.prompts and self.chance.random() < 0.4:
            prompt = self.chance.choice(sorted(subject.prompts))
            if self.is_up(subject):
                self.caller.do(
                    subject, "undo", "POST", path, {"message_id": prompt}, self.caller.patience(), about=prompt
                )
        elif point := self.point(subject):
            body = {"restore_point": point["id"]}
            self.caller.do(subject, "rollback", "POST", path, body, self.caller.patience(), about=point["id"])

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
        deed, answer = self.caller.do(None, "fork", "POST", path, body, ASYNC, about=next(iter(wanted.values())))
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
        self.caller.do(subject, what, "DELETE", f"/session/{subject.uuid}{how}", None, self.caller.patience())

    def drop_backup(self, _: Subject) -> None:
        """Delete a backup while others may be using it; or only look which there are."""
        deed, answer = self.caller.do(None, "list backups", "GET", "/backups?limit=1000", None, {})
        if answer is None or not deed.accepted:
            return
        names = [backup["name"] for backup in answer.json()["backups"] if self.scene.ours(backup["name"])]
        self.scene.backups.update(names)
        if names and (len(names) > MOST_BACKUPS or self.chance.random() < 0.4):
            name = self.chance.choice(names)
            if self.chance.random() < 0.3:
                self.contend(name)
            self.caller.do(None, "drop backup", "DELETE", f"/backups/{name}", None, {}, about=name)

    def contend(self, name: str) -> None:
        """Restore this backup at the same moment as it is deleted."""
        for slot in range(self.scene.slots):
            if self.scene.reserve(slot):
                mark = self.scene.mark()

                def restore(slot: int = slot, mark: str = mark) -> None:
                    path, body = f"/backups/{name}/restore", {"user_id": mark}
                    deed, answer = self.caller.do(None, "restore", "POST", path, body, ASYNC, about=name)
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
        self.caller.do(subject, "revoke", "POST", f"/session/{subject.uuid}/revoke", None, {})

    def open(self, subject: Subject) -> None:
        """A token; or a link, which is followed."""
        if self.chance.random() < 0.5:
            deed, answer = self.caller.do(subject, "token", "POST", f"/session/{subject.uuid}/token", None, {})
            if deed.accepted and answer is not None:
                subject.tokens.append((answer.json()["token"], deed))
            return
        deed, answer = self.caller.do(subject, "open", "POST", f"/session/{subject.uuid}/open", None, {})
        if deed.accepted and answer is not None:
            visit = self.caller.begin(subject, "visit")
            seen = ""
            with suppress(requests.RequestException):
                seen = self.scene.place.visit(answer.json()["url"])
            self.scene.chronicle.end(visit, Outcome.UNKNOWN, seen)

    def keep_up(self, subject: Subject) -> None:
        body = {"seconds": self.chance.choice([0, 2, 5])}
        self.caller.do(subject, "keepalive", "POST", f"/session/{subject.uuid}/keepalive", body, {})

    def look(self, subject: Subject) -> None:
        """What only reads must answer all the time."""
        own = f"/session/{subject.uuid}"
        path = self.chance.choice(
            ["/sessions", "/sessions?status=active", f"/sessions?user_id={subject.user}", own, f"{own}/messages",
             f"{own}/activity", f"{own}/backups", "/metrics"]
        )  # fmt: skip
        self.caller.do(subject, "look", "GET", path, None, {}, about=path)

    # How they are made

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
        self.caller.do(
            subject,
            what,
            "POST",
            path,
            self.body(prompt),
            headers,
            about=prompt.id,
            timeout=timeout,
            noting=prompt.brought.append,
        )
