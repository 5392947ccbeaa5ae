"""A session's events in words, for the timeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.look.words import restored_files
from app.web.session.phases import NAMES
from app.web.words import at_risk, milliseconds, tone

STATES = {
    "created": "Created",
    "active": "Awake",
    "sleeping": "Going to sleep",
    "waking": "Waking",
    "terminating": "Being deleted",
    "terminated": "Deleted",
    "failed": "Failed",
}


STOPPED = "stopped"
"""The phase at the end of a sleep or a deletion."""


@dataclass(frozen=True)
class Happening:
    """An entry of the timeline. `tone` is a class of app.css; `minor` entries are steps within others."""

    at: str
    text: str
    tone: str = "calm"
    detail: str = ""
    minor: bool = False


Data = Mapping[str, Any]


def _state(at: str, data: Data) -> Happening:
    status = str(data.get("status"))
    return Happening(at, STATES.get(status, status), tone(status), str(data.get("reason") or ""))


def _phase(at: str, data: Data) -> Happening:
    name = str(data.get("phase"))
    ms = data.get("ms")
    took = f"after {milliseconds(ms)}" if isinstance(ms, int) else ""
    if name == STOPPED:
        return Happening(at, "No process runs any more", "calm", took)
    text = f"{NAMES[name].capitalize()} done" if name in NAMES else name.capitalize()
    return Happening(at, text, "calm", ", ".join(filter(None, (restored_files(data), took))), minor=True)


def _backup(at: str, data: Data) -> Happening:
    if data.get("status") == "failed":
        return Happening(at, "Backup failed", "bad", str(data.get("reason") or ""))
    return Happening(at, "Backed up", "ok", str(data.get("name") or ""))


def _restore_point(at: str, data: Data) -> Happening:
    if data.get("status") == "failed":
        return Happening(at, "No restore point could be made", "bad", str(data.get("reason") or ""))
    return Happening(at, "Saved", "ok", "nothing had changed" if data.get("unchanged") else "", minor=True)


def _drill_failed(at: str, data: Data) -> Happening:
    why = [str(data.get("reason") or ""), *map(str, data.get("differences") or ())]
    return Happening(at, "A restore point is broken", "bad", "; ".join(why))


def _files_lost(at: str, data: Data) -> Happening:
    return Happening(at, "The volume was lost", "bad", f"restoring the files of {data.get('files_of')}")


def _files_restored(at: str, data: Data) -> Happening:
    return Happening(at, "Files restored", "warn", f"those of {data.get('files_of')}")


def _rolled_back(at: str, data: Data) -> Happening:
    if data.get("status") == "failed":
        return Happening(at, "Rollback called off", "bad", str(data.get("reason") or ""))
    if message := data.get("message_id"):
        return Happening(at, "Rolled back", "warn", f"to before message {message}")
    return Happening(at, "Rolled back", "warn", f"to the files of {data.get('files_of')}")


def _forked_from(at: str, data: Data) -> Happening:
    return Happening(at, "Forked", "calm", f"from {data.get('uuid')}, with the files of {data.get('files_of')}")


def _idle_warning(at: str, data: Data) -> Happening:
    return Happening(at, "Announced that it sleeps soon", "warn", str(data.get("why") or ""))


def _budget(at: str, data: Data) -> Happening:
    return Happening(at, "Budget", "warn", ", ".join(f"{name} {value}" for name, value in data.items()))


def _risk(at: str, data: Data) -> Happening:
    return Happening(at, "Stopped with unsaved work", "warn", "; ".join(at_risk(data)))


def _revoked(at: str, _: Data) -> Happening:
    return Happening(at, "All access revoked", "warn")


WORDS: Mapping[str, Callable[[str, Data], Happening]] = {
    "state": _state,
    "phase": _phase,
    "backup": _backup,
    "restore_point": _restore_point,
    "drill_failed": _drill_failed,
    "files_lost": _files_lost,
    "files_restored": _files_restored,
    "rolled_back": _rolled_back,
    "forked_from": _forked_from,
    "idle_warning": _idle_warning,
    "budget": _budget,
    "risk": _risk,
    "revoked": _revoked,
}

TYPES = tuple(WORDS)
"""The events of the timeline; those of prompts are in the chat."""


def happening(event: Mapping[str, Any]) -> Happening:
    """An event of one of `TYPES`."""
    return WORDS[event["type"]](event["at"], event["data"])
