"""Conversations are stored whole or piece by piece, read back as they were, and kept to themselves."""

from __future__ import annotations

import os
import stat
from unittest.mock import Mock

import fsspec
import pytest

from app.core.errors import ArchiveError, InvalidRequest, NoSpace
from app.core.prompts import history_index, history_store
from app.core.prompts.history_index import Contended, ConversationTooLong, Head, OtherConversation, Piece
from app.core.prompts.history_store import Checkpoint, HistoryStore, context_and_metadata
from app.core.storage import file_store
from app.core.storage.archive_keys import MAGIC, ArchiveKeys, UnknownKey, new_key

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


@pytest.fixture
def archive(url):
    return HistoryStore(url)


DOCUMENTS = ["context.json", "index.json", "metadata.json"]


def said(begin, end):
    """Messages, by their numbers."""
    return [{"id": f"m{n}", "role": "user", "content": f"{n} " + "x" * 50} for n in range(begin, end)]


def piece(begin, end, edition="one", mark=None):
    """Those messages as an agent adds them; its mark is how many there are."""
    before = (str(begin) if begin else "") if mark is None else mark
    return Piece(edition, begin, before, str(end), said(begin, end))


def head(messages, edition="one"):
    return Head(edition, messages, str(messages) if messages else "")


def names(archive, uuid=UUID):
    """The files of a conversation; chunks only by how many there are."""
    found = sorted(archive._files.names(f"{archive._files.root}/{uuid}"))
    return len([name for name in found if name not in DOCUMENTS]), [name for name in found if name in DOCUMENTS]


def keep(archive, end, edition="one", metadata=None):
    """Add all messages up to a number, and have them count."""
    archive.append(UUID, piece(0, end, edition))
    archive.settle(UUID, head(end, edition), [], metadata or {})


def reads_of(archive, monkeypatch):
    """The names of the documents that are read from now on."""
    read: list[str] = []
    real = archive._get

    def get(folder, uuid, name):
        read.append(name)
        return real(folder, uuid, name)

    monkeypatch.setattr(archive, "_get", get)
    return read


def with_each_write(archive, monkeypatch, of, act):
    """Do something else right before a document is written whose name is as wanted."""
    real = archive._put

    def put(folder, name, content):
        if of(name):
            act()
        real(folder, name, content)

    monkeypatch.setattr(archive, "_put", put)


def sure(found):
    """What there is, where a test knows that there is something."""
    assert found is not None
    return found


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of two or three messages."""
    monkeypatch.setattr(history_index, "CHUNK_BYTES", 300)
    monkeypatch.setattr(history_store, "CHUNK_BYTES", 300)


def test_each_session_has_its_last_conversation_as_it_was_written_until_it_is_deleted(url, archive):
    """Texts of any kind included: a model may write half a character. A new session has none."""
    assert (archive.read(UUID), archive.last_written(UUID), archive.uuids()) == (None, None, [])
    archive.write(UUID, TALK)
    assert HistoryStore(url).read(UUID) == TALK
    archive.write(UUID, LATER)
    assert archive.read(UUID) == LATER
    archive.write("zzzz9999", TALK)
    assert (archive.read("zzzz9999"), archive.uuids()) == (TALK, [UUID, "zzzz9999"])
    for _ in range(2):
        archive.delete(UUID)
        assert (archive.read(UUID), archive.uuids()) == (None, ["zzzz9999"])


def test_renewing_moves_its_time_and_leaves_the_conversation(tmp_path):
    """The retention counts from the end of a session, not from its last word. Only what is known of it is replaced."""
    archive = HistoryStore(str(tmp_path))
    archive.write(UUID, TALK)
    os.utime(tmp_path / UUID / "metadata.json", (1_000.0, 1_000.0))
    assert archive.last_written(UUID) == 1_000.0
    archive.renew(UUID, {"turns": 1, "ended": True})
    assert sure(archive.last_written(UUID)) > 1_000.0
    assert archive.read(UUID) == Checkpoint(TALK.history, TALK.context, {"turns": 1, "ended": True})


def encrypted(folder, key):
    return HistoryStore(str(folder), keys=ArchiveKeys(key))


def test_with_an_archive_key_nothing_is_stored_in_the_clear(tmp_path):
    """Neither a word nor a role is in the stored bytes; and each document is its session's own."""
    key = new_key()
    store = encrypted(tmp_path, key)
    for uuid in (UUID, "other000"):
        store.write(uuid, TALK)
    assert encrypted(tmp_path, key).read(UUID) == TALK
    assert store.key_ids() == ArchiveKeys(key).ids
    stored = [path.read_bytes() for path in (tmp_path / UUID).iterdir()]
    assert len(stored) == 4
    for content in stored:
        assert content.startswith(MAGIC)
        assert not any(word in content for word in (b"role", b"turns", b"chunks"))
    (tmp_path / "other000" / "context.json").replace(tmp_path / UUID / "context.json")
    with pytest.raises(ArchiveError, match="damaged"):
        store.read(UUID)


def test_a_key_may_be_rotated(tmp_path):
    """What was stored with the key before is still read."""
    old, new = new_key(), new_key()
    encrypted(tmp_path, old).write("older000", TALK)
    rotated = encrypted(tmp_path, f"{new},{old}")
    assert rotated.read("older000") == TALK
    rotated.write("newer000", TALK)
    assert encrypted(tmp_path, new).read("newer000") == TALK


def test_who_has_a_key_takes_no_conversation_that_was_written_without_it(tmp_path):
    """Whoever can write to the store could else put words into it."""
    HistoryStore(str(tmp_path)).write(UUID, TALK)
    with pytest.raises(ArchiveError, match="damaged"):
        encrypted(tmp_path, new_key()).read(UUID)


def test_without_its_key_a_conversation_is_an_error_that_names_the_key(tmp_path):
    """Not an empty conversation: an agent that began anew would overwrite it."""
    key = new_key()
    encrypted(tmp_path, key).write(UUID, TALK)
    for store in (HistoryStore(str(tmp_path)), encrypted(tmp_path, new_key())):
        with pytest.raises(UnknownKey, match=ArchiveKeys(key).ids[0]):
            store.read(UUID)


NO_INDEX = '{"version":1,"current":{"name":1},"following":null}'


@pytest.mark.parametrize(
    ("document", "text"),
    [
        *(("*-*.json", text) for text in ("{", "null", '{"a": 1}', '["text"]', "")),
        *(("index.json", text) for text in ("{", "null", '{"a": 1}', "[]", NO_INDEX)),
    ],
)
def test_a_damaged_chunk_or_index_is_an_error_not_an_empty_conversation(tmp_path, document, text):
    """For the same reason."""
    HistoryStore(str(tmp_path)).write(UUID, TALK)
    [path] = (tmp_path / UUID).glob(document)
    path.write_text(text)
    with pytest.raises(ArchiveError):
        HistoryStore(str(tmp_path)).read(UUID)


def test_a_chunk_that_is_missing_is_an_error_not_a_shorter_conversation(archive, small_chunks):
    """All of it can be brought again, and takes its place then."""
    archive.write(UUID, Checkpoint(said(0, 7)))
    edition = sure(archive.index(UUID).current)
    archive._remove(archive._folder(UUID), [edition.chunks[-1].name])
    with pytest.raises(ArchiveError, match="damaged"):
        archive.read(UUID)
    with pytest.raises(OtherConversation) as error:
        archive.append(UUID, Piece(edition.name, 7, "", "8", said(7, 8)))
    assert error.value.index.heads() == {"current": None, "following": None}
    keep(archive, 3, "again")
    assert archive.read(UUID) == Checkpoint(said(0, 3))


@pytest.mark.parametrize("name", ["..", "../abcd12", "", "abcd1234/..", "ABCD1234", "abcd12345"])
def test_only_a_sessions_name_names_a_conversation(archive, name):
    """No other path of the store can be reached."""
    writing = (
        lambda uuid: archive.write(uuid, TALK),
        lambda uuid: archive.append(uuid, piece(0, 1)),
        lambda uuid: archive.settle(uuid, head(0), [], {}),
    )
    for act in (archive.read, archive.page, archive.index, archive.delete, archive.last_written, *writing):
        with pytest.raises(InvalidRequest):
            act(name)


def test_a_write_that_fails_leaves_the_conversation_before(tmp_path, monkeypatch):
    """Each document is replaced whole or not at all, and nothing half-written stays."""
    archive = HistoryStore(str(tmp_path))
    archive.write(UUID, TALK)
    with monkeypatch.context() as patch, pytest.raises(NoSpace):
        patch.setattr(file_store.os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
        archive.write(UUID, LATER)
    assert archive.read(UUID) == TALK
    assert names(archive) == (1, DOCUMENTS)


def test_local_files_are_their_owners_only(tmp_path):
    """Other users of the machine don't read along."""
    HistoryStore(str(tmp_path / "archive")).write(UUID, TALK)
    folder = tmp_path / "archive" / UUID
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


# Piece by piece


def test_messages_are_added_and_count_once_they_are_all_there(url, archive, small_chunks):
    """Until then the conversation is what it was, and its documents say how far it is."""
    archive.append(UUID, piece(0, 2))
    assert archive.read(UUID) is None
    assert archive.uuids() == [UUID]
    assert archive.last_written(UUID) is not None
    assert sure(archive.append(UUID, piece(2, 7)).following).head() == head(7)
    archive.settle(UUID, head(7), said(6, 7), {"turns": 7})
    assert archive.read(UUID) == Checkpoint(said(0, 7), said(6, 7), {"turns": 7})
    archive.append(UUID, piece(7, 8))
    assert archive.index(UUID).heads() == {"current": head(8).to_json(), "following": None}
    archive.settle(UUID, head(8), [], {"turns": 8})
    assert HistoryStore(url).read(UUID) == Checkpoint(said(0, 8), [], {"turns": 8})


def test_a_small_addition_costs_no_file_and_reads_one_chunk(archive, small_chunks, monkeypatch):
    """However long the conversation is."""
    for n in range(40):
        archive.append(UUID, piece(n, n + 1))
    chunks = sure(archive.index(UUID).following).chunks
    assert all(chunk.messages > 1 and chunk.size <= 300 for chunk in chunks[:-1])
    assert names(archive) == (len(chunks), ["index.json"])
    read = reads_of(archive, monkeypatch)
    archive.append(UUID, piece(40, 41))
    assert len([name for name in read if name != "index.json"]) <= 1
    archive.settle(UUID, head(41), [], {})
    assert sure(archive.read(UUID)).history == said(0, 41)


def test_a_message_longer_than_a_chunk_has_one_of_its_own(archive, small_chunks):
    long = {"id": "m", "role": "tool", "content": "x" * 5_000}
    archive.write(UUID, Checkpoint([*said(0, 2), long, *said(2, 4)]))
    assert sure(archive.read(UUID)).history == [*said(0, 2), long, *said(2, 4)]
    assert [chunk.messages for chunk in sure(archive.index(UUID).current).chunks] == [2, 1, 2]


def test_a_page_is_read_by_its_number(tmp_path, small_chunks, monkeypatch):
    """And by no more than the chunks it is in."""
    archive = HistoryStore(str(tmp_path))
    archive.write(UUID, Checkpoint(said(0, 20)))
    read = reads_of(archive, monkeypatch)
    for after, limit in [(0, 3), (7, 1), (7, 5), (19, 5), (20, 5), (99, 1)]:
        read.clear()
        page = sure(archive.page(UUID, after, limit))
        assert (page.messages, page.total) == (said(0, 20)[after : after + limit], 20)
        assert len(read) - 1 <= limit // 2 + 2
    assert sure(archive.page(UUID)).messages == said(0, 20)


def test_a_page_is_bounded_by_bytes(archive, small_chunks):
    """By whole chunks, of which there is one at least."""
    archive.write(UUID, Checkpoint(said(0, 20)))
    begin, count = 0, 0
    while begin < 20:
        page = sure(archive.page(UUID, begin, size=700))
        assert page.messages == said(begin, begin + len(page.messages))
        assert 0 < len(page.messages) <= 8
        begin, count = begin + len(page.messages), count + 1
    assert 2 < count < 8
    assert len(sure(archive.page(UUID, 0, size=1)).messages) > 0


@pytest.mark.parametrize(
    "wrong",
    [
        piece(1, 2, mark="2"),
        piece(3, 4),
        piece(0, 1),
        piece(2, 3, mark="x"),
        piece(2, 3, "two"),
        piece(0, 1, "two", "x"),
    ],
)
def test_what_does_not_go_on_from_there_is_refused(archive, wrong):
    """A gap, an overlap, or another conversation; the answer says where to go on."""
    keep(archive, 2)
    with pytest.raises(OtherConversation) as error:
        archive.append(UUID, wrong)
    assert error.value.index.heads() == {"current": head(2).to_json(), "following": None}
    assert archive.read(UUID) == Checkpoint(said(0, 2))


@pytest.mark.parametrize("wrong", [head(1), head(3), head(2, "two"), Head("one", 2, "x")])
def test_a_conversation_is_whole_only_with_all_its_messages(archive, wrong):
    archive.append(UUID, piece(0, 2))
    with pytest.raises(OtherConversation):
        archive.settle(UUID, wrong, [], {})
    assert archive.read(UUID) is None


def test_another_edition_takes_the_place_of_the_one_before_at_once(archive, small_chunks):
    """A third one that comes meanwhile takes the place of the second; nothing of any is left."""
    keep(archive, 5, metadata={"turns": 1})
    archive.append(UUID, piece(0, 3, "two"))
    archive.append(UUID, piece(0, 9, "three"))
    archive.append(UUID, piece(5, 6))
    assert sure(archive.read(UUID)).history == said(0, 6)
    with pytest.raises(OtherConversation):
        archive.settle(UUID, head(3, "two"), [], {})
    archive.settle(UUID, head(9, "three"), [], {"turns": 2})
    assert archive.read(UUID) == Checkpoint(said(0, 9), [], {"turns": 2})
    archive.append(UUID, piece(9, 10, "three"))
    archive.append(UUID, piece(10, 11, "three"))
    archive.settle(UUID, head(11, "three"), [], {"turns": 2})
    archive.append(UUID, piece(11, 20, "three"))
    assert names(archive) == (len(sure(archive.index(UUID).current).chunks), DOCUMENTS)


def test_a_conversation_longer_than_is_kept_is_refused_and_said(url):
    """What is kept stays."""
    archive = HistoryStore(url, most=500)
    keep(archive, 4)
    with pytest.raises(ConversationTooLong, match="HISTORY_MAX_BYTES"):
        archive.append(UUID, piece(4, 9))
    with pytest.raises(ConversationTooLong):
        archive.write(UUID, Checkpoint(said(0, 9)))
    assert sure(archive.read(UUID)).history == said(0, 4)
    assert names(archive) == (1, DOCUMENTS)


def test_of_two_that_write_at_once_one_is_refused(url, monkeypatch):
    """And what the other has written is whole."""
    archive, other = HistoryStore(url), HistoryStore(url)
    archive.append(UUID, piece(0, 2))
    with_each_write(archive, monkeypatch, lambda name: name not in DOCUMENTS, lambda: other.append(UUID, piece(2, 4)))
    with pytest.raises(Contended):
        archive.append(UUID, piece(2, 9))
    archive.settle(UUID, head(4), [], {})
    assert sure(archive.read(UUID)).history == said(0, 4)


def test_of_two_that_pass_at_the_very_same_moment_neither_breaks_what_is_there(url, monkeypatch):
    """No file is removed that the other's index may tell of."""
    archive, other = HistoryStore(url), HistoryStore(url)
    keep(archive, 2)
    with_each_write(archive, monkeypatch, "index.json".__eq__, lambda: other.append(UUID, piece(2, 4)))
    monkeypatch.setattr(history_index, "CHUNK_BYTES", 0)
    archive.append(UUID, piece(2, 3))
    monkeypatch.undo()
    assert sure(archive.read(UUID)).history == said(0, 3)
    archive.append(UUID, piece(3, 5))
    archive.append(UUID, piece(5, 6))
    assert sure(archive.read(UUID)).history == said(0, 6)


def test_who_reads_while_a_chunk_is_replaced_reads_it_anew(url, monkeypatch):
    archive, other = HistoryStore(url), HistoryStore(url)
    keep(archive, 2)
    real, more = archive._messages, [piece(2, 3), piece(3, 4)]

    def messages(folder, uuid, chunk):
        while more:
            other.append(UUID, more.pop(0))
        return real(folder, uuid, chunk)

    monkeypatch.setattr(archive, "_messages", messages)
    assert sure(archive.page(UUID)).messages == said(0, 4)


def test_what_killed_writers_left_goes_with_the_next_edition(tmp_path):
    """Not what somebody may just be writing."""
    archive = HistoryStore(str(tmp_path))
    archive.write(UUID, TALK)
    for name in ("old-000000-aaaaaaaa.json", "new-000000-bbbbbbbb.json"):
        (tmp_path / UUID / name).write_text("[]")
    os.utime(tmp_path / UUID / "old-000000-aaaaaaaa.json", (1_000.0, 1_000.0))
    archive.write(UUID, LATER)
    assert not (tmp_path / UUID / "old-000000-aaaaaaaa.json").exists()
    assert (tmp_path / UUID / "new-000000-bbbbbbbb.json").exists()


@pytest.mark.parametrize("steps", range(1, 12))
def test_a_writer_may_die_after_any_step(tmp_path, monkeypatch, small_chunks, steps):
    """What is kept is the conversation before or after, never a mix; and the next writer goes on."""
    archive = HistoryStore(str(tmp_path))
    keep(archive, 5, metadata={"turns": 5})

    class Killed(BaseException):
        pass

    left = [steps]

    def counted(real):
        def call(*arguments, **named):
            answer = real(*arguments, **named)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return answer

        return call

    with monkeypatch.context() as patched:
        patched.setattr(HistoryStore, "_put", counted(HistoryStore._put))
        patched.setattr(archive._files.fs, "rm_file", counted(archive._files.fs.rm_file))
        try:
            archive.append(UUID, piece(5, 6))
            keep(archive, 4, "two", {"turns": 4})
            assert steps > 7
        except Killed:
            assert steps < 12
    kept = HistoryStore(str(tmp_path)).read(UUID)
    assert kept is not None
    assert kept.history in (said(0, 5), said(0, 6), said(0, 4))
    archive.write(UUID, LATER)
    assert archive.read(UUID) == LATER


A_PIECE = {"edition": "a", "after": 0, "mark": "", "then": "", "messages": [{}]}


@pytest.mark.parametrize(
    ("read", "document"),
    [
        *((read, None) for read in (context_and_metadata, Piece.from_json)),
        *((read, []) for read in (context_and_metadata, Piece.from_json)),
        (context_and_metadata, {"context": {}}),
        (context_and_metadata, {"context": ["text"]}),
        (context_and_metadata, {"context": None}),
        (context_and_metadata, {"metadata": []}),
        (Piece.from_json, {}),
        *((Piece.from_json, A_PIECE | {"edition": edition}) for edition in ("../x", "", "a" * 33)),
        *((Piece.from_json, A_PIECE | {"after": after}) for after in (-1, True)),
        (Piece.from_json, A_PIECE | {"mark": None}),
        (Piece.from_json, A_PIECE | {"then": "A/B"}),
        *((Piece.from_json, A_PIECE | {"messages": messages}) for messages in ([], ["text"])),
    ],
)
def test_what_is_no_checkpoint_and_no_piece_of_one_is_refused(read, document):
    """An agent may send anything; an edition's name becomes a part of files' names."""
    with pytest.raises(InvalidRequest):
        read(document)
