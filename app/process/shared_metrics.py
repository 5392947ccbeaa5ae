"""Metrics of a program with several processes: gunicorn's workers, a Celery worker's pool.

Each process counts in files of its own, in the program's folder (PROMETHEUS_MULTIPROC_DIR); any process of the program
shows the sums. The files are those of prometheus-client's multi-process mode, with one difference: a process does not
name its files by its process id, but by a *slot*, which it locks while it lives. So the next process continues where a
dead one stopped, however that died: counters never fall, and there are no more files than slots.

The folder belongs into memory: on a disk the kernel's writing back holds up a process that counts, which took a fifth
of web's time. The space is reserved at the start of the program: a write into a mapped file without room would kill the
process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, values
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client reads it too."""

SUM_OF_LIVING: Final = "livesum"
"""The multi-process mode of every gauge: what the living processes hold, added up."""

RESERVED = {"counter": 131_072, "histogram": 262_144, f"gauge_{SUM_OF_LIVING}": 65_536}
"""Bytes of a slot's files. Of web's, which has most endpoints, a third is used when each was called."""


def slots_for(processes: int) -> int:
    """Slots of a program: a reload of gunicorn has the old and the new processes at once."""
    return 2 * processes + 2


class Slots:
    """The slots of a folder, of which this process holds one from its first use on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = sorted(folder.glob("*.lock"), key=lambda file: int(file.stem))
        self._pid = 0
        self._lock: int | None = None
        self._own = ""

    def own(self) -> str:
        """The slot of this process. A forked process takes another than its parent. Called for each count."""
        if self._pid != os.getpid():
            self._take()
        return self._own

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """No slot is taken in this block. prometheus-client asks once when it is set up, in the main process, which may
        never count."""
        self._pid, self._own = os.getpid(), "none"
        yield
        self._pid = 0

    def living(self) -> set[str]:
        """The slots of processes that live."""
        return {file.stem for file in self._files if not _free(file)}

    def _take(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # The parent's, which it would hold on to.
        self._pid, self._lock = os.getpid(), None
        for file in self._files[:-1]:
            self._lock = _locked(file, fcntl.LOCK_EX)
            if self._lock is not None:
                self._own = file.stem
                _clear(self._folder / f"gauge_{SUM_OF_LIVING}_{self._own}.db")
                return
        # Those who share the last one overwrite one another's counts, which is better than to serve nothing.
        self._own = self._files[-1].stem
        log.error("more processes than slots for metrics; some counts will be lost")


class SharedCollector(Collector):
    """Shows the sums over all processes of the folder."""

    def __init__(self, folder: Path, slots: Slots) -> None:
        self._folder = folder
        self._slots = slots

    def collect(self) -> Iterable[Metric]:
        living = self._slots.living()
        files = [
            str(file)
            for file in sorted(self._folder.glob("*.db"))
            if not file.name.startswith("gauge_") or file.stem.rpartition("_")[2] in living
        ]
        metrics: Iterable[Metric] = MultiProcessCollector.merge(files)
        return metrics


_program: SharedCollector | None = None
"""The program's collector: one for each process, like the class of values that prometheus-client holds."""


def begin(folder: str, slots: int) -> None:
    """Have the instruments that this process and its children make from now on count in `folder`, "" for in memory.
    Empties the folder. Called once by a program's main process, before it forks. Without room for the files the
    instruments count in memory, each process for itself."""
    global _program
    if not folder:
        return
    try:
        _reserve(Path(folder), slots)
    except OSError as error:
        log.error("no room for shared metrics; each process shows its own: %s", error.strerror)
        os.environ.pop(VARIABLE, None)
        values.ValueClass = values.MutexValue
        return
    os.environ[VARIABLE] = folder
    known = Slots(Path(folder))
    _program = SharedCollector(Path(folder), known)
    with known.waiting():
        values.ValueClass = values.MultiProcessValue(known.own)


def end() -> None:
    """Have new instruments count in memory again; for tests."""
    global _program
    _program = None
    os.environ.pop(VARIABLE, None)
    values.ValueClass = values.MutexValue


def collector(own: CollectorRegistry) -> Collector:
    """What shows the program's metrics: the sums of its processes, or, if it has one only, the instruments in `own`."""
    return _program or own


def text(accept: str) -> tuple[bytes, str]:
    """Prometheus' text of the program, for a process that counts nothing itself."""
    return exposition((collector(CollectorRegistry()),), accept)


def exposition(shown: Iterable[Collector], accept: str) -> tuple[bytes, str]:
    """Prometheus' text and its content type, in the format that the header `accept` prefers."""
    registry = CollectorRegistry(auto_describe=False)
    for each in shown:
        registry.register(each)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _reserve(folder: Path, slots: int) -> None:
    if folder.exists():
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(slots):
        (folder / f"{number}.lock").touch(mode=0o600)
        for kind, size in RESERVED.items():
            with (folder / f"{kind}_{number}.db").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)


def _clear(file: Path) -> None:
    """Overwrite with zeros, which is an empty file to prometheus-client: it keeps the reserved space."""
    with file.open("r+b") as opened:
        opened.write(bytes(RESERVED[f"gauge_{SUM_OF_LIVING}"]))


def _locked(file: Path, how: int) -> int | None:
    """The file, open and locked until it is closed or this process ends; None if another process holds it."""
    opened = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, how | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        return None
    return opened


def _free(file: Path) -> bool:
    """Whether no process holds the slot."""
    opened = _locked(file, fcntl.LOCK_SH)
    if opened is None:
        return False
    os.close(opened)
    return True
