"""With an archive key backups are stored encrypted, each in its session's folder, and nothing else is taken for one."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from app.core.backups.store import BackupStore
from app.core.errors import ArchiveError, BackupNotFound, RetryableError
from app.core.storage.archive_keys import NO_KEYS, ArchiveKeys, UnknownKey, new_key
from app.core.storage.encrypted_file import CHUNK
from tests.fakes import raising

NAME = "app-abcd1234-20251120-080000.zip"
LATER = "app-abcd1234-20251120-080001.zip"
OTHERS = "app-bbbb0000-20251120-080000.zip"
KEY, OLD_KEY = new_key(), new_key()
ZIP = b"PK canary-content " * 40_000


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder, and a store of objects."""
    yield f"file://{tmp_path}/store" if request.param == "file" else f"memory://{tmp_path.name}/store"
    fsspec.filesystem("memory").store.clear()


def put(files: BackupStore, name: str = NAME, content: bytes = ZIP) -> None:
    with files.writing(name) as part:
        part.write(content)
        assert part.written == len(content)
        with part.read_back() as stored:
            assert stored.read() == content
        part.commit({"name": name, "size": len(content), "conversation": "canary-prompt"})


def everything(url: str) -> dict[str, bytes]:
    """All files of a store, by their path."""
    fs, root = fsspec.url_to_fs(url)
    return {path: fs.cat_file(path) for path in fs.find(root)}


def test_readers_see_the_plain_zip_and_the_store_none_of_it(url: str) -> None:
    """Its content, its size, any part of it, and its sidecar."""
    files = BackupStore(url, ArchiveKeys(KEY))
    files.prepare("abcd1234")
    put(files)
    assert files.names() == [NAME]
    assert files.size(NAME) == len(ZIP)
    with files.open(NAME) as stored:
        assert stored.read() == ZIP
    for start, stop in [(0, 10), (CHUNK - 5, CHUNK + 5), (len(ZIP) - 3, len(ZIP) + 100), (len(ZIP), len(ZIP) + 5)]:
        assert files.read(NAME, start, stop) == ZIP[start:stop]
    assert files.sidecar(NAME)["conversation"] == "canary-prompt"
    assert len(everything(url)) >= 3
    for path, content in everything(url).items():
        assert b"canary" not in content, path
        assert b"PK" not in content[:2]


def test_a_store_without_keys_is_not_encrypted(url: str) -> None:
    files = BackupStore(url)
    files.prepare("abcd1234")
    put(files)
    assert any(content == ZIP for content in everything(url).values())
    assert files.key_ids() == ()


def test_who_has_a_key_takes_nothing_that_was_written_without_it(url: str) -> None:
    """Whoever can write to the store could else give a zip of theirs to any user, who would restore it."""
    put(BackupStore(url))
    files = BackupStore(url, ArchiveKeys(KEY))
    for call in (files.sidecar, files.open, lambda name: files.read(name, 3, 9)):
        with pytest.raises(ArchiveError, match="not written with a key"):
            call(NAME)


@pytest.fixture(params=[False, True], ids=["first use", "used before"])
def used(request: pytest.FixtureRequest) -> bool:
    """Whether this process has used the store before."""
    return bool(request.param)


@pytest.mark.parametrize("away", ["mounted/store", "mounted"])
@pytest.mark.parametrize(
    "put_in_its_place",
    [lambda path: path.write_text("no folder"), lambda path: path.symlink_to("nowhere")],
    ids=["a file", "a link to nowhere"],
)
def test_a_folder_that_is_away_is_waited_for(
    tmp_path: Path, away: str, put_in_its_place: Callable[[Path], object], used: bool
) -> None:
    url = f"file://{tmp_path}/mounted/store"
    BackupStore(url, ArchiveKeys(KEY)).prepare("abcd1234")
    files = BackupStore(url, ArchiveKeys(KEY))
    if used:
        files.prepare("abcd1234")
    (tmp_path / away).rename(tmp_path / "aside")
    put_in_its_place(tmp_path / away)
    for call in (lambda: files.prepare("abcd1234"), lambda: files.prepare("eeee0000"), lambda: put(files)):
        with pytest.raises(RetryableError, match="folder is not there. Mount its disk"):
            call()


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(errno.ECONNREFUSED, "refused"), TimeoutError(), OSError(errno.EIO, "broken")]
)
def test_a_store_that_does_not_answer_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, used: bool
) -> None:
    files = BackupStore(f"memory://{tmp_path.name}/store", ArchiveKeys(KEY))
    if used:
        files.prepare("abcd1234")
    for call in ("cat_file", "open", "pipe_file"):
        monkeypatch.setattr(files.files.fs, call, raising(error))
    with pytest.raises(RetryableError):
        files.prepare("abcd1234")
        put(files)
    files.files.fs.store.clear()


def test_a_store_that_refuses_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: bool) -> None:
    files = BackupStore(f"file://{tmp_path}/store", ArchiveKeys(KEY))
    if used:
        files.prepare("abcd1234")
    monkeypatch.setattr(files.files.fs, "cat_file", raising(PermissionError(errno.EACCES, "denied")))
    with pytest.raises(ArchiveError, match="Permission denied"):
        files.prepare("abcd1234")


def test_a_new_disk_below_the_same_folder_has_the_list_of_keys_too(tmp_path: Path) -> None:
    """The process that writes to it noted the key in the one before."""
    files = BackupStore(f"file://{tmp_path}/store", ArchiveKeys(KEY))
    files.prepare("abcd1234")
    (tmp_path / "store").rename(tmp_path / "aside")
    (tmp_path / "store").mkdir()
    files.prepare("abcd1234")
    assert files.key_ids() == ArchiveKeys(KEY).ids


def test_after_a_rotation_both_are_read_and_the_store_knows_both_keys(url: str) -> None:
    before = BackupStore(url, ArchiveKeys(OLD_KEY))
    before.prepare("abcd1234")
    put(before)
    keys = ArchiveKeys(f"{KEY},{OLD_KEY}")
    rotated = BackupStore(url, keys)
    rotated.prepare("abcd1234")
    put(rotated, LATER)
    assert [rotated.sidecar(name)["name"] for name in rotated.names()] == [NAME, LATER]
    assert rotated.key_ids() == tuple(reversed(keys.ids))
    assert BackupStore(url, ArchiveKeys(KEY)).sidecar(LATER)["name"] == LATER


@pytest.mark.parametrize("keys", [NO_KEYS, ArchiveKeys(OLD_KEY)], ids=["no key", "another key"])
def test_without_its_key_it_is_said_which_one_is_missing(url: str, keys: ArchiveKeys) -> None:
    put(BackupStore(url, ArchiveKeys(KEY)))
    files = BackupStore(url, keys)
    for call in (files.open, files.size, files.sidecar, lambda name: files.read(name, 0, 1)):
        with pytest.raises(UnknownKey, match=ArchiveKeys(KEY).ids[0]):
            call(NAME)
    assert files.names() == [NAME]


def test_the_keys_of_one_session_are_enough_for_its_backups_and_no_other(url: str) -> None:
    """What a Job is given."""
    put(BackupStore(url, ArchiveKeys(KEY)))
    put(BackupStore(url, ArchiveKeys(KEY)), OTHERS)
    files = BackupStore(url, ArchiveKeys(KEY).session("abcd1234"))
    assert files.sidecar(NAME)["name"] == NAME
    put(files, LATER)
    assert BackupStore(url, ArchiveKeys(KEY)).size(LATER) == len(ZIP)
    with pytest.raises(UnknownKey):
        files.sidecar(OTHERS)


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_no_backup_stands_in_for_another(tmp_path: Path, suffix: str) -> None:
    """Neither an older one of the same session, nor one of another session."""
    files = BackupStore(f"file://{tmp_path}", ArchiveKeys(KEY))
    for name in (NAME, LATER, OTHERS):
        put(files, name)
    for other in (tmp_path / "abcd1234" / NAME, tmp_path / "bbbb0000" / OTHERS):
        shutil.copy(f"{other}{suffix}", tmp_path / "abcd1234" / f"{LATER}{suffix}")
        with pytest.raises(ArchiveError, match="damaged"):
            files.sidecar(LATER) if suffix else files.open(LATER)


def test_no_plain_zip_stands_in_for_an_encrypted_one(tmp_path: Path) -> None:
    """Whoever can write to the store has no key."""
    files = BackupStore(f"file://{tmp_path}", ArchiveKeys(KEY))
    put(files)
    (tmp_path / "abcd1234" / NAME).write_bytes(ZIP)
    for call in (files.open, files.size, lambda name: files.read(name, 0, 1)):
        with pytest.raises(ArchiveError, match="not written with a key"):
            call(NAME)


def test_what_is_foreign_or_can_not_be_read_hides_no_backup(tmp_path: Path) -> None:
    """Files of others, a backup in another session's folder, a file where a folder should be."""
    files = BackupStore(f"file://{tmp_path}", ArchiveKeys(KEY))
    put(files)
    for path in ("README", "cccc0000", "abcd1234/notes.txt", "abcd1234/points/p1.json", f"bbbb0000/{LATER}"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"?")
    (tmp_path / "bbbb0000" / f"{LATER}.json").write_bytes(b"{}")
    (tmp_path / "dddd0000").symlink_to("nowhere")
    assert files.names() == [NAME]
    assert files.sweep_parts(2e9) == 0
    with pytest.raises(BackupNotFound):
        files.open(LATER)


def test_preparing_makes_the_folder_for_the_service_alone_and_may_be_repeated(tmp_path: Path) -> None:
    """Before a Job is given nothing but that folder."""
    files = BackupStore(f"file://{tmp_path}/store", ArchiveKeys(KEY))
    for _ in range(2):
        files.prepare("abcd1234")
    folder = tmp_path / "store" / "abcd1234"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert files.key_ids() == ArchiveKeys(KEY).ids
