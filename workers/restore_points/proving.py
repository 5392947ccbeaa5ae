"""Proves restore points: restores one to a scratch place and compares each file with the point's manifest.

Only what the data themselves say makes a point a broken one: a store that is away, a disk that is full and a reader
that is cancelled raise errors, and a restore that fails is tried twice.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import NoSpace
from app.core.restore_points.drilling import room_for
from app.core.storage.archive_keys import SessionKeys
from app.core.storage.file_store import FileStore
from workers.archive.format import FOLDER_FLAGS
from workers.archive.walking import walk
from workers.restore_points.alone import alone
from workers.restore_points.making import Phases
from workers.restore_points.manifest import DamagedManifest, Manifest, Manifests
from workers.restore_points.repository import Damaged, Repository, password
from workers.restore_points.restic import Failed, Restic
from workers.restore_points.sidecar import Sidecar, Sidecars
from workers.restore_points.tools import caching
from workers.rmtree import delete_tree
from workers.runtime.base import Check, Proof, ProofOrder

log = logging.getLogger(__name__)

TRIES = 2
"""Failed restores of a point until it counts as broken."""

MOST_DIFFERENCES, MOST_PATH = 5, 200
"""Files that are named, and characters of each."""


def prove_point(
    scratch: Path, url: str, keys: SessionKeys, order: ProofOrder, check: Check, restic: str = "restic"
) -> Proof:
    """Restore the point to the folder `scratch`, which is deleted before and after, and compare it with its manifest;
    see `Runtime.prove_point`."""
    check()
    store, phases = FileStore(url), Phases()
    with (
        _empty(scratch),
        alone(store, order.uuid, check, shared=True, reading=True) as held,
        caching(store) as cache,
    ):
        _refuse_without_room(scratch, order)
        return Prover(scratch, Sidecars(store, keys), order, check, restic, held, cache, phases).prove()


@dataclass(frozen=True)
class Prover:
    """Proves one point."""

    scratch: Path
    sidecars: Sidecars
    order: ProofOrder
    check: Check
    program: str
    held: int | None
    cache: Path | None
    phases: Phases

    def prove(self) -> Proof:
        """Restore the point and compare it."""
        points = self.sidecars.read()
        if self.order.id not in points:
            return self._failed("Its sidecar is missing.")
        if (sidecar := points[self.order.id]) is None:
            return self._failed("Its sidecar is damaged.")
        try:
            manifest = Manifests(self.sidecars).read(self.order.id)
        except DamagedManifest:
            return self._failed("Its manifest is damaged.")
        # Older points have none any more.
        if manifest is None and sidecar.listed and self.order.id == next(iter(points)):
            return self._failed("Its manifest is missing.")
        with self.phases("restore"):
            why = self._restored(sidecar)
        if why:
            return self._failed(why)
        with self.phases("compare"):
            return self._compared(sidecar, manifest or {})

    def _failed(self, why: str) -> Proof:
        return Proof(id=self.order.id, failure=why, ms=self.phases.ms)

    def _restored(self, sidecar: Sidecar) -> str:
        """Restore it; why that can't be done, "" if it was. restic checks each blob that it writes."""
        repository = Repository(self.sidecars.store, sidecar.uuid, sidecar.repository)
        for last in (number == TRIES for number in range(1, TRIES + 1)):
            try:
                opened_by = repository.opened_by(self.sidecars.keys)
                secret = password(self.sidecars.keys, opened_by)
                engine = Restic(repository, secret, self.check, self.program, self.held, self.cache)
                engine.run("restore", "--no-lock", "--target", str(self.scratch), sidecar.snapshot)
                return ""
            except Damaged:
                why = "Its repository can't be opened."
            except Failed as error:
                log.warning("%s", error, extra={"uuid": repository.uuid})
                why = f"It can't be restored: {error}"
            # Away since, it tells nothing about the point.
            repository.snapshots()
            if not last:
                delete_tree(self.scratch)
                self.scratch.mkdir(mode=0o700)
        return why

    def _compared(self, sidecar: Sidecar, manifest: Manifest) -> Proof:
        root, found = os.fsencode(self.scratch), []
        for path, entry in manifest.items():
            self.check()
            if how := entry.differs(os.path.join(root, path), self.check):
                found.append(f"{os.fsdecode(path)[:MOST_PATH]}: {how}")
        files, size = self._counted()
        told = (sidecar.files, sidecar.size)
        if (files, size) != told and not sidecar.unreadable:
            found.append(f"{files} files with {size} bytes instead of {told[0]} with {told[1]}")
        return Proof(
            id=self.order.id,
            different=len(found),
            differences=tuple(_printable(each) for each in found[:MOST_DIFFERENCES]),
            files=files,
            size=size,
            compared=len(manifest),
            ms=self.phases.ms,
        )

    def _counted(self) -> tuple[int, int]:
        """How many regular files were restored, with how many bytes: the engine counts no others. It reads no folder
        that can't be read here."""
        files = size = 0
        root = os.open(self.scratch, FOLDER_FLAGS)
        try:
            for found in walk(root, lambda path, error: None, self.check):
                if stat.S_ISREG(found.info.st_mode):
                    files, size = files + 1, size + found.info.st_size
        finally:
            os.close(root)
        return files, size


def _printable(text: str) -> str:
    """As text that can be stored: names need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def _empty(scratch: Path) -> Iterator[None]:
    delete_tree(scratch)
    scratch.mkdir(mode=0o700, parents=True)
    try:
        yield
    finally:
        delete_tree(scratch)


def _refuse_without_room(scratch: Path, order: ProofOrder) -> None:
    needed, free = room_for(order.files, order.size), shutil.disk_usage(scratch).free
    if needed > free:
        raise NoSpace(f"A drill needs {needed} bytes for a while, and {free} are free.")
