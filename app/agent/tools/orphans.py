"""Kills orphan processes: commands whose runner was killed. They are found by a mark in their environment.

A command may kill every Python program, the runner and the agent among them. So orphans are killed when a runner does
not answer and when an agent starts.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time

from app.volume.environment import started_with

MARK = "COMMAND_OF_WORKSPACE"
"""The variable that marks a command's processes; its value begins with the session's uuid."""

SECONDS = 5.0
"""How long to try; processes that fork faster are left to the workspace's own limits."""


def marked_processes(mark: str, *, and_below: bool = False) -> list[int]:
    """The processes with this mark, except this one; `and_below` those whose mark begins with it and a dot, too."""
    wanted = re.compile(rb"\0" + re.escape(f"{MARK}={mark}".encode()) + (rb"[.\0]" if and_below else rb"\0"))
    return sorted(started_with(lambda environment: wanted.search(environment) is not None))


def kill_orphans(mark: str, *, and_below: bool = False) -> bool:
    """Kill all marked processes (as `marked_processes`); whether none is left. Call it only while none should run."""
    deadline = time.monotonic() + SECONDS
    while pids := marked_processes(mark, and_below=and_below):
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return True
