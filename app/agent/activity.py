"""What goes on in the workspace beside the agent's own work, told to the manager; and what the editor is to announce.

The agent can't look into the editor: in a cluster that is another container. They share a folder of the volume, and
what runs beside the editor leaves its signs there (scripts/editor/activity.js, and the extension in
scripts/editor/extension). Whoever works in the workspace may write there too, so nothing is believed but its size.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from app.agent.gateway import Gateway, GatewayDown

log = logging.getLogger(__name__)

FOLDER = Path(".local", "state", "workspace")
"""Below HOME: where the signs are."""

EDITOR, TERMINALS, UNSAVED, NOTICE, LOCKOUT = "editor", "terminals.json", "unsaved.json", "notice.json", "lockout"
"""Touched when something is done in the editor; what goes on in terminals; names of files with unsaved changes; the
sleep that is to be announced; touched when every connection to the editor is to end."""

HEARTBEAT = Path(".local", "share", "code-server", "heartbeat")
"""Below HOME: what code-server touches while a page is open. A poor sign, for an editor that gives no other."""

LOOK = 2.0
"""Seconds between two looks, at two small files."""

TELL = 10.0
"""Seconds between two reports; the manager writes no more often."""

FILE_BYTES = 16_384


class Sign(NamedTuple):
    """When something was last seen (seconds since the epoch), and a word about it."""

    at: float
    detail: str = ""


class Activity:
    """The signs in a home folder, and the thread that reports what is new of them."""

    def __init__(self, home: Path, gateway: Gateway) -> None:
        self._home = home
        self._gateway = gateway
        self._told: dict[str, Sign] = {}

    def run(self, stopping: threading.Event) -> None:
        """Report until `stopping`: at most every `TELL` seconds, and only when there is something new."""
        told_at = float("-inf")
        while not stopping.wait(LOOK):
            if time.monotonic() - told_at >= TELL and self.tell(time.time()):
                told_at = time.monotonic()

    def tell(self, now: float) -> bool:
        """Report what is new, if anything is; whether a report was made. What the manager could not take yet, or did
        not get, is new the next time."""
        new = {name: sign for name, sign in signs(self._home).items() if self._told.get(name) != sign}
        if not new:
            return False
        body = {"signals": {name: _document(sign, now) for name, sign in new.items()}}
        try:
            answer = self._gateway.call("POST", "/agent/v1/activity", body)
            again = not answer.ok or json.loads(answer.body).get("again")
        except (GatewayDown, ValueError, AttributeError):
            again = True
        if not again:
            self._told |= new
        return True


def signs(home: Path) -> dict[str, Sign]:
    """What was seen of the use of the workspace, by the names the manager knows."""
    folder = home / FOLDER
    found = {}
    terminals = read_json(folder / TERMINALS)
    edited = _touched(folder / EDITOR) or (0.0 if terminals else _touched(home / HEARTBEAT))
    if edited:
        found["editor"] = Sign(edited)
    if typed := _number(terminals.get("input_at")):
        found["terminal"] = Sign(typed)
    if busy := _number(terminals.get("busy_at")):
        found["jobs"] = Sign(busy, str(terminals.get("busy", ""))[:64])
    return found


def announce(home: Path, seconds: float) -> None:
    """Have the editor say that the workspace sleeps in so many seconds. OSError when the volume is full."""
    path = home / FOLDER / NOTICE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{NOTICE}")
    draft.write_text(json.dumps({"sleeps_at": round(time.time() + seconds, 1)}))
    draft.replace(path)


def lock_out(home: Path) -> None:
    """Have every connection to the editor ended. OSError when the volume is full."""
    path = home / FOLDER / LOCKOUT
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch()


def read_json(path: Path) -> Mapping[str, Any]:
    """The object in a small file, an empty one when there is none. Opens nothing that could block."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            document = json.loads(os.read(file, FILE_BYTES))
        finally:
            os.close(file)
        if isinstance(document, dict):
            return document
    return {}


def _document(sign: Sign, now: float) -> dict[str, Any]:
    document: dict[str, Any] = {"age": round(max(0.0, now - sign.at), 3)}
    return document | ({"detail": sign.detail} if sign.detail else {})


def _touched(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0
