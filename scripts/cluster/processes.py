"""Starts the parts of the cluster as daemons, and ends exactly those.

A part is identified by its process id and its start time: the id alone may have been reused by another process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import Layout

POLL = 0.05
"""Seconds between two checks of a condition; each is a few system calls or one request."""


@dataclass(frozen=True)
class Identity:
    pid: int
    started: int
    """Clock ticks after boot, from /proc/PID/stat."""


def identity(pid: int) -> Identity | None:
    """The running process with this id; None if there is none, or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name, in parentheses, may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))


def recorded(layout: Layout, name: str) -> Identity | None:
    """A part's process as `start` recorded it, running or not."""
    try:
        return Identity(**json.loads((layout.pids / name).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def running(layout: Layout, name: str) -> Identity | None:
    """The part's process, None if it does not run."""
    known = recorded(layout, name)
    return known if known and identity(known.pid) == known else None


def start(
    layout: Layout,
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> None:
    """Start a part unless it runs. It gets its own session, no input, and a log; it outlives this process.

    It inherits `descriptors` under their numbers.
    """
    if running(layout, name):
        return
    with (layout.logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_clean_environment() | dict(environment or {}),
            cwd="/",
            start_new_session=True,
            pass_fds=descriptors,
        )
    found = identity(process.pid)
    # A process that is gone already needs no record; the wait for it to be ready will say what its log says.
    if found:
        file = layout.pids / name
        file.with_suffix(".new").write_text(json.dumps(vars(found)))
        file.with_suffix(".new").rename(file)


def _clean_environment() -> dict[str, str]:
    """Only basic variables: the caller's KUBECONFIG or proxy would change a part's behaviour."""
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "PYTHONPATH")
    return {key: os.environ[key] for key in kept if key in os.environ}


def stop(found: Identity | None, grace: float) -> None:
    """End a process: SIGTERM, `grace` seconds, SIGKILL. Raises ClusterError if it survives."""
    if found is None or identity(found.pid) != found:
        return
    for number, limit in ((signal.SIGTERM, grace), (signal.SIGKILL, 30.0)):
        signal_process(found, number)
        if number == signal.SIGTERM:
            # A stopped process takes no notice of SIGTERM.
            signal_process(found, signal.SIGCONT)
        if wait_until(lambda: _gone(found), limit):
            return
    raise ClusterError(f"Process {found.pid} does not end.")


def signal_process(found: Identity, number: signal.Signals) -> None:
    """Send a signal to this process only, if it still runs."""
    try:
        descriptor = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return
    try:
        # Between the look and the signal the id can't change hands: the descriptor stays with the process.
        if identity(found.pid) == found:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _gone(found: Identity) -> bool:
    _reap(found.pid)
    return identity(found.pid) != found


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Poll a condition; False if it is not met in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def wait_ready(layout: Layout, name: str, condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until a part is ready. Raises ClusterError with the end of its log if it ends or is late."""
    deadline = time.monotonic() + seconds
    while not condition():
        if not running(layout, name):
            raise ClusterError(f"{name} ended while starting.\n{last_words(layout, name)}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} is not ready after {seconds:.0f} s.\n{last_words(layout, name)}")
        time.sleep(POLL)


def last_words(layout: Layout, name: str) -> str:
    """The end of a part's log."""
    try:
        lines = (layout.logs / f"{name}.log").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(line[:500] for line in lines[-15:])


def run(command: Sequence[str], *, text: str | None = None, timeout: float = 60.0) -> str:
    """Run a program and return its output. Raises ClusterError with that output if it fails."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise ClusterError(
            f"{' '.join(command[:4])}… failed ({done.returncode}): {(done.stderr or done.stdout)[-2000:]}"
        )
    return done.stdout
