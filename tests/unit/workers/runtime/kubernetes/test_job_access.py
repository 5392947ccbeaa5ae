"""What a Job is given of the store, by the kind of its work."""

from __future__ import annotations

import pytest

from app.core.errors import BackupNotFound
from workers.runtime.kubernetes.job_access import Access, making, proving, reading

NAME = "app-bbbb0002-20260101-000000.zip"
POINT = "point-bbbb0002-p000000000000000"


def test_who_makes_a_backup_or_a_restore_point_has_its_sessions_folder() -> None:
    assert making("aaaa0001") == Access(("aaaa0001/",), may_write=True)


def test_who_reads_a_backup_has_its_two_files_to_read() -> None:
    files = (f"bbbb0002/{NAME}", f"bbbb0002/{NAME}.json")
    assert reading(NAME) == Access(files, may_write=False)


def test_who_proves_a_restore_point_reads_its_sessions_folder() -> None:
    assert proving("aaaa0001") == Access(("aaaa0001/",), may_write=False)


def test_who_restores_a_restore_point_has_the_folder_of_the_session_it_is_of() -> None:
    assert reading(POINT) == Access(("bbbb0002/",), may_write=True)


@pytest.mark.parametrize("name", ["", "../app-bbbb0002-20260101-000000.zip", "app-bbbb-20260101-000000.zip", "*"])
def test_an_invalid_name_opens_nothing(name: str) -> None:
    with pytest.raises(BackupNotFound):
        reading(name)


def test_paths_are_below_that_of_the_store() -> None:
    assert making("aaaa0001").below("kept/backups") == ("kept/backups/aaaa0001/",)
    assert making("aaaa0001").below("") == ("aaaa0001/",)
