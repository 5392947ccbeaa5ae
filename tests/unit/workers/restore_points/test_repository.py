"""The files that we make in restic's stead are as restic wants them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from app.core.storage.archive_keys import ArchiveKeys, SessionKeys, UnknownKey, new_key
from tests.unit.workers.restore_points.conftest import UUID, Shelf, flip
from workers.restore_points.repository import (
    DEGREE,
    Damaged,
    Head,
    Repository,
    irreducible,
    is_irreducible,
    password,
    repositories,
)
from workers.restore_points.restic import Failed, Restic
from workers.runtime.base import never

RESTICS_OWN = 0x25B468838DCB75
"""The example of restic's design document."""


def made(shelf: Shelf, keys: SessionKeys | None = None) -> Repository:
    repository = Repository(shelf.store, UUID, 1)
    repository.make(Head.new(), keys or shelf.keys)
    return repository


def expect_sound(repository: Repository, keys: SessionKeys) -> None:
    """restic opens it with these keys, and finds no fault."""
    Restic(repository, password(keys, keys.newest), never).run("check")


def test_without_the_sessions_key_it_stays_closed_and_the_key_that_is_gone_is_named(shelf: Shelf) -> None:
    repository, other = made(shelf), ArchiveKeys(new_key()).session(UUID)
    with pytest.raises(Failed, match="wrong password"):
        expect_sound(repository, other)
    with pytest.raises(UnknownKey, match=shelf.keys.newest):
        repository.head(other)


def test_a_local_repository_is_for_its_owner_only(shelf: Shelf) -> None:
    made(shelf)
    found = [shelf.folder, *shelf.folder.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()} == {0o600}


@pytest.mark.slow
def test_a_new_archive_key_gets_a_key_file_and_the_old_one_still_opens(shelf: Shelf) -> None:
    """A rotation rewrites no data."""
    old, new = new_key(), new_key()
    before, after = (ArchiveKeys(text).session(UUID) for text in (old, f"{new},{old}"))
    repository = made(shelf, before)
    head = repository.head(before)
    assert repository.head(after) == head
    for keys in (before, after, ArchiveKeys(new).session(UUID)):
        expect_sound(repository, keys)
        assert repository.head(keys) == head


@pytest.mark.parametrize("name", ["config", "keys/*"])
@pytest.mark.slow
def test_a_damaged_file_is_found_and_written_anew(shelf: Shelf, name: str) -> None:
    repository = made(shelf)
    head = repository.head(shelf.keys)
    flip(next(Path(repository.folder).glob(name)))
    with pytest.raises(Damaged):
        repository.head(shelf.keys)
    repository.make(head, shelf.keys)
    expect_sound(repository, shelf.keys)
    assert repository.head(shelf.keys) == head


def test_the_repositories_of_a_session_are_listed_in_their_order(shelf: Shelf) -> None:
    assert repositories(shelf.store, UUID) == []
    for number in (10, 9):
        Repository(shelf.store, UUID, number).make(Head.new(), shelf.keys)
    (shelf.folder / "repository-x").mkdir()
    (shelf.folder / "points").mkdir()
    assert [each.number for each in repositories(shelf.store, UUID)] == [9, 10]
    repositories(shelf.store, UUID)[0].delete()
    assert [each.number for each in repositories(shelf.store, UUID)] == [10]


def test_a_polynomial_of_ours_is_irreducible_as_that_of_restics_document_and_of_its_degree() -> None:
    assert is_irreducible(RESTICS_OWN)
    assert not is_irreducible(RESTICS_OWN ^ 0b10)
    assert not is_irreducible(1 << DEGREE)
    found = {irreducible() for _ in range(20)}
    assert all(is_irreducible(each) and each.bit_length() == DEGREE + 1 for each in found)
    assert len(found) == 20


def test_a_head_shows_no_secret() -> None:
    head = Head.new()
    assert head.master["encrypt"] not in repr(head)
    assert Head.of(head.to_document()) == head


def test_the_store_is_tried_in_the_sessions_folder_as_a_job_sees_no_other(shelf: Shelf) -> None:
    repository = made(shelf)
    before = sorted(shelf.folder.parent.iterdir())
    shelf.folder.parent.chmod(0o500)
    repository.check_store()
    assert sorted(shelf.folder.parent.iterdir()) == before == [shelf.folder]
