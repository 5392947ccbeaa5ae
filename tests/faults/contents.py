"""What must be in workspaces and backups when a service was troubled: every file, and every prompt's work, once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.prompts.inbox import State
from app.core.sessions.model import Record, Status
from tests.faults import counting
from tests.faults.judging import Finding, session_of
from tests.faults.looking import Snapshot
from tests.faults.scene import STOPS, Prompt, Scene, Subject

STORED = 15.0
"""s after which a conversation is what its agent has, wherever it is read from."""

TOKEN_LASTS = 600.0
"""s for which a session token is certainly good; its own time is a setting."""


@dataclass(frozen=True)
class Kept:
    """What a backup holds: CRC-32s of its files by name, and what its prompts counted. `begun` is when it was begun."""

    begun: float
    files: Mapping[str, int]
    counted: Counter[str]


class Contents:
    """Judges workspaces, backups and conversations of a scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.kept: dict[str, Kept] = {}

    def judge(self, seen: Snapshot, now: float) -> Iterator[Finding]:
        """All of it, of sessions that are up, and of those that ended."""
        yield from self._backups(seen)
        for subject in self.scene.judged():
            record = seen.records.get(subject.uuid)
            if record is None:
                continue
            if record.status is Status.ACTIVE:
                found = [*self._workspace(subject, seen), *self._told(subject, seen), *self._tokens(subject, now)]
                # One that expires may have gone meanwhile.
                yield from found if not subject.ttl or self._is_up(subject) else ()
            if record.status is Status.TERMINATED:
                yield from self._last_backup(subject, record)
            yield from self._requested(subject)

    def _backups(self, seen: Snapshot) -> Iterator[Finding]:
        """Each backup is whole, and has every file that was there when it was begun."""
        self.scene.backups = set(seen.backups)
        for name in sorted(seen.backups - self.kept.keys()):
            try:
                with self.scene.place.zipped(name) as zipped:
                    broken = zipped.testzip()
                    files = {each.filename: each.CRC for each in zipped.infolist() if not each.is_dir()}
                    counted = zipped.read(counting.FILE).decode().split() if counting.FILE in files else []
                created = self.scene.place.backup_begun(name)
            except (OSError, ValueError, KeyError) as error:
                yield Finding("backup can't be read", session_of(name), f"{name}: {error}")
                continue
            kept = self.kept[name] = Kept(created, files, Counter(counted))
            if broken:
                yield Finding("backup is broken", session_of(name), f"{name}: {broken}")
            subject = self.scene.subjects.get(session_of(name))
            if subject is not None and (lost := self._missing(subject, kept.files, kept.begun)):
                yield Finding("backup is not whole", subject.uuid, f"{name} lacks {lost}")

    def _missing(self, subject: Subject, files: Mapping[str, int], before: float) -> str:
        """Which files, written for certain before this moment and before any deletion began, are not among these; ""
        for none."""
        expected: dict[str, int] = {}
        if subject.origin in self.kept:
            inherited = self.kept[subject.origin].files
            expected |= {name: crc for name, crc in inherited.items() if name[:1] == "f"}
        expected |= subject.certain(min(before, subject.deletion()))
        lost = [name for name, crc in expected.items() if files.get(name) != crc]
        return f"{len(lost)} of {len(expected)} files: {lost[:5]}" if lost else ""

    def _last_backup(self, subject: Subject, record: Record) -> Iterator[Finding]:
        """A session that was deleted with a backup has all its files in it."""
        if subject.possible("delete unsaved"):
            return
        end = float("inf") if not subject.ttl else record.requested_at - 1
        kept = self.kept.get(record.backup)
        if kept is not None:
            if lost := self._missing(subject, kept.files, end):
                yield Finding("file lost", subject.uuid, f"its last backup {record.backup} lacks {lost}")
        elif not self._dropped(record.backup) and (lost := self._missing(subject, {}, end)):
            yield Finding("file lost", subject.uuid, f"there is no last backup ({record.backup!r}), gone are {lost}")

    def _requested(self, subject: Subject) -> Iterator[Finding]:
        """A backup that was asked for was begun after it was asked for."""
        asked = [deed.begun for deed in subject.possible("backup") if deed.accepted]
        own = [kept.begun for name, kept in self.kept.items() if session_of(name) == subject.uuid]
        gone = any(subject.uuid in deed.about for deed in self.scene.chronicle.deeds("drop backup"))
        if asked and max(own, default=0.0) < max(asked) and not gone and not subject.possible("delete unsaved"):
            text = f"asked for at {max(asked):.3f}, the newest was begun at {max(own, default=0.0):.3f}"
            yield Finding("backup not made", subject.uuid, text)

    def _dropped(self, name: str) -> bool:
        return any(deed.about == name for deed in self.scene.chronicle.deeds("drop backup"))

    def _workspace(self, subject: Subject, seen: Snapshot) -> Iterator[Finding]:
        files = self.scene.place.files(subject.uuid)
        if files is None:
            yield Finding("file lost", subject.uuid, "its files are not there")
            return
        if lost := self._missing(subject, files, float("inf")):
            yield Finding("file lost", subject.uuid, f"it lacks {lost}")
        counted = Counter(self.scene.place.read(subject.uuid, counting.FILE).split())
        before = self.kept[subject.origin].counted if subject.origin in self.kept else None
        for name, times in counted.items():
            prompt = subject.prompts.get(name)
            if prompt is None and before is not None and times > before[name]:
                yield Finding("another session's prompt ran", subject.uuid, f"{name}, {times} times")
            elif prompt is not None and times > 1 + self._cuts(subject, prompt):
                yield Finding("prompt ran twice", subject.uuid, f"{name} was counted {times} times")
        for prompt in list(subject.prompts.values()):
            message = seen.messages.get((subject.uuid, prompt.id))
            stands = message is not None and message.state is State.PROCESSED and not message.rolled_back_at
            if stands and not counted[prompt.id]:
                yield Finding("prompt's work lost", subject.uuid, f"{prompt.id} is processed, and not counted")

    def _cuts(self, subject: Subject, prompt: Prompt) -> int:
        """How often its agent died since this prompt came, maybe in the middle of its command."""
        return len(self.scene.faults(prompt.first, float("inf"), "end agent", *STOPS, uuid=subject.uuid))

    def _is_up(self, subject: Subject) -> bool:
        seen = self.scene.place.call("GET", f"/session/{subject.uuid}", None, {}, 20).json()
        return bool(seen["session"]["status"] == Status.ACTIVE)

    def _told(self, subject: Subject, seen: Snapshot) -> list[Finding]:
        """What is wrong with its conversation, also after a while: one whose agent comes or goes is told as it was
        stored last."""
        deadline = time.monotonic() + STORED
        while (found := list(self._conversation(subject, seen))) and time.monotonic() < deadline:
            time.sleep(1)
        return found

    def _conversation(self, subject: Subject, seen: Snapshot) -> Iterator[Finding]:
        said = self._said(subject.uuid)
        places: dict[str, int] = {}
        ends = Counter(str(each["id"]) for each in said if each.get("outcome"))
        for number, each in enumerate(said):
            if each["role"] == "user" and places.setdefault(each["id"], number) != number:
                yield Finding("prompt said twice", subject.uuid, each["id"])
        for prompt in list(subject.prompts.values()):
            message = seen.messages.get((subject.uuid, prompt.id))
            if message is None or not message.finished:
                continue
            outcome: dict[str, Any] = next(
                (each["outcome"] for each in said if each["id"] == prompt.id and each.get("outcome")), {}
            )
            if ends[prompt.id] > 1:
                yield Finding("prompt answered twice", subject.uuid, prompt.id)
            if message.rolled_back_at:
                if outcome.get("status") == State.PROCESSED and not self._counted(subject, prompt):
                    yield Finding("files and conversation differ", subject.uuid, f"{prompt.id} is said, not counted")
            elif message.state is State.PROCESSED:
                text = outcome.get("response", {}).get("text")
                if not text == message.response.get("text") == counting.answer(prompt.id):
                    told = f"{prompt.id}: {text!r} in the conversation, {message.response.get('text')!r} told"
                    yield Finding("wrong answer", subject.uuid, told)
        yield from self._inherited(subject, places, said)
        ordered = sorted((each for each in subject.prompts.values() if each.id in places), key=lambda each: each.taken)
        for n, first in enumerate(ordered):
            for second in ordered[n + 1 :]:
                if first.taken < second.first and places[first.id] > places[second.id]:
                    yield Finding("wrong order", subject.uuid, f"{second.id} before {first.id}")

    def _inherited(
        self, subject: Subject, places: Mapping[str, int], said: Sequence[Mapping[str, Any]]
    ) -> Iterator[Finding]:
        """A fork's files and conversation are those of one moment, and nothing came after that."""
        counted = self.scene.place.read(subject.uuid, counting.FILE).split()
        for each in said:
            processed = (each.get("outcome") or {}).get("status") == State.PROCESSED
            if processed and each["id"] in subject.inherited_prompts and each["id"] not in counted:
                yield Finding("files and conversation differ", subject.uuid, f"{each['id']} is said, not counted")
        if subject.forked_before in places or subject.forked_before in counted:
            yield Finding("forked too late", subject.uuid, f"it has {subject.forked_before}, before which it is")

    def _counted(self, subject: Subject, prompt: Prompt) -> bool:
        return prompt.id in self.scene.place.read(subject.uuid, counting.FILE).split()

    def _said(self, uuid: str) -> list[dict[str, Any]]:
        """All of a conversation."""
        said: list[dict[str, Any]] = []
        cursor = ""
        while True:
            path = f"/session/{uuid}/messages?limit=1000{cursor}"
            answer = self.scene.place.call("GET", path, None, {}, 20)
            answer.raise_for_status()
            page = answer.json()
            said += page["messages"]
            if page["next_cursor"] is None:
                return said
            cursor = f"&cursor={page['next_cursor']}"

    def _tokens(self, subject: Subject, now: float) -> Iterator[Finding]:
        """A token of before a revocation opens nothing, one that nobody revoked does."""
        for token, made in subject.tokens[-2:]:
            revokes = subject.possible("revoke")
            bad = any(deed.accepted and deed.begun > made.ended for deed in revokes)
            good = not any(deed.latest > made.begun for deed in revokes) and now - made.begun < TOKEN_LASTS
            headers = {"Authorization": f"Bearer {token}"}
            status = self.scene.place.call("GET", f"/session/{subject.uuid}", None, headers, 20).status_code
            if (bad and status != 401) or (good and status != 200):
                yield Finding("wrong token", subject.uuid, f"{status} for one of {made.begun:.3f}, revokes {revokes}")
