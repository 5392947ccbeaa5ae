"""Changes of a workspace's files: a caller that follows them knows at each time what is there."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import threading

import pytest

from app.agent.files import changes, watch
from app.agent.files.changes import Changed
from app.agent.files.faults import FileError
from app.agent.files.journal import Journal
from app.agent.files.reading import listing
from app.agent.files.watch import ABANDONED, Watch
from app.agent.protocol import FileFault
from app.agent.tools.sandbox_path import Workspace
from app.agent.tools.searcher import SKIPPED_FOLDERS
from tests.waiting import wait_for

SOON = 1.0
"""Seconds to wait for news that come at once, or not at all."""


@pytest.fixture
def app(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    return folder


class Viewer:
    """Who follows changes: `seen` is what it takes to be there, by path, each with its type and size."""

    def __init__(self, app, path=".", depth=100, glob="", changed=None):
        self.workspace = Workspace(app)
        self.changed = changed or Changed(self.workspace)
        self.asked = (path, depth, glob)
        self.seen = {}
        self.position, self.looks, self.complete = "", 0, None
        self.ask()

    def ask(self, seconds=0.0):
        """Take in the next changes, and answer them."""
        told = self.changed.since(self.position, *self.asked, seconds)
        self.position, self.complete = told.position, told.complete
        if told.anew:
            self.looks += 1
            self.seen = self.there()
        for path in told.gone:
            self.seen = {at: each for at, each in self.seen.items() if at != path and not at.startswith(f"{path}/")}
        # Of a folder a list has what is in it, and not itself.
        in_lists = [each for each in told.entries if each.path != told.path or known(each)[0] != "folder"]
        self.seen |= {each.path: known(each) for each in in_lists}
        return told

    def there(self):
        """What is there, but in folders that are not watched."""
        path, depth, glob = self.asked
        found: dict[str, object] = {}
        after = ""
        while True:
            page = listing(self.workspace, path, depth, glob, 1000, after)
            found |= {
                each.path: known(each) for each in page.entries if SKIPPED_FOLDERS.isdisjoint(each.path.split("/")[:-1])
            }
            if not (after := page.after):
                return found

    def catch_up(self):
        """Until all that is there is seen."""
        wait_for(lambda: self.ask(SOON) and self.seen == self.there(), "the last changes to be told")

    def wait(self, *paths):
        """Until just these are seen."""

        def all_seen():
            self.ask(SOON)
            return self.seen.keys() == set(paths)

        wait_for(all_seen, f"the changes to lead to {paths}, not to {self.seen}")


def known(entry):
    told = entry.told()
    return told["type"], told["size"], told["mode"], told["etag"]


def test_who_asks_first_is_to_look_and_then_hears_of_each_change(app):
    (app / "before").write_text("x")
    viewer = Viewer(app)
    assert (viewer.looks, viewer.complete, list(viewer.seen)) == (1, True, ["before"])
    assert not viewer.ask().entries, "nothing changed since"
    (app / "new").write_text("hello")
    told = viewer.ask(30.0)
    assert not told.anew and [each.path for each in told.entries] == ["new"] and not told.gone
    viewer.wait("before", "new")
    (app / "before").unlink()
    viewer.wait("new")
    (app / "new").rename(app / "newer")
    viewer.wait("newer")
    (app / "newer").chmod(0o700)
    wait_for(lambda: viewer.ask(SOON) and viewer.seen["newer"][2] == "700", "its mode to be told")
    with open(app / "newer", "a") as file:
        file.write(" and more")
        file.flush()
        wait_for(lambda: viewer.ask(SOON) and viewer.seen["newer"][1] == 14, "what is written to an open file")
    assert viewer.looks == 1


def test_a_folder_is_told_with_all_in_it_wherever_it_comes_from(app, tmp_path):
    viewer = Viewer(app)
    inside = {"a", "a/b", "a/b/c", "a/b/c/file", "a/link"}
    (tmp_path / "made" / "b" / "c").mkdir(parents=True)
    (tmp_path / "made" / "b" / "c" / "file").write_text("x")
    (tmp_path / "made" / "link").symlink_to("b")
    (tmp_path / "made").rename(app / "a")
    viewer.wait(*inside)
    (app / "a").rename(app / "z")
    viewer.wait(*(f"z{path[1:]}" for path in inside))
    (app / "z" / "b" / "c" / "later").touch()
    viewer.wait("z/b/c/later", *(f"z{path[1:]}" for path in inside))
    (app / "z").rename(tmp_path / "away")
    viewer.wait()
    (tmp_path / "away" / "b" / "unseen").touch()
    (app / "z").mkdir()
    viewer.wait("z")
    assert viewer.looks == 1


def test_only_what_is_asked_for_is_told(app):
    (app / "src" / "lib").mkdir(parents=True)
    changed = Changed(Workspace(app))
    viewers = {
        "one level": Viewer(app, "src", 1, changed=changed),
        "by name": Viewer(app, "src", 9, "*.py", changed=changed),
        "elsewhere": Viewer(app, "src/lib", 9, changed=changed),
    }
    (app / "outside.py").touch()
    for path in ("src/one.py", "src/two.txt", "src/lib/three.py", "src/lib/four.txt"):
        (app / path).touch()
    viewers["one level"].wait("src/lib", "src/one.py", "src/two.txt")
    viewers["by name"].wait("src/one.py", "src/lib/three.py")
    viewers["elsewhere"].wait("src/lib/three.py", "src/lib/four.txt")
    itself = Viewer(app, "src/one.py", 0, changed=changed)
    (app / "src" / "one.py").write_text("x")
    wait_for(lambda: itself.ask(SOON) and itself.seen["src/one.py"][1] == 1, "the file itself to be told")
    (app / "src").rename(app / "gone")
    itself.wait()
    viewers["elsewhere"].wait()
    viewers["by name"].wait()
    (app / "gone").rename(app / "src")
    itself.wait("src/one.py")
    viewers["elsewhere"].wait("src/lib/three.py", "src/lib/four.txt")
    assert all(each.looks == 1 for each in (*viewers.values(), itself))


def test_folders_of_packages_are_told_and_not_what_is_in_them(app):
    viewer = Viewer(app)
    (app / "node_modules" / "left-pad").mkdir(parents=True)
    (app / "node_modules" / "left-pad" / "index.js").touch()
    (app / "last").touch()
    viewer.wait("node_modules", "last")
    (app / "node_modules").rename(app / "vendored")
    viewer.wait("vendored", "vendored/left-pad", "vendored/left-pad/index.js", "last")
    (app / "vendored").rename(app / ".venv")
    viewer.wait(".venv", "last")
    with pytest.raises(FileError) as refused:
        Viewer(app, ".venv/left-pad")
    assert refused.value.fault is FileFault.INVALID_PATH


@pytest.mark.parametrize(
    ("path", "fault"),
    [("none", FileFault.FILE_NOT_FOUND), ("../app", FileFault.INVALID_PATH), ("out", FileFault.INVALID_PATH)],
)
def test_what_is_not_there_or_outside_is_refused(app, tmp_path, path, fault):
    (app / "out").symlink_to(tmp_path)
    with pytest.raises(FileError) as refused:
        Viewer(app, path)
    assert refused.value.fault is fault


def test_no_link_leads_the_watch_out_of_the_workspace(app, tmp_path):
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    viewer = Viewer(app)
    (app / "link").symlink_to(outside)
    viewer.wait("link")
    (outside / "secret").touch()
    (outside / "deep" / "secret").touch()
    (app / "last").touch()
    viewer.wait("link", "last")


def test_a_path_that_leads_by_a_link_is_that_of_the_folder(app):
    (app / "real").mkdir()
    (app / "link").symlink_to("real")
    viewer = Viewer(app, "link")
    (app / "real" / "file").touch()
    viewer.wait("real/file")


def test_names_of_any_bytes(app):
    viewer = Viewer(app)
    name = os.fsdecode(b"\xff\n \xe4")
    (app / name).mkdir()
    (app / name / name).touch()
    viewer.wait(name, f"{name}/{name}")


@pytest.mark.parametrize("seed", range(6))
def test_who_follows_any_changes_knows_what_is_there(app, tmp_path, seed, monkeypatch):
    """Also where an answer has few of them, few are remembered, and others happen while they are told."""
    chance = random.Random(seed)
    monkeypatch.setattr(changes, "TOLD_MOST", chance.choice([2, 7, 1000]))
    most = chance.choice([5, 50, 10_000])
    monkeypatch.setattr(watch, "Journal", lambda: Journal(most))
    changed = Changed(Workspace(app))
    viewers = [
        Viewer(app, changed=changed),
        Viewer(app, depth=2, changed=changed),
        Viewer(app, glob="*1", changed=changed),
    ]
    over = threading.Event()

    def follow(viewer):
        while not over.is_set():
            viewer.ask(0.05)

    with contextlib.ExitStack() as running:
        running.callback(over.set)
        for viewer in viewers:
            thread = threading.Thread(target=follow, args=[viewer])
            thread.start()
            running.callback(thread.join)
            running.callback(over.set)
        change_anything(app, tmp_path / "away", chance, 400)
    for viewer in viewers:
        viewer.catch_up()


def change_anything(app, away, chance, times):
    """So many random changes, also by folders that come from elsewhere and go there."""
    away.mkdir()
    names = ["a1", "b2", "c1", "node_modules"]

    def place(root):
        return root.joinpath(*(chance.choice(names) for _ in range(chance.randint(1, 4))))

    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * chance.randint(0, 9))

    changes = [
        lambda: write(place(app)),
        lambda: place(app).mkdir(parents=True),
        lambda: place(app).rename(place(app)),
        lambda: place(app).rename(place(away)),
        lambda: place(away).rename(place(app)),
        lambda: place(app).symlink_to(chance.choice(["a1", "..", "/"])),
        lambda: place(app).unlink(),
        lambda: shutil.rmtree(place(app)),
        lambda: place(app).chmod(chance.choice([0o700, 0o755])),
    ]
    for _ in range(times):
        with contextlib.suppress(OSError):
            chance.choice(changes)()


def test_more_changes_than_are_remembered_are_a_reason_to_look(app, monkeypatch):
    monkeypatch.setattr(watch, "Journal", lambda: Journal(10))
    viewer = Viewer(app)
    for number in range(30):
        (app / f"file{number}").touch()
    viewer.wait(*(f"file{number}" for number in range(30)))
    assert viewer.looks > 1


def test_a_position_of_another_watch_or_of_none_is_a_reason_to_look(app):
    viewer = Viewer(app)
    known = viewer.position
    viewer.changed = Changed(viewer.workspace)
    assert viewer.ask().anew and viewer.position != known
    name, _, last = viewer.position.partition("-")
    viewer.position = f"{name}-{int(last) + 1}"
    assert viewer.ask().anew, "it has not been yet"


def test_of_more_folders_than_are_watched_the_deepest_are_not(app, monkeypatch):
    for number in range(3):
        (app / f"folder{number}" / "deep").mkdir(parents=True)
    monkeypatch.setattr(watch, "MOST_FOLDERS", 5)
    viewer = Viewer(app)
    assert viewer.complete is False
    (app / "folder2" / "file").touch()
    wait_for(lambda: viewer.ask(SOON) and "folder2/file" in viewer.seen, "the upper folders to be watched")
    (app / "new").mkdir()
    wait_for(lambda: viewer.ask(SOON) and "new" in viewer.seen, "a folder that is not watched itself to be told")
    assert viewer.looks == 1


def test_a_watch_that_is_not_complete_any_more_is_begun_anew(app, monkeypatch):
    monkeypatch.setattr(watch, "MOST_FOLDERS", 3)
    viewer = Viewer(app)
    assert viewer.complete
    (app / "a" / "b" / "c").mkdir(parents=True)
    wait_for(lambda: viewer.ask(SOON) and not viewer.complete, "it to say that not all is watched")
    assert viewer.looks > 1


def test_the_folder_in_the_place_of_the_workspaces_is_watched_anew(app, tmp_path):
    viewer = Viewer(app)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "restored").touch()
    app.rename(tmp_path / "before")
    (tmp_path / "other").rename(app)
    viewer.wait("restored")
    (app / "new").touch()
    viewer.wait("restored", "new")


def test_nothing_is_watched_once_nobody_asks(app):
    now = [0.0]
    watched = Watch(Workspace(app), clock=lambda: now[0])
    now[0] = ABANDONED - 0.1
    assert watched.ask()
    now[0] += ABANDONED - 0.1
    (app / "file").touch()
    wait_for(lambda: watched.journal.last, "the change to be noted")
    assert not watched.journal.over
    now[0] += ABANDONED
    wait_for(lambda: watched.journal.over, "the watch to end")
    assert not watched.ask()


@pytest.mark.parametrize("fails", ["INotify", "add_watch"])
def test_a_kernel_that_watches_no_more_says_so(app, monkeypatch, fails):
    def no_more(*_):
        raise OSError(errno.EMFILE if fails == "INotify" else errno.EACCES, "no more")

    if fails == "INotify":
        monkeypatch.setattr(watch, "INotify", no_more)
    else:
        monkeypatch.setattr(watch.INotify, "add_watch", no_more)
    with pytest.raises(FileError) as refused:
        Viewer(app)
    assert refused.value.fault is FileFault.NOT_WATCHED


def test_what_the_kernel_dropped_is_a_reason_to_look(app, monkeypatch):
    viewer = Viewer(app)
    read = watch.INotify.read
    lost = watch.Event(-1, watch.flags.Q_OVERFLOW, 0, "")
    monkeypatch.setattr(watch.INotify, "read", lambda self, **how: [lost] if read(self, **how) else [])

    def looks_anew():
        (app / "file").touch()
        viewer.ask(SOON)
        return viewer.looks > 1

    wait_for(looks_anew, "the watch to begin anew")
    monkeypatch.undo()
    viewer.wait("file")
