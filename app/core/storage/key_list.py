"""The list of the archive keys that a store's content is under, in the store itself: `.keys.json`.

By it a process notices at its start that it was given too few keys, instead of at the first document it can't read. The
ids reveal nothing of the keys.
"""

from __future__ import annotations

import json
import re

from app.core.errors import ArchiveError
from app.core.storage.archive_keys import ID_BYTES
from app.core.storage.file_store import FileStore

NAME = ".keys.json"

KEY_ID = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}")


class KeyList:
    """The list of one store. Raises `RetryableError` when the store is unreachable, and `ArchiveError`."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._noted: set[str] = set()

    def read(self) -> tuple[str, ...]:
        """The ids of the keys; none where nothing is encrypted."""
        with self._files.translated("The store's list of archive keys could not be read"):
            try:
                text = bytes(self._files.fs.cat_file(self._path))
            except FileNotFoundError:
                return ()
        try:
            ids = json.loads(text)["keys"]
        except (ValueError, TypeError, KeyError) as error:
            raise ArchiveError(f"The store's list of archive keys, {NAME}, is damaged.") from error
        if not isinstance(ids, list) or not all(isinstance(each, str) and KEY_ID.fullmatch(each) for each in ids):
            raise ArchiveError(f"The store's list of archive keys, {NAME}, is damaged.")
        return tuple(ids)

    def note(self, key_id: str) -> None:
        """Put a key on the list, before anything is written under it. A remote store is asked once in each process, a
        local one each time: another disk may be mounted there by then, or none."""
        if key_id in self._noted and not self._files.is_local:
            return
        if key_id not in (known := self.read()):
            with self._files.translated("The store's list of archive keys could not be written"):
                self._files.write(self._path, json.dumps({"keys": [*known, key_id]}).encode())
        self._noted.add(key_id)

    @property
    def _path(self) -> str:
        return f"{self._files.root}/{NAME}"
