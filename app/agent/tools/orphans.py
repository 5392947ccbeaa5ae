"""Kills orphan processes: commands whose runner was killed. They are found by a mark in their environment.

A command may kill every Python program, the runner and the agent among them. So orphans are killed when a runner does
not answer and when an agent starts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from app.volume.environment import started_with

MARK = "COMMAND_OF_WORKSPACE"
"""The variable that marks a command's processes; its value is the session's uuid."""

SECONDS = 5.0
"""How long to try; processes that fork faster are left to the workspace's own limits."""


def marked_processes(uuid: str) -> list[int]:
    """The processes with this session's mark, except this one."""
    wanted = f"\0{MARK}={uuid}\0".encode()
    return sorted(started_with(lambda environment: wanted in environment))


def kill_orphans(uuid: str) -> bool:
    """Kill all marked processes; whether none is left. Call it only while no command should run."""
    deadline = time.monotonic() + SECONDS
    while pids := marked_processes(uuid):
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return True
