"""The file tools do what they say inside the workspace, and nothing outside of it."""

import contextlib
import os
import shutil
import stat
import threading

import pytest

from app.agent.tools import files, sandbox_path
from app.agent.tools.sandbox_path import ToolError, Workspace


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "app").mkdir()
    return tmp_path / "app"


@pytest.fixture
def workspace(folder):
    return Workspace(folder)


ESCAPES = [
    "../outside/secret",
    "a/../../outside/secret",
    "/etc/passwd",
    "link_to_file",
    "link_to_folder/secret",
    "chain/secret",
    "relative_link",
    "a/deep",
    "/proc/self/environ",
    "loop",
    "nul\0byte",
]


def make_links(folder):
    outside = folder.parent / "outside"
    (folder / "a").mkdir()
    (folder / "link_to_file").symlink_to(outside / "secret")
    (folder / "link_to_folder").symlink_to(outside)
    (folder / "chain").symlink_to("link_to_folder")
    (folder / "relative_link").symlink_to("../outside/secret")
    (folder / "a" / "deep").symlink_to("../../outside/secret")
    (folder / "loop").symlink_to("loop")


@pytest.mark.parametrize("path", ESCAPES)
def test_no_path_and_no_link_leads_out_of_the_workspace(workspace, folder, path):
    make_links(folder)
    (folder / "mine").write_text("x")
    with pytest.raises(ToolError):
        files.read_file(workspace, path)
    with pytest.raises(ToolError):
        files.write_file(workspace, path, "stolen")
    with pytest.raises(ToolError):
        files.patch_file(workspace, path, "secret", "stolen")
    with pytest.raises(ToolError):
        files.list_files(workspace, path)
    if not (folder / path.replace("\0", "")).is_symlink():
        with pytest.raises(ToolError):
            files.move_path(workspace, "mine", path)
    assert (folder.parent / "outside" / "secret").read_text() == "secret"
    assert sorted(os.listdir(folder.parent / "outside")) == ["secret"]


def test_deleting_a_link_leaves_what_it_leads_to(workspace, folder):
    make_links(folder)
    files.delete_path(workspace, "link_to_folder")
    files.delete_path(workspace, "a")
    assert not (folder / "link_to_folder").is_symlink() and not (folder / "a").exists()
    assert (folder.parent / "outside" / "secret").exists()
    with pytest.raises(ToolError):
        files.delete_path(workspace, ".")
    with pytest.raises(ToolError):
        files.delete_path(workspace, "chain/secret")


def test_a_folder_of_any_depth_is_deleted(workspace, folder, deep_trees):
    """Deeper than the stack, and than a path can tell."""
    deep_trees(folder / "deep")
    assert files.delete_path(workspace, "deep") == "deleted the folder deep"
    assert list(folder.iterdir()) == []


def test_links_that_stay_inside_are_followed(workspace, folder):
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("one\n")
    (folder / "relative").symlink_to("a/b")
    (folder / "absolute").symlink_to(folder / "a")
    (folder / "up").symlink_to("a/b/../b/file")
    for path in ("relative/file", "absolute/b/file", "up", str(folder / "a/b/file"), "./a//b/../b/file"):
        assert files.read_file(workspace, path) == "1\tone"
    assert files.write_file(workspace, "up", "two\n") == "replaced a/b/file (4 bytes)"
    assert (folder / "up").is_symlink() and (folder / "a/b/file").read_text() == "two\n"


def test_a_workspace_reached_through_a_link_takes_both_of_its_names(folder, tmp_path):
    """Absolute paths by the link's name and by the real one. The link is above it, where the machine's own may be."""
    (tmp_path / "link").symlink_to(tmp_path)
    (folder / "x").write_text("here")
    workspace = Workspace(tmp_path / "link" / "app")
    assert files.read_file(workspace, str(tmp_path / "link" / "app" / "x")) == "1\there"
    assert files.read_file(workspace, str(folder / "x")) == "1\there"


@pytest.mark.slow
def test_a_folder_swapped_for_a_link_while_it_is_used_leads_nowhere(workspace, folder):
    outside = folder.parent / "outside"
    (folder / "real").mkdir()
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            with contextlib.suppress(OSError):
                os.rename(folder / "real", folder / "kept")
                os.symlink(outside, folder / "real")
            with contextlib.suppress(OSError):
                os.unlink(folder / "real")
            shutil.rmtree(folder / "kept", ignore_errors=True)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(2000):
            with contextlib.suppress(ToolError):
                files.write_file(workspace, "real/file", "x")
    finally:
        stop.set()
        swapper.join()
    assert os.listdir(outside) == ["secret"]


def test_the_conversation_is_out_of_reach(workspace, folder):
    """It lies beside the workspace's folder; a folder of its name in there is one like any other."""
    (folder.parent / ".session").mkdir()
    (folder.parent / ".session" / "history.json").write_text("[]")
    for path in ("../.session/history.json", str(folder.parent / ".session" / "history.json")):
        with pytest.raises(ToolError):
            files.read_file(workspace, path)
        with pytest.raises(ToolError):
            files.write_file(workspace, path, "x")
    files.write_file(workspace, ".session/mine", "x")
    assert files.read_file(workspace, ".session/mine") == "1\tx"
    assert (folder.parent / ".session" / "history.json").read_text() == "[]"


def test_read_gives_ranges_with_numbers_and_says_what_is_left(workspace, folder):
    """First and last line count from 1; a file that goes on says where."""
    (folder / "f").write_text("".join(f"line {n}\n" for n in range(1, 5001)))
    assert files.read_file(workspace, "f", 3, 4) == "3\tline 3\n4\tline 4\n[… the file goes on; read from line 5]"
    assert files.read_file(workspace, "f", 5000) == "5000\tline 5000"
    assert files.read_file(workspace, "f", 6000) == "(the file has 5000 lines)"
    whole = files.read_file(workspace, "f")
    assert whole.endswith("[… the file goes on; read from line 2001]")
    (folder / "empty").write_text("")
    assert files.read_file(workspace, "empty") == "(empty file)"


@pytest.mark.slow
def test_a_file_of_100_megabytes_is_read_in_parts_and_not_held(workspace, folder):
    """One line of 100 MB is cut; many lines end at the limit; patching says that it is too large."""
    with (folder / "one").open("wb") as file:
        file.write("ü".encode() * 50_000_000)
    with (folder / "many").open("wb") as file:
        for _ in range(100):
            file.write(b"0123456789abcdef\n" * 61681)
    one = files.read_file(workspace, "one")
    assert len(one) < 10_000 and "bytes more" in one and one.startswith("1\tüü")
    assert len(files.read_file(workspace, "many")) < 60_000
    assert files.read_file(workspace, "many", 6_000_000, 6_000_001).startswith("6000000\t0123456789abcdef\n6000001")
    with pytest.raises(ToolError, match="at most"):
        files.patch_file(workspace, "one", "a", "b")


def test_binary_and_invalid_text_are_named_as_such(workspace, folder):
    """Reading and patching say what is wrong; a pipe or a folder is no file, and nothing waits for a pipe."""
    (folder / "binary").write_bytes(b"\x7fELF\0\0\0")
    (folder / "latin").write_bytes("grün\n".encode("latin-1"))
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    for path, reason in (
        ("binary", "binary"),
        ("latin", "not valid UTF-8: byte 0xfc"),
        ("pipe", "not a regular file"),
        ("folder", "folder"),
        ("none", "no such file"),
    ):
        with pytest.raises(ToolError, match=reason):
            files.read_file(workspace, path)
        with pytest.raises(ToolError, match=reason):
            files.patch_file(workspace, path, "a", "b")
    with pytest.raises(ToolError, match="not a regular file"):
        files.write_file(workspace, "pipe", "x")


def test_write_makes_folders_keeps_modes_and_leaves_nothing_behind(workspace, folder):
    """A script stays executable; no temporary file remains, also when the write fails."""
    files.write_file(workspace, "a/b/run.sh", "#!/bin/sh\n")
    os.chmod(folder / "a/b/run.sh", 0o755)
    assert files.write_file(workspace, "a/b/run.sh", "#!/bin/sh\necho\n") == "replaced a/b/run.sh (15 bytes)"
    assert stat.S_IMODE((folder / "a/b/run.sh").stat().st_mode) == 0o755
    (folder / "taken").mkdir()
    with pytest.raises(ToolError, match="folder"):
        files.write_file(workspace, "taken", "x")
    with pytest.raises(ToolError, match="at most"):
        files.write_file(workspace, "big", "x" * (files.EDIT_BYTES + 1))
    assert sorted(os.listdir(folder)) == ["a", "taken"] and os.listdir(folder / "a/b") == ["run.sh"]


def test_patch_matches_exactly_and_once(workspace, folder):
    """None or several matches change nothing, unless all are meant; line ends are kept."""
    (folder / "f").write_bytes(b"one\r\ntwo\r\none\r\n")
    for old, reason in (("three", "not in"), ("one", "2 times"), ("", "empty"), ("one\ntwo", "not in")):
        with pytest.raises(ToolError, match=reason):
            files.patch_file(workspace, "f", old, "x")
    assert (folder / "f").read_bytes() == b"one\r\ntwo\r\none\r\n"
    assert files.patch_file(workspace, "f", "two", "2") == "replaced 1 place in f"
    assert files.patch_file(workspace, "f", "one", "1", all=True) == "replaced 2 places in f"
    assert (folder / "f").read_bytes() == b"1\r\n2\r\n1\r\n"


def test_move_renames_enters_folders_and_never_overwrites(workspace, folder):
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    (folder / "d").mkdir()
    with pytest.raises(ToolError, match="exists"):
        files.move_path(workspace, "a", "b")
    assert files.move_path(workspace, "a", "new/c") == "moved a to new/c"
    assert files.move_path(workspace, "new/c", "d") == "moved new/c to d/c"
    with pytest.raises(ToolError, match="no such"):
        files.move_path(workspace, "a", "x")
    assert (folder / "d" / "c").read_text() == "a" and (folder / "b").read_text() == "b"


def test_list_shows_kinds_and_sizes_and_ends_somewhere(workspace, folder):
    """Folders end with a slash; .git is named and not entered; a folder of thousands is cut."""
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "src" / "deep" / "x.py").write_text("12345")
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / "link").symlink_to("src")
    assert files.list_files(workspace, depth=5).split("\n") == [
        ".git/",
        "link -> src",
        "src/",
        "src/deep/",
        "src/deep/x.py (5 bytes)",
    ]
    assert files.list_files(workspace, "src") == "deep/"
    (folder / "many").mkdir()
    for n in range(600):
        (folder / "many" / str(n)).touch()
    os.mkdir(os.fsencode(folder / "many") + b"/\xff\n")
    assert len(files.list_files(workspace, "many").split("\n")) == files.LISTED + 1
    with pytest.raises(ToolError, match="not a folder"):
        files.list_files(workspace, "src/deep/x.py")


def test_every_descriptor_is_closed_again(workspace, folder):
    make_links(folder)
    for path in [*ESCAPES, "new/file", "."]:
        for tool in (files.read_file, files.list_files, files.delete_path):
            with contextlib.suppress(ToolError):
                tool(workspace, path)
        with contextlib.suppress(ToolError):
            files.write_file(workspace, path, "x")
    opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert [path for path in opened if path.startswith(str(folder.parent))] == []


def test_a_path_of_many_names_is_refused(workspace):
    with pytest.raises(ToolError, match="too deep"):
        files.write_file(workspace, "/".join(["a"] * (sandbox_path.DEPTH + 1)), "x")


def test_a_workspace_that_is_gone_is_a_tool_error(tmp_path):
    with pytest.raises(ToolError, match="no such"):
        files.read_file(Workspace(tmp_path / "gone"), "x")
