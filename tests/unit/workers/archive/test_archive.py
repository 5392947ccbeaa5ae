"""A backup brings back every file as it was, and a restore does nothing but that."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.core.backups.store import BackupStore, backup_name, session_of
from app.core.errors import ArchiveError, BackupNotFound, NoSpace, PermanentError, RetryableError
from app.core.sessions.model import Identity
from tests.deep_tree import DeepTrees
from workers.archive import restore, restore_backup, sparse, walking, write, write_backup
from workers.archive.format import FORMAT_VERSION, open_below, original_path, stays_inside, stored_name
from workers.archive.replace import DRAFT, clear, draft, put_in_place
from workers.rmtree import delete_tree
from workers.runtime.base import BackupSummary

NOW = 1_763_625_600.0
NAME = backup_name("abcd1234", NOW)
IDENTITY = Identity(uuid="abcd1234", user_id="ann@example.org", created_at=NOW - 60, size="large", labels={"team": "x"})
NOBODY = 65534
GIB = 1 << 30


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to restore to: a folder with one file, which must survive every refusal."""
    folder = tmp_path / "session" / "app"
    folder.mkdir(parents=True)
    (folder / "before.txt").write_text("before")
    return folder


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"a disk of its own needs the right to mount one: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=60)
        folder.rmdir()


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder anyone may write to, with the rights of a user who is not root."""
    folder = Path(tempfile.mkdtemp(prefix="unprivileged-"))
    folder.chmod(0o777)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


def back_up(root: Path, store: BackupStore) -> BackupSummary:
    return write_backup(root, store, NAME, IDENTITY, NOW)


def bring_back(store: BackupStore, target: Path, max_bytes: int = GIB, max_entries: int = 100_000) -> None:
    restore_backup(store, NAME, target, max_bytes, max_entries)


def seen(root: Path) -> dict[bytes, tuple[int, int, bytes]]:
    """Everything below a folder: mode without the set-id and sticky bits, mtime in seconds, content or link target."""
    found = {}
    for folder, folders, names in os.walk(os.fsencode(root)):
        for name in folders + names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            content = b""
            if stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            mode = stat.S_IFMT(info.st_mode) | (info.st_mode & 0o777)
            found[os.path.relpath(path, os.fsencode(root))] = (mode, info.st_mtime_ns // 10**9, content)
    return found


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != ".publishing"]


# The round trip


def test_every_kind_of_file_comes_back_as_it_was(root: Path, store: BackupStore, target: Path) -> None:
    """Modes, exec bits, links (also dangling ones), empty folders, times and names survive."""
    (root / "empty").mkdir(mode=0o700)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (root / "deep" / "run.sh").chmod(0o755)
    (root / "deep" / "secret").write_text("s")
    (root / "deep" / "secret").chmod(0o600)
    (root / "deep" / "er" / "nothing").touch(mode=0o444)
    (root / "deep" / "up").symlink_to("../empty")
    (root / "dangling").symlink_to("no/such/file")
    (root / "python").symlink_to("/usr/bin/python3")
    (root / "Grüße 世界 🎉").write_text("hello")
    for number, name in enumerate(
        [b"caf\xe9", b"back\\slash", b"c:drive", "private \uef80\uef5c".encode(), b"new\nline"]
    ):
        with open(os.path.join(os.fsencode(root), name), "wb") as file:
            file.write(b"%d" % number)
    os.chmod(root / "deep", 0o555)
    os.utime(root / "empty", (1_000_000_001, 1_000_000_001))
    expected = seen(root)

    back_up(root, store)
    bring_back(store, target)

    assert seen(target) == expected


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (1_234_567_891, 1_234_567_891),
        (0, 0),
        (-86_400, -86_400),
        (2**31 - 1, 2**31 - 1),
        (2**31 + 5, 2**31 - 1),
        (-(2**31), -(2**31)),
    ],
)
def test_times_are_kept_to_the_second_from_1901_to_2038(
    root: Path, store: BackupStore, target: Path, written: int, kept: int
) -> None:
    """Beyond what a zip can hold the nearest time is kept, and nothing fails."""
    (root / "file").write_text("x")
    os.utime(root / "file", (written, written))
    back_up(root, store)
    bring_back(store, target)
    assert (target / "file").stat().st_mtime == kept


def test_set_id_and_sticky_bits_are_not_brought_back(root: Path, store: BackupStore, target: Path) -> None:
    """A restored file belongs to somebody else, to whom they would give rights."""
    (root / "tool").write_text("x")
    (root / "tool").chmod(0o6755)
    (root / "shared").mkdir()
    (root / "shared").chmod(0o1777)
    back_up(root, store)
    bring_back(store, target)
    assert stat.S_IMODE((target / "tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "shared").stat().st_mode) == 0o777


NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
LEAVES = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=200), st.sampled_from([0o644, 0o755, 0o600, 0o400])),
    st.tuples(
        st.just("link"), st.binary(min_size=1, max_size=30).filter(lambda target: b"\0" not in target), st.just(0)
    ),
)
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(LEAVES, inner), max_size=4),
    max_leaves=12,
)


def plant(folder: bytes, tree: dict[bytes, Any]) -> None:
    for name, node in tree.items():
        path = os.path.join(folder, name)
        if isinstance(node, dict):
            os.mkdir(path)
            plant(path, node)
            continue
        kind, content, mode = node
        if kind == "link":
            os.symlink(content, path)
            continue
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)


@given(tree=TREES)
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.slow
def test_any_tree_comes_back(tree: dict[bytes, Any]) -> None:
    """Whatever the names, links and folders: what was backed up is what is restored."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "app"
        root.mkdir()
        plant(os.fsencode(root), tree)
        expected = seen(root)
        store = BackupStore(f"file://{scratch}/store")
        summary = back_up(root, store)
        bring_back(store, Path(scratch) / "restored")
        assert seen(Path(scratch) / "restored") == expected
        assert summary.files == sum(not stat.S_ISDIR(mode) for mode, _, _ in expected.values())
        assert not leftovers(Path(scratch))


@given(path=NAMES.map(os.fsdecode))
def test_a_stored_name_is_text_without_separators_and_gives_back_the_path(path: str) -> None:
    """No two paths share a stored name, and none of them is refused at restore."""
    name = stored_name(path)
    assert name.encode()
    assert "\\" not in name and original_path(name) == path


def test_unzip_reads_it(root: Path, store: BackupStore, tmp_path: Path) -> None:
    """Without this service, any `unzip` brings back files, modes, links and UTF-8 names."""
    (root / "folder").mkdir()
    (root / "folder" / "Grüße.sh").write_text("echo 1\n" * 1000)
    (root / "folder" / "Grüße.sh").chmod(0o750)
    (root / "link").symlink_to("folder/Grüße.sh")
    (root / "empty").mkdir()
    (root / "old").write_text("x")
    os.utime(root / "old", (1_000_000_001, 1_000_000_001))
    expected = seen(root)
    back_up(root, store)
    plain = tmp_path / "plain"
    archive = str(tmp_path / "store" / session_of(NAME) / NAME)
    subprocess.run(["unzip", "-tq", archive], check=True, timeout=60, capture_output=True)
    command = ["unzip", "-q", archive, "-d", str(plain)]
    subprocess.run(command, check=True, timeout=60, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    found = seen(plain)
    # unzip leaves a link's own time alone
    assert {path: (mode, content) for path, (mode, _, content) in found.items()} == {
        path: (mode, content) for path, (mode, _, content) in expected.items()
    }
    assert found[b"old"] == expected[b"old"]


@pytest.mark.slow
def test_a_file_over_4_gib_comes_back(monkeypatch: pytest.MonkeyPatch, store: BackupStore, target: Path) -> None:
    """Its size needs zip64; its zeros come back as holes, so that the disk need not hold 4 GiB."""
    size = 4 * GIB + 12_345
    monkeypatch.setattr(sparse, "WORTH", 2 * size)
    # In memory, where it can be: reading a hole costs nothing there, on a disk 4 GiB of page cache.
    with tempfile.TemporaryDirectory(dir=next(filter(os.path.isdir, ["/dev/shm", "/tmp"]))) as folder:
        with open(Path(folder) / "huge", "wb") as file:
            file.truncate(size - 3)
            file.seek(size - 3)
            file.write(b"end")
        summary = back_up(Path(folder), store)
    assert (summary.content_bytes, summary.files) == (size, 1)
    bring_back(store, target, max_bytes=5 * GIB)
    with open(target / "huge", "rb") as file:
        file.seek(size - 4)
        assert (file.read(), os.fstat(file.fileno()).st_size) == (b"\0end", size)
        assert os.fstat(file.fileno()).st_blocks * 512 < GIB


@pytest.mark.slow
def test_more_entries_than_a_classic_zip_holds_come_back(root: Path, store: BackupStore, target: Path) -> None:
    """Over 65,535 entries need zip64 too."""
    count = 65_600
    folder = os.open(root, os.O_RDONLY)
    for number in range(count):
        os.mkfifo(f"{number}.fifo", dir_fd=folder) if number % 20_000 == 7 else os.symlink(
            "x", str(number), dir_fd=folder
        )
    os.close(folder)
    summary = back_up(root, store)
    bring_back(store, target)
    assert summary.files == len(os.listdir(target)) == count - 4


def test_the_sidecar_says_whose_it_is_and_what_is_in_it(root: Path, store: BackupStore) -> None:
    """Enough to rebuild the index and to restore with the session's size and labels."""
    (root / "a").write_bytes(b"12345")
    (root / "b").symlink_to("a")
    summary = back_up(root, store)
    sidecar = store.sidecar(NAME)
    with store.open(NAME) as stored:
        content = stored.read()
    assert (summary.size, summary.files, summary.content_bytes) == (len(content), 2, 5)
    assert summary.sha256 == sha256(content).hexdigest()
    assert sidecar["user_id"] == "ann@example.org" and sidecar["created_at"] == NOW and sidecar["verified"] is True
    assert sidecar["identity"]["size"] == "large" and sidecar["identity"]["labels"] == {"team": "x"}
    assert sidecar["versions"]["archive"] == FORMAT_VERSION


def test_a_repeated_backup_of_the_same_name_changes_nothing(root: Path, store: BackupStore) -> None:
    """A task delivered twice finds its work done."""
    (root / "a").write_text("first")
    first = back_up(root, store)
    (root / "a").write_text("second, longer")
    assert back_up(root, store) == first


# A workspace that is not as one would wish


def test_what_is_no_file_is_left_out_and_listed(root: Path, store: BackupStore) -> None:
    """Sockets and FIFOs neither block nor fail a backup."""
    os.mkfifo(root / "pipe")
    (root / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)
        listener.bind("socket")
        os.chdir(here)
        summary = back_up(root, store)
    assert summary.files == 1
    assert store.sidecar(NAME)["skipped"] == ["pipe", "socket"]


def test_without_a_folder_there_is_nothing_to_back_up(tmp_path: Path, root: Path, store: BackupStore) -> None:
    """Neither when it is missing nor when a link stands in its place."""
    (tmp_path / "link").symlink_to(root)
    for path in (tmp_path / "missing", tmp_path / "link"):
        with pytest.raises(PermanentError):
            back_up(path, store)


class Meddler:
    """Changes the workspace between two of the backup's system calls: `before_open` is called before,
    `before_read` after a file was opened, each with the number of times it was called before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.name = path.name
        self.before_open: Callable[[int], object] = lambda count: None
        self.before_read: Callable[[int], object] = lambda count: None
        self.opened = self.read = 0
        self._open = write.open_file
        monkeypatch.setattr(write, "open_file", self)

    @contextmanager
    def __call__(self, folder: int, name: str) -> Iterator[Any]:
        if name != self.name:
            with self._open(folder, name) as file:
                yield file
            return
        self.before_open(self.opened)
        self.opened += 1
        with self._open(folder, name) as file:
            yield MeddledFile(file, self)


class MeddledFile:
    def __init__(self, file: BinaryIO, meddler: Meddler) -> None:
        self._file, self._meddler = file, meddler
        self.fileno, self.seek = file.fileno, file.seek

    def read(self, size: int) -> bytes:
        self._meddler.before_read(self._meddler.read)
        self._meddler.read += 1
        return self._file.read(size)


def append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def test_a_file_that_changes_once_while_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, target: Path
) -> None:
    """The second look is whole, so nothing is recorded."""
    log = root / "log"
    log.write_text("one ")
    meddler = Meddler(monkeypatch, log)
    meddler.before_read = lambda count: append(log, "two ") if count == 0 else None
    summary = back_up(root, store)
    bring_back(store, target)
    assert (summary.changed, (target / "log").read_text()) == ((), "one two ")


def test_a_file_that_never_holds_still_is_kept_and_recorded(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, target: Path
) -> None:
    """The backup is good, and says which of its files was moving."""
    log = root / "log"
    log.write_text("one ")
    meddler = Meddler(monkeypatch, log)
    meddler.before_read = lambda count: append(log, "more ")
    summary = back_up(root, store)
    bring_back(store, target)
    assert summary.changed == ("log",) == tuple(store.sidecar(NAME)["changed"])
    assert (target / "log").read_text().startswith("one more")


@pytest.mark.parametrize("change", ["grows", "shrinks"])
@pytest.mark.parametrize("always", [False, True])
def test_a_large_file_that_changes_is_read_again_from_the_start(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, target: Path, change: str, always: bool
) -> None:
    """It is streamed, so the whole zip is written again; if it changes again, that is recorded."""
    large = root / "large"
    large.write_bytes(b"a" * 9_000_000)
    (root / "small").write_text("s")
    meddler = Meddler(monkeypatch, large)

    def meddle(count: int) -> None:
        if count == 2 or always:
            append(large, "b") if change == "grows" else os.truncate(large, 8_500_000)

    meddler.before_read = meddle
    summary = back_up(root, store)
    bring_back(store, target)
    assert summary.changed == (("large",) if always else ())
    assert (target / "large").read_bytes().startswith(b"a" * 8_500_000)
    assert summary.content_bytes == (target / "large").stat().st_size + 1


def test_a_file_that_vanishes_is_passed_over_and_recorded(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore
) -> None:
    """Deleting files must not fail a running workspace's backup."""
    (root / "a").write_text("gone soon")
    (root / "b").write_text("stays")
    Meddler(monkeypatch, root / "a").before_open = lambda count: (root / "a").unlink()
    summary = back_up(root, store)
    assert (summary.files, summary.changed) == (1, ("a",))


@pytest.mark.parametrize("trap", ["link", "fifo"])
def test_a_file_replaced_by_a_trap_is_neither_followed_nor_waited_for(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, tmp_path: Path, trap: str
) -> None:
    """A workspace can't smuggle the manager's files into its backup, nor hang it."""
    (tmp_path / "secret").write_text("of the manager")
    file = root / "file"
    file.write_text("x")

    def replace(count: int) -> None:
        file.unlink()
        file.symlink_to(tmp_path / "secret") if trap == "link" else os.mkfifo(file)

    Meddler(monkeypatch, file).before_open = replace
    summary = back_up(root, store)
    assert (summary.files, summary.changed) == (0, ("file",))


def test_a_folder_replaced_by_a_link_is_not_entered(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, tmp_path: Path
) -> None:
    """Not even when it happens after the folder was listed."""
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "secret").write_text("s")
    (root / "folder").mkdir()
    opened = open_below

    def swapping(top: int, path: str) -> int:
        if path == "folder":
            (root / "folder").rmdir()
            (root / "folder").symlink_to(tmp_path / "others")
        return opened(top, path)

    monkeypatch.setattr(walking, "open_below", swapping)
    summary = back_up(root, store)
    assert (summary.files, summary.changed) == (0, ("folder",))


# A store that fails


def test_a_full_disk_fails_the_backup_and_keeps_the_older_one(root: Path, small_disk: Path) -> None:
    """It says so, and leaves no half of a backup that would keep the disk full."""
    store = BackupStore(f"file://{small_disk}/store")
    (root / "a").write_bytes(os.urandom(300_000))
    older = backup_name("abcd1234", NOW - 60)
    write_backup(root, store, older, IDENTITY, NOW - 60)
    (root / "b").write_bytes(os.urandom(3_000_000))
    with pytest.raises(NoSpace, match="full.*older backup are untouched"):
        back_up(root, store)
    assert store.exists(older) and not store.exists(NAME) and not leftovers(small_disk / "store")
    assert (root / "b").stat().st_size == 3_000_000


class RottenFiles(BackupStore):
    """A store that keeps something else than was written: `spoil` gets the stored bytes to change."""

    def __init__(self, url: str, spoil: Callable[[bytearray], object]) -> None:
        super().__init__(url)
        self.spoil = spoil

    def _finish(self, stream: BinaryIO) -> None:
        super()._finish(stream)
        path = Path(stream.path)  # type: ignore[attr-defined]
        content = bytearray(path.read_bytes())
        self.spoil(content)
        path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [lambda content: content.__setitem__(40, content[40] ^ 1), lambda content: content.pop()],
    ids=["bit", "end"],
)
def test_a_store_that_keeps_other_bytes_gets_no_backup(
    root: Path, tmp_path: Path, spoil: Callable[[bytearray], object]
) -> None:
    """Verification reads what is stored, not what was sent."""
    (root / "a").write_text("content " * 50)
    rotten = RottenFiles(f"file://{tmp_path}/store", spoil)
    with pytest.raises(RetryableError, match="stored incorrectly"):
        back_up(root, rotten)
    assert not rotten.exists(NAME) and not leftovers(tmp_path / "store")


def test_a_compressor_that_fails_is_found_out(monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore) -> None:
    """Every CRC is compared, so even what was written wrongly is no backup."""

    class Wrong:
        def compress(self, data: bytes) -> bytes:
            return b""

        def flush(self) -> bytes:
            return b"\x03\x00"

    monkeypatch.setattr(write, "_compressor", Wrong)
    (root / "a").write_text("content")
    with pytest.raises(ArchiveError, match="cannot be read back"):
        back_up(root, store)
    assert not store.exists(NAME)


# Refusals: zips made by hand


def member(name: str, content: bytes = b"", mode: int = stat.S_IFREG | 0o644) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info, content


def link(name: str, to: str) -> tuple[zipfile.ZipInfo, bytes]:
    return member(name, to.encode(), stat.S_IFLNK | 0o777)


def put(store: BackupStore, *members: tuple[zipfile.ZipInfo, bytes], spoil: Callable[[bytes], bytes] = bytes) -> None:
    """Store such a zip with a sidecar that vouches for it, as only someone with the store's rights could."""
    made = BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        for info, content in members:
            archive.writestr(info, content)
    content = spoil(made.getvalue())
    with store.writing(NAME) as part:
        part.write(content)
        part.commit({"name": NAME, "sha256": sha256(content).hexdigest(), "size": len(content)})


GOOD = member("good.txt", b"good")

REFUSED = {
    "absolute path": [member("/etc/evil")],
    "parent path": [member("../evil")],
    "parent in the middle": [member("a/../../evil")],
    "current folder": [member("./evil")],
    "empty part": [member("a//evil")],
    "root itself": [member("/", mode=stat.S_IFDIR | 0o755)],
    "backslash": [member("..\\evil")],
    "drive": [member("C:/evil")],
    "twice": [member("a"), member("a")],
    "twice by another spelling": [member("\u00e9"), member("\uefc3\uefa9")],
    "file and folder": [member("a"), member("a/", mode=stat.S_IFDIR | 0o755)],
    "absolute link": [link("a", "/etc/passwd")],
    "link upwards": [link("a", "../../etc/passwd")],
    "link upwards from a folder": [link("a/b", "../../evil")],
    "link through a link": [link("a", "."), link("b", "a/../../evil")],
    "link to nothing": [link("a", "")],
    "long link": [link("a", "x" * 5000)],
    "below a link": [link("a", "b"), member("b/", mode=stat.S_IFDIR | 0o755), member("a/evil")],
    "below a link that comes later": [member("a/evil"), link("a", "b")],
    "below a file": [member("a"), member("a/b")],
    "device": [member("a", mode=stat.S_IFCHR | 0o666)],
    "fifo": [member("a", mode=stat.S_IFIFO | 0o666)],
    "folder named as a file": [member("a", mode=stat.S_IFDIR | 0o755)],
}


@pytest.mark.parametrize("members", REFUSED.values(), ids=REFUSED.keys())
def test_what_could_reach_outside_is_refused_and_nothing_changes(
    store: BackupStore, target: Path, members: list[tuple[zipfile.ZipInfo, bytes]]
) -> None:
    """Refused before anything is extracted, the good entries too."""
    put(store, GOOD, *members)
    with pytest.raises(ArchiveError, match="refused because of its entry"):
        bring_back(store, target)
    assert_untouched(target)


def assert_untouched(target: Path) -> None:
    assert [path.name for path in target.iterdir()] == ["before.txt"]
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert sorted(path.name for path in target.parent.parent.iterdir()) in (
        ["session", "store"],
        ["app", "session", "store"],
    )


def central(content: bytes) -> int:
    """Where the last entry of the directory begins."""
    return content.rindex(b"PK\x01\x02")


def lie_about_size(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[central(content) + 24 : central(content) + 28] = struct.pack("<I", 10)
    return bytes(changed)


def lie_about_crc(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[central(content) + 16] ^= 1
    return bytes(changed)


def claim_encryption(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[central(content) + 8] |= 1
    return bytes(changed)


def end_name_early(content: bytes) -> bytes:
    return content.replace(b"aXb", b"a\0b")


@pytest.mark.parametrize(
    "spoil", [lie_about_size, lie_about_crc, claim_encryption, end_name_early, lambda content: content[:-30]]
)
def test_a_zip_that_lies_or_is_broken_is_refused(
    store: BackupStore, target: Path, spoil: Callable[[bytes], bytes]
) -> None:
    """Even where its digest is the recorded one."""
    put(store, GOOD, member("aXb", b"x" * 1_000_000), spoil=spoil)
    with pytest.raises(ArchiveError):
        bring_back(store, target)
    assert_untouched(target)


def test_a_backup_that_is_not_what_was_recorded_is_refused(root: Path, store: BackupStore, target: Path) -> None:
    """A changed zip is no longer the one that was verified."""
    (root / "a").write_text("x")
    back_up(root, store)
    path = root.parent / "store" / session_of(NAME) / NAME
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArchiveError, match="damaged"):
        bring_back(store, target)
    assert [path.name for path in target.iterdir()] == ["before.txt"]


@pytest.mark.parametrize("limits", [{"max_bytes": 9}, {"max_entries": 1}])
def test_more_than_the_limits_is_refused(store: BackupStore, target: Path, limits: dict[str, int]) -> None:
    """The limits are counted over the whole zip; at the limit it is restored."""
    put(store, member("a", b"12345"), member("b", b"12345"))
    with pytest.raises(ArchiveError, match="at most"):
        bring_back(store, target, **limits)
    assert_untouched(target)
    bring_back(store, target, max_bytes=10, max_entries=2)
    assert (target / "b").read_bytes() == b"12345"


def test_a_backup_that_is_not_there_is_not_found(store: BackupStore, target: Path) -> None:
    with pytest.raises(BackupNotFound):
        bring_back(store, target)
    assert [path.name for path in target.iterdir()] == ["before.txt"]


def test_a_zip_of_other_tools_is_restored_with_common_modes(store: BackupStore, target: Path) -> None:
    """No Unix modes, no folders of their own, times only as DOS dates."""
    info = zipfile.ZipInfo("folder/file", date_time=(2001, 9, 9, 1, 46, 40))
    info.create_system = 0
    put(store, (info, b"x"))
    bring_back(store, target)
    restored = (target / "folder" / "file").stat()
    assert (stat.S_IMODE(restored.st_mode), restored.st_mtime) == (0o644, 1_000_000_000)


@pytest.mark.parametrize(
    ("path", "to", "inside"),
    [
        ("a", "b/c", True),
        ("x/a", "../b", True),
        ("x/y/a", "./..//../b", True),
        ("a", "../b", False),
        ("x/a", "../../b", False),
        ("x/a", "b/../c", False),
        ("a", "/", False),
    ],
)
def test_a_link_stays_inside_when_it_goes_up_no_further_than_the_root(path: str, to: str, inside: bool) -> None:
    """Going up behind a name counts as leaving: the name may be a link itself."""
    assert stays_inside(path, to) is inside


# All or nothing


def test_a_restore_replaces_the_folder_and_leaves_nothing_else(root: Path, store: BackupStore, target: Path) -> None:
    """What was there before is gone, and so are the work folders of runs that were killed."""
    (root / "a").write_text("x")
    killed = target.parent / ".restoring-killed"
    (killed / "new").mkdir(parents=True)
    (killed / "new" / "half").write_text("done")
    back_up(root, store)
    bring_back(store, target)
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.parent.iterdir()] == ["app"]


def test_a_full_disk_fails_the_restore_and_keeps_the_files(root: Path, store: BackupStore, small_disk: Path) -> None:
    """And frees what it had taken."""
    target = small_disk / "app"
    target.mkdir()
    (target / "before.txt").write_text("before")
    (root / "big").write_bytes(os.urandom(3_000_000))
    back_up(root, store)
    with pytest.raises(NoSpace, match="could not be restored. The existing files are unchanged"):
        bring_back(store, target)
    assert [path.name for path in small_disk.iterdir()] == ["app"]
    assert (target / "before.txt").read_text() == "before"


def test_a_swap_that_fails_puts_the_old_folder_back(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, target: Path
) -> None:
    """The second of its two renames is the dangerous one."""
    back_up(root, store)
    rename = os.rename

    def failing(source: Path, to: Path) -> None:
        if Path(source).parent.name == "new":
            raise OSError(5, "Input/output error")
        rename(source, to)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(RetryableError):
        bring_back(store, target)
    monkeypatch.undo()
    assert_untouched(target)


def test_two_restores_into_one_workspace_do_not_meet(store: BackupStore, target: Path) -> None:
    """The second is told to come back."""
    put(store, GOOD)
    with restore._alone(target.parent), pytest.raises(RetryableError, match="Another restore"):
        bring_back(store, target)
    assert_untouched(target)


def test_a_folder_that_forbids_writing_can_be_replaced(root: Path, store: BackupStore) -> None:
    """Some package caches are read-only to their own user; that must not keep the old files for ever."""
    back_up(root, store)
    with unprivileged() as folder:
        (folder / "app" / "cache" / "inner").mkdir(parents=True)
        (folder / "app" / "cache" / "inner" / "file").write_text("x")
        for path in ("app/cache/inner", "app/cache"):
            (folder / path).chmod(0o555)
        theirs = BackupStore(f"file://{folder}/store")
        back_up(folder / "app", theirs)
        for _ in range(2):
            bring_back(theirs, folder / "app")
        assert sorted(path.name for path in folder.iterdir()) == ["app", "store"]
        assert stat.S_IMODE((folder / "app" / "cache").stat().st_mode) == 0o555
        delete_tree(folder / "app")


def test_a_deep_tree_is_replaced_and_its_leftovers_are_deleted(tmp_path: Path, deep_trees: DeepTrees) -> None:
    """Deeper than the stack, and than a path can tell."""
    deep_trees(tmp_path / "app")
    deep_trees(tmp_path / f"{DRAFT}killed")
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["app"]
    with draft(tmp_path) as new:
        (new / "app").mkdir()
        put_in_place(new)
    assert [path.name for path in tmp_path.iterdir()] == ["app"] and list((tmp_path / "app").iterdir()) == []


def test_a_restore_needs_the_folder_around_its_target(store: BackupStore, tmp_path: Path) -> None:
    put(store, GOOD)
    with pytest.raises(PermanentError):
        bring_back(store, tmp_path / "missing" / "app")
