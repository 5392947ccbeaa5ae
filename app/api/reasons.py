"""What a person reads about a workspace that is not up: what is wrong, what to do, and a detail that names no place of
the service's machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from app.core.errors import (
    ArchiveError,
    BackupIncomplete,
    BackupNotFound,
    FilesGoing,
    FilesGone,
    NoSpace,
    WorkspaceConflict,
)
from app.core.sessions.model import PHASES, Status
from app.core.sessions.reason_codes import ReasonCode
from app.core.storage.archive_keys import UnknownKey
from app.look.words import restored_files
from app.process.private_text import LOG_HEADING

NOTHING: Mapping[str, Any] = MappingProxyType({})

LONGEST = 200
"""Characters of a detail."""

_PLACE = re.compile(r"\S*[/\\]\S*|\b\d{1,3}(?:\.\d{1,3}){3}\S*|\b[\w-]+(?:\.[\w-]+){2,}\S*")
"""A path, a URL, an address or the name of a host."""

AGAIN = "Try again. If it happens again, tell the people who run this service."
LATER = "Try again in a few minutes. If it stays like this, tell the people who run this service."


@dataclass(frozen=True)
class Told:
    """`detail` is for whoever reports the trouble, "" for none."""

    title: str
    text: str
    detail: str = ""


class Files(StrEnum):
    """Where the files are when a workspace starts."""

    THERE = "there"
    RESTORED = "restored"
    """In a backup or a restore point, from where they come first."""
    ARCHIVED = "archived"
    """The same, as the workspace was not used for long."""


OPENS = "This page opens it by itself."
OPENING = Told("Opening the workspace", OPENS)
"""Where nothing is known of the session."""


def silent_port(port: int) -> Told:
    """At the address of a port where nothing answers."""
    text = "Its program has not started yet, or has ended. This page opens it by itself as soon as it answers."
    return Told(f"Nothing answers at port {port} yet", text)


STARTING = Told("Starting the workspace", f"It is new. {OPENS}")
RESTORING = Told("Restoring the workspace", f"Its files are put back first. {OPENS}")
WAKING = Told("Waking the workspace", OPENS)
ASLEEP = Told("The workspace is asleep", "Wake it to go on where you stopped. Your files are kept.")
WAKING_ARCHIVED = Told(
    WAKING.title,
    f"It was not used for long, so its files come from the archive first, which takes longer than usual. {OPENS}",
)
ASLEEP_ARCHIVED = Told(
    ASLEEP.title,
    "It was not used for long, so its files lie in the archive. Wake it to go on where you stopped; that takes longer "
    "than usual.",
)
FAILED, STOPPED = "The workspace did not start", "The workspace has stopped"
"""Whether it fails while it starts, or after it was up."""

WAITS: Mapping[str, str] = {
    ReasonCode.NO_CAPACITY: "All machines are busy. It starts as soon as one has room, and this page opens it then.",
    ReasonCode.VOLUME_UNAVAILABLE: "It takes longer than usual to attach your files. This page goes on by itself.",
    ReasonCode.IMAGE_UNAVAILABLE: "It takes longer than usual to load its software. This page goes on by itself.",
    ReasonCode.MACHINE_TROUBLE: "Its machine takes longer than usual. This page goes on by itself.",
    ReasonCode.WRONG_PLACE: "The disk with your files is not there yet. This page goes on by itself.",
    ReasonCode.FILES_LOST: "Its disk was lost. Your files are being restored, and this page opens it then.",
}
"""What a start waits for, by its reason code."""

FAILS: Mapping[str, str] = {
    ReasonCode.NO_CAPACITY: f"All machines are busy. {LATER}",
    ReasonCode.NO_PROGRESS: f"It took too long. {AGAIN}",
    ReasonCode.VOLUME_UNAVAILABLE: f"Your files could not be attached. They are kept. {LATER}",
    ReasonCode.IMAGE_UNAVAILABLE: f"Its software could not be loaded. Your files are kept. {LATER}",
    ReasonCode.MACHINE_TROUBLE: f"Its machine had trouble. Your files are kept. {AGAIN}",
    ReasonCode.REJECTED: f"There is no room for one more workspace. Your files are kept. {LATER}",
    ReasonCode.EDITOR_ENDED: f"Its editor ended unexpectedly. Your files are kept. {AGAIN}",
    ReasonCode.OUT_OF_MEMORY: "It needed more memory than it has. Your files are kept. Try again and run less at a "
    "time, or ask for a larger workspace.",
    ReasonCode.EDITOR_SILENT: f"Its editor did not answer in time. Your files are kept. {AGAIN}",
    ReasonCode.WRONG_PLACE: f"The disk with your files is not there. {LATER}",
    ReasonCode.FILES_LOST: f"Its disk was lost, and your files could not be restored yet. They are kept. {LATER}",
    ReasonCode.GIVEN_UP: f"The service could not start it. Your files are kept. {AGAIN}",
    FilesGone.code: "Its files no longer exist. Try again to go on with its newest backup; without one it starts "
    "empty.",
    FilesGoing.code: "Somebody is deleting its files. Tell the people who run this service at once.",
    BackupNotFound.code: "The backup it was to start with does not exist. Tell the people who run this service.",
    BackupIncomplete.code: "It was to be deleted, but some of its files can't be read and would be lost. Try again to "
    "open it.",
    WorkspaceConflict.code: "Something else has its name. Tell the people who run this service.",
    NoSpace.code: "The disk is full. Nothing was lost. Tell the people who run this service.",
    UnknownKey.code: "Its backup can't be read. It is kept. Tell the people who run this service.",
    ArchiveError.code: f"A backup could not be written or read. Your files are kept. {LATER}",
}
"""Why it failed, by its reason code."""


def told(
    status: str,
    phases: Mapping[str, int],
    code: str,
    reason: str,
    files: Files = Files.THERE,
    brings: Mapping[str, Any] = NOTHING,
) -> Told:
    """What a person reads about a workspace in this state; `phases` are the steps of its start that are done, `brings`
    is what is being restored."""
    match status:
        case Status.FAILED:
            title = STOPPED if PHASES[-1] in phases else FAILED
            text = FAILS.get(code, f"Something went wrong. {AGAIN}")
            return Told(title, text, _detail(code, reason))
        case Status.SLEEPING:
            return ASLEEP_ARCHIVED if files is Files.ARCHIVED else ASLEEP
        case _:
            usual = _starts(status, files)
            amount = restored_files(brings)
            told_of = f" Restoring {amount}." if amount else ""
            return Told(usual.title, WAITS.get(code, usual.text) + told_of, _detail(code, reason))


def _starts(status: str, files: Files) -> Told:
    match files:
        case Files.ARCHIVED:
            return WAKING_ARCHIVED
        case Files.RESTORED:
            return RESTORING
        case Files.THERE:
            return STARTING if status == Status.CREATED else WAKING


def for_people(reason: str) -> str:
    """A session's reason without what a machine said about it: the end of a log, what follows a colon, and places."""
    own = reason.partition(LOG_HEADING)[0].partition(": ")[0].strip()
    text = _PLACE.sub("…", own)[:LONGEST]
    return text if not text or text.endswith((".", "…")) else f"{text}."


def _detail(code: str, reason: str) -> str:
    return " ".join(part for part in (for_people(reason), f"Code: {code}." if code else "") if part)
