"""Files that callers write: what is half done is nowhere to be seen, and nothing of it stays."""

from __future__ import annotations

import os
import threading

import pytest

from app.agent.files import leases, reading, writing
from app.agent.files.faults import FileError
from app.agent.files.leases import ABANDONED
from app.agent.files.uploads import Unknown, Uploads
from app.agent.files.writing import Files, Wanted
from app.agent.protocol import FileFault
from app.agent.tools.sandbox_path import Workspace
from tests.waiting import wait_for


class Place:
    """A workspace's folder, and the one beside it for what is under way."""

    def __init__(self, folder):
        self.app, self.kept = folder / "app", folder / ".uploads"
        self.app.mkdir()
        self.workspace = Workspace(self.app)
        self.files = Files(self.workspace, self.kept)

    def write(self, path, content=b"", **wanted):
        return self.files.write(path, content, Wanted(**wanted))

    def listed(self, depth=9, glob="", most=1_000, after="", path="."):
        page = reading.listing(self.workspace, path, depth, glob, most, after)
        return [entry.path for entry in page.entries], page.after

    def left(self):
        return os.listdir(self.kept)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def refused(fault, act, *arguments):
    with pytest.raises(FileError) as caught:
        act(*arguments)
    assert caught.value.fault is fault, caught.value


def test_pieces_become_a_file_at_its_end_only(place):
    given = place.files.uploads
    id_ = given.begin()
    given.append(id_, 0, b"one")
    given.append(id_, 3, b"two")
    given.append(id_, 3, b"two")
    assert place.listed() == ([], "")
    entry, new = place.files.finish(id_, "a/b", 6, Wanted())
    assert (entry.path, entry.status.st_size, new) == ("a/b", 6, True)
    assert (place.app / "a/b").read_bytes() == b"onetwo"
    with pytest.raises(Unknown):
        given.append(id_, 6, b"more")
    assert place.left() == []


def test_a_piece_that_is_missing_is_noticed(place):
    given = place.files.uploads
    id_ = given.begin()
    given.append(id_, 0, b"one")
    for act, *arguments in (
        (given.append, id_, 5, b"two"),
        (place.files.finish, id_, "a", 6, Wanted()),
        (given.append, "0" * 16, 0, b"x"),
        (given.append, "../app/x", 0, b"x"),
    ):
        with pytest.raises(Unknown):
            act(*arguments)
    assert (place.listed(), place.left()) == (([], ""), [])


def test_the_abandoned_are_dropped_and_those_at_work_are_not(place, monkeypatch):
    monkeypatch.setattr(leases, "LOOK", 0.01)
    before = set(threading.enumerate())
    now = [0.0]
    given = Uploads(place.kept, clock=lambda: now[0])
    abandoned, working = given.begin(), given.begin()
    now[0] += ABANDONED
    given.append(working, 0, b"x")
    now[0] += 1
    wait_for(lambda: place.left() == [working], "the other one to be dropped")
    with pytest.raises(Unknown):
        given.append(abandoned, 0, b"x")
    given.append(working, 1, b"x")
    now[0] += ABANDONED + 1
    wait_for(lambda: not place.left(), "the last one to be dropped")
    wait_for(
        lambda: not [each for each in {*threading.enumerate()} - before if each.name == "leases"], "its thread to end"
    )
    given.append(given.begin(), 0, b"x")


def test_the_next_agent_removes_what_is_left_and_not_what_it_has_begun_itself(place):
    earlier = place.files.uploads
    earlier.append(earlier.begin(), 0, b"x")
    (place.kept / "folder").mkdir()
    (place.kept / "folder" / "file").touch()
    now = Uploads(place.kept)
    begun = now.begin()
    now.clear()
    assert place.left() == [begun]


def test_an_upload_that_another_has_removed_is_lost(place):
    given = place.files.uploads
    id_ = given.begin()
    given.append(id_, 0, b"one")
    Uploads(place.kept).clear()
    with pytest.raises(Unknown):
        given.append(id_, 3, b"two")
    with pytest.raises(Unknown):
        place.files.finish(id_, "a", 3, Wanted())
    assert place.listed() == ([], "")


@pytest.mark.parametrize("put", ["file", "link"])
def test_what_a_user_puts_in_the_folders_place_is_no_way_out(place, tmp_path, put):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    if put == "link":
        place.kept.symlink_to(elsewhere)
    else:
        place.kept.touch()
    place.files.uploads.clear()
    place.write("a", b"x")
    assert os.listdir(elsewhere) == ["kept"]
    assert place.kept.is_dir() and not place.kept.is_symlink()
    assert (place.app / "a").read_bytes() == b"x"


def test_one_of_many_that_want_to_be_the_first_is(place):
    """And each later one, by the file's state, follows exactly one before it."""
    outcomes = []
    barrier = threading.Barrier(8)

    def write(number):
        barrier.wait()
        try:
            outcomes.append((number, *place.write("a", b"%d" % number, new=True)))
        except FileError as error:
            outcomes.append((number, error.fault, None))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    won = [number for number, _, new in outcomes if new]
    lost = [fault for _, fault, new in outcomes if new is None]
    assert (len(won), lost) == (1, [FileFault.FILE_CHANGED] * 7)
    assert (place.app / "a").read_bytes() == b"%d" % won[0]


def test_a_new_file_overwrites_none_that_came_in_between(place, monkeypatch):
    """As when a command makes it after the look."""
    looked = writing._check_writable

    def look(*arguments):
        found = looked(*arguments)
        (place.app / "a").write_text("theirs")
        return found

    monkeypatch.setattr(writing, "_check_writable", look)
    monkeypatch.setattr(place.files, "check", lambda *_: None)
    refused(FileFault.FILE_CHANGED, lambda: place.write("a", b"ours", new=True))
    assert (place.app / "a").read_text() == "theirs"
    assert place.left() == []


def test_a_page_ends_after_a_while_and_the_next_one_goes_on(place, monkeypatch):
    """In a large tree of which little matches."""
    for name in ("a", "b/1", "b/2", "c.py"):
        place.write(name)
    monkeypatch.setattr(reading, "LISTING_SECONDS", 0.0)
    after, pages = "", []
    for _ in range(10):
        found, after = place.listed(glob="*.py", after=after)
        pages.append(found)
        if not after:
            break
    assert pages == [[], [], [], [], ["c.py"], []]


def test_a_page_holds_no_more_than_so_many_bytes(place, monkeypatch):
    monkeypatch.setattr(reading, "LISTING_BYTES", 500)
    for number in range(5):
        place.write(f"{number}" + "x" * 199)
    first, after = place.listed()
    rest, end = place.listed(after=after)
    assert ([each[0] for each in first], [each[0] for each in rest], end) == (["0", "1", "2"], ["3", "4"], "")


def test_a_folder_of_more_names_than_are_held(place, monkeypatch):
    monkeypatch.setattr(reading, "NAMES", 3)
    names = sorted(f"n{number:02}" for number in range(10))
    for name in names:
        place.write(name)
    assert place.listed() == (names, "")
    assert place.listed(after="n04") == (names[5:], "")
    (place.app / "n04").unlink()
    assert place.listed(after="n04") == (names[5:], "")


def test_what_goes_away_while_it_is_listed_is_left_out(place, monkeypatch):
    place.write("a/x")
    place.write("b")
    entry_of = reading.entry_of

    def vanishing(path, name, folder):
        found = entry_of(path, name, folder)
        if path == "a":
            os.unlink("a/x", dir_fd=folder)
            os.rmdir("a", dir_fd=folder)
        return found

    monkeypatch.setattr(reading, "entry_of", vanishing)
    assert place.listed() == (["a", "b"], "")


def test_times_that_no_answer_can_have(place):
    entry, _ = place.write("a")
    for given, told in ((-1e9, 0.0), (1e15, 9e10)):
        try:
            os.utime(place.app / "a", (given, given))
        except OverflowError:
            continue
        found = reading.entry(place.workspace, "a").told()["modified_at"]
        assert found == told or 0 <= found <= 9e10
