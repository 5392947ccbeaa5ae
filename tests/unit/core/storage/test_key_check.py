"""A process without the archive keys of what its stores hold does not start; a store that is away stops none."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.core.composition import check_keys
from app.core.errors import ArchiveError, RetryableError
from app.core.storage.archive_keys import NO_KEYS, ArchiveKeys, new_key
from app.core.storage.file_store import FileStore
from app.core.storage.key_check import KeyCheck
from app.core.storage.key_list import KeyList
from app.process.settings import Settings, SettingsError
from tests.waiting import PATIENCE

KEYS, OTHER = ArchiveKeys(new_key()), ArchiveKeys(new_key())


class Store:
    """Its list of keys; it is away as often as it says."""

    def __init__(self, *ids: str, away: int = 0) -> None:
        self.ids, self.away = ids, away

    def key_ids(self) -> tuple[str, ...]:
        if self.away:
            self.away -= 1
            raise RetryableError("The store is away.")
        return self.ids


def test_a_process_with_the_keys_starts() -> None:
    """Also one with a new key, under which nothing is stored yet, and one whose stores are empty."""
    assert KeyCheck({"backups": Store(*KEYS.ids), "conversations": Store()}, KEYS).look()
    assert KeyCheck({"backups": Store()}, NO_KEYS).look()


@pytest.mark.parametrize("keys", [NO_KEYS, OTHER], ids=["no key", "another key"])
def test_a_missing_key_is_named_and_what_to_do(keys: ArchiveKeys) -> None:
    with pytest.raises(SettingsError, match=f"ARCHIVE_KEY: stored backups .*{KEYS.ids[0]}.* Add it") as error:
        KeyCheck({"backups": Store(*KEYS.ids)}, keys).look()
    assert "operations.md" in str(error.value)


def test_a_store_that_is_away_is_asked_again_until_it_answers() -> None:
    store, pauses, done = Store(*KEYS.ids, away=3), list[float](), threading.Event()
    KeyCheck({"backups": store}, KEYS, pauses.append).begin(at_once=True, done=done.set)
    assert done.wait(PATIENCE)
    assert (store.away, len(pauses)) == (0, 2)


def test_a_missing_key_of_a_store_that_was_away_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by that its process: see app/process/threads.py."""
    raised: list[object] = []
    ended = threading.Event()

    def hook(arguments: threading.ExceptHookArgs) -> None:
        raised.append(arguments.exc_type)
        ended.set()

    monkeypatch.setattr(threading, "excepthook", hook)
    KeyCheck({"backups": Store(*KEYS.ids)}, OTHER).begin(at_once=False)
    assert ended.wait(PATIENCE)
    assert raised == [SettingsError]


def test_the_check_of_a_process_looks_at_the_stores_it_uses(tmp_path: Path) -> None:
    key = new_key()
    for folder in ("backups", "archive"):
        KeyList(FileStore(f"file://{tmp_path}/{folder}")).note(ArchiveKeys(key).ids[0])
    check_keys(Settings(data_dir=tmp_path, archive_key=key))
    with pytest.raises(SettingsError, match="stored conversations"):
        check_keys(Settings(data_dir=tmp_path))
    (tmp_path / "archive" / ".keys.json").unlink()
    check_keys(Settings(data_dir=tmp_path), backups=False)
    with pytest.raises(SettingsError, match="stored backups"):
        check_keys(Settings(data_dir=tmp_path))


def test_a_key_is_noted_once(tmp_path: Path) -> None:
    first, second = KEYS.ids[0], OTHER.ids[0]
    noted = KeyList(FileStore(f"file://{tmp_path}"))
    assert noted.read() == ()
    for _ in range(2):
        noted.note(first)
    again = KeyList(FileStore(f"file://{tmp_path}"))
    again.note(first)
    again.note(second)
    assert again.read() == noted.read() == (first, second)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": 1}', '{"keys": ["../x"]}', '{"other": []}'])
def test_a_damaged_list_is_an_error_and_is_not_replaced(tmp_path: Path, text: str) -> None:
    """Otherwise the ids in it would be lost."""
    (tmp_path / ".keys.json").write_text(text)
    noted = KeyList(FileStore(f"file://{tmp_path}"))
    for call in (noted.read, lambda: noted.note(KEYS.ids[0])):
        with pytest.raises(ArchiveError, match="damaged"):
            call()
    assert (tmp_path / ".keys.json").read_text() == text
