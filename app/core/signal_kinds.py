"""The activity signals: each is a row of `SIGNALS`, which the record, the scripts, the idle policy, the gateway and the
dashboard read.

A new one is a row here, and a note of it where it is seen: by `Activity` (app/core/sessions/signals.py), or in the
agent's report (app/agent/activity_reporter.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

SIGNAL_PREFIX = "signal_"
"""Before a signal's name: its field in a record."""


class Counts(Enum):
    """How long a signal counts. The first three have a window: the session's idle timeout, or as `ACTIVITY_WINDOWS`
    says."""

    IN_WINDOW = auto()
    """For its window after it was last seen."""
    WITH_PROMPTS = auto()
    """Also for the idle policy's `BUSY_GRACE` while a prompt is unfinished."""
    WITHIN_END = auto()
    """Not beyond its own end."""
    TO_END = auto()
    """Until its own end."""
    IN_HOURS = auto()
    """In the hours of the week that its detail names, and in `AWAKE_HOURS`."""


@dataclass(frozen=True, kw_only=True)
class SignalKind:
    """A kind of use.

    `seen` says for people what was seen; how long ago, or for how long it counts, follows. `in_use` says it to those
    who are about to delete the session, "" where it is no reason to wait. `label` is its name on the dashboard.
    `by_person` says that it needs a person: the rest may go on for ever unattended. `by_agent` says that the
    workspace's agent reports it; the manager sees the others itself. `kept_archived` says that the record of an
    archived session keeps it."""

    name: str
    seen: str
    label: str
    seen_by: str
    in_use: str = ""
    counts: Counts = Counts.IN_WINDOW
    by_person: bool = False
    by_agent: bool = False
    kept_archived: bool = False

    @property
    def has_window(self) -> bool:
        """Whether `ACTIVITY_WINDOWS` may say how long it counts."""
        return self.counts not in (Counts.TO_END, Counts.IN_HOURS)


_ROWS = (
    SignalKind(
        name="prompt",
        seen="it got a prompt or a wake",
        label="A prompt, or a wake",
        seen_by="the API: a prompt, or a wake",
        by_person=True,
    ),
    SignalKind(
        name="turn",
        seen="its agent was at work",
        label="The agent at work",
        seen_by="the agent, while it works",
        in_use="its agent was at work",
        counts=Counts.WITH_PROMPTS,
    ),
    SignalKind(
        name="browser",
        seen="a browser sent a request",
        label="A browser's request",
        seen_by="forward-auth: a request for the workspace's host",
        in_use="somebody had it open",
    ),
    SignalKind(
        name="editor",
        seen="the editor was used",
        label="An action in the editor",
        seen_by="the extension in the editor: typing, scrolling, selecting, saving",
        in_use="somebody used the editor",
        by_person=True,
        by_agent=True,
    ),
    SignalKind(
        name="terminal",
        seen="a terminal got input",
        label="Input to a terminal",
        seen_by="`app/editor/activity.js`: typing into a terminal",
        in_use="somebody typed in a terminal",
        by_person=True,
        by_agent=True,
    ),
    SignalKind(
        name="jobs",
        seen="a terminal's processes used CPU",
        label="A program in a terminal",
        seen_by="`app/editor/activity.js`: processes of terminals that use CPU",
        in_use="programs ran in a terminal",
        by_agent=True,
    ),
    SignalKind(
        name="quiet_job",
        seen="a quiet job was at work in a terminal",
        label="A quiet job in a terminal",
        seen_by="`app/editor/activity.js`: a job in the foreground of a terminal that uses no CPU and waits for no "
        "person, or a command of `keep`; its end is `QUIET_JOB_MAX` after its last work, or the minutes it asks for",
        in_use="a quiet job was at work in a terminal",
        counts=Counts.WITHIN_END,
        by_agent=True,
    ),
    SignalKind(
        name="exec",
        seen="a command or a service was run by a call",
        label="A command or a service of the API",
        seen_by="the API: a call on commands, services or ports; the agent while a command runs that is not detached, "
        "or something is written in a terminal of theirs",
        in_use="a command ran, or a call asked for services or ports",
        by_agent=True,
    ),
    SignalKind(
        name="detached_command",
        seen="a detached command was at work",
        label="A detached command",
        seen_by="the agent: a command that was detached; its end is `QUIET_JOB_MAX` after its last output",
        in_use="a detached command was at work",
        counts=Counts.WITHIN_END,
        by_agent=True,
    ),
    SignalKind(
        name="files",
        seen="files were read or written by a call",
        label="Files of the API",
        seen_by="the API: a call on files, while it lasts",
        in_use="files were read or written",
    ),
    SignalKind(
        name="keepalive",
        seen="asked to be kept awake",
        label="Kept awake on request",
        seen_by="the API: a request to be kept awake",
        counts=Counts.TO_END,
        kept_archived=True,
    ),
    SignalKind(
        name="window",
        seen="kept awake in these hours",
        label="Hours in which it stays awake",
        seen_by="the clock: `AWAKE_HOURS`, and hours of the session's own",
        counts=Counts.IN_HOURS,
        kept_archived=True,
    ),
)

SIGNALS: Mapping[str, SignalKind] = {kind.name: kind for kind in _ROWS}
"""The kinds by name, in the order in which `GET /session/{uuid}/activity` shows them."""

QUIET = frozenset(kind.name for kind in _ROWS if kind.counts is Counts.WITHIN_END)
"""Work that nobody waits for: it has an end of its own."""
