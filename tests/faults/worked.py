"""What must be so of the work that calls did in workspaces: each command ran once, no file is torn, services and ports
are as they were last asked to be."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import requests

from app.agent.protocol import ExecReason
from app.core.sessions.model import Record, Status
from tests.faults.judging import Finding
from tests.faults.looking import Snapshot
from tests.faults.scene import STOPS, Scene, Subject
from tests.faults.work import RAN, Command, Register
from tests.faults.working import PRIVATE, PUBLIC

T = TypeVar("T")

SETTLES = 30.0
"""s in which a command that has been begun ends, and a service is up."""

NEWEST = 40
"""Commands of a session that its workspace certainly knows."""

PAUSE = 0.3
"""s between two looks."""

PASSING = ("starting", "waiting")
"""States of a service that pass by themselves."""

ENDS = ("exit_code", "signal", "reason")


class Worked:
    """Judges the work of a scene, in sessions that are up."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def judge(self, seen: Snapshot) -> Iterator[Finding]:
        sent: dict[str, set[int]] = defaultdict(set)
        for each in list(self.scene.subjects.values()):
            for name, crcs in list(each.work.sent.items()):
                sent[name] |= crcs
        for subject in self.scene.judged():
            record = seen.records.get(subject.uuid)
            if record is None or record.status is not Status.ACTIVE or subject.ttl:
                continue
            yield from self._commands(subject)
            yield from self._files(subject, sent)
            yield from self._services(subject)
            yield from self._ports(subject, record)

    # Commands

    def _commands(self, subject: Subject) -> Iterator[Finding]:
        commands = list(subject.work.commands.values())
        told = {command.id: self._told(subject, command) for command in commands[-NEWEST:]}
        counted = Counter(self.scene.place.read(subject.uuid, RAN).split())
        for command in commands:
            if counted[command.id] > 1:
                yield Finding("command ran twice", subject.uuid, f"{command.id}, {counted[command.id]} times")
            if counted[command.id] and not command.possible:
                yield Finding("refused command ran", subject.uuid, f"{command.id}: {command.brought}")
            if command.id in told:
                yield from self._end(subject, command, told[command.id], counted[command.id])
        for terminal in subject.work.terminals:
            typed = self.scene.place.read(subject.uuid, terminal.name)
            if not "".join(terminal.pieces).startswith(typed):
                yield Finding("wrongly typed", subject.uuid, f"{terminal.id}: {typed!r} of {terminal.pieces}")

    def _told(self, subject: Subject, command: Command) -> Any:
        """What its workspace says of it once it has ended, None where it isn't known."""
        answer = _at_last(
            lambda: self._get(f"/session/{subject.uuid}/exec/{command.id}"),
            lambda answer: not answer.ok or answer.json()["state"] == "exited",
        )
        return answer.json() if answer.ok else None

    def _end(self, subject: Subject, command: Command, told: Any, counted: int) -> Iterator[Finding]:
        if told is None:
            if command.accepted or counted:
                yield Finding("command lost", subject.uuid, f"{command.id}, counted {counted}: {command.brought}")
            return
        shown = f"{command.id}: {told}, counted {counted}"
        if told["state"] == "running":
            yield Finding("command does not end", subject.uuid, shown)
            return
        end = {name: told[name] for name in ENDS}
        if any(other != end for other in command.ends):
            yield Finding("command ended twice", subject.uuid, f"{shown}, before that it was told {command.ends}")
        if told["reason"] is not None:
            if not self._explained(subject, command, ExecReason(told["reason"])):
                yield Finding("command ended without a fault", subject.uuid, shown)
        elif told["exit_code"] != 0 or told["stdout"] != f"{command.id}\n":
            yield Finding("command failed", subject.uuid, shown)
        elif not counted and command.first > subject.unsure():
            yield Finding("command's work lost", subject.uuid, shown)

    def _explained(self, subject: Subject, command: Command, reason: ExecReason) -> bool:
        """Whether something explains that a command did not end by itself."""
        since, ever = command.first, float("inf")
        match reason:
            case ExecReason.KILLED:
                return any(deed.about == command.id for deed in subject.possible("end run"))
            case ExecReason.SLEEP:
                asked = any(deed.overlaps(since, ever) for deed in subject.possible("sleep", "scale-down"))
                return asked or bool(subject.idle_timeout)
            case ExecReason.STOPPED | ExecReason.LOST:
                kinds = ("end agent", "kill editor", *STOPS)
                return subject.unsure() >= since or bool(self.scene.faults(since, ever, *kinds, uuid=subject.uuid))
        return False

    # Files

    def _files(self, subject: Subject, sent: Mapping[str, set[int]]) -> Iterator[Finding]:
        """`sent` are the CRC-32s that calls sent for files of these names to any session: one may be another's copy."""
        files, work = self.scene.place.files(subject.uuid) or {}, subject.work
        for name, crc in files.items():
            if name in sent and crc not in sent[name]:
                yield Finding("torn file", subject.uuid, name)
        unsure = subject.unsure()
        for name, register in list(work.shared.items()):
            allowed = register.allowed(unsure)
            if allowed is not None and files.get(name) not in allowed:
                yield Finding("not as last written", subject.uuid, f"{name}: {files.get(name)} of {register.changes}")
        for name, claims in list(work.claims.items()):
            won = [crc for deed, crc in claims if deed.accepted]
            if any(deed.begun <= unsure for deed, _ in claims):
                continue
            if len(won) > 1 or (won and files.get(name) != won[0]):
                yield Finding("claimed twice", subject.uuid, f"{name} is {files.get(name)} of {claims}")
        for moved in list(work.moved):
            if moved.deed.begun <= unsure:
                continue
            places = [name for name in (moved.source, moved.target) if files.get(name) == moved.crc]
            possible = [moved.target] if moved.deed.accepted else [moved.source, moved.target]
            if len(places) != 1 or places[0] not in possible:
                yield Finding("moved file lost", subject.uuid, f"{moved} is at {places}")

    # Services and ports

    def _services(self, subject: Subject) -> list[Finding]:
        """What is still not so after a while: one that is idle may fall asleep between two looks."""
        if not subject.work.services:
            return []
        return _at_last(lambda: list(self._of_services(subject)), lambda found: not found)

    def _of_services(self, subject: Subject) -> Iterator[Finding]:
        answer = self._get(f"/session/{subject.uuid}/services")
        if not answer.ok:
            yield Finding("services not told", subject.uuid, answer.text)
            return
        told = {each["name"]: each for each in answer.json()["services"]}
        running = Counter(f"exec {line}" for line in self.scene.place.commands(subject.uuid))
        for name, register in list(subject.work.services.items()):
            service = told.get(name)
            command, state = (service["command"], service["state"]) if service else (None, "")
            allowed = register.allowed(subject.unsure())
            if allowed is not None and command not in allowed:
                yield Finding("service not as last asked", subject.uuid, f"{name}: {service} of {register.changes}")
            if state in PASSING or (service and service["autostart"] and state != "running"):
                yield Finding("service does not run", subject.uuid, f"{service}")
            for each in {value for value in register.ever() if value}:
                wanted = int(each == command and state == "running")
                if running[each] != wanted:
                    text = f"{name}: {running[each]} times {each}, and it is {service}"
                    yield Finding("wrong processes of a service", subject.uuid, text)

    def _ports(self, subject: Subject, record: Record) -> Iterator[Finding]:
        opened = {each.port: PUBLIC if each.public_until else PRIVATE for each in record.opened_ports}
        revoked = [(deed, None) for deed in subject.possible("revoke")]
        for port, register in list(subject.work.ports.items()):
            changes = [*register.changes, *revoked]
            if opened.get(port) not in (Register(changes).allowed() or ()):
                text = f"{port} is {opened.get(port)} of {changes}"
                yield Finding("port not as last asked", subject.uuid, text)

    def _get(self, path: str) -> requests.Response:
        return self.scene.place.call("GET", path, None, {}, 20)


def _at_last(look: Callable[[], T], good: Callable[[T], bool]) -> T:
    """What a look finds, made again until that is good, or for a while."""
    deadline = time.monotonic() + SETTLES
    while not good(found := look()) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    return found
