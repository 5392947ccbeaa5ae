"""An encrypted file is read as what was written, from any place, and by nobody else; every change of it is found."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.errors import ArchiveError
from app.core.storage.archive_keys import ArchiveKeys, SessionKeys, UnknownKey, new_key
from app.core.storage.encrypted_file import CHUNK, HEADER_BYTES, STORED, Cipher, EncryptingWriter, decrypted, opened

KEYS = ArchiveKeys(new_key()).session("aaaaaaaa")
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17]
VECTOR = json.loads((Path(__file__).parents[3] / "data" / "encrypted-zip.json").read_text())


def written(content: bytes, keys: SessionKeys = KEYS, name: str = "a.zip", piece: int = 100_000) -> bytes:
    """As it is stored, given to the writer in pieces."""
    target = io.BytesIO()
    writer = EncryptingWriter(target, Cipher.new(keys, name))
    for at in range(0, len(content), piece):
        writer.write(content[at : at + piece])
    writer.finish()
    return target.getvalue()


def reading(stored: bytes, keys: SessionKeys = KEYS, name: str = "a.zip") -> io.BufferedReader:
    cipher = Cipher.read(stored[:HEADER_BYTES], keys, name)
    assert cipher is not None
    return opened(io.BytesIO(stored), len(stored), cipher)  # type: ignore[return-value]


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_read_is_what_was_written(size: int) -> None:
    """Also where it ends with a chunk."""
    content = content_of(size)
    stored = written(content)
    assert reading(stored).read() == content
    assert reading(stored).seek(0, io.SEEK_END) == size
    assert content[:1000] not in stored or size < 100


def test_it_is_read_from_any_place() -> None:
    """As a zip's directory is, which is at its end."""
    content = content_of(SIZES[-1])
    chance = random.Random(1)
    with reading(written(content)) as file:
        for _ in range(200):
            start = chance.randrange(len(content) + 10)
            length = chance.choice([1, 30, 1000, CHUNK + 5])
            file.seek(start)
            assert file.read(length) == content[start : start + length]
            assert file.tell() == max(start, min(len(content), start + length))


def test_a_part_is_read_by_its_chunks_alone() -> None:
    content = content_of(SIZES[-1])
    stored = written(content)
    cipher = Cipher.read(stored, KEYS, "a.zip")
    assert cipher is not None
    layout = cipher.layout(len(stored))
    for start, stop in [(0, 1), (CHUNK - 1, CHUNK + 1), (5, 2 * CHUNK), (3 * CHUNK, 3 * CHUNK + 17)]:
        numbers, first, end = layout.of(start, stop)
        begin = numbers.start * CHUNK
        part = decrypted(cipher, layout, numbers, stored[first:end])
        assert part[start - begin : stop - begin] == content[start:stop]


def flipped(stored: bytes, at: int) -> bytes:
    return stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]


def joined(stored: bytes, order: list[int]) -> bytes:
    """Its chunks in this order."""
    chunks = [stored[at : at + STORED] for at in range(HEADER_BYTES, len(stored), STORED)]
    return stored[:HEADER_BYTES] + b"".join(chunks[number] for number in order)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit of the salt": lambda stored: flipped(stored, HEADER_BYTES - 1),
    "a bit of the first chunk": lambda stored: flipped(stored, HEADER_BYTES),
    "a bit in the middle": lambda stored: flipped(stored, HEADER_BYTES + STORED + 100),
    "a bit of the last tag": lambda stored: flipped(stored, len(stored) - 1),
    "a byte too few": lambda stored: stored[:-1],
    "a byte too many": lambda stored: stored + b"x",
    "cut within the header": lambda stored: stored[: HEADER_BYTES - 1],
    "cut to the header": lambda stored: stored[:HEADER_BYTES],
    "cut within a tag": lambda stored: stored[: HEADER_BYTES + 10],
    "cut between chunks": lambda stored: stored[: HEADER_BYTES + 2 * STORED],
    "chunks swapped": lambda stored: joined(stored, [1, 0, 2, 3]),
    "a chunk repeated": lambda stored: joined(stored, [0, 0, 2, 3]),
    "a chunk left out": lambda stored: joined(stored, [0, 2, 3]),
    "the last chunk alone": lambda stored: joined(stored, [3]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_every_change_is_found(damage: Callable[[bytes], bytes]) -> None:
    stored = damage(written(content_of(SIZES[-1])))
    with pytest.raises(ArchiveError, match="damaged"):
        reading(stored).read()


@pytest.mark.parametrize("order", [[0], [0, 1]])
def test_a_file_cut_short_is_found_before_anything_is_read_of_it(order: list[int]) -> None:
    """A reader that never comes to its end would not notice."""
    stored = joined(written(content_of(SIZES[-1])), order)
    with pytest.raises(ArchiveError, match="damaged"):
        reading(stored)


def test_no_file_stands_in_for_another() -> None:
    """Neither one of another session, nor another of the same one; nor does a chunk of it."""
    archive = ArchiveKeys(new_key())
    ours, theirs = archive.session("aaaaaaaa"), archive.session("bbbbbbbb")
    content = content_of(2 * CHUNK)
    stored = written(content, ours)
    assert reading(stored, ours).read() == content
    for keys, name in ((theirs, "a.zip"), (ours, "b.zip")):
        with pytest.raises(ArchiveError, match="damaged"):
            reading(stored, keys, name)
    again = written(content, ours)
    assert again != stored
    with pytest.raises(ArchiveError, match="damaged"):
        reading(stored[: HEADER_BYTES + STORED] + again[HEADER_BYTES + STORED :], ours)


def test_without_its_key_it_is_said_which_one_is_missing() -> None:
    with pytest.raises(UnknownKey, match=KEYS.newest):
        reading(written(b"x"), ArchiveKeys(new_key()).session("aaaaaaaa"))


def test_a_plain_zip_is_none_of_ours_once_there_is_a_key() -> None:
    assert Cipher.read(b"PK\x03\x04 a plain zip", ArchiveKeys("").session("aaaaaaaa"), "a.zip") is None
    with pytest.raises(ArchiveError, match="not written with a key"):
        Cipher.read(b"PK\x03\x04 a plain zip", KEYS, "a.zip")


def test_the_writer_holds_one_chunk() -> None:
    """However much it is given at once."""
    target = io.BytesIO()
    writer = EncryptingWriter(target, Cipher.new(KEYS, "a.zip"))
    writer.write(bytes(10 * CHUNK))
    assert len(target.getvalue()) == HEADER_BYTES + 9 * STORED
    assert len(writer._waiting) == CHUNK


def test_the_format_is_that_of_the_files_that_are_stored() -> None:
    """Another release, and the client's own reader, must read them."""
    keys = ArchiveKeys(VECTOR["archive_key"]).session(VECTOR["uuid"])
    assert reading(bytes.fromhex(VECTOR["stored"]), keys, VECTOR["name"]).read() == bytes.fromhex(VECTOR["content"])
