"""Reports the use of the workspace to the manager, and passes the manager's notices to the editor.

In a cluster the editor runs in another container, so the agent can't see into it. The two share a folder of the
volume: code beside the editor (app/editor/activity.js, app/editor/extension) writes activity signals there. Users of
the workspace can write there too, so only the size of these files is trusted.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from app.agent.disk import write_document
from app.agent.gateway_client import Gateway, GatewayDown
from app.editor.code_server import CODE_SERVER

FOLDER = Path(".local", "state", "workspace")
"""Below HOME: the folder of the signals."""

EDITOR, TERMINALS, UNSAVED, NOTICE, STOPPING = "editor", "terminals.json", "unsaved.json", "notice.json", "stopping"
"""Touched at each action in the editor; activity in terminals; names of files with unsaved changes; the announced
sleep; replaced before a stop, which ends all connections to the editor, so that its page says that it sleeps."""

RESTORED = "restored.json"
"""Of when the files are that replaced those of a lost volume."""

TOLD = 3_600.0
"""Seconds in which an editor that is opened shows that."""

HEARTBEAT = Path(CODE_SERVER.data, CODE_SERVER.heartbeat)
"""Below HOME. A weak signal, used for editors that write no other."""

POLL_INTERVAL = 2.0
"""Seconds between two reads of the signals: two small files."""

REPORT_INTERVAL = 10.0
"""Seconds between two reports; the manager writes no more often."""

FILE_BYTES = 16_384

LATEST = 1e11
"""Seconds since the epoch; later times are none."""


class Signal(NamedTuple):
    """When an activity was last seen (seconds since the epoch), and a detail of it. For a quiet job also when it last
    used CPU or its terminal, and until when it asks to be kept up; 0 for none."""

    at: float
    detail: str = ""
    worked_at: float = 0.0
    until: float = 0.0


class ActivityReporter:
    """Reports new signals of a home folder to the manager, those that the agent sees itself, what the workspace uses,
    and what its services do: `take_resources` answers what is not reported yet, None for nothing, `services` what is to
    be shown of them, None while they are not known. `opened` is called with the ports that the manager has opened."""

    def __init__(
        self,
        home: Path,
        gateway: Gateway,
        take_resources: Callable[[], Mapping[str, float] | None],
        own_signals: Callable[[float], Mapping[str, Signal]] = lambda now: {},
        services: Callable[[], list[dict[str, Any]] | None] = lambda: None,
        opened: Callable[[Collection[int]], object] = lambda ports: None,
    ) -> None:
        self._home = home
        self._own_signals = own_signals
        self._gateway = gateway
        self._take_resources = take_resources
        self._services = services
        self._opened = opened
        self._reported: dict[str, Signal] = {}
        self._reported_services: list[dict[str, Any]] | None = None

    def run(self, stopping: threading.Event) -> None:
        """Report until `stopping`: at most every `REPORT_INTERVAL` seconds, and only what is new."""
        reported_at = float("-inf")
        while not stopping.wait(POLL_INTERVAL):
            if time.monotonic() - reported_at >= REPORT_INTERVAL and self.report(time.time()):
                reported_at = time.monotonic()

    def report(self, now: float) -> bool:
        """Report what is new; whether there was anything. Signals the manager did not accept are new the next time, use
        is not: the next minute has its own."""
        seen = {**read_signals(self._home), **self._own_signals(now)}
        new = {name: signal for name, signal in seen.items() if self._reported.get(name) != signal}
        resources, services = self._take_resources(), self._services()
        # That there are none is told with what else there is.
        changed = services != self._reported_services and bool(services or self._reported_services)
        if not new and resources is None and not changed:
            return False
        body: dict[str, Any] = {"signals": {name: _document(signal, now) for name, signal in new.items()}}
        if resources is not None:
            body["resources"] = resources
        if services is not None and services != self._reported_services:
            body["services"] = services
        try:
            answer = self._gateway.call("POST", "/agent/v1/activity", body)
        except GatewayDown:
            return True
        document = answer.document()
        if answer.ok:
            self._reported_services = services
        if answer.ok and document is not None:
            if not document.get("again"):
                self._reported |= new
            if ports := document.get("opened_ports"):
                self._opened(ports)
        return True


def read_signals(home: Path) -> dict[str, Signal]:
    """The signals in a home folder, by the manager's names for them."""
    folder = home / FOLDER
    found = {}
    terminals = read_json(folder / TERMINALS)
    edited = _touched(folder / EDITOR) or (0.0 if terminals else _touched(home / HEARTBEAT))
    if edited:
        found["editor"] = Signal(edited)
    if typed := _number(terminals.get("input_at")):
        found["terminal"] = Signal(typed)
    if busy := _number(terminals.get("busy_at")):
        found["jobs"] = Signal(busy, str(terminals.get("busy", ""))[:64])
    quiet = terminals.get("quiet")
    if isinstance(quiet, dict) and (seen := _number(quiet.get("at"))):
        worked_at, until = _number(quiet.get("worked_at")), _number(quiet.get("until"))
        found["quiet_job"] = Signal(seen, str(quiet.get("name", ""))[:64], worked_at, until)
    return found


def announce(home: Path, seconds: float) -> None:
    """Have the editor announce that the workspace sleeps in `seconds`. OSError if the volume is full."""
    write_document(_made(home) / NOTICE, {"sleeps_at": round(time.time() + seconds, 1)}, durable=False)


def tell_files(home: Path, files_of: float) -> None:
    """Have the editor tell that the files are those of this time. OSError if the volume is full."""
    told = {"files_of": files_of, "until": round(time.time() + TOLD)}
    write_document(_made(home) / RESTORED, told, durable=False)


def tell_stopping(home: Path) -> None:
    """Have the editor end every connection to it, as the workspace is about to stop. OSError if the volume is full."""
    write_document(_made(home) / STOPPING, None, durable=False)


def _made(home: Path) -> Path:
    folder = home / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def read_json(path: Path) -> Mapping[str, Any]:
    """The object in a small file, an empty one if it holds none. Never blocks on a pipe or a device."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            document = json.loads(os.read(file, FILE_BYTES))
        finally:
            os.close(file)
        if isinstance(document, dict):
            return document
    return {}


def _document(signal: Signal, now: float) -> dict[str, Any]:
    document: dict[str, Any] = {"age": _seconds(now - signal.at)}
    if signal.detail:
        document["detail"] = signal.detail
    if signal.worked_at:
        document["quiet"] = _seconds(now - signal.worked_at)
    if signal.until:
        document["left"] = _seconds(signal.until - now)
    return document


def _seconds(value: float) -> float:
    return round(max(0.0, value), 3)


def _touched(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _number(value: Any) -> float:
    """A time in a user's file, 0 for what is none."""
    timed = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LATEST
    return float(value) if timed else 0.0
