"""Conversations are stored whole, read back as they were, and kept to themselves."""

from __future__ import annotations

import json
import os
import stat

import fsspec
import pytest
from cryptography.fernet import Fernet

from app.sessions import archive_store
from app.sessions.archive_store import DOCUMENTS, Archive, Checkpoint
from app.sessions.errors import ArchiveError, InvalidRequest, NoSpace
from app.settings import SettingsError

UUID = "abcd1234"
TALK = Checkpoint(
    history=[{"role": "user", "content": "Grüße \ud800 ‑ ok"}, {"role": "assistant", "content": "ja"}],
    context=[{"role": "user", "content": "short"}],
    metadata={"turns": 1},
)
LATER = Checkpoint(history=[*TALK.history, {"role": "user", "content": "more"}])


@pytest.fixture(params=["file", "memory"])
def url(request, tmp_path):
    """A folder, and a store of objects."""
    if request.param == "file":
        yield f"file://{tmp_path}/deep/archive"
    else:
        yield "memory://archive"
        fsspec.filesystem("memory").store.clear()


def test_a_conversation_reads_as_it_was_written(url):
    """Texts of any kind included: a model may write half a character."""
    Archive(url).write(UUID, TALK)
    assert Archive(url).read(UUID) == TALK


def test_a_conversation_never_written_is_none(url):
    """No error: a new session has none."""
    assert Archive(url).read(UUID) is None
    assert Archive(url).last_written(UUID) is None
    assert Archive(url).uuids() == []


def test_the_last_one_written_stands(url):
    """In place of the one before, all three documents of it."""
    archive = Archive(url)
    archive.write(UUID, TALK)
    archive.write(UUID, LATER)
    assert archive.read(UUID) == LATER


def test_conversations_are_kept_apart_and_listed(url):
    """Each under its own session; what else lies in the store is nobody's."""
    archive = Archive(url)
    archive.write(UUID, TALK)
    archive.write("zzzz9999", LATER)
    assert archive.read("zzzz9999") == LATER
    assert archive.uuids() == [UUID, "zzzz9999"]


def test_a_deleted_conversation_is_gone(url):
    """Deleting it again is no error."""
    archive = Archive(url)
    archive.write(UUID, TALK)
    archive.delete(UUID)
    archive.delete(UUID)
    assert archive.read(UUID) is None
    assert archive.uuids() == []


def test_renewing_moves_its_time(tmp_path):
    """The retention counts from the end of a session, not from its last word."""
    archive = Archive(str(tmp_path))
    archive.write(UUID, TALK)
    os.utime(tmp_path / UUID / "metadata.json", (1_000.0, 1_000.0))
    assert archive.last_written(UUID) == 1_000.0
    archive.renew(UUID, {})
    renewed = archive.last_written(UUID)
    assert renewed is not None
    assert renewed > 1_000.0


def test_renewing_leaves_the_conversation(url):
    """Only what is known of it is replaced."""
    archive = Archive(url)
    archive.write(UUID, TALK)
    archive.renew(UUID, {"turns": 1, "ended": True})
    assert archive.last_written(UUID) is not None
    assert archive.read(UUID) == Checkpoint(TALK.history, TALK.context, {"turns": 1, "ended": True})


def test_an_encrypted_conversation_shows_nothing(tmp_path):
    """Neither a word nor a role is in the stored bytes."""
    key = Fernet.generate_key().decode()
    Archive(str(tmp_path), key).write(UUID, TALK)
    for name in DOCUMENTS:
        stored = (tmp_path / UUID / name).read_bytes()
        assert b"role" not in stored
        assert b"turns" not in stored
    assert Archive(str(tmp_path), key).read(UUID) == TALK


def test_a_key_may_be_added_later_and_rotated(tmp_path):
    """What was stored in the clear, or with the key before, is still read."""
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    Archive(str(tmp_path)).write("plain000", TALK)
    Archive(str(tmp_path), old).write("older000", TALK)
    rotated = Archive(str(tmp_path), f"{new},{old}")
    assert rotated.read("plain000") == rotated.read("older000") == TALK
    rotated.write("newer000", TALK)
    assert Archive(str(tmp_path), new).read("newer000") == TALK


@pytest.mark.parametrize("key", ["", Fernet.generate_key().decode()], ids=["no key", "another key"])
def test_without_its_key_a_conversation_is_an_error_not_an_empty_one(tmp_path, key):
    """An agent that began anew would overwrite it."""
    Archive(str(tmp_path), Fernet.generate_key().decode()).write(UUID, TALK)
    with pytest.raises(ArchiveError, match="ARCHIVE_KEY"):
        Archive(str(tmp_path), key).read(UUID)


def test_a_key_that_is_none_is_refused_without_being_shown():
    """At the start of the process, not at the first checkpoint."""
    with pytest.raises(SettingsError, match="ARCHIVE_KEY") as error:
        Archive("memory://archive", "not-a-key")
    assert "not-a-key" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "null", '{"a": 1}', '["text"]', ""])
def test_a_damaged_history_is_an_error_not_an_empty_one(tmp_path, text):
    """For the same reason."""
    Archive(str(tmp_path)).write(UUID, TALK)
    (tmp_path / UUID / "history.json").write_text(text)
    with pytest.raises(ArchiveError):
        Archive(str(tmp_path)).read(UUID)


@pytest.mark.parametrize("name", ["..", "../abcd12", "", "abcd1234/..", "ABCD1234", "abcd12345"])
def test_only_a_sessions_name_names_a_conversation(url, name):
    """No other path of the store can be reached."""
    archive = Archive(url)
    for act in (archive.read, archive.delete, archive.last_written, lambda uuid: archive.write(uuid, TALK)):
        with pytest.raises(InvalidRequest):
            act(name)


def test_a_write_that_fails_leaves_the_conversation_before(tmp_path, monkeypatch):
    """Each document is replaced whole or not at all, and nothing half-written stays."""
    archive = Archive(str(tmp_path))
    archive.write(UUID, TALK)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive_store.os, "fsync", full)
    with pytest.raises(NoSpace):
        archive.write(UUID, LATER)
    monkeypatch.undo()
    assert archive.read(UUID) == TALK
    assert sorted(os.listdir(tmp_path / UUID)) == sorted(DOCUMENTS)


def test_local_files_are_their_owners_only(tmp_path):
    """Other users of the machine don't read along."""
    Archive(str(tmp_path / "archive")).write(UUID, TALK)
    folder = tmp_path / "archive" / UUID
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"history": {}},
        {"history": ["text"]},
        {"history": [], "context": None},
        {"history": [], "metadata": []},
    ],
)
def test_what_is_no_checkpoint_is_refused(document):
    """An agent may send anything."""
    with pytest.raises(InvalidRequest):
        Checkpoint.from_json(document)


def test_a_checkpoint_survives_its_json():
    """As the agent and the gateway exchange it."""
    assert Checkpoint.from_json(json.loads(json.dumps(TALK.to_json()))) == TALK
