"""Folders as archives, out and in: what is packed comes back as it was, and no archive gets out of its folder."""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import io
import os
import random
import stat
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from app.agent.files import archives, leases, packing, trees, unpacking
from app.agent.files.faults import FileError
from app.agent.files.leases import ABANDONED
from app.agent.files.trees import Trees
from app.agent.files.uploads import Unknown
from app.agent.files.writing import Files
from app.agent.protocol import FILE_PIECE, ArchiveFormat, FileFault
from app.agent.tools.sandbox_path import DEPTH, Workspace
from tests.waiting import wait_for

TAR_GZ, ZIP = ArchiveFormat.TAR_GZ, ArchiveFormat.ZIP
BOTH = pytest.mark.parametrize("how", [TAR_GZ, ZIP])

LONG = random.Random(7).randbytes(2 * packing.BLOCK + 7)


class Place:
    """A workspace's folder, and the one beside it for what is under way."""

    def __init__(self, folder):
        self.app, self.kept = folder / "app", folder / ".uploads"
        self.app.mkdir()
        self.now = [0.0]
        self.workspace = Workspace(self.app)
        self.files = Files(self.workspace, self.kept)
        self.trees = Trees(self.workspace, self.files, clock=lambda: self.now[0])

    def packed(self, how, path="."):
        id_, made = self.trees.begin(path, how), b""
        while piece := self.trees.read(id_, len(made)):
            assert len(piece) <= FILE_PIECE
            assert self.trees.read(id_, len(made)) == piece
            made += piece
        self.trees.drop(id_)
        return made

    def upload(self, archive):
        id_ = self.files.uploads.begin()
        for offset in range(0, len(archive), FILE_PIECE):
            self.files.uploads.append(id_, offset, archive[offset : offset + FILE_PIECE])
        return id_

    def unpacked(self, how, archive, path="."):
        self.trees.check(path)
        id_ = self.upload(archive)
        while not (unpacked := self.trees.unpack(id_, path, how, len(archive))).done:
            pass
        assert self.trees.unpack(id_, path, how, len(archive)) == unpacked
        self.trees.drop(id_)
        return unpacked.files, unpacked.bytes

    def refused(self, fault, how, archive, path="."):
        before = self.tree()
        with pytest.raises(FileError) as caught:
            self.unpacked(how, archive, path)
        assert caught.value.fault is fault, caught.value
        assert self.tree() == before
        self.check_nothing_left()
        return str(caught.value)

    def check_nothing_left(self):
        wait_for(lambda: os.listdir(self.kept) == [], "what was under way to be deleted")

    def tree(self, path="."):
        return tree_of(self.app / path)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def tree_of(folder):
    """Each path below a folder with its permissions and content."""
    root = os.fsencode(folder)
    found: dict[bytes, tuple[object, ...]] = {}
    for above, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = os.path.join(above, name)
            status = os.lstat(path)
            content = stat.S_IFMT(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                found[os.path.relpath(path, root)] = content, os.readlink(path)
            else:
                data = Path(os.fsdecode(path)).read_bytes() if stat.S_ISREG(status.st_mode) else b""
                found[os.path.relpath(path, root)] = content, stat.S_IMODE(status.st_mode), data
    return found


def fill(app):
    (app / "src" / "deep").mkdir(parents=True)
    (app / "empty").mkdir(mode=0o700)
    (app / "src" / "main.py").write_text("print('hi')\n")
    (app / "src" / "run me").write_text("#!/bin/sh\n")
    (app / "src" / "run me").chmod(0o755)
    (app / "src" / "deep" / "new\nline").write_bytes(LONG)
    (app / "none").touch()
    (app / "link").symlink_to("src/main.py")
    (app / "away").symlink_to("/etc/passwd")
    (app / "ü").write_text("ü")
    os.utime(app / "none", (1_600_000_000, 1_600_000_000))


def tar(*members, how="w:gz", **options):
    """An archive of (name or TarInfo, content), made by the library."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=how, **options) as archive:
        for member, content in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            if content is not None:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content or b""))
    return made.getvalue()


def info(name, kind=tarfile.REGTYPE, **fields):
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return made.getvalue()


def zip_info(name, mode):
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


@BOTH
def test_what_is_packed_comes_back_as_it_was(place, how):
    fill(place.app)
    before = place.tree()
    archive = place.packed(how)
    assert place.unpacked(how, archive, "copy/of it") == (7, len(LONG) + 12 + 10 + 2)
    assert place.tree("copy/of it") == before
    assert int((place.app / "copy/of it/none").stat().st_mtime) == 1_600_000_000
    place.check_nothing_left()


def test_any_name_survives_in_a_tar(place):
    name = os.fsdecode(b"no \xff text" + b"x" * 200)
    (place.app / name).write_text("1")
    (place.app / "to").symlink_to(name)
    before = place.tree()
    place.unpacked(TAR_GZ, place.packed(TAR_GZ), "copy")
    assert place.tree("copy") == before
    place.unpacked(ZIP, place.packed(ZIP, "copy"), "other")
    assert {name.decode() for name in place.tree("other")} == {"no \ufffd text" + "x" * 200, "to"}


@BOTH
def test_common_programs_read_what_is_packed_and_make_what_is_unpacked(place, how, tmp_path):
    fill(place.app)
    (tmp_path / "archive").write_bytes(place.packed(how))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    if how is ZIP:
        with zipfile.ZipFile(tmp_path / "archive") as archive:
            assert archive.testzip() is None
            assert archive.read("src/deep/new\nline") == LONG
        return
    subprocess.run(["tar", "-xpzf", tmp_path / "archive", "-C", theirs], check=True, timeout=60)
    assert tree_of(theirs) == place.tree()
    made = subprocess.run(["tar", "-cz", "-C", theirs, "."], check=True, timeout=60, capture_output=True).stdout
    place.unpacked(how, made, "copy")
    assert place.tree("copy") == tree_of(theirs)


@BOTH
def test_a_part_of_the_workspace(place, how):
    fill(place.app)
    place.unpacked(how, place.packed(how, "src"), "copy")
    assert place.tree("copy") == place.tree("src")
    (place.app / "to").symlink_to("src")
    place.unpacked(how, place.packed(how, "to"), "other")
    assert place.tree("other") == place.tree("src")


@BOTH
def test_what_is_no_folder_is_refused(place, how):
    fill(place.app)
    for path, fault in (
        ("none", FileFault.NOT_A_FILE),
        ("away", FileFault.INVALID_PATH),
        ("..", FileFault.INVALID_PATH),
    ):
        for act in (lambda path: place.trees.begin(path, how), place.trees.check):
            with pytest.raises(FileError) as caught:
                act(path)
            assert caught.value.fault is fault
    with pytest.raises(FileError) as caught:
        place.trees.begin("missing", how)
    assert caught.value.fault is FileFault.FILE_NOT_FOUND
    place.trees.check("missing/too")


@BOTH
def test_devices_pipes_and_sockets_are_left_out(place, how):
    os.mkfifo(place.app / "pipe")
    (place.app / "file").touch()
    place.unpacked(how, place.packed(how), "copy")
    assert list(place.tree("copy")) == [b"file"]


@BOTH
def test_a_file_that_can_not_be_read_or_gets_shorter_ends_the_archive(place, how, monkeypatch):
    fill(place.app)
    real = os.pread

    def pread(file, most, offset):
        return b"" if offset else real(file, most, offset)

    monkeypatch.setattr(packing.os, "pread", pread)
    with pytest.raises(FileError, match="new\nline got shorter"):
        place.packed(how)

    def denied(file, most, offset):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(packing.os, "pread", denied)
    id_ = place.trees.begin(".", how)
    with pytest.raises(FileError, match="permission denied"):
        place.trees.read(id_, 0)
    with pytest.raises(Unknown):
        place.trees.read(id_, 0)


@BOTH
def test_a_file_that_grows_while_it_is_read_is_whole(place, how, monkeypatch):
    (place.app / "a").write_bytes(b"x" * 10)
    (place.app / "b").write_bytes(b"y")
    real = os.pread

    def pread(file, most, offset):
        (place.app / "a").write_bytes(LONG)
        return real(file, most, offset)

    monkeypatch.setattr(packing.os, "pread", pread)
    place.unpacked(how, place.packed(how), "copy")
    assert (place.app / "copy/a").read_bytes() == LONG[: packing.BLOCK]
    assert (place.app / "copy/b").read_bytes() == b"y"


def test_a_tree_that_is_too_deep_is_not_packed(place):
    folder = os.open(place.app, os.O_RDONLY)
    for _ in range(DEPTH + 1):
        os.mkdir("a", dir_fd=folder)
        below = os.open("a", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    with pytest.raises(FileError, match="too deep"):
        place.packed(TAR_GZ)


@BOTH
def test_files_of_the_same_names_are_replaced_and_others_stay(place, how):
    fill(place.app)
    archive = place.packed(how)
    (place.app / "src" / "main.py").write_text("other")
    (place.app / "src" / "mine").write_text("mine")
    (place.app / "link").unlink()
    (place.app / "link").write_text("a file")
    (place.app / "src").chmod(0o775)
    place.unpacked(how, archive)
    assert (place.app / "src" / "main.py").read_text() == "print('hi')\n"
    assert (place.app / "src" / "mine").read_text() == "mine"
    assert os.readlink(place.app / "link") == "src/main.py"
    assert stat.S_IMODE((place.app / "src").stat().st_mode) == 0o775


@BOTH
def test_a_folder_meets_no_file_and_nothing_is_moved_then(place, how):
    fill(place.app)
    archive = place.packed(how, "src")
    (place.app / "copy").mkdir()
    (place.app / "copy" / "deep").write_text("a file")
    assert "deep is no folder" in place.refused(FileFault.FILE_EXISTS, how, archive, "copy")
    (place.app / "copy" / "deep").unlink()
    (place.app / "copy" / "main.py").mkdir()
    place.refused(FileFault.FILE_EXISTS, how, archive, "copy")
    (place.app / "copy" / "main.py").rmdir()
    (place.app / "copy" / "deep").symlink_to("../src")
    place.refused(FileFault.FILE_EXISTS, how, archive, "copy")


def test_folders_that_nobody_may_write_to(place):
    archive = tar(
        (info("modules", tarfile.DIRTYPE, mode=0o555), None),
        ("modules/a", b"1"),
        (info("modules/in", tarfile.DIRTYPE, mode=0o500), None),
        ("modules/in/b", b"2"),
    )
    place.unpacked(TAR_GZ, archive)
    assert stat.S_IMODE((place.app / "modules").stat().st_mode) == 0o555
    assert stat.S_IMODE((place.app / "modules" / "in").stat().st_mode) == 0o500
    assert (place.app / "modules" / "in" / "b").read_text() == "2"
    (place.app / "modules").chmod(0o755)
    place.unpacked(TAR_GZ, archive)
    assert stat.S_IMODE((place.app / "modules").stat().st_mode) == 0o755


OUT = [
    [("../out", b"x")],
    [("a/../../out", b"x")],
    [("/out", b"x")],
    [(info("to", tarfile.SYMTYPE, linkname="/tmp"), None), ("to/out", b"x")],
    [(info("to", tarfile.SYMTYPE, linkname=".."), None), (info("to/out", tarfile.DIRTYPE), None)],
    [(info("hard", tarfile.LNKTYPE, linkname="../app/kept"), None)],
    [(info("hard", tarfile.LNKTYPE, linkname="/etc/passwd"), None)],
    [(info("hard", tarfile.LNKTYPE, linkname=""), None)],
    [(info("to", tarfile.SYMTYPE, linkname=".."), None), (info("a", tarfile.LNKTYPE, linkname="to/app/kept"), None)],
    [(info("device", tarfile.CHRTYPE, devmajor=1, devminor=3), None)],
    [(info("pipe", tarfile.FIFOTYPE), None)],
    [(info("to", tarfile.SYMTYPE, linkname=""), None)],
    [(".", b"x")],
    [("a", b"x"), ("a/b", b"x")],
    [("a/b", b"x"), ("a", b"x")],
    [("/".join("a" * (DEPTH + 1)), b"x")],
]


@pytest.mark.parametrize("members", OUT)
def test_an_archive_that_leads_out_of_its_folder_changes_nothing(place, tmp_path, members):
    (place.app / "kept").write_text("kept")
    around = tree_of(tmp_path)
    place.refused(FileFault.INVALID_ARCHIVE, TAR_GZ, tar(("new", b"x"), *members))
    assert {path: each for path, each in tree_of(tmp_path).items() if path != b".uploads"} == around


@pytest.mark.parametrize(
    "archive",
    [
        zipped(("../out", b"x")),
        zipped(("/out", b"x")),
        zipped((zip_info("to", stat.S_IFLNK | 0o777), b"/tmp"), ("to/out", b"x")),
        zipped((zip_info("to", stat.S_IFLNK | 0o777), b"x" * 5_000)),
        zipped((zip_info("to", stat.S_IFLNK | 0o777), b"a\0b")),
        zipped((zip_info("pipe", stat.S_IFIFO | 0o644), b"")),
        zipped(("a", b"x"), method=zipfile.ZIP_BZIP2),
        zipped(("a", b"x"), ("a/b", b"x")),
    ],
    ids=["up", "absolute", "below a link", "long link", "NUL in a link", "pipe", "method", "below a file"],
)
def test_a_zip_that_leads_out_of_its_folder_changes_nothing(place, tmp_path, archive):
    place.refused(FileFault.INVALID_ARCHIVE, ZIP, archive)


def test_a_hard_link_is_another_name_of_what_came_before(place):
    archive = tar(("a/b", b"1"), (info("c", tarfile.LNKTYPE, linkname="./a/b"), None))
    place.unpacked(TAR_GZ, archive, "copy")
    assert (place.app / "copy/c").samefile(place.app / "copy/a/b")


def test_the_later_of_two_counts(place):
    place.unpacked(TAR_GZ, tar(("a", b"1"), ("a", b"2")))
    assert (place.app / "a").read_text() == "2"


def test_times_and_modes_that_no_file_can_have(place):
    for mtime in (-5, 2**70, float("nan"), float("inf")):
        archive = tar((info("a", mtime=0, pax_headers={"mtime": str(mtime)}), b"x"), format=tarfile.PAX_FORMAT)
        place.unpacked(TAR_GZ, archive)
    place.unpacked(TAR_GZ, tar((info("s", mode=0o7777), b"x")))
    assert stat.S_IMODE((place.app / "s").stat().st_mode) == 0o777


@functools.cache
def broken_tars():
    return list(_broken_tars())


def _broken_tars():
    whole = tar(("a", random.Random(1).randbytes(100_000)), ("b", b"x" * 1_000))
    plain = gzip.decompress(whole)
    yield b""
    yield b"no archive"
    yield gzip.compress(b"")
    yield gzip.compress(b"no tar" * 1_000)
    yield zipped(("a", b"x"))
    yield whole[:-1]
    yield whole[:-5] + b"wrong"
    yield whole[: len(whole) // 2]
    # A whole gzip stream of half a tar: at a header's place, in a file, in a header, and one that goes on with garbage.
    second = plain.index(b"b\0\0\0")
    for cut in (second, 50_000, second + 100):
        yield gzip.compress(plain[:cut])
    yield gzip.compress(plain[:second] + b"\xff" * 10_240)
    for value in ("-1", "x", "9" * 30):
        yield tar((info("a", pax_headers={"size": value}), b"x"), format=tarfile.PAX_FORMAT)
    header = info("a", tarfile.XHDTYPE)
    for size in (-512, 2**40):
        header.size = size
        yield gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    yield gzip.compress(b"".join(info("a", tarfile.XHDTYPE).tobuf() for _ in range(5_000)) + bytes(1_024))
    yield gzip.compress(plain + b"x" * (archives.HELD + 1))


@pytest.mark.parametrize("number", range(len(broken_tars())))
def test_a_broken_tar_changes_nothing(place, number):
    (place.app / "kept").write_text("kept")
    archive = broken_tars()[number]
    id_ = place.upload(archive)
    with pytest.raises(FileError) as caught:
        while not place.trees.unpack(id_, ".", TAR_GZ, len(archive)).done:
            pass
    assert caught.value.fault in (FileFault.INVALID_ARCHIVE, FileFault.WORKSPACE_FULL)
    assert list(place.tree()) == [b"kept"]
    place.check_nothing_left()


def test_a_broken_zip_changes_nothing(place):
    whole = zipped(("a", random.Random(1).randbytes(100_000)), ("b", b"x" * 1_000))
    wrong = bytearray(whole)
    wrong[1_000] ^= 1
    encrypted = bytearray(whole)
    encrypted[whole.index(b"PK\1\2") + 8] |= 1
    for archive in (b"", b"no zip", whole[:-1], whole[5_000:], bytes(wrong), bytes(encrypted), tar(("a", b"x"))):
        place.refused(FileFault.INVALID_ARCHIVE, ZIP, archive)


def test_random_changes_of_an_archive_never_get_out_or_raise_otherwise(place, tmp_path):
    draw = random.Random(11)
    fill(place.app)
    (place.app / "src/deep/new\nline").write_bytes(LONG[:3_000])
    made = {how: place.packed(how) for how in ArchiveFormat}
    around = {path for path in tree_of(tmp_path) if not path.startswith((b"app", b".uploads"))}
    for turn in range(300):
        how = draw.choice(list(ArchiveFormat))
        plain = zlib.decompress(made[how], wbits=31) if how is TAR_GZ else made[how]
        changed = bytearray(plain)
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(changed))
            changed[at] = draw.randrange(256)
        archive = bytes(changed) if how is ZIP else gzip.compress(bytes(changed), 1)
        with contextlib.suppress(FileError):
            place.unpacked(how, archive, f"copy/{turn}")
    assert {path for path in tree_of(tmp_path) if not path.startswith((b"app", b".uploads"))} == around
    place.check_nothing_left()


def test_a_bomb_does_not_fill_the_disk(place, monkeypatch):
    monkeypatch.setattr(unpacking, "KEPT_FREE", 1 << 60)
    place.refused(FileFault.WORKSPACE_FULL, TAR_GZ, tar(("a", b"x")))


def test_a_zips_list_of_entries_is_bounded(place, monkeypatch):
    monkeypatch.setattr(archives, "HELD", 1_000)
    assert "list of entries" in place.refused(
        FileFault.INVALID_ARCHIVE, ZIP, zipped(*((f"{number:030}", b"") for number in range(20)))
    )


@BOTH
def test_work_is_done_in_steps(place, how, monkeypatch):
    fill(place.app)
    monkeypatch.setattr(trees, "STEP", 0.0)
    steps = 0
    id_, archive = place.trees.begin(".", how), b""
    while piece := place.trees.read(id_, len(archive)):
        archive += piece
    monkeypatch.setattr(trees, "STEP", 1e-9)
    id_ = place.upload(archive)
    while not place.trees.unpack(id_, "copy", how, len(archive)).done:
        assert not (place.app / "copy").exists()
        steps += 1
    assert steps > 3
    assert place.tree("copy")[b"src/main.py"][2] == b"print('hi')\n"


def test_what_is_given_up_leaves_nothing(place, monkeypatch):
    fill(place.app)
    archive = place.packed(TAR_GZ)
    monkeypatch.setattr(trees, "STEP", 1e-9)
    id_ = place.upload(archive)
    for _ in range(3):
        place.trees.unpack(id_, "copy", TAR_GZ, len(archive))
    place.trees.drop(id_)
    place.check_nothing_left()
    assert not (place.app / "copy").exists()
    with pytest.raises(Unknown):
        place.trees.unpack(id_, "copy", TAR_GZ, len(archive))
    before = len(os.listdir("/proc/self/fd"))
    outgoing = place.trees.begin(".", ZIP)
    place.trees.read(outgoing, 0)
    place.trees.drop(outgoing)
    assert len(os.listdir("/proc/self/fd")) == before


@BOTH
def test_what_is_dropped_while_a_request_waits_is_no_end(place, how, monkeypatch):
    fill(place.app)
    archive = place.packed(how)
    place.trees.read(place.trees.begin(".", how), 0)
    (outgoing,) = place.trees._outgoing.values()
    incoming = place.upload(archive)
    monkeypatch.setattr(trees, "STEP", 1e-9)
    place.trees.unpack(incoming, "copy", how, len(archive))
    (unpacking,) = place.trees._incoming.values()
    for id_ in [*place.trees._outgoing, incoming]:
        place.trees.drop(id_)
    with pytest.raises(Unknown):
        outgoing.read(0)
    with pytest.raises(Unknown):
        unpacking.step()


def test_the_abandoned_are_dropped(place, monkeypatch):
    monkeypatch.setattr(leases, "LOOK", 0.01)
    monkeypatch.setattr(trees, "STEP", 1e-9)
    fill(place.app)
    archive = place.packed(TAR_GZ)
    outgoing, incoming = place.trees.begin(".", TAR_GZ), place.upload(archive)
    place.trees.unpack(incoming, "copy", TAR_GZ, len(archive))
    place.now[0] += ABANDONED + 1
    place.check_nothing_left()
    with pytest.raises(Unknown):
        place.trees.read(outgoing, 0)


def test_an_offset_that_is_none(place):
    fill(place.app)
    id_ = place.trees.begin(".", TAR_GZ)
    with pytest.raises(Unknown):
        place.trees.read(id_, 5)
    archive = place.packed(TAR_GZ)
    with pytest.raises(Unknown):
        place.trees.unpack(place.upload(archive), ".", TAR_GZ, len(archive) + 1)
    with pytest.raises(Unknown):
        place.trees.unpack("0" * 16, ".", TAR_GZ, 0)
