"""Decrypts a zip as the backup store keeps it, without the service: for a copy of the store, and its ARCHIVE_KEY.

    header    magic (5 bytes), id of the archive key (8), salt (16)
    chunks    256 KiB of the zip each, the last one shorter, each with its tag (16)

Each chunk is AES-256-GCM; its nonce is its number (11 bytes) and whether it is the last one. The header and the name of
the backup are associated data. The key is derived by HKDF-SHA256 from the archive key, step by step: for the session,
for zips, and by the salt for this file. Needs the package `cryptography`, as the extra `decrypt`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from pathlib import Path
from typing import Any, BinaryIO, Final

from workspaces.downloads import appearing
from workspaces.errors import WorkspacesError

MAGIC: Final = b"\x89WSE1"
ID, SALT, TAG, CHUNK, KEY = 8, 16, 16, 262_144, 32
NAME: Final = re.compile(r"app-([0-9a-z]{8})-[0-9]{8}-[0-9]{6}\.zip")


class CannotDecrypt(WorkspacesError):
    """A stored backup can't be decrypted; the text says why."""

    code = "cannot_decrypt"


def decrypt(stored: Path, target: Path, archive_key: str, name: str = "") -> Path:
    """Write the plain zip of a stored one to `target`, which appears only when it is whole. `name` is the backup's, by
    default the file's. Raises `CannotDecrypt`, and `OSError`."""
    with stored.open("rb") as source, appearing(target) as out:
        _decrypt(source, stored.stat().st_size, out, archive_key, name or stored.name)
    return target


def _decrypt(source: BinaryIO, size: int, out: BinaryIO, archive_key: str, name: str) -> None:
    header = source.read(len(MAGIC) + ID + SALT)
    if not header.startswith(MAGIC):
        raise CannotDecrypt(f"{name} is not encrypted: a zip can be used as it is.")
    match = NAME.fullmatch(name)
    if not match:
        raise CannotDecrypt(f"{name} is no name of a backup; give the name it had in the store, as app-….zip.")
    key_id, salt = header[len(MAGIC) : -SALT], header[-SALT:]
    aead, failure = _cipher(_key(archive_key, key_id), match[1], salt)
    number, left = 0, size - len(header)
    while True:
        last = left <= CHUNK + TAG
        nonce = number.to_bytes(11, "big") + bytes([last])
        try:
            out.write(aead.decrypt(nonce, source.read(CHUNK + TAG), header + name.encode()))
        except failure as error:
            raise CannotDecrypt(f"{name} is damaged, or had another name in the store.") from error
        if last:
            return
        number, left = number + 1, left - CHUNK - TAG


def _key(archive_key: str, key_id: bytes) -> bytes:
    """The key of this id among those in a text of ARCHIVE_KEY."""
    for text in filter(None, map(str.strip, archive_key.split(","))):
        try:
            key = base64.b64decode(text, altchars=b"-_", validate=True)
        except ValueError as error:
            raise CannotDecrypt("ARCHIVE_KEY is malformed: it is 32 bytes in URL-safe base64.") from error
        if hmac.new(key, b"id of an archive key", hashlib.sha256).digest()[:ID] == key_id:
            return key
    raise CannotDecrypt(f"It is encrypted with the archive key {key_id.hex()}, which is none of those given.")


def _cipher(archive_key: bytes, uuid: str, salt: bytes) -> tuple[Any, type[Exception]]:
    """The cipher of one file, and what it raises for a damaged chunk."""
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError as error:
        raise CannotDecrypt("This needs the package cryptography: pip install 'workspaces[decrypt]'.") from error

    def derived(key: bytes, info: bytes, salt: bytes | None = None) -> bytes:
        return HKDF(algorithm=SHA256(), length=KEY, salt=salt, info=info).derive(key)

    zips = derived(derived(archive_key, f"session {uuid}".encode()), b"zip")
    return AESGCM(derived(zips, MAGIC, salt)), InvalidTag
