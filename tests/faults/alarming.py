"""A service that Prometheus watches, and what is seen of a fault: which alerts fire, and when they clear."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.storage.archive_keys import new_key
from tests.faults.watching import Prometheus
from tests.model_server import Answer, ModelServer, default_rules
from tests.ports import free_port
from tests.service import Service
from tests.waiting import wait_for

SETTINGS = {
    "MONITORING": "1",
    # Small, as a fault fills it.
    "REDIS_MAX_BYTES": str(32 * 1024**2),
    # A killed worker's lease is waited for.
    "LEASE_TTL": "3",
    "STALE_AFTER": "2",
    "ARCHIVE_KEY": new_key(),
    # Its drills are looked for once a minute, and no session is due by itself for half an hour.
    "DRILL_CYCLE": "2400",
}

MODEL_KEY = "the-key-of-the-model"

SESSIONS = 6
"""More than the workers of a kind have processes."""

SLOW_START = 7
"""s of an editor's start; a wake is bad after 5 s."""

PAUSE = 0.2

CALL = 30.0
"""s of a call at most."""

CLEARED = 500.0
"""s after a fault within which its alerts must clear: the longest window that clears one is 6 minutes long."""


@dataclass
class Scene:
    """A service with sessions, its model, and the Prometheus that watches it. Editors start slowly while `slow` exists,
    and end at once while `broken` is."""

    service: Service
    prometheus: Prometheus
    model: Model
    slow: Path
    broken: Path
    sessions: list[str]


class Model:
    """A model's API at one address, which may be away."""

    def __init__(self) -> None:
        self.refuses = False
        """Whether it answers each request with 400."""
        self._port = free_port()
        self._running = ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        rules = (self._refusal, *default_rules())
        self._running.enter_context(ModelServer(self._port, api_key=MODEL_KEY, rules=rules))

    def stop(self) -> None:
        self._running.close()

    def _refusal(self, _: Mapping[str, Any]) -> Answer | None:
        return Answer(status=400) if self.refuses else None


@dataclass(frozen=True)
class Fault:
    """`put_in` holds it for the length of a block. `alerts` must fire within `limit` s, and clear within `cleared` s
    after its end."""

    name: str
    what: str
    alerts: tuple[str, ...]
    put_in: Callable[[Scene], AbstractContextManager[None]]
    limit: float = 120.0
    cleared: float = CLEARED


@dataclass
class Seen:
    """When each alert of a fault fired, in s from its begin, and cleared, in s from its end; and what else fired."""

    fired: dict[str, float] = field(default_factory=dict)
    cleared: dict[str, float] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)


@contextmanager
def scene(folder: Path, code_server: str) -> Iterator[Scene]:
    """A watched service, in which something of each kind was done: a rate needs a value from before the fault."""
    editor, slow, broken = folder / "editor", folder / "slow", folder / "broken"
    lines = (
        "#!/bin/sh",
        f'[ ! -e "{broken}" ] || exit 1',
        f'[ ! -e "{slow}" ] || sleep {SLOW_START}',
        f'exec "{code_server}" "$@"',
    )
    editor.write_text("\n".join(lines) + "\n")
    editor.chmod(0o755)
    model = Model()
    told = {"LLM_BASE_URL": model.url, "LLM_API_KEY": MODEL_KEY, "LLM_MODEL": "stub"}
    service = Service(folder, str(editor), **SETTINGS, **told)
    model.start()
    service.start()
    try:
        sessions = [service.create(f"user{number}")["uuid"] for number in range(SESSIONS)]
        back_up(service, sessions[0])
        sleep_and_wake(service, sessions[:1])
        ask(service, sessions[0])
        prometheus = Prometheus(service, folder / "prometheus")
        prometheus.start()
        try:
            yield Scene(service, prometheus, model, slow, broken, sessions)
        finally:
            prometheus.stop()
    finally:
        service.stop()
        model.stop()
    assert service.processes() == [], "an orphan process was left"


def see(scene: Scene, fault: Fault) -> Seen:
    """Put the fault in until its alerts fire, take it away, and wait until they are gone."""
    seen, wanted = Seen(), set(fault.alerts)
    wait_for(lambda: not scene.prometheus.firing(), "no alert", lambda: str(scene.prometheus.firing()), CLEARED, PAUSE)

    def look(started: float) -> set[str]:
        firing = scene.prometheus.firing()
        for name in firing & wanted:
            seen.fired.setdefault(name, time.monotonic() - started)
        seen.others.update(firing - wanted)
        return firing

    started = time.monotonic()
    with fault.put_in(scene):
        wait_for(
            lambda: look(started) and wanted <= seen.fired.keys(),
            f"{fault.name} to raise {wanted}",
            lambda: str(seen),
            fault.limit,
            PAUSE,
        )
    ended = time.monotonic()

    def gone() -> bool:
        firing = look(started)
        for name in wanted - firing:
            seen.cleared.setdefault(name, time.monotonic() - ended)
        for name in wanted & firing:
            seen.cleared.pop(name, None)
        return not wanted & firing

    wait_for(gone, f"{wanted} to clear after {fault.name}", lambda: str(seen), fault.cleared, PAUSE)
    return seen


def row(fault: Fault, seen: Seen) -> list[str]:
    """Lines of a table: alert, fault, seconds until it fired, seconds until it was gone."""
    return [
        f"| `{name}` | {fault.what} | {seen.fired[name]:.0f} s | {seen.cleared[name]:.0f} s |" for name in fault.alerts
    ]


def run(folder: Path, code_server: str, chosen: Sequence[Fault]) -> int:
    """See all of these, and print the table; the number of those that failed."""
    rows, failed = [], 0
    with scene(folder, code_server) as there:
        for fault in chosen:
            print(f"{fault.name} …", flush=True)
            try:
                seen = see(there, fault)
            except AssertionError as error:
                failed += 1
                print(f"FAILED: {error}", flush=True)
                continue
            print(*row(fault, seen), f"also: {', '.join(sorted(seen.others)) or 'none'}", sep="\n", flush=True)
            rows += row(fault, seen)
    print("", *rows, sep="\n")
    return failed


# What the sessions do


def sleep_and_wake(service: Service, uuids: Sequence[str]) -> None:
    """Put them to sleep, and wake them all at once."""
    for each in uuids:
        service.done("POST", f"/session/{each}/sleep", headers={"Prefer": "wait=60"})
    for each in uuids:
        service.done("POST", f"/session/{each}/wake", headers={"Prefer": "respond-async"})
    for each in uuids:
        service.wait_status(each, "active")


def back_up(service: Service, uuid: str) -> None:
    """A backup that is waited for."""
    service.done("POST", f"/session/{uuid}/backup", headers={"Prefer": "wait=60"})


def ask(service: Service, uuid: str) -> None:
    """A prompt, whose end is waited for."""
    body = {"message": "hello"}
    service.done("POST", f"/session/{uuid}/chat", body, headers={"Prefer": "wait=60"}, timeout=CALL + 60)
