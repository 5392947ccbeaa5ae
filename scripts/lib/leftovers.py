"""Finds and ends the processes of a data folder, whatever their parent is.

They are recognised by their environment: DATA_DIR names the folder, SUPERVISED marks processes of scripts/run,
WORKSPACE_UUID those of a workspace. A shell or a test with only DATA_DIR set is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

SUPERVISED = "SUPERVISED"
WORKSPACE = "WORKSPACE_UUID"


def mark_of(environment: Mapping[str, str], data_dir: Path) -> str | None:
    """The mark of a process with this environment: WORKSPACE, SUPERVISED, or None for a process of no interest."""
    if environment.get("DATA_DIR") != str(data_dir):
        return None
    return next((mark for mark in (WORKSPACE, SUPERVISED) if mark in environment), None)


def find(data_dir: Path, *marks: str) -> list[psutil.Process]:
    """Running processes of the data folder with one of the marks, except this one and its ancestors."""
    me = psutil.Process()
    mine = {me.pid, *(parent.pid for parent in me.parents())}
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.pid not in mine and process.status() != psutil.STATUS_ZOMBIE
            if alive and mark_of(process.environ(), data_dir) in marks:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end(processes: list[psutil.Process], grace: float) -> None:
    """SIGTERM, then SIGKILL after `grace` seconds. psutil compares start times, so a reused process id is not
    signalled."""
    for process in processes:
        signal(process, kill=False)
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        signal(process, kill=True)
    psutil.wait_procs(left, timeout=2)


def signal(process: psutil.Process, kill: bool) -> None:
    """Signal a process that may have ended."""
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
