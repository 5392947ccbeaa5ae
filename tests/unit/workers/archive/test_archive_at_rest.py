"""A backup in an encrypted store: the same zip as in a plain one, of which no byte of the store tells anything."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from app.core.backups.store import BackupStore
from app.core.errors import ArchiveError
from app.core.storage.archive_keys import NO_KEYS, ArchiveKeys, new_key
from tests.unit.workers.archive.conftest import IDENTITY, NAME, Bench
from workers.runtime.base import BackupSummary

KEYS = ArchiveKeys(new_key())


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """With a canary in a name, in a content, in a link, in a prompt beside the project, and in its user's name."""
    (bench.root / "canary-folder").mkdir()
    (bench.root / "canary-folder" / "canary-file").write_text("canary")
    (bench.root / "link").symlink_to("/usr/canary-target")
    (bench.root.parent / ".session").mkdir()
    (bench.root.parent / ".session" / "history.json").write_text('[{"role": "user", "content": "canary-prompt"}]')
    bench.identity = replace(IDENTITY, user_id="canary-user")
    bench.store = BackupStore(f"file://{bench.folder}/store", KEYS)
    return bench


def expect_restored(bench: Bench) -> None:
    for path in ("canary-folder/canary-file", "../.session/history.json"):
        assert (bench.target / path).read_bytes() == (bench.root / path).read_bytes()
    assert (bench.target / "link").readlink() == (bench.root / "link").readlink()


def backed_up(bench: Bench, keys: ArchiveKeys) -> BackupSummary:
    """By another store with these keys."""
    bench.store = BackupStore(f"file://{bench.folder}/with-{bool(keys)}", keys)
    return bench.back_up()


def test_no_byte_of_the_store_tells_a_name_a_content_or_a_prompt(bench: Bench) -> None:
    """While the plain store does, so that this test would notice."""
    told = []
    for keys in (NO_KEYS, KEYS):
        backed_up(bench, keys)
        files = [path for path in (bench.folder / f"with-{bool(keys)}").rglob("*") if path.is_file()]
        told.append(sum(path.read_bytes().count(b"canary") + path.name.count("canary") for path in files))
    assert told[0] > 4
    assert told[1] == 0


def test_its_size_and_digest_are_those_of_the_plain_zip(bench: Bench) -> None:
    made = backed_up(bench, NO_KEYS)
    with bench.store.open(NAME) as plain:
        expected = plain.read()
    encrypted = backed_up(bench, KEYS)
    with bench.store.open(NAME) as stored:
        assert stored.read() == expected
    assert (encrypted.size, encrypted.sha256) == (made.size, made.sha256)
    bench.bring_back()
    expect_restored(bench)


def test_a_workspace_without_files_has_a_backup(bench: Bench) -> None:
    """zipfile looks for a part before the first byte of an empty zip."""
    bench.root = bench.folder / "empty/app"
    bench.root.mkdir(parents=True)
    bench.back_up()
    bench.bring_back()
    assert os.listdir(bench.target) == []


def test_a_backup_that_was_written_without_the_key_is_not_restored(bench: Bench) -> None:
    """Anybody who can write to the store could have."""
    encrypted, bench.store = bench.store, BackupStore(f"file://{bench.folder}/store")
    bench.back_up()
    bench.store = encrypted
    with pytest.raises(ArchiveError, match="not written with a key"):
        bench.bring_back()
    bench.expect_untouched()


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_a_backup_that_was_changed_in_the_store_is_not_restored(bench: Bench, suffix: str) -> None:
    """Wherever the bit is; the workspace's files stay."""
    bench.back_up()
    path = bench.stored.with_name(f"{NAME}{suffix}")
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ArchiveError):
            bench.bring_back()
        bench.expect_untouched()
    path.write_bytes(whole)
    bench.bring_back()
    expect_restored(bench)
