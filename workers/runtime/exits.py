"""How the end of a workspace's process is told to its user: by what signal, and with the last lines of its log."""

from __future__ import annotations

import re
import signal

from app.process.private_text import LOG_HEADING

LINES, CHARS = 15, 1500
"""How much of a log is shown."""

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])|[\x00-\x08\x0b-\x1f\x7f]")
"""Terminal escape sequences and control characters."""

FOLDERS = re.compile(r"(?:(?<=file://)|(?<![\w.$~…/-]))/(?:[^\s/:;,'\"()<>]+/){2,}(?=[^\s/])")
"""The folders of an absolute path with two of them or more."""


def log_tail(text: str) -> str:
    """The last lines of a log, at most `CHARS` characters: without terminal escapes, empty lines, and the folders in
    which the machine keeps its programs."""
    lines = [FOLDERS.sub("…/", line.rstrip()) for line in ESCAPES.sub("", text).splitlines() if line.strip()]
    return "\n".join(lines[-LINES:])[-CHARS:]


def with_log_tail(sentence: str, tail: str) -> str:
    """The sentence, followed by the end of the log if there is one."""
    return f"{sentence}{LOG_HEADING}\n{tail}" if tail else sentence


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal N` for a number that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
