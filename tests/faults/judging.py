"""What must be so when a service that was troubled has had some quiet: every rule, and nothing that a rule doesn't say.

`look` are those that come true by themselves within the quiet; they are asked again and again. `past` are those about
what has happened.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from app.core.backups.store import NAME_PATTERN
from app.core.prompts.inbox import State
from app.core.sessions.model import Record, Status
from tests.faults.looking import UNFINISHED, Event, Events, Snapshot
from tests.faults.scene import BACK, DOWN, GONE, MOVES, STATUSES, STOPS, UP, Prompt, Scene, Subject

POISON = 5
"""Deaths of its worker after which a task, or of its agent after which a turn, is given up."""

SLACK = 1.0
"""s by which two clocks of one machine, read at different places, are apart."""

ABANDONED = 10.0
"""s after its end in which a turn may be too late to take back what it was about to ask."""

UNDER_WAY = 30.0
"""s that a rollback may be under way after it was asked for."""

LIVING_CALLS = ("wake", "chat", "revoke", "token", "open")
"""Calls that only a session's end forbids."""


@dataclass(frozen=True)
class Finding:
    """Something that must not be. `kind` is the same for all of one kind."""

    kind: str
    uuid: str
    text: str


class Judge:
    """Judges the sessions of a scene."""

    def __init__(self, scene: Scene, events: Events) -> None:
        self.scene, self.events = scene, events
        self.asked: dict[str, list[float]] = {}
        """When the model was asked for each prompt."""
        self._judged_events: Counter[str] = Counter()
        self._spoiled: set[str] = set()
        self._letters: set[str] = set()

    def spoil(self, uuid: str) -> None:
        """Expect nothing more of this session."""
        self._spoiled.add(uuid)
        if subject := self.scene.subjects.get(uuid):
            subject.spoiled = True
            self.scene.leave(subject)

    def take_in(self, seen: Snapshot) -> Iterator[Finding]:
        """Find the sessions whose makers never had an answer, and those nobody asked for."""
        for record in seen.records.values():
            if record.uuid in self.scene.subjects or record.uuid in self._spoiled:
                continue
            makings = self.scene.makings.get(record.user_id, [])
            forkings = [deed for deed in self.scene.forkings.get(record.user_id, []) if deed.possible and not deed.uuid]
            if forkings and any(each.user == record.user_id for each in self.scene.subjects.values()):
                self.scene.subjects[record.uuid] = Subject(
                    record.uuid, record.user_id, record.idle_timeout, record.ttl, deeds=forkings
                )
                continue
            if not makings:
                yield Finding("session of nobody", record.uuid, f"{record}")
                continue
            origin = next((deed.about for deed in makings if deed.about), "")
            self.scene.subjects[record.uuid] = Subject(
                record.uuid, record.user_id, record.idle_timeout, record.ttl, origin, deeds=makings
            )
        for mark, makings in list(self.scene.makings.items()):
            born = [uuid for uuid, subject in self.scene.subjects.items() if subject.user == mark]
            most = 1 if mark in self.scene.keyed else sum(deed.possible for deed in makings)
            most += sum(deed.possible for deed in self.scene.forkings.get(mark, []))
            if len(born) > most and not self._spoiled & set(born):
                yield Finding("one call made several sessions", born[-1], f"{mark}: {born}, calls {makings}")

    # What comes true by itself

    def look(self, seen: Snapshot, woken: Collection[str] = ()) -> Iterator[Finding]:
        """What is not yet as it must be; the sessions `woken` have been asked to be up."""
        yield from self.take_in(seen)
        for subject in self.scene.judged():
            record = seen.records.get(subject.uuid)
            if record is None:
                yield Finding("lost", subject.uuid, "there is no record of it")
                continue
            yield from self._state(subject, record, seen, subject.uuid in woken)
            yield from self._waiting(subject, record, seen)
        yield from self._counts(seen)
        yield from self._work(seen)
        yield from self._processes(seen)

    def _state(self, subject: Subject, record: Record, seen: Snapshot, woken: bool) -> Iterator[Finding]:
        allowed = self.allowed(subject)
        shown = f"{record.status} ({record.reason[:200]}), generation {record.generation}, settled {record.settled}"
        if record.status not in allowed:
            asked = f"last asked to be {sorted(subject.wanted())}, so {sorted(allowed)}"
            yield Finding("not as last asked", subject.uuid, f"{asked}, but {shown}")
        elif record.settled < record.generation:
            yield Finding("not settled", subject.uuid, shown)
        elif woken and record.status in (Status.SLEEPING, Status.FAILED) and not subject.idle_timeout:
            yield Finding("does not wake", subject.uuid, shown)
        if record.archived_at and record.status in (Status.ACTIVE, Status.TERMINATED):
            yield Finding("archived and not asleep", subject.uuid, shown)
        for event in self.events.of(subject.uuid, "drill_failed"):
            yield Finding("restore point broken", subject.uuid, str(event.data))
        if record.point and record.status is not Status.TERMINATED and not seen.points[subject.uuid]:
            yield Finding("no whole restore point", subject.uuid, f"{shown}, its record names {record.point}")
        if record.replicas != (record.status is Status.ACTIVE):
            yield Finding("wrong replicas", subject.uuid, f"{record.replicas} of {shown}")

    def allowed(self, subject: Subject) -> set[str]:
        """The states it may be in."""
        wanted = subject.wanted()
        found = {str(STATUSES[each]) for each in wanted}
        if UP in wanted and subject.idle_timeout:
            found.add(Status.SLEEPING)
        failures = self._failures(subject)
        if failures and self._explained(subject, failures, len(failures) - 1):
            found.add(Status.FAILED)
        return found

    def _waiting(self, subject: Subject, record: Record, seen: Snapshot) -> Iterator[Finding]:
        """Every prompt has ended; held back are only those of a session that was put to sleep, or has failed."""
        held = record.status is Status.FAILED or (record.status is Status.SLEEPING and DOWN in subject.wanted())
        for prompt in list(subject.prompts.values()):
            message = seen.messages.get((subject.uuid, prompt.id))
            if message is None:
                if prompt.accepted:
                    yield Finding("prompt lost", subject.uuid, f"{prompt.id} was accepted, and is not known")
            elif message.state in UNFINISHED and not held:
                text = f"{prompt.id} is {message.state}, its session {record.status}"
                yield Finding("prompt not answered", subject.uuid, text)

    def _counts(self, seen: Snapshot) -> Iterator[Finding]:
        """Indexes and counts say what the records and lists say."""
        living = {uuid for uuid, record in seen.records.items() if record.status is not Status.TERMINATED}
        expected = {
            "sessions:all": (seen.everyone, living),
            **{
                f"sessions:status:{status}": (uuids, {u for u, r in seen.records.items() if r.status == status})
                for status, uuids in seen.by_status.items()
            },
            **{
                f"user:{user}:sessions": (uuids, {u for u in living if seen.records[u].user_id == user})
                for user, uuids in seen.by_user.items()
            },
        }
        for name, (found, wanted) in expected.items():
            if found != wanted:
                yield Finding("wrong count", "", f"{name}: too many {found - wanted}, missing {wanted - found}")
        for uuid, record in seen.records.items():
            waiting = len(seen.inbox[uuid]) + len(seen.held[uuid])
            unfinished = len(seen.prompts[uuid]) - waiting
            if (record.waiting, record.unfinished) != (waiting, unfinished):
                text = f"waiting {record.waiting}, {waiting} in lists; unfinished {record.unfinished}, {unfinished}"
                yield Finding("wrong count", uuid, text)
            ended = [each for each in seen.prompts[uuid] if (m := seen.messages.get((uuid, each))) and m.finished]
            strangers = {*seen.inbox[uuid], *seen.held[uuid]} - {*seen.prompts[uuid]}
            if ended or strangers:
                yield Finding("wrong list", uuid, f"ended but listed {ended}, waiting but not listed {strangers}")
        idle = {u for u, record in seen.records.items() if record.status is Status.ACTIVE and record.idle_timeout}
        if idle - seen.idle or any(seen.records[u].status != Status.ACTIVE for u in seen.idle if u in seen.records):
            yield Finding("wrong count", "", f"sessions:idle has {seen.idle}, active with a timeout are {idle}")

    def _work(self, seen: Snapshot) -> Iterator[Finding]:
        """Nothing is left to do, and nobody is at it."""
        stored = self.scene.place.stored()
        if stored != seen.backups:
            text = f"only in the store {stored - seen.backups}, only in the index {seen.backups - stored}"
            yield Finding("index and store differ", "", text)
        for uuid in seen.requests - self._spoiled:
            yield Finding("backup not made", uuid, "its request is still there")
        for name in sorted(seen.leases - seen.of_drills()):
            if not any(uuid in name for uuid in self._spoiled):
                yield Finding("lease still held", name.split(":")[1], name)

    def _processes(self, seen: Snapshot) -> Iterator[Finding]:
        """What should run does, once, and nothing else."""
        place = self.scene.place
        if absent := place.absent():
            yield Finding("part missing", "", absent)
        up, failed, over = (
            {uuid for uuid, record in seen.records.items() if record.status is status} - self._spoiled
            for status in (Status.ACTIVE, Status.FAILED, Status.TERMINATED)
        )
        running = place.running()
        for uuid in running.keys() - up - self._spoiled:
            yield Finding("orphan", uuid, f"{dict(running[uuid])} of a session that is not up")
        for uuid in up:
            kinds = running.get(uuid, Counter())
            if (kinds["editor"], kinds["agent"]) != (1, 1):
                yield Finding("wrong processes", uuid, f"{dict(kinds)} of a session that is up")
        for left in place.leftovers(up, failed, seen.records.keys() - over):
            if not any(uuid in left for uuid in self._spoiled):
                yield Finding("leftover", "", left)

    # What has happened

    def past(self, seen: Snapshot) -> Iterator[Finding]:
        """What should not have happened."""
        for kind, uuid, text in self.scene.troubles:
            yield Finding(kind, uuid, text)
        self.scene.troubles.clear()
        yield from self._dead_letters(seen)
        for subject in self.scene.judged():
            record = seen.records.get(subject.uuid)
            if record is not None:
                yield from self._moves(subject)
                yield from self._answers(subject, record)
                yield from self._ends(subject, seen)
            self._judged_events[subject.uuid] = len(self.events.of(subject.uuid))

    def _dead_letters(self, seen: Snapshot) -> Iterator[Finding]:
        for letter in set(seen.letters) - self._letters:
            self._letters.add(letter)
            told = json.loads(letter)
            if not self._poisoned(told.get("why", ""), float(told.get("at", 0))):
                yield Finding("dead letter", str(told.get("args", [""])[0]), letter)

    def _poisoned(self, why: str, at: float) -> bool:
        """Whether a task was given up because its workers died, and they did so often enough in the minutes before."""
        ends = ("kill worker", "kill sweeper", "kill backup-worker", "kill delivery-worker", *STOPS)
        return "its worker died in each" in why and len(self.scene.faults(at - 300, at, *ends)) >= POISON

    def _moves(self, subject: Subject) -> Iterator[Finding]:
        """Every move of its state has its reason."""
        failures = self._failures(subject)
        news = self.events.of(subject.uuid)[self._judged_events[subject.uuid] :]
        for event in news:
            if event.type == "backup" and event.data.get("status") == "failed" and subject.deletion() > event.at:
                yield Finding("backup failed", subject.uuid, str(event.data))
            if event.type != "state":
                continue
            if event.data["status"] == Status.FAILED and not self._explained(subject, failures, failures.index(event)):
                yield Finding("failed without a fault", subject.uuid, str(event.data.get("reason")))
            if event.data["status"] == Status.SLEEPING:
                yield from self._sleep(subject, event)

    def _failures(self, subject: Subject) -> list[Event]:
        states = self.events.of(subject.uuid, "state")
        return [event for event in states if event.data["status"] == Status.FAILED]

    def _explained(self, subject: Subject, failures: list[Event], number: int) -> bool:
        """Whether a fault explains this failure, and not one before it already."""
        failure = failures[number]
        reason = str(failure.data.get("reason", ""))
        if "given up" in reason:
            return self._poisoned(reason, failure.at)
        kills = self.scene.faults(0, failure.at, "kill editor", "die with workspaces", uuid=subject.uuid)
        return "ended unexpectedly" in reason and len(kills) > number

    def _sleep(self, subject: Subject, event: Event) -> Iterator[Finding]:
        """A session sleeps because it was asked to, or because it was idle, or because the service stopped."""
        before = [each for each in self.events.of(subject.uuid, "state") if each.at <= event.at and each is not event]
        if before and before[-1].data["status"] == Status.SLEEPING:
            return
        since = (before[-1].at if before else 0.0) - SLACK
        asked = [deed for deed in subject.possible("sleep", "scale-down") if deed.overlaps(since, event.at)]
        if asked or self.scene.faults(since, event.at, *STOPS):
            return
        # One that had no answer yet may have waited for a web process that was started anew.
        # That calls work there is noted each 10 s only.
        uses = [deed for deed in subject.possible("wake", "chat", "scale-up") if deed.accepted]
        last = max((deed.begun for deed in uses if deed.ended < event.at), default=0.0)
        if not subject.idle_timeout:
            yield Finding("put to sleep by nobody", subject.uuid, f"at {event.at:.3f}")
        elif event.at - last < subject.idle_timeout - SLACK:
            text = f"{event.at - last:.3f} s after it was used, its idle timeout is {subject.idle_timeout}"
            yield Finding("put to sleep too early", subject.uuid, text)

    def _answers(self, subject: Subject, record: Record) -> Iterator[Finding]:
        """What was accepted and refused agrees with what else was asked for."""
        deleted = [deed.ended for deed in subject.possible("delete", "delete unsaved") if deed.accepted]
        for deed in list(subject.deeds):
            asked = deed.what in MOVES and MOVES[deed.what] != GONE and deed.accepted
            if asked and deleted and deed.begun > min(deleted):
                yield Finding("accepted after its deletion", subject.uuid, f"{deed}")
            refused = not deed.possible and deed.detail[:3] in ("404", "409")
            if refused and deed.what in LIVING_CALLS and not subject.ttl and deed.ended < subject.deletion():
                yield Finding("refused without a reason", subject.uuid, f"{deed}")
        revokes = subject.possible("revoke")
        if not sum(deed.accepted for deed in revokes) <= record.access_epoch <= len(revokes):
            yield Finding("wrong access epoch", subject.uuid, f"access epoch {record.access_epoch} after {revokes}")

    def _ends(self, subject: Subject, seen: Snapshot) -> Iterator[Finding]:
        """Every prompt ended once, for a good reason, and was not worked on any more."""
        ends = Counter(
            event.data["message_id"]
            for event in self.events.of(subject.uuid, "message")
            if event.data["state"] not in UNFINISHED
        )
        for prompt in list(subject.prompts.values()):
            message = seen.messages.get((subject.uuid, prompt.id))
            asked = self.asked.get(prompt.id, [])
            if ends[prompt.id] > 1:
                yield Finding("prompt ended twice", subject.uuid, prompt.id)
            if message is None:
                if asked:
                    yield Finding("prompt ran unknown", subject.uuid, prompt.id)
                continue
            if message.state is State.FAILED and not self._failed_for(
                subject, prompt, message.reason, message.processed_at
            ):
                yield Finding("prompt failed without a fault", subject.uuid, f"{prompt.id}: {message.reason}")
            late = [at - message.processed_at for at in asked if at > message.processed_at + SLACK]
            if message.finished and late:
                # A turn that is ended before its first question has been sent lets go of it too late.
                once = message.state is State.FAILED and len(late) == 1 and late[0] < ABANDONED
                kind = "ended turn asked the model" if once else "prompt ran after its end"
                yield Finding(kind, subject.uuid, f"{prompt.id}: {[f'{each:.1f} s' for each in late]} after it")
            yield from self._steps(subject, prompt, asked, message.processed_at)

    def _failed_for(self, subject: Subject, prompt: Prompt, reason: str, end: float) -> bool:
        """Whether something explains that this prompt was not answered."""
        if "put to sleep" in reason:
            return any(deed.overlaps(prompt.first, end) for deed in subject.possible("sleep", "scale-down"))
        if "deleted" in reason:
            deleted = subject.possible("delete", "delete unsaved")
            return bool(subject.ttl) or any(deed.overlaps(prompt.first, end) for deed in deleted)
        if any(words in reason for words in ("rolled back", "restored to a time", "was undone")):
            return any(deed.begun < end for deed in subject.possible(*BACK))
        if "ancel" in reason:
            # An undo cancels the turn that runs.
            undone = any(deed.overlaps(prompt.first, end) for deed in subject.possible("undo"))
            return undone or any(deed.about == prompt.id for deed in subject.possible("cancel"))
        if "each time" in reason:
            return len(self._deaths(subject, prompt.first, end)) >= POISON
        return False

    def _deaths(self, subject: Subject, begin: float, end: float) -> list[object]:
        """What ended the session's agent in this time."""
        found = self.scene.faults(begin, end, "end agent", "kill editor", *STOPS, uuid=subject.uuid)
        stops = [deed for deed in subject.possible("sleep", "scale-down") if deed.overlaps(begin, end)]
        # A rollback stops the workspace after its call has been answered.
        backs = [deed for deed in subject.possible(*BACK) if deed.overlaps(begin - UNDER_WAY, end)]
        return [*found, *stops, *backs]

    def _steps(self, subject: Subject, prompt: Prompt, asked: list[float], end: float) -> Iterator[Finding]:
        """The model is asked twice for a prompt, again only where something was cut short."""
        breaks = len(self._deaths(subject, prompt.first, end)) + len(
            self.scene.faults(
                prompt.first,
                end or float("inf"),
                "kill gateway",
                "kill redis",
                "freeze gateway",
                "freeze redis",
                "freeze all",
            )
        )
        idle = len([e for e in self.events.of(subject.uuid, "state") if e.data["status"] == Status.SLEEPING])
        if len(asked) > 2 + 3 * (breaks + (idle if subject.idle_timeout else 0)):
            yield Finding("model asked too often", subject.uuid, f"{prompt.id}: {len(asked)} times, {breaks} breaks")


def session_of(name: str) -> str:
    """Whose backup it is, by its name."""
    match = NAME_PATTERN.fullmatch(name)
    assert match is not None, name
    return match["uuid"]
