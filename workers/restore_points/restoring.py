"""Restores restore points."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from app.core.errors import BackupNotFound, PointsBroken
from app.core.restore_points.names import reference
from app.core.storage.archive_keys import SessionKeys
from app.core.storage.file_store import FileStore
from app.volume import UNTIL
from app.volume.excluded import PARTS
from workers.archive import replace
from workers.archive.format import CONVERSATION
from workers.restore_points.alone import alone
from workers.restore_points.repository import Damaged, Repository
from workers.restore_points.sidecar import Sidecar, Sidecars
from workers.restore_points.tools import Tools, caching, mended, refuse_larger
from workers.runtime.base import Check, RestoredPoint


def restore_point(
    place: Path,
    url: str,
    keys: SessionKeys,
    point_id: str,
    limits: tuple[int, int],
    check: Check,
    restic: str = "restic",
    *,
    user_id: str,
    newer_than: float = 0.0,
    going_back: bool = False,
    exclusively: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> RestoredPoint:
    """Replace the files of the volume `place` by those of the point, or of the newest whole one before it and
    `newer_than` a time (seconds since the epoch), all or nothing.

    `keys` are those of the session that the point is of. Another user than its own, as `user_id` says, gets the project
    only. With `going_back` the conversation is to end when the point began. `limits` are the most bytes and files. The
    files are replaced within `exclusively`. Raises `BackupNotFound` when the session has no point, `PointsBroken` when
    none of these is whole, `ArchiveError` when one exceeds the limits, `NoSpace`, `RetryableError`, and what `check`
    and `exclusively` raise; after an error nothing is replaced, unless an interrupted run had begun to.
    """
    if replace.interrupted(place):
        with exclusively():
            replace.complete(place)
    replace.clear(place)
    store = FileStore(url)
    with alone(store, keys.uuid, check, shared=True) as held, caching(store) as cache:
        points = Sidecars(store, keys).read()
        if not points:
            raise BackupNotFound(reference(keys.uuid, point_id))
        tools = Tools(keys, check, restic, held, cache)
        for sidecar in _candidates(points, point_id, newer_than):
            refuse_larger(sidecar.files, sidecar.size, limits)
            parts = PARTS if sidecar.identity.get("user_id") == user_id else PARTS[:1]
            repository = Repository(store, sidecar.uuid, sidecar.repository)
            with replace.draft(place) as new:
                if not _extracted(repository, sidecar, new, parts, tools):
                    continue
                _complete(new, parts)
                if going_back and CONVERSATION in parts and any((new / CONVERSATION).iterdir()):
                    # Read after other files, it may tell of what they lack. Only its agent can read it, and cuts it.
                    (new / CONVERSATION / f"{UNTIL}{sidecar.created_at:.3f}").touch(mode=0o600)
                os.sync()
                check()
                with exclusively():
                    replace.put_in_place(new)
            return RestoredPoint(sidecar.id, sidecar.created_at, fell_back=sidecar.id != point_id)
    since = " since its newest backup" if newer_than else ""
    raise PointsBroken(f"None of this session's restore points{since} is whole.")


def _extracted(repository: Repository, sidecar: Sidecar, new: Path, parts: Collection[str], tools: Tools) -> bool:
    """Restore the point to the folder `new`; whether it is whole. restic checks each blob it writes."""
    try:
        mended(repository, [sidecar], tools.keys)
    except Damaged:
        return False
    wanted = [argument for part in parts for argument in ("--include", f"/{part}")]
    # In a local store our lock keeps writers away. Elsewhere restic's own keeps a prune away.
    unlocked = ["--no-lock"] if tools.held is not None else []
    call = ["restore", *unlocked, "--target", str(new), *wanted, sidecar.snapshot]
    return tools.whole(repository, lambda: tools.restic(repository).run(*call))


def _complete(new: Path, parts: Collection[str]) -> None:
    """Make a part that the point lacks, so that an existing one is replaced, and let its owner move each."""
    for part in parts:
        folder = new / part
        if folder.is_symlink():
            # Put in the folder's place while restic read it.
            folder.unlink()
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(folder.stat().st_mode | 0o700)


def _candidates(points: Mapping[str, Sidecar | None], point_id: str, newer_than: float) -> list[Sidecar]:
    """The point, and those before it that are `newer_than` a time, newest first; all of these if its own sidecar is
    damaged or lost."""
    wanted = points.get(point_id)
    readable = [each for each in points.values() if each is not None and each.created_at > newer_than]
    if wanted is None:
        return readable
    return [wanted, *(each for each in readable if each.created_at < wanted.created_at)]
