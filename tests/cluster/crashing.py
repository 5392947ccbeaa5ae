"""The service's processes but the web's, each a real one, with workers that can be told where to die.

    python -m tests.cluster.crashing FOLDER WORKERS BACKUP_WORKERS

All are forked from this one, which has loaded the code already, and started again when they end. A file
`FOLDER/plan/{uuid}` with the number N in it lets the worker that next acts on that session kill itself
(SIGKILL) right after the N-th call it makes to the API server or to Redis while it does so; where the file has a
method's name behind the number, only by that method. The file then becomes `FOLDER/fate/{uuid}`, which says after
what; or how many calls there were, when that one came to its end before. Files in `FOLDER/new` are the plans of
sessions still to come, one each. What is only asked again, in a wait, counts once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import redis
from redis.client import Pipeline

from app.core.backups.store import BackupStore
from app.core.errors import StillEnding
from workers.runtime.kubernetes import pods

PAUSE = 0.05
"""s between two looks for processes that ended."""

FOLDERS = ("new", "plan", "taken", "written", "fate")

READS = ("GET", "HGETALL", "EXISTS", "ZSCORE", "ZRANGE")


class Count:
    """Counts the calls of this thread while it acts on one session, by the plan in `file`."""

    def __init__(self, folder: Path, uuid: str, file: Path) -> None:
        self.folder, self.uuid = folder, uuid
        self.limit = int(file.read_text().split()[0])
        self.made = 0
        self.asked: set[str] = set()
        file.unlink()

    def called(self, what: str, *, reads: bool) -> None:
        """One more call has been answered."""
        if reads and what in self.asked:
            return
        if not reads:
            # After a change the same question is another one.
            self.asked.clear()
        self.asked.add(what)
        self.made += 1
        if self.made == self.limit:
            self.note("killed", what)
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, outcome: str, last: str = "") -> None:
        """Say what became of the plan; in one step, so that nobody reads half of it."""
        fate = {"outcome": outcome, "planned": self.limit, "made": self.made, "last": last}
        part = self.folder / "written" / f"{self.uuid}.fate"
        part.write_text(json.dumps(fate))
        part.rename(self.folder / "fate" / self.uuid)


counting = threading.local()


def install(folder: Path) -> None:
    """Have every call counted from here on, in this process and those it forks."""
    from workers.drills import Drills
    from workers.lifecycle.intents import Lifecycle
    from workers.points import Points
    from workers.runtime.kubernetes.api_server import ApiServer

    setattr(BackupStore, "prepare", given_to_jobs(BackupStore.prepare))  # noqa: B010
    for acting, name in ((Lifecycle, "carry_out"), (Lifecycle, "back_up"), (Points, "make"), (Drills, "drill")):
        setattr(acting, name, planned(getattr(acting, name), folder))
    for kind, name, describe in (
        (
            ApiServer,
            "_call",
            lambda _, method, path, *__: (f"{method} {path.rpartition('/namespaces/')[2]}", method == "GET"),
        ),
        (redis.Redis, "execute_command", lambda _, *words: (words_of(words), words[0] in READS)),
        (Pipeline, "execute", lambda pipe, *_: described([words for words, _ in pipe.command_stack])),
    ):
        setattr(kind, name, counted(getattr(kind, name), describe))


def given_to_jobs(prepare: Callable[[BackupStore, str], None]) -> Callable[[BackupStore, str], None]:
    """The folder of a session belongs to its Jobs, too: in a cluster they and the workers are one user, here workers
    are root."""

    @wraps(prepare)
    def preparing(store: BackupStore, uuid: str) -> None:
        prepare(store, uuid)
        if store.files.is_local:
            os.chown(Path(store.files.root, uuid), pods.UID, pods.UID)

    return preparing


def described(commands: list[tuple[Any, ...]]) -> tuple[str, bool]:
    """What is asked for in one go, and whether all of it is read."""
    return ", ".join(map(words_of, commands)), all(words[0] in READS for words in commands)


def words_of(command: tuple[Any, ...]) -> str:
    """A command and its key, if any, and no value; a script's key comes after its digest and their number."""
    at = 3 if command[0] == "EVALSHA" else 1
    return " ".join(map(str, (command[0], *command[at : at + 1])))


def planned(method: Callable[..., None], folder: Path) -> Callable[..., None]:
    @wraps(method)
    def acting(lifecycle: object, uuid: str, *more: int) -> None:
        plan = take(folder, uuid, method.__name__, new=more == (1,))
        if plan is None:
            method(lifecycle, uuid, *more)
            return
        counting.count = Count(folder, uuid, plan)
        try:
            method(lifecycle, uuid, *more)
            counting.count.note("passed")
        except StillEnding:
            # The attempt came to its end, and the next one looks whether the pod is gone.
            counting.count.note("passed")
            raise
        finally:
            counting.count = None

    return acting


def take(folder: Path, uuid: str, method: str, *, new: bool) -> Path | None:
    """The plan for this method's act on this session, which is nobody else's then; a new session gets the next of those
    for new ones."""
    taken = folder / "taken" / uuid
    waiting = [folder / "plan" / uuid]
    if new and not (folder / "fate" / uuid).exists() and not taken.exists():
        waiting += sorted((folder / "new").iterdir())
    for file in waiting:
        with suppress(FileNotFoundError):
            if method in (file.read_text().split()[1:] or [method]):
                return file.rename(taken)
    return None


def counted(method: Callable[..., Any], describe: Callable[..., tuple[str, bool]]) -> Callable[..., Any]:
    @wraps(method)
    def calling(self: object, *arguments: Any, **named: Any) -> Any:
        count = getattr(counting, "count", None)
        if count is None:
            return method(self, *arguments, **named)
        # Before: a pipeline forgets what it was asked.
        what, reads = describe(self, *arguments)
        answer = method(self, *arguments, **named)
        count.called(what, reads=reads)
        return answer

    return calling


def run_celery(*arguments: str) -> None:
    from workers.celery.app import app

    app.start(["--quiet", *arguments])


def worker(name: str, queues: str) -> Callable[[], None]:
    """A worker that does one task at a time in its only process, so that the worker dies with the task."""
    options = ["-Q", queues, "--pool=solo", "-n", f"{name}@chaos", "--without-gossip", "--without-mingle"]
    return lambda: run_celery("worker", *options, "-l", "INFO")


def observer() -> None:
    from workers.observer import main

    main()


def fork(run: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        run()
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        os._exit(1)


def supervise(parts: dict[str, Callable[[], None]], folder: Path) -> None:
    """Keep all parts running until SIGTERM, then end them. `pids/{part}` says which process each one is."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    pids: dict[str, int] = {}
    while not ending.is_set():
        for name, run in parts.items():
            if name not in pids:
                pids[name] = fork(run)
                (folder / "pids" / name).write_text(str(pids[name]))
        for name, pid in list(pids.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del pids[name]
        ending.wait(PAUSE)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    for pid in pids.values():
        os.waitpid(pid, 0)


def main(folder: Path, many: int, backup_workers: int) -> None:
    # All that a worker loads, so that none of those that die has to load it again.

    (folder / "pids").mkdir(exist_ok=True)
    install(folder)
    schedule = str(folder / f"schedule-{time.time():.0f}")
    supervise(
        {
            "observer": observer,
            "beat": lambda: run_celery("beat", "--schedule", schedule, "-l", "WARNING"),
            # The sweeps have one of their own: a wake of a killed worker's must not wait for them.
            "sweeper": worker("sweeper", "sweep"),
            **{f"worker{n}": worker(f"worker{n}", "wake,lifecycle") for n in range(many)},
            **{f"backup-worker{n}": worker(f"backup-worker{n}", "backup") for n in range(backup_workers)},
        },
        folder,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
