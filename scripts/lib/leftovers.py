"""Finds and ends the processes of one data folder, whoever their parent is by now.

They are recognised by their environment: DATA_DIR names the folder, SUPERVISED marks what
scripts/run started, WORKSPACE_UUID marks a workspace. A shell or a test that merely has DATA_DIR
set carries neither mark and is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

SUPERVISED = "SUPERVISED"
WORKSPACE = "WORKSPACE_UUID"


def mark_of(environment: Mapping[str, str], data_dir: Path) -> str | None:
    """What a process with this environment is to the data folder: WORKSPACE, SUPERVISED or nothing."""
    if environment.get("DATA_DIR") != str(data_dir):
        return None
    return next((mark for mark in (WORKSPACE, SUPERVISED) if mark in environment), None)


def find(data_dir: Path, *marks: str) -> list[psutil.Process]:
    """The living processes of the data folder that bear one of the marks, without this one and those
    it was started by."""
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
    """SIGTERM, then SIGKILL for what is left after `grace` seconds. psutil compares start times, so that
    a process id that is another's by now is not hit."""
    for process in processes:
        tell(process, kill=False)
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        tell(process, kill=True)
    psutil.wait_procs(left, timeout=2)


def tell(process: psutil.Process, kill: bool) -> None:
    """Signal a process that may have gone meanwhile."""
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
