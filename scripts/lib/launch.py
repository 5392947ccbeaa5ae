"""Starts the programs of a run: forks the Celery processes and the observer, and executes the others.

A fork shares with this process the memory of what both have imported, which is most of what such a process has, and is
there in milliseconds. gunicorn can't be forked: gevent has to replace parts of the standard library before anything
imports them.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

FORKED = frozenset({"celery", "python"})
"""The commands that are forked."""

IMPORTS = (
    *("celery.bin.celery", "celery.bin.worker", "celery.bin.beat", "celery.apps.worker", "celery.apps.beat"),
    *("celery.concurrency.prefork", "celery.concurrency.thread", "kombu.transport.redis"),
    *("workers.context", "workers.runtime.local.driver", "workers.network_policies", "workers.rpc"),
    *("workers.agents.disconnect", "workers.agents.notices", "workers.agents.token_renewal", "workers.worker_metrics"),
)
"""What the forked programs have in common. None of it reads the environment while it is imported, where each program
has an own heartbeat and own metrics."""

NAME_LENGTH = 15
"""Characters of a process' name in `ps` and `top`; Linux has room for no more."""


def start(name: str, command: Sequence[str], environment: Mapping[str, str], output: int) -> int:
    """Start a command in a session of its own, with no signal blocked and its output in a file descriptor. Returns its
    process id; raises `OSError` if there is no such program."""
    if command[0] in FORKED:
        return _fork(name, command, environment, output)
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    return os.posix_spawnp(command[0], list(command), environment, file_actions=streams, setsid=True, setsigmask=())


@cache
def _imported() -> None:
    """Import what forks share. The collector then leaves it alone, whose marks would copy each page."""
    for module in IMPORTS:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def _fork(name: str, command: Sequence[str], environment: Mapping[str, str], output: int) -> int:
    _imported()
    sys.stdout.flush()
    sys.stderr.flush()
    # Until the child has handlers of its own a signal would be lost in this process' handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if pid:
        return pid
    status = 1
    try:
        _become(name, environment, output)
        status = _run(command)
    except Exception:  # noqa: BLE001 - it ends the child, as it would end an interpreter of its own
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        # Nothing of this process' stack may go on in the child.
        os._exit(status)


def _become(name: str, environment: Mapping[str, str], output: int) -> None:
    """Have nothing of the parent's but its memory: no session, files, signals or environment."""
    os.setsid()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    Path("/proc/self/comm").write_text(name[:NAME_LENGTH])
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _run(command: Sequence[str]) -> int:
    """Run a Python program in this process, as its own interpreter would; returns its exit code."""
    try:
        if command[0] == "python":
            option, module, *arguments = command[1:]
            if option != "-m":
                raise SystemExit(f"python {option}: only `python -m MODULE` can be run")
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            status: object = None
        else:
            sys.argv = list(command)
            [program] = entry_points(group="console_scripts", name=command[0])
            status = program.load()()
    except SystemExit as end:
        status = end.code
    # As an interpreter does at its end: it waits for threads, and lets pools of threads end.
    threading._shutdown()  # type: ignore[attr-defined]
    if isinstance(status, str):
        print(status, file=sys.stderr)
    return status if isinstance(status, int) else int(status is not None)
