"""Metrics of a program with several processes: gunicorn's workers, a Celery worker's pool.

They count by prometheus-client's multi-process mode: each process in files of its own, in the program's folder
(PROMETHEUS_MULTIPROC_DIR); any process of the program shows the sums. The files are not named by a process id but by a
*slot*, a small number that gunicorn's hooks below and Celery's pool give each process. So the next process continues
where a dead one stopped, however that died: counters never fall, and there are no more files than processes at a time.

The folder belongs into memory: on a disk the kernel's writing back holds up a process that counts, which took a fifth
of web's time. The space is reserved at the start of the program: a write into a mapped file without room would kill the
process.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client reads it too."""

SUM_OF_LIVING: Final = "livesum"
"""The multi-process mode of every gauge: what the living processes hold, added up."""

RESERVED = {"counter": 131_072, "histogram": 262_144, f"gauge_{SUM_OF_LIVING}": 65_536}
"""Bytes of a slot's files. Of web's, which has most endpoints, a third is used when each was called."""

MAIN = "main"
"""The slot of a program's main process."""

_slot = MAIN
"""Of this process."""

_shared: Collector | None = None
"""Shows the sums of the program's processes; None if it has one only."""


def begin(folder: str, processes: int) -> None:
    """Have the instruments that this process and its children make from now on count in `folder`, "" for in memory.
    Empties the folder, and reserves space for so many children at a time; others count without. Called once by a
    program's main process, before it forks. Without room for the files the instruments count in memory, each process
    for itself."""
    global _shared
    if not folder:
        return
    try:
        _empty(Path(folder))
        for slot in (MAIN, *range(processes)):
            _reserve(Path(folder), slot)
    except OSError as error:
        log.error("no room for shared metrics; each process shows its own: %s", error.strerror)
        os.environ.pop(VARIABLE, None)
        values.ValueClass = values.MutexValue
        return
    os.environ[VARIABLE] = folder
    values.ValueClass = values.MultiProcessValue(lambda: _slot)
    _shared = MultiProcessCollector(None, folder)


def enter(slot: int) -> None:
    """This process, just forked, counts in a slot that no living one has."""
    global _slot
    _slot = str(slot)


def leave(slot: int) -> None:
    """The process of a slot has ended: its gauges count no more. Called by the main process."""
    if folder := os.environ.get(VARIABLE):
        mark_process_dead(slot)
        try:
            _reserve(Path(folder), slot)
        except OSError as error:
            log.error("no room for the metrics of the next process: %s", error.strerror)


def pre_fork(server: Any, worker: Any) -> None:
    """gunicorn's hook, in the main process: gives a new worker the first free slot."""
    taken = {each.slot for each in server.WORKERS.values()}
    worker.slot = next(slot for slot in itertools.count() if slot not in taken)


def post_fork(server: Any, worker: Any) -> None:
    """gunicorn's hook, in the new worker."""
    enter(worker.slot)


def child_exit(server: Any, worker: Any) -> None:
    """gunicorn's hook, in the main process, for a worker that has ended."""
    leave(worker.slot)


def processes_of(workers: int) -> int:
    """Those of a gunicorn that exist at a time: a reload has the old and the new ones at once."""
    return 2 * workers + 2


def shown(own: Collector | None = None, *beside: Collector) -> CollectorRegistry:
    """What shows the program's metrics: the sums of its processes, or, if it has one only, the instruments in `own`;
    and those `beside`."""
    registry = CollectorRegistry(auto_describe=False)
    for each in (*beside, _shared or own):
        if each is not None:
            registry.register(each)
    return registry


def exposition(metrics: Collector, accept: str) -> tuple[bytes, str]:
    """Prometheus' text and its content type, in the format that the header `accept` prefers."""
    encode, content_type = choose_encoder(accept)
    return encode(metrics), content_type


def _empty(folder: Path) -> None:
    if folder.exists():
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _reserve(folder: Path, slot: int | str) -> None:
    """Give a slot's files their size, and keep what they hold. Zeros are an empty file to prometheus-client."""
    for kind, size in RESERVED.items():
        with (folder / f"{kind}_{slot}.db").open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, size)
