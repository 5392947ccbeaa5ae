"""The keys of the archive: derived per session, rotated, and never shown."""

from __future__ import annotations

import pytest

from app.core.errors import ArchiveError
from app.core.storage.archive_keys import ArchiveKeys, SessionKeys, UnknownKey, new_key
from app.process.settings import SettingsError

OLD, NEW = new_key(), new_key()


def test_a_document_comes_back_whole_under_its_own_name_and_to_its_session_only() -> None:
    ours, theirs = ArchiveKeys(NEW).session("aaaaaaaa"), ArchiveKeys(NEW).session("bbbbbbbb")
    stored = ours.encrypt(b"the text", "index.json")
    assert b"the text" not in stored
    assert ours.decrypt(stored, "index.json") == b"the text"
    flipped = stored[:-1] + bytes([stored[-1] ^ 1])
    for keys, text, name in (
        (ours, stored, "context.json"),
        (theirs, stored, "index.json"),
        (ours, flipped, "index.json"),
    ):
        with pytest.raises(ArchiveError, match="damaged"):
            keys.decrypt(text, name)


def test_after_a_rotation_old_documents_are_read_and_new_ones_are_of_the_new_key() -> None:
    before = ArchiveKeys(OLD).session("aaaaaaaa").encrypt(b"old", "x")
    rotated = ArchiveKeys(f"{NEW}, {OLD}")
    assert rotated.session("aaaaaaaa").decrypt(before, "x") == b"old"
    after = rotated.session("aaaaaaaa").encrypt(b"new", "x")
    assert ArchiveKeys(NEW).session("aaaaaaaa").decrypt(after, "x") == b"new"
    with pytest.raises(UnknownKey, match=rotated.ids[1]):
        ArchiveKeys(NEW).session("aaaaaaaa").decrypt(before, "x")


def test_what_was_stored_unencrypted_is_read_without_a_key_only() -> None:
    assert ArchiveKeys("").session("aaaaaaaa").decrypt(b'{"a": 1}', "x") == b'{"a": 1}'
    with pytest.raises(ArchiveError, match="not written with a key"):
        ArchiveKeys(NEW).session("aaaaaaaa").decrypt(b'{"a": 1}', "x")


def test_another_process_gets_the_keys_of_one_session() -> None:
    keys = ArchiveKeys(f"{NEW},{OLD}").session("aaaaaaaa")
    handed_over = SessionKeys.from_text(keys.to_text())
    assert handed_over.decrypt(keys.encrypt(b"the text", "x"), "x") == b"the text"
    assert handed_over.newest == keys.newest


def test_its_text_for_people_has_no_key() -> None:
    keys = ArchiveKeys(NEW).session("aaaaaaaa")
    assert keys.keys[keys.newest].hex() not in repr(keys)


@pytest.mark.parametrize("text", ["short", "not base64!", "A" * 40])
def test_a_malformed_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(SettingsError, match="32 random bytes") as error:
        ArchiveKeys(text)
    assert text not in str(error.value)


def test_without_a_key_there_is_none() -> None:
    assert not ArchiveKeys(" ")
    assert ArchiveKeys(NEW)
