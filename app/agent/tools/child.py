"""Runs a helper process: one order in, one answer out, ended within its time."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ANSWER_BYTES = 4 * 1024 * 1024
"""Output beyond this ends the helper; none writes as much."""

TICK = 0.05
"""Seconds between two checks whether to stop."""

Stop = Callable[[], bool]
"""Whether the turn must end."""


@dataclass(frozen=True)
class Reply:
    """The helper's output. `ended`: "" by itself, "stopped" on request, "late" at its time limit."""

    output: bytes
    code: int
    ended: str = ""


def ask(
    command: Sequence[str],
    order: bytes,
    *,
    seconds: float,
    stop: Stop,
    environment: Mapping[str, str],
    grace: float = 0.0,
    folder: int | None = None,
) -> Reply:
    """Run a helper: one line on its standard input, its answer until it closes its output. `folder` is an open one to
    run in.

    On `stop` or after `seconds` its input is closed; `grace` seconds later it is killed.
    """
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # The descriptor instead of the path, which may be another folder by now. It is open until the program begins.
        cwd="/" if folder is None else f"/proc/self/fd/{folder}",
        env=dict(environment),
        bufsize=0,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(order + b"\n")
        output, ended = _read(process.stdout.fileno(), seconds, stop)
        if ended:
            process.stdin.close()
            rest, _ = _read(process.stdout.fileno(), grace, lambda: False)
            output += rest
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace if ended else 5.0)
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        process.wait()
    return Reply(output, process.returncode, ended)


def _read(fd: int, seconds: float, stop: Stop) -> tuple[bytes, str]:
    output = bytearray()
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if stop():
            return bytes(output), "stopped"
        if not select.select([fd], [], [], min(left, TICK))[0]:
            continue
        data = os.read(fd, 65536)
        if not data or len(output) > ANSWER_BYTES:
            return bytes(output), ""
        output += data
    return bytes(output), "late"
