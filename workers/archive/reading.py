"""Reads a stored zip as untrusted input, for verification and for restore.

The standard library reads the directory, ISA-L the entries: inflating takes most of the time, and ISA-L needs between a
half and a seventh of zlib's.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from isal import isal_zlib

from workers.archive.format import BLOCK
from workers.runtime.base import Check

LOCAL_HEADER = struct.Struct("<4s22xHH")
LOCAL_SIGNATURE = b"PK\x03\x04"
UTF8_NAME = 0x800

UNREADABLE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    isal_zlib.IsalError,  # type: ignore[assignment]  # its stub has an instance where the module has the class
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
    OverflowError,
)
"""The exceptions that a damaged or hostile zip causes."""


def digest_of(stream: BinaryIO, check: Check) -> tuple[str, int]:
    """The SHA-256 (hex) and the length of a whole stream."""
    digest = hashlib.sha256()
    length = 0
    stream.seek(0)
    while block := stream.read(BLOCK):
        check()
        digest.update(block)
        length += len(block)
    return digest.hexdigest(), length


def entry_content(stored: BinaryIO, info: zipfile.ZipInfo, check: Check) -> Iterator[bytes]:
    """The content of an entry in blocks of at most `BLOCK` bytes, never more than the directory says.

    Raises one of `UNREADABLE` when its name, length or CRC differs from the directory; only after the last block are
    all blocks known to be valid.
    """
    stored.seek(info.header_offset)
    signature, name_length, extra_length = LOCAL_HEADER.unpack(stored.read(LOCAL_HEADER.size))
    name = stored.read(name_length + extra_length)[:name_length]
    encoding = "utf-8" if info.flag_bits & UTF8_NAME else "cp437"
    if signature != LOCAL_SIGNATURE or name != info.orig_filename.encode(encoding):
        raise zipfile.BadZipFile(f"the entry {info.filename!r} is not at its offset")
    packed = _packed(stored, info.compress_size)
    crc = length = 0
    for block in packed if info.compress_type == zipfile.ZIP_STORED else _inflated(packed):
        check()
        crc = isal_zlib.crc32(block, crc)
        length += len(block)
        if length > info.file_size:
            break
        yield block
    if (crc, length) != (info.CRC, info.file_size):
        raise zipfile.BadZipFile(f"the entry {info.filename!r} differs from the directory")


def _packed(stored: BinaryIO, left: int) -> Iterator[bytes]:
    while left:
        block = stored.read(min(BLOCK, left))
        if not block:
            raise EOFError("it ends early")
        left -= len(block)
        yield block


def _inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    """The content in blocks of at most `BLOCK` bytes, however well it was compressed."""
    inflater = isal_zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    while not inflater.eof:
        data = inflater.unconsumed_tail or next(packed, b"")
        block = inflater.decompress(data, BLOCK)
        if not block and not data and not inflater.eof:
            raise EOFError("an entry ends early")
        yield block
    if inflater.unused_data or next(packed, b""):
        raise zipfile.BadZipFile("an entry is longer than its content")
