"""A restore point holds what the user would miss, costs what changed, and names its damage."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ArchiveError, FilesGone, PermanentError, RetryableError, Superseded
from app.core.storage.archive_keys import ArchiveKeys, new_key
from app.volume import fingerprint
from tests.unit.landlock import hides
from tests.unit.workers.archive.conftest import overtaken
from tests.unit.workers.restore_points.conftest import UUID, Script, Shelf, flip
from workers.restore_points import making
from workers.restore_points.repository import repositories
from workers.restore_points.restic import Unanswered

pytestmark = pytest.mark.slow


def test_a_point_is_listed_with_what_it_holds(shelf: Shelf) -> None:
    made = shelf.make(message_id="m1", trigger="sleep")
    sidecar = shelf.sidecars.read()[made.id]
    assert sidecar is not None
    assert (made.files, made.size, made.repository, made.unchanged, made.broken) == (3, 27, 1, False, ())
    assert made.stored > 0
    assert (sidecar.trigger, sidecar.message_id, sidecar.unreadable) == ("sleep", "m1", 0)
    assert sidecar.identity == {"user_id": "ada@example.com"}


def test_it_tells_what_all_points_keep_in_the_store(shelf: Shelf) -> None:
    """After those that are too many are forgotten, and what nobody needs is pruned."""

    def in_store() -> int:
        return sum(map(len, shelf.stored().values()))

    shelf.write("app/big", os.urandom(300_000))
    first = shelf.make()
    assert first.kept == in_store() > 300_000
    shelf.write("app/big", os.urandom(200_000))
    second = shelf.make(parent=first.id, fingerprint=first.fingerprint)
    assert second.kept == in_store() > 500_000
    shelf.write("app/small", b"x")
    third = shelf.make(full=True, keep=(1, 0, 0, 0))
    assert third.kept == in_store() < 300_000
    assert shelf.make(parent=third.id, fingerprint=third.fingerprint).kept == 0


def test_without_a_change_nothing_is_stored_unless_a_full_look_is_asked_for(shelf: Shelf) -> None:
    """Not even asked of the store, which may be away."""
    first = shelf.make()
    before = shelf.stored()
    order: dict[str, Any] = {"parent": first.id, "fingerprint": first.fingerprint}
    again = replace(shelf, url="file:///nowhere/at/all").make(**order)
    assert (again.unchanged, again.id, again.fingerprint) == (True, first.id, first.fingerprint)
    assert shelf.stored() == before
    full = shelf.make(full=True, **order)
    assert (full.unchanged, full.checked, full.broken) == (False, True, ())
    assert set(shelf.sidecars.ids()) == {first.id, full.id}


def test_the_second_point_stores_what_changed(shelf: Shelf) -> None:
    shelf.write("app/large", b"".join(number.to_bytes(8, "big") for number in range(500_000)))
    first = shelf.make()
    shelf.write("app/small", "a line")
    second = shelf.make(parent=first.id, fingerprint=first.fingerprint)
    assert first.stored > 100_000
    assert second.stored < 10_000


def test_neither_content_nor_name_nor_prompt_nor_user_is_in_any_byte_of_the_store(shelf: Shelf) -> None:
    shelf.write("app/canary-name.txt", "canary content")
    shelf.write(".session/history.json", json.dumps([{"content": "canary prompt"}]))
    shelf.make(message_id="canary-message")
    stored = b"".join(content + Path(path).name.encode() for path, content in shelf.stored().items())
    for secret in (b"canary", b"ada@", b"app/", b'"app"', str(shelf.volume).encode(), b"which"):
        assert secret not in stored.replace(b"repository", b"")


def test_points_that_are_too_many_go_with_the_data_only_they_had(shelf: Shelf) -> None:
    ids = []
    for number in range(4):
        shelf.write("app/large", bytes([number]) + number.to_bytes(4, "big") * 100_000)
        ids.append(shelf.make(keep=(2, 0, 0, 0)).id)
    assert set(shelf.sidecars.ids()) == set(ids[2:])
    assert len(repositories(shelf.store, UUID)[0].snapshots()) == 2
    assert shelf.make(full=True, keep=(2, 0, 0, 0)).forgotten == (ids[2],)


def test_a_point_that_a_restore_needs_stays(shelf: Shelf, tmp_path: Path) -> None:
    shelf.write("app/which", "the first")
    first = shelf.make().id
    for number in range(4):
        shelf.write("app/which", f"{number}")
        assert shelf.make(keep=(1, 0, 0, 0), needed=(first,)).forgotten.count(first) == 0
    assert shelf.restore(first, tmp_path / "again").id == first
    shelf.write("app/which", "the last")
    assert first in shelf.make(keep=(1, 0, 0, 0)).forgotten


def test_a_point_made_by_a_worker_that_died_is_not_made_again(shelf: Shelf) -> None:
    made = shelf.make()
    again = shelf.make(id=made.id)
    assert (again.id, again.stored, again.created_at) == (made.id, made.stored, made.created_at)
    assert len(repositories(shelf.store, UUID)[0].snapshots()) == 1


def test_locks_and_snapshots_of_killed_calls_are_removed(shelf: Shelf) -> None:
    shelf.make()
    repository = repositories(shelf.store, UUID)[0]
    (Path(repository.folder) / "locks" / ("0" * 64)).write_bytes(b"left by a killed restic")
    half = shelf.make()
    shelf.sidecars.remove(half.id)
    shelf.make(full=True)
    assert list((Path(repository.folder) / "locks").iterdir()) == []
    assert len(repository.snapshots()) == 2


def test_what_a_restore_would_refuse_is_refused_and_leaves_nothing(shelf: Shelf) -> None:
    with pytest.raises(ArchiveError, match="3 files"):
        shelf.make(max_entries=2)
    with pytest.raises(ArchiveError, match="27 bytes"):
        shelf.make(max_bytes=26)
    assert list(shelf.folder.parent.glob("*")) == []


def test_restic_does_not_begin_with_what_is_too_large(shelf: Shelf) -> None:
    """It would read all holes of a file of which nothing is on the disk, and hold others up meanwhile."""
    shelf.write("app/huge", "")
    os.truncate(shelf.volume / "app/huge", 1 << 40)
    with pytest.raises(ArchiveError, match="4 files"):
        shelf.make(restic="/nowhere/restic")


@pytest.mark.parametrize("walk", ["is finished", "is given up"])
def test_what_grows_after_the_walk_is_refused_while_restic_reads_it(
    shelf: Shelf, script: Script, monkeypatch: pytest.MonkeyPatch, walk: str
) -> None:
    if walk == "is given up":
        monkeypatch.setattr(fingerprint, "LOOK_EVERY", 1)
        monkeypatch.setattr(fingerprint, "MOST_ENTRIES", 0)
    shelf.write("app/huge", "")
    with pytest.raises(ArchiveError, match="at most"):
        shelf.make(restic=script('truncate -s 100G app/huge; exec restic "$@"'))
    assert shelf.sidecars.ids() == []
    assert repositories(shelf.store, UUID)[0].snapshots() == []


def test_restic_is_ended_when_it_reads_nothing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace may put a pipe in a file's place, which nobody writes to."""
    monkeypatch.setattr(making, "STANDSTILL", -1.0)
    reading = making.Reading(shelf.order())
    for moved in ({"files_done": 1}, {"files_done": 1, "bytes_done": 5}, {"files_done": 2, "bytes_done": 5}):
        reading(moved)
    with pytest.raises(RetryableError):
        reading({"files_done": 2, "bytes_done": 5})


def test_what_restic_read_although_it_is_too_large_makes_no_point(shelf: Shelf, script: Script) -> None:
    """It says so at its end at the latest."""
    with pytest.raises(ArchiveError, match="4 files"):
        shelf.make(restic=script('echo more > app/more; exec restic "$@"'), max_entries=3)
    assert shelf.sidecars.ids() == []
    assert repositories(shelf.store, UUID)[0].snapshots() == []


def test_a_volume_without_files_is_gone(shelf: Shelf, tmp_path: Path) -> None:
    shelf.volume = tmp_path / "empty"
    shelf.volume.mkdir()
    with pytest.raises(FilesGone):
        shelf.make()


def test_a_volume_that_is_taken_away_meanwhile_makes_no_point(shelf: Shelf, tmp_path: Path) -> None:
    """What restic has read until then may be a part."""
    calls = []

    def move() -> None:
        calls.append(1)
        if shelf.volume.exists():
            shelf.volume.rename(tmp_path / "trash")

    shelf.write("app/large", bytes(30_000_000))
    with pytest.raises((FilesGone, RetryableError)):
        shelf.make(move)
    assert calls
    assert shelf.sidecars.ids() == []


def test_a_volume_that_another_takes_the_place_of_meanwhile_makes_no_point(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is empty until its files are restored."""
    walk = making.fingerprint

    def replaced(*arguments: Any) -> str:
        found = walk(*arguments)
        shelf.volume.rename(tmp_path / "lost")
        shelf.write("app/empty", "")
        return found

    monkeypatch.setattr(making, "fingerprint", replaced)
    with pytest.raises(FilesGone):
        shelf.make()
    assert shelf.sidecars.ids() == []


def test_a_point_nobody_wants_any_more_is_broken_off_and_leaves_no_lock(shelf: Shelf) -> None:
    with pytest.raises(Superseded):
        shelf.make(check=overtaken)
    assert shelf.sidecars.ids() == []
    shelf.make()
    assert list(shelf.folder.glob("repository-1/locks/*")) == []


def test_unreadable_files_are_counted_and_the_rest_is_saved(shelf: Shelf, script: Script) -> None:
    """Nothing is unreadable to root, so restic is told to say so."""
    says = '{"message_type":"error","error":{},"during":"archival","item":"/x"}'
    made = shelf.make(restic=script(f"restic \"$@\" || exit\necho '{says}' >&2\nexit 3"))
    sidecar = shelf.sidecars.read()[made.id]
    assert sidecar is not None
    assert (sidecar.unreadable, sidecar.files) == (made.unreadable, made.files) == (1, 3)


@hides
@pytest.mark.parametrize("target", ["/proc/self", "{folder}"])
def test_a_link_in_a_folders_place_leads_restic_to_nothing_of_ours(
    shelf: Shelf, tmp_path: Path, script: Script, target: str
) -> None:
    """A workspace that runs can put it there between restic's look at the folder and at its files. Here restic is told
    of a file behind the link instead, which it opens alike."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environ").write_text("RESTIC_PASSWORD=ours")
    (shelf.volume / "app/swapped").symlink_to(target.format(folder=tmp_path / "run"))
    program = script(
        "for each; do shift\n"
        '[ "$each" = app ] && set -- "$@" app/readme app/swapped/environ || set -- "$@" "$each"\n'
        'done; exec restic "$@"'
    )
    made = shelf.make(restic=program)
    shelf.restore(made.id, tmp_path / "again")
    assert (tmp_path / "again/app/readme").read_text() == "the project"
    stolen = tmp_path / "again/app/swapped/environ"
    assert not stolen.exists() or "RESTIC_PASSWORD" not in stolen.read_text()
    sidecar = shelf.sidecars.read()[made.id]
    assert sidecar is not None
    assert sidecar.unreadable > 0


# Damage, and what is none


def test_damage_is_found_named_and_followed_by_a_whole_point_in_a_fresh_repository(shelf: Shelf) -> None:
    whole = shelf.make()
    shelf.write("app/second", "only the second point has this")
    broken = shelf.make_broken()
    full = shelf.make(full=True)
    assert (full.broken, full.repository, full.checked) == ((broken.id,), 2, True)
    assert set(shelf.sidecars.ids()) == {whole.id, broken.id, full.id}


UNANSWERED = """echo 'Fatal: Stat: Head "https://store.example/config": dial tcp: i/o timeout' >&2; exit 1"""


def test_where_restic_alone_does_not_reach_the_store_no_point_is_called_broken(shelf: Shelf, script: Script) -> None:
    """The store's other client may reach it again by then."""
    shelf.make()
    with pytest.raises(Unanswered):
        shelf.make(restic=script(UNANSWERED), full=True)
    assert len(repositories(shelf.store, UUID)) == 1


def test_a_point_stays_made_where_only_its_prune_does_not_reach_the_store(shelf: Shelf, script: Script) -> None:
    program = script(f'case "$*" in *" prune "*) {UNANSWERED};; esac\nexec restic "$@"')
    made = shelf.make(restic=program, full=True)
    assert made.checked
    assert shelf.sidecars.ids() == [made.id]


def test_a_repository_that_cannot_be_opened_any_more_is_mended_from_a_sidecar(shelf: Shelf) -> None:
    first = shelf.make()
    for file in [*shelf.folder.glob("repository-1/keys/*"), shelf.folder / "repository-1/config"]:
        file.unlink()
    second = shelf.make(full=True)
    assert (second.repository, second.broken) == (1, ())
    assert set(shelf.sidecars.ids()) == {first.id, second.id}


def test_a_lost_index_is_made_again(shelf: Shelf) -> None:
    shelf.make()
    for file in shelf.folder.glob("repository-1/index/*"):
        flip(file)
    made = shelf.make(full=True)
    assert made.broken == ()


def test_a_damaged_sidecar_is_a_broken_point(shelf: Shelf) -> None:
    made = shelf.make()
    flip(shelf.folder / f"points/{made.id}.json")
    (shelf.folder / "points/notes.txt").write_text("a foreign file harms nothing")
    assert shelf.make(full=True).broken == (made.id,)


def test_a_broken_point_asks_for_a_fresh_repository_once_and_the_old_one_goes_with_it(shelf: Shelf) -> None:
    broken = shelf.make()
    made = [shelf.make(broken=(broken.id,), keep=(2, 0, 0, 0)) for _ in range(3)]
    assert [each.repository for each in made] == [2, 2, 2]
    assert broken.id not in shelf.sidecars.ids()
    assert [each.number for each in repositories(shelf.store, UUID)] == [2]


def test_a_rotated_key_goes_on_in_the_same_repository(shelf: Shelf) -> None:
    old = new_key()
    shelf.keys = ArchiveKeys(old).session(UUID)
    first = shelf.make()
    shelf.keys = ArchiveKeys(f"{new_key()},{old}").session(UUID)
    second = shelf.make(parent=first.id, full=True)
    assert (second.repository, second.broken) == (1, ())


def test_a_store_of_no_known_kind_is_refused(shelf: Shelf) -> None:
    with pytest.raises(PermanentError, match="memory"):
        replace(shelf, url="memory://here").make()


def test_without_restic_the_error_says_what_to_install(shelf: Shelf) -> None:
    with pytest.raises(PermanentError, match="restic cannot be run: install it"):
        shelf.make(restic="/nowhere/restic")
