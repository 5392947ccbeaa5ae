"""A backup in an encrypted store: the same zip as in a plain one, of which no byte of the store tells anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.backups.store import BackupStore, session_of
from app.core.errors import ArchiveError
from app.core.sessions.model import Identity
from app.core.storage.archive_keys import NO_KEYS, ArchiveKeys, new_key
from workers.archive import restore_backup, write_backup

NOW = 1_763_625_600.0
NAME = "app-abcd1234-20251120-080000.zip"
IDENTITY = Identity(uuid="abcd1234", user_id="canary-user", created_at=NOW)
KEYS = ArchiveKeys(new_key())
CANARY = b"canary"


@pytest.fixture
def tree(root: Path) -> Path:
    """A workspace with a canary in a name, in a content, in a link, and in a prompt beside the project."""
    (root / "canary-folder").mkdir()
    (root / "canary-folder" / "canary-file").write_bytes(CANARY)
    (root / "link").symlink_to("/usr/canary-target")
    (root.parent / ".session").mkdir()
    (root.parent / ".session" / "history.json").write_text('[{"role": "user", "content": "canary-prompt"}]')
    return root


def back_up(root: Path, store: BackupStore) -> tuple[int, str]:
    made = write_backup(root, store, NAME, IDENTITY, NOW)
    return made.size, made.sha256


def bring_back(store: BackupStore, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    restore_backup(store, NAME, target, 10**9, 10**6)


def check_same(target: Path, root: Path) -> None:
    for path in ("canary-folder/canary-file", "../.session/history.json"):
        assert (target / path).read_bytes() == (root / path).read_bytes()
    assert (target / "link").readlink() == (root / "link").readlink()


def test_no_byte_of_the_store_tells_a_name_a_content_or_a_prompt(tree: Path, tmp_path: Path) -> None:
    """While the plain store does, so that this test would notice."""
    told = {}
    for name, keys in (("plain", NO_KEYS), ("encrypted", KEYS)):
        store = BackupStore(f"file://{tmp_path}/{name}", keys)
        back_up(tree, store)
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        told[name] = sum(path.read_bytes().count(CANARY) + str(path.name).count("canary") for path in files)
    assert told["plain"] > 4
    assert told["encrypted"] == 0


def test_its_size_and_digest_are_those_of_the_plain_zip(tree: Path, tmp_path: Path) -> None:
    plain, encrypted = BackupStore(f"file://{tmp_path}/plain"), BackupStore(f"file://{tmp_path}/encrypted", KEYS)
    assert back_up(tree, plain) == back_up(tree, encrypted)
    with plain.open(NAME) as expected, encrypted.open(NAME) as stored:
        assert stored.read() == expected.read()
    bring_back(encrypted, tmp_path / "session" / "app")
    check_same(tmp_path / "session" / "app", tree)


def test_a_workspace_without_files_has_a_backup(tmp_path: Path) -> None:
    """zipfile looks for a part before the first byte of an empty zip."""
    (tmp_path / "empty" / "app").mkdir(parents=True)
    store = BackupStore(f"file://{tmp_path}/backups", ArchiveKeys(new_key()))
    back_up(tmp_path / "empty" / "app", store)
    bring_back(store, tmp_path / "again" / "app")
    assert list((tmp_path / "again" / "app").iterdir()) == []


def test_a_backup_that_was_written_without_the_key_is_not_restored(tree: Path, tmp_path: Path) -> None:
    """Anybody who can write to the store could have."""
    back_up(tree, BackupStore(f"file://{tmp_path}/store"))
    with pytest.raises(ArchiveError, match="not written with a key"):
        bring_back(BackupStore(f"file://{tmp_path}/store", KEYS), tmp_path / "session" / "app")
    assert not (tmp_path / "session" / "app").exists()


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_a_backup_that_was_changed_in_the_store_is_not_restored(tree: Path, tmp_path: Path, suffix: str) -> None:
    """Wherever the bit is; the workspace's files stay."""
    store = BackupStore(f"file://{tmp_path}/store", KEYS)
    back_up(tree, store)
    target = tmp_path / "session" / "app"
    bring_back(store, target)
    path = tmp_path / "store" / session_of(NAME) / f"{NAME}{suffix}"
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ArchiveError):
            bring_back(store, target)
    check_same(target, tree)
