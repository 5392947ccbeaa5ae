"""The parts of the test cluster that run on this machine, to be stopped and killed; only for a cluster of our own."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.cluster import components, processes, programs
from scripts.cluster import layout as layouts


def volumes() -> Path:
    """The folder that has one of each volume, by its name."""
    return layouts.from_environment().volumes


@contextmanager
def stopped(part: str) -> Iterator[None]:
    """The part hangs for the block: SIGSTOP, and SIGCONT."""
    found = processes.running(layouts.from_environment(), part)
    assert found is not None, f"{part} does not run"
    processes.signal_process(found, signal.SIGSTOP)
    try:
        yield
    finally:
        processes.signal_process(found, signal.SIGCONT)


@contextmanager
def killed(part: str) -> Iterator[None]:
    """The part is gone for the block: SIGKILL, and started again as `cluster up` does."""
    layout = layouts.from_environment()
    found = processes.running(layout, part)
    assert found is not None, f"{part} does not run"
    processes.signal_process(found, signal.SIGKILL)
    assert processes.wait_until(lambda: processes.running(layout, part) is None, 30.0)
    try:
        yield
    finally:
        component = components.components(layout, programs.built())[part]
        processes.start(layout, part, [*_among_mounts_of_others(part), *component.command], component.environment)


def restart(part: str) -> None:
    """SIGKILL, and start it again as `cluster up` does."""
    with killed(part):
        pass


def _among_mounts_of_others(part: str) -> list[str]:
    """Puts a command where `cluster up` was run: what a part mounts must be seen by the others, and isn't from here."""
    other = "apiserver" if part == "kubelet" else "kubelet"
    found = processes.running(layouts.from_environment(), other)
    assert found is not None, f"{other} does not run"
    return ["nsenter", f"--mount=/proc/{found.pid}/ns/mnt", "--"]


def volume(claim: Mapping[str, Any]) -> Path:
    """The files of a volume that is bound, where its provisioner sees them: what it mounts others here don't."""
    layout = layouts.from_environment()
    found = processes.running(layout, "provisioner")
    assert found is not None
    return Path(f"/proc/{found.pid}/root{layout.volumes}") / claim["spec"]["volumeName"]


def hang_for(part: str, seconds: float) -> Iterator[None]:
    """Keep the part stopped for so long; yields again and again meanwhile."""
    until = time.monotonic() + seconds
    with stopped(part):
        while time.monotonic() < until:
            yield
