"""What making and restoring share: restic with a session's keys, and what its failures say about the stored data."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import ArchiveError
from app.core.storage.archive_keys import SessionKeys
from app.core.storage.file_store import FileStore
from workers.restore_points.repository import Damaged, Head, Repository, password
from workers.restore_points.restic import Done, Failed, Restic
from workers.restore_points.sidecar import Sidecar
from workers.runtime.base import Check

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tools:
    """What calls of restic need, whichever repository they are for."""

    keys: SessionKeys
    check: Check
    program: str
    held: int | None
    cache: Path | None

    def restic(self, repository: Repository) -> Restic:
        """restic for this repository."""
        secret = password(self.keys, self.keys.newest)
        return Restic(repository, secret, self.check, self.program, self.held, self.cache)

    def whole(self, repository: Repository, call: Callable[[], Done]) -> bool:
        """Whether this call of restic finds all that it reads. Raises what has nothing to do with the data: `NoSpace`,
        what `check` raises, and `RetryableError`, as `Unanswered`, for a store that does not answer."""
        try:
            call()
        except Failed as error:
            log.warning("%s", error, extra={"uuid": repository.uuid})
            repository.check_store()
            return False
        return True


def mended(repository: Repository, points: Iterable[Sidecar], keys: SessionKeys) -> Head:
    """The repository's head; if it is damaged, it is written anew from the sidecar of one of its points. Raises
    `Damaged` if there is none."""
    try:
        return repository.head(keys)
    except Damaged:
        for each in points:
            if each.repository == repository.number:
                repository.make(each.head, keys)
                return each.head
        raise


def refuse_larger(files: int, size: int, limits: tuple[int, int]) -> None:
    most_bytes, most_files = limits
    if size > most_bytes or files > most_files:
        raise ArchiveError(
            f"The workspace has {files} files with {size} bytes; at most {most_files} files with {most_bytes} bytes "
            "are restored. Delete some, or list them in .workspaceignore."
        )


@contextmanager
def caching(store: FileStore) -> Iterator[Path | None]:
    """A folder for restic's cache, gone at the end, None for a local store. It saves a request for each folder of the
    files: with a cache restic reads the packs of folders as a whole."""
    if store.is_local:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="restic-"))
    try:
        yield folder
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)
