"""A large file, encrypted in chunks so that it is written as a stream and read from any place.

    header    magic (5 bytes), id of the archive key (8), salt (16)
    chunks    256 KiB of the content each, the last one shorter, each with its tag (16)

Each chunk is AES-256-GCM under a key of this file alone, which HKDF derives from the session's key and the salt. The
nonce is the chunk's number and whether it is the last one, so no chunk can be moved, repeated or left out, and no file
cut short. The header and the file's name are associated data: no file can stand in for another. This is the STREAM
construction (Hoang, Reyhanitabar, Rogaway and Vizár, 2015).
"""

from __future__ import annotations

import errno
import io
import os
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.core.errors import ArchiveError
from app.core.storage.archive_keys import ID_BYTES, KEY_BYTES, SessionKeys

MAGIC = b"\x89WSE1"
"""How an encrypted file begins; no zip does."""

SALT_BYTES = 16
TAG_BYTES = 16
NUMBER_BYTES = 11
"""Of the nonce's 12; the last one tells the last chunk."""

HEADER_BYTES = len(MAGIC) + ID_BYTES + SALT_BYTES

CHUNK = 262_144
"""Bytes of the content in a chunk: what a reader holds, and decrypts for any byte of it."""

STORED = CHUNK + TAG_BYTES

PURPOSE = "zip"

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Cipher:
    """Encrypts and decrypts the chunks of one file, whose stored form begins with `header`."""

    header: bytes
    name: str
    aead: AESGCM

    @classmethod
    def new(cls, keys: SessionKeys, name: str) -> Cipher:
        """For a new file of that name."""
        return cls._of(MAGIC + bytes.fromhex(keys.newest) + os.urandom(SALT_BYTES), keys, name)

    @classmethod
    def read(cls, header: bytes, keys: SessionKeys, name: str) -> Cipher | None:
        """For a stored file that begins so; None for one that is not encrypted, where there is no key. Raises
        `UnknownKey`, and `ArchiveError` for a header cut short, or of another than who has the key."""
        if not header.startswith(MAGIC):
            if keys:
                raise ArchiveError(f"{name} is damaged: it was not written with a key of this service.")
            return None
        if len(header) < HEADER_BYTES:
            raise _damaged(name)
        return cls._of(header[:HEADER_BYTES], keys, name)

    @classmethod
    def _of(cls, header: bytes, keys: SessionKeys, name: str) -> Cipher:
        key_id, salt = header[len(MAGIC) : -SALT_BYTES].hex(), header[-SALT_BYTES:]
        key = keys.derived(key_id, PURPOSE)
        derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=MAGIC).derive(key)
        return cls(header, name, AESGCM(derived))

    def encrypt(self, number: int, content: Bytes, *, last: bool) -> bytes:
        """A chunk as it is stored."""
        return self.aead.encrypt(_nonce(number, last), content, self._associated)

    def decrypt(self, number: int, stored: bytes, *, last: bool) -> bytes:
        """A chunk's content; raises `ArchiveError` unless it is this one of this file."""
        try:
            return self.aead.decrypt(_nonce(number, last), stored, self._associated)
        except InvalidTag as error:
            raise _damaged(self.name) from error

    @property
    def _associated(self) -> bytes:
        return self.header + self.name.encode()

    def layout(self, stored: int) -> Layout:
        """How a file of `stored` bytes is cut; raises `ArchiveError` for a size that no whole file has."""
        body = stored - HEADER_BYTES
        chunks = -(-body // STORED)
        if body < TAG_BYTES or body - (chunks - 1) * STORED < TAG_BYTES:
            raise _damaged(self.name)
        return Layout(chunks, body - chunks * TAG_BYTES, stored)


@dataclass(frozen=True)
class Layout:
    """The chunks of a stored file, the bytes of its content, and those that are stored."""

    chunks: int
    size: int
    stored: int

    def of(self, start: int, stop: int) -> tuple[range, int, int]:
        """The numbers of the chunks with the bytes of the content from `start` up to `stop`, and from where to where
        they are stored."""
        numbers = range(start // CHUNK, min(-(-stop // CHUNK), self.chunks))
        first = HEADER_BYTES + numbers.start * STORED
        return numbers, first, min(HEADER_BYTES + numbers.stop * STORED, self.stored)


def decrypted(cipher: Cipher, layout: Layout, numbers: range, stored: bytes) -> bytes:
    """The content of these chunks, which are stored one after another in `stored`."""
    pieces = (stored[at : at + STORED] for at in range(0, len(numbers) * STORED, STORED))
    return b"".join(
        cipher.decrypt(number, piece, last=number == layout.chunks - 1)
        for number, piece in zip(numbers, pieces, strict=True)
    )


class EncryptingWriter:
    """Writes the encrypted form of what it is given to `target`, which stays the caller's; `finish` ends it."""

    def __init__(self, target: BinaryIO, cipher: Cipher) -> None:
        self._target = target
        self._cipher = cipher
        self._number = 0
        self._waiting = bytearray()
        target.write(cipher.header)

    def write(self, data: Bytes) -> None:
        """Append to the content. One chunk at most waits, as the last one must be known."""
        self._waiting += data
        while len(self._waiting) > CHUNK:
            self._put(self._waiting[:CHUNK], last=False)
            del self._waiting[:CHUNK]

    def finish(self) -> None:
        """Write the rest. Without this no reader takes the file for a whole one."""
        self._put(self._waiting, last=True)
        self._waiting.clear()

    def _put(self, content: bytearray, *, last: bool) -> None:
        self._target.write(self._cipher.encrypt(self._number, content, last=last))
        self._number += 1


def opened(stored: BinaryIO, size: int, cipher: Cipher) -> BinaryIO:
    """The content of an encrypted file, for reading and seeking; closing it closes `stored`, which has `size` bytes.
    Raises `ArchiveError` here, or while it is read, for a damaged file: also for one that was cut short."""
    return cast(BinaryIO, io.BufferedReader(_Content(stored, cipher.layout(size), cipher), CHUNK))


class _Content(io.RawIOBase):
    """Holds one chunk."""

    def __init__(self, stored: BinaryIO, layout: Layout, cipher: Cipher) -> None:
        self._stored = stored
        self._layout = layout
        self._cipher = cipher
        self._at = 0
        self._number, self._chunk = -1, b""
        # Without the last chunk nobody knows that the file is whole.
        self._load(layout.chunks - 1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._layout.size}[whence]
        if at < 0:
            # As of a plain file: zipfile looks for a part before the first byte of an empty zip.
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._layout.size:
            return 0
        self._load(self._at // CHUNK)
        view = memoryview(buffer).cast("B")
        piece = memoryview(self._chunk)[self._at % CHUNK :][: len(view)]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._stored.close()
        super().close()

    def _load(self, number: int) -> None:
        if number == self._number:
            return
        self._stored.seek(HEADER_BYTES + number * STORED)
        stored = self._stored.read(STORED)
        self._chunk = self._cipher.decrypt(number, stored, last=number == self._layout.chunks - 1)
        self._number = number


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(NUMBER_BYTES, "big") + bytes([last])


def _damaged(name: str) -> ArchiveError:
    return ArchiveError(f"{name} is damaged: it does not decrypt.")
