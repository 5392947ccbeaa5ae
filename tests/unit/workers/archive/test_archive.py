"""A backup brings back every file as it was, and a restore does nothing but that."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.core.backups.store import BackupStore, backup_name
from app.core.errors import ArchiveError, NoSpace, PermanentError, RetryableError
from tests.deep_tree import DeepTrees
from tests.unit.workers.archive.conftest import GIB, IDENTITY, NAME, NOW, Bench, meddle, unprivileged
from workers.archive import restore, sparse, walking, write, write_backup
from workers.archive.format import FORMAT_VERSION, open_below, original_path, stays_inside, stored_name
from workers.archive.replace import DRAFT, clear, draft, put_in_place
from workers.rmtree import delete_tree


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


# The round trip


def test_every_kind_of_file_comes_back_as_it_was(bench: Bench) -> None:
    """Modes, exec bits, links (also dangling ones), empty folders, times and names survive."""
    root = bench.root
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
    for name in (b"caf\xe9", b"back\\slash", b"c:drive", "private \uef80\uef5c".encode(), b"new\nline"):
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(name)
    os.chmod(root / "deep", 0o555)
    os.utime(root / "empty", (1_000_000_001, 1_000_000_001))
    expected = seen(root)
    bench.back_up()
    bench.bring_back()
    assert seen(bench.target) == expected


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
def test_times_are_kept_to_the_second_from_1901_to_2038(bench: Bench, written: int, kept: int) -> None:
    """Beyond what a zip can hold the nearest time is kept, and nothing fails."""
    (bench.root / "file").write_text("x")
    os.utime(bench.root / "file", (written, written))
    bench.back_up()
    bench.bring_back()
    assert (bench.target / "file").stat().st_mtime == kept


def test_set_id_and_sticky_bits_are_not_brought_back(bench: Bench) -> None:
    """A restored file belongs to somebody else, to whom they would give rights."""
    (bench.root / "tool").write_text("x")
    (bench.root / "tool").chmod(0o6755)
    (bench.root / "shared").mkdir()
    (bench.root / "shared").chmod(0o1777)
    bench.back_up()
    bench.bring_back()
    assert stat.S_IMODE((bench.target / "tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((bench.target / "shared").stat().st_mode) == 0o777


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
        bench = Bench(Path(scratch))
        plant(os.fsencode(bench.root), tree)
        expected = seen(bench.root)
        summary = bench.back_up()
        bench.bring_back()
        assert seen(bench.target) == expected
        assert summary.files == sum(not stat.S_ISDIR(mode) for mode, _, _ in expected.values())
        assert set(os.listdir(bench.place)) == {"app", ".session"}


@given(path=NAMES.map(os.fsdecode))
def test_a_stored_name_is_text_without_separators_and_gives_back_the_path(path: str) -> None:
    """No two paths share a stored name, and none of them is refused at restore."""
    name = stored_name(path)
    assert name.encode()
    assert "\\" not in name and original_path(name) == path


def test_unzip_reads_it(bench: Bench) -> None:
    """Without this service, any `unzip` brings back files, modes, links and UTF-8 names."""
    root, plain = bench.root, bench.folder / "plain"
    (root / "folder").mkdir()
    (root / "folder" / "Grüße.sh").write_text("echo 1\n" * 1000)
    (root / "folder" / "Grüße.sh").chmod(0o750)
    (root / "link").symlink_to("folder/Grüße.sh")
    (root / "empty").mkdir()
    (root / "old").write_text("x")
    os.utime(root / "old", (1_000_000_001, 1_000_000_001))
    expected = seen(root)
    bench.back_up()
    utf_8 = {**os.environ, "LC_ALL": "C.UTF-8"}
    for options in (["-tq", str(bench.stored)], ["-q", str(bench.stored), "-d", str(plain)]):
        subprocess.run(["unzip", *options], check=True, timeout=60, capture_output=True, env=utf_8)
    found = seen(plain)
    # unzip leaves a link's own time alone
    assert {path: (mode, content) for path, (mode, _, content) in found.items()} == {
        path: (mode, content) for path, (mode, _, content) in expected.items()
    }
    assert found[b"old"] == expected[b"old"]


@pytest.mark.slow
def test_a_file_over_4_gib_comes_back(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """Its size needs zip64; its zeros come back as holes, so that the disk need not hold 4 GiB."""
    size = 4 * GIB + 12_345
    monkeypatch.setattr(sparse, "WORTH", 2 * size)
    # In memory, where it can be: reading a hole costs nothing there, on a disk 4 GiB of page cache.
    with tempfile.TemporaryDirectory(dir=next(filter(os.path.isdir, ["/dev/shm", "/tmp"]))) as folder:
        bench.root = Path(folder)
        with open(bench.root / "huge", "wb") as file:
            file.truncate(size - 3)
            file.seek(size - 3)
            file.write(b"end")
        summary = bench.back_up()
    assert (summary.content_bytes, summary.files) == (size, 1)
    bench.bring_back(max_bytes=5 * GIB)
    with open(bench.target / "huge", "rb") as file:
        file.seek(size - 4)
        assert (file.read(), os.fstat(file.fileno()).st_size) == (b"\0end", size)
        assert os.fstat(file.fileno()).st_blocks * 512 < GIB


@pytest.mark.slow
def test_more_entries_than_a_classic_zip_holds_come_back(bench: Bench) -> None:
    """Over 65,535 entries need zip64 too."""
    for number in range(65_600):
        (bench.root / str(number)).symlink_to("x")
    for number in range(4):
        os.mkfifo(bench.root / f"{number}.fifo")
    summary = bench.back_up()
    bench.bring_back()
    assert summary.files == len(os.listdir(bench.target)) == 65_600


def test_the_sidecar_says_whose_it_is_and_what_is_in_it(bench: Bench) -> None:
    """Enough to rebuild the index and to restore with the session's size and labels."""
    (bench.root / "a").write_bytes(b"12345")
    (bench.root / "b").symlink_to("a")
    summary = bench.back_up()
    sidecar = bench.store.sidecar(NAME)
    with bench.store.open(NAME) as stored:
        content = stored.read()
    assert (summary.size, summary.files, summary.content_bytes) == (len(content), 2, 5)
    assert summary.sha256 == sha256(content).hexdigest()
    assert sidecar["user_id"] == "ann@example.org" and sidecar["created_at"] == NOW and sidecar["verified"] is True
    assert sidecar["identity"]["size"] == "large" and sidecar["identity"]["labels"] == {"team": "x"}
    assert sidecar["versions"]["archive"] == FORMAT_VERSION


def test_a_repeated_backup_of_the_same_name_changes_nothing(bench: Bench) -> None:
    """A task delivered twice finds its work done."""
    (bench.root / "a").write_text("first")
    first = bench.back_up()
    (bench.root / "a").write_text("second, longer")
    assert bench.back_up() == first


# A workspace that is not as one would wish


def test_what_is_no_file_is_left_out_and_listed(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """Sockets and FIFOs neither block nor fail a backup."""
    os.mkfifo(bench.root / "pipe")
    (bench.root / "file").write_text("x")
    monkeypatch.chdir(bench.root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert bench.back_up().files == 1
    assert bench.store.sidecar(NAME)["skipped"] == ["pipe", "socket"]


def test_without_a_folder_there_is_nothing_to_back_up(bench: Bench) -> None:
    """Neither when it is missing nor when a link stands in its place."""
    (bench.folder / "link").symlink_to(bench.root)
    for name in ("missing", "link"):
        bench.root = bench.folder / name
        with pytest.raises(PermanentError):
            bench.back_up()


def append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


@pytest.mark.parametrize(
    ("times", "changed", "content"), [(1, (), "one more "), (9, ("log",), "one more more m")], ids=["once", "always"]
)
def test_a_file_that_changes_while_read_is_read_again_and_kept_as_it_is_in_the_end(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, times: int, changed: tuple[str, ...], content: str
) -> None:
    """A look that is whole leaves nothing to record; of one that never holds still the backup says so."""
    log = bench.root / "log"
    log.write_text("one ")
    meddle(monkeypatch, log, before_read=lambda count: append(log, "more ") if count < times else None)
    assert bench.back_up().changed == changed == tuple(bench.store.sidecar(NAME)["changed"])
    bench.bring_back()
    assert (bench.target / "log").read_text() == content


@pytest.mark.parametrize("change", ["grows", "shrinks"])
@pytest.mark.parametrize("always", [False, True])
def test_a_large_file_that_changes_is_read_again_from_the_start(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, change: str, always: bool
) -> None:
    """It is streamed, so the whole zip is written again; if it changes again, that is recorded."""
    large = bench.root / "large"
    large.write_bytes(b"a" * 9_000_000)
    (bench.root / "small").write_text("s")

    def change_it(count: int) -> None:
        if count == 2 or always:
            append(large, "b") if change == "grows" else os.truncate(large, 8_500_000)

    meddle(monkeypatch, large, before_read=change_it)
    summary = bench.back_up()
    bench.bring_back()
    assert summary.changed == (("large",) if always else ())
    assert (bench.target / "large").read_bytes().startswith(b"a" * 8_500_000)
    assert summary.content_bytes == (bench.target / "large").stat().st_size + 1


def test_a_file_that_vanishes_is_passed_over_and_recorded(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """Deleting files must not fail a running workspace's backup."""
    (bench.root / "a").write_text("gone soon")
    (bench.root / "b").write_text("stays")
    meddle(monkeypatch, bench.root / "a", before_open=lambda count: (bench.root / "a").unlink())
    summary = bench.back_up()
    assert (summary.files, summary.changed) == (1, ("a",))


@pytest.mark.parametrize("trap", [lambda path: path.symlink_to(path.parents[2] / "secret"), os.mkfifo])
def test_a_file_replaced_by_a_trap_is_neither_followed_nor_waited_for(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, trap: Callable[[Path], None]
) -> None:
    """A workspace can't smuggle the manager's files into its backup, nor hang it."""
    (bench.folder / "secret").write_text("of the manager")
    file = bench.root / "file"
    file.write_text("x")

    def replace(count: int) -> None:
        file.unlink()
        trap(file)

    meddle(monkeypatch, file, before_open=replace)
    summary = bench.back_up()
    assert (summary.files, summary.changed) == (0, ("file",))


def test_a_folder_replaced_by_a_link_is_not_entered(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """Not even when it happens after the folder was listed."""
    (bench.folder / "others").mkdir()
    (bench.folder / "others" / "secret").write_text("s")
    (bench.root / "folder").mkdir()

    def swapping(top: int, path: str) -> int:
        if path == "folder":
            (bench.root / "folder").rmdir()
            (bench.root / "folder").symlink_to(bench.folder / "others")
        return open_below(top, path)

    monkeypatch.setattr(walking, "open_below", swapping)
    summary = bench.back_up()
    assert (summary.files, summary.changed) == (0, ("folder",))


# A store that fails


def test_a_full_disk_fails_the_backup_and_keeps_the_older_one(bench: Bench, small_disk: Path) -> None:
    """It says so, and leaves no half of a backup that would keep the disk full."""
    bench.store = BackupStore(f"file://{small_disk}/store")
    (bench.root / "a").write_bytes(os.urandom(300_000))
    older = backup_name("abcd1234", NOW - 60)
    write_backup(bench.root, bench.store, older, IDENTITY, NOW - 60)
    (bench.root / "b").write_bytes(os.urandom(3_000_000))
    with pytest.raises(NoSpace, match="full.*older backup are untouched"):
        bench.back_up()
    assert bench.store.exists(older) and not bench.store.exists(NAME)
    assert list((small_disk / "store").glob(".app-*")) == []
    assert (bench.root / "b").stat().st_size == 3_000_000


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
def test_a_store_that_keeps_other_bytes_gets_no_backup(bench: Bench, spoil: Callable[[bytearray], object]) -> None:
    """Verification reads what is stored, not what was sent."""
    (bench.root / "a").write_text("content " * 50)
    bench.store = RottenFiles(f"file://{bench.folder}/store", spoil)
    bench.refuse(RetryableError, "stored incorrectly")


def test_a_compressor_that_fails_is_found_out(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """Every CRC is compared, so even what was written wrongly is no backup."""

    class Wrong:
        def compress(self, data: bytes) -> bytes:
            return b""

        def flush(self) -> bytes:
            return b"\x03\x00"

    monkeypatch.setattr(write, "_compressor", Wrong)
    (bench.root / "a").write_text("content")
    bench.refuse(ArchiveError, "cannot be read back")


# Refusals: zips made by hand


def member(name: str, content: bytes = b"", mode: int = stat.S_IFREG | 0o644) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info, content


def link(name: str, to: str) -> tuple[zipfile.ZipInfo, bytes]:
    return member(name, to.encode(), stat.S_IFLNK | 0o777)


def folder(name: str) -> tuple[zipfile.ZipInfo, bytes]:
    return member(name, mode=stat.S_IFDIR | 0o755)


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
    "root itself": [folder("/")],
    "backslash": [member("..\\evil")],
    "drive": [member("C:/evil")],
    "twice": [member("a"), member("a")],
    "twice by another spelling": [member("\u00e9"), member("\uefc3\uefa9")],
    "file and folder": [member("a"), folder("a/")],
    "absolute link": [link("a", "/etc/passwd")],
    "link upwards": [link("a", "../../etc/passwd")],
    "link upwards from a folder": [link("a/b", "../../evil")],
    "link through a link": [link("a", "."), link("b", "a/../../evil")],
    "link to nothing": [link("a", "")],
    "long link": [link("a", "x" * 5000)],
    "below a link": [link("a", "b"), folder("b/"), member("a/evil")],
    "below a link that comes later": [member("a/evil"), link("a", "b")],
    "below a file": [member("a"), member("a/b")],
    "device": [member("a", mode=stat.S_IFCHR | 0o666)],
    "fifo": [member("a", mode=stat.S_IFIFO | 0o666)],
    "folder named as a file": [folder("a")],
}


@pytest.mark.parametrize("members", REFUSED.values(), ids=REFUSED.keys())
def test_what_could_reach_outside_is_refused_and_nothing_changes(
    bench: Bench, members: list[tuple[zipfile.ZipInfo, bytes]]
) -> None:
    """Refused before anything is extracted, the good entries too."""
    put(bench.store, GOOD, *members)
    with pytest.raises(ArchiveError, match="refused because of its entry"):
        bench.bring_back()
    bench.expect_untouched()


def changed(content: bytes, at: int, to: bytes) -> bytes:
    """With other bytes there in the directory's last entry."""
    at += content.rindex(b"PK\x01\x02")
    return content[:at] + to + content[at + len(to) :]


LIES: dict[str, Callable[[bytes], bytes]] = {
    "size": lambda content: changed(content, 24, struct.pack("<I", 10)),
    "CRC": lambda content: changed(content, 16, b"\0\0\0\0"),
    "encryption": lambda content: changed(content, 8, b"\1"),
    "name that ends early": lambda content: content.replace(b"aXb", b"a\0b"),
    "end": lambda content: content[:-30],
}


@pytest.mark.parametrize("spoil", LIES.values(), ids=LIES.keys())
def test_a_zip_that_lies_or_is_broken_is_refused(bench: Bench, spoil: Callable[[bytes], bytes]) -> None:
    """Even where its digest is the recorded one."""
    put(bench.store, GOOD, member("aXb", b"x" * 1_000_000), spoil=spoil)
    with pytest.raises(ArchiveError):
        bench.bring_back()
    bench.expect_untouched()


def test_a_backup_that_is_not_what_was_recorded_is_refused(bench: Bench) -> None:
    """A changed zip is no longer the one that was verified."""
    bench.back_up()
    with open(bench.stored, "ab") as file:
        file.write(b"\0")
    with pytest.raises(ArchiveError, match="damaged"):
        bench.bring_back()
    bench.expect_untouched()


@pytest.mark.parametrize("limits", [{"max_bytes": 9}, {"max_entries": 1}])
def test_more_than_the_limits_is_refused(bench: Bench, limits: dict[str, Any]) -> None:
    """The limits are counted over the whole zip; at the limit it is restored."""
    put(bench.store, member("a", b"12345"), member("b", b"12345"))
    with pytest.raises(ArchiveError, match="at most"):
        bench.bring_back(**limits)
    bench.expect_untouched()
    bench.bring_back(max_bytes=10, max_entries=2)
    assert (bench.target / "b").read_bytes() == b"12345"


def test_a_zip_of_other_tools_is_restored_with_common_modes(bench: Bench) -> None:
    """No Unix modes, no folders of their own, times only as DOS dates."""
    info = zipfile.ZipInfo("folder/file", date_time=(2001, 9, 9, 1, 46, 40))
    info.create_system = 0
    put(bench.store, (info, b"x"))
    bench.bring_back()
    restored = (bench.target / "folder" / "file").stat()
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


def test_a_restore_replaces_the_folder_and_leaves_nothing_else(bench: Bench) -> None:
    """What was there before is gone, and so are the work folders of runs that were killed."""
    (bench.root / "a").write_text("x")
    (bench.place / ".restoring-killed/new").mkdir(parents=True)
    (bench.place / ".restoring-killed/new/half").write_text("done")
    bench.back_up()
    bench.bring_back()
    assert os.listdir(bench.target) == ["a"]
    assert set(os.listdir(bench.place)) == {"app", ".session"}


def test_a_full_disk_fails_the_restore_and_keeps_the_files(bench: Bench, small_disk: Path) -> None:
    """And frees what it had taken."""
    bench.target = small_disk / "app"
    bench.target.mkdir()
    (bench.target / "before.txt").write_text("before")
    (bench.root / "big").write_bytes(os.urandom(3_000_000))
    bench.back_up()
    with pytest.raises(NoSpace, match="could not be restored. The existing files are unchanged"):
        bench.bring_back()
    assert os.listdir(small_disk) == ["app"]
    assert (bench.target / "before.txt").read_text() == "before"


def test_two_restores_into_one_workspace_do_not_meet(bench: Bench) -> None:
    """The second is told to come back."""
    put(bench.store, GOOD)
    with restore._alone(bench.place), pytest.raises(RetryableError, match="Another restore"):
        bench.bring_back()
    bench.expect_untouched()


def test_a_folder_that_forbids_writing_can_be_replaced() -> None:
    """Some package caches are read-only to their own user; that must not keep the old files for ever."""
    with unprivileged() as place:
        bench = Bench(place)
        cache = bench.root / "cache"
        (cache / "inner").mkdir(parents=True)
        (cache / "inner" / "file").write_text("x")
        for path in (cache / "inner", cache):
            path.chmod(0o555)
        bench.back_up()
        bench.target = bench.root
        for _ in range(2):
            bench.bring_back()
        assert os.listdir(bench.root.parent) == ["app"]
        assert stat.S_IMODE(cache.stat().st_mode) == 0o555
        delete_tree(bench.root)


def test_a_deep_tree_is_replaced_and_its_leftovers_are_deleted(tmp_path: Path, deep_trees: DeepTrees) -> None:
    """Deeper than the stack, and than a path can tell."""
    deep_trees(tmp_path / "app")
    deep_trees(tmp_path / f"{DRAFT}killed")
    clear(tmp_path)
    assert os.listdir(tmp_path) == ["app"]
    with draft(tmp_path) as new:
        (new / "app").mkdir()
        put_in_place(new)
    assert os.listdir(tmp_path) == ["app"] and os.listdir(tmp_path / "app") == []


def test_a_restore_needs_the_folder_around_its_target(bench: Bench) -> None:
    put(bench.store, GOOD)
    bench.target = bench.folder / "missing" / "app"
    with pytest.raises(PermanentError):
        bench.bring_back()
