"""Commands whose runner was killed with them still running: found by a mark in their environment, and ended.

A command may well kill every Python program, the runner and the agent among them. Nobody watches over it then,
so this is done when a runner doesn't answer, and when an agent starts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "COMMAND_OF_WORKSPACE"
"""The variable by which a command's processes are known; its value is the session."""

SECONDS = 5.0
"""How long to try; whatever forks faster than this kills is left to the workspace's own limits."""


def marked(uuid: str) -> list[int]:
    """The processes that carry this session's mark, but for this one."""
    wanted = f"\0{MARK}={uuid}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            # Somebody else's, or gone by now.
            with contextlib.suppress(OSError):
                if wanted in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def end_strays(uuid: str) -> bool:
    """End them; whether none is left. Only while no command is meant to run."""
    deadline = time.monotonic() + SECONDS
    while pids := marked(uuid):
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return True
