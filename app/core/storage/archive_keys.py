"""ARCHIVE_KEY: the keys that the stores' content is encrypted with, derived for each session.

A process that works for one session is given that session's keys only. Several archive keys, separated by commas, may
be valid at once: the first one encrypts, all decrypt, so a key is rotated without rewriting data.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.core.errors import ArchiveError
from app.process.settings import SettingsError

KEY_BYTES = 32
ID_BYTES = 8
NONCE_BYTES = 12

MAGIC = b"\x89WSD1"
"""How an encrypted document begins: no JSON text and no zip does."""


class UnknownKey(ArchiveError):
    """Something is encrypted with a key that is not in ARCHIVE_KEY."""

    code = "unknown_archive_key"

    def __init__(self, what: str, key_id: str) -> None:
        super().__init__(
            f"{what} is encrypted with the archive key {key_id}, which is not in ARCHIVE_KEY; add it there."
        )


@dataclass(frozen=True)
class SessionKeys:
    """The keys of one session, by the id (hex) of the archive key each is derived from; the first one encrypts. False
    when there is none."""

    uuid: str
    keys: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"SessionKeys({self.uuid}, {list(self.keys)})"

    def __bool__(self) -> bool:
        return bool(self.keys)

    def session(self, uuid: str) -> SessionKeys:
        """These keys for their own session, none for another: what a store's reader is given in a process that works
        for one session."""
        return self if uuid == self.uuid else SessionKeys(uuid, {})

    @property
    def newest(self) -> str:
        """The id of the archive key that encrypts."""
        return next(iter(self.keys))

    def derived(self, key_id: str, purpose: str) -> bytes:
        """The key (32 bytes) for one purpose. Raises `UnknownKey`."""
        if key_id not in self.keys:
            raise UnknownKey(f"The {purpose} of session {self.uuid}", key_id)
        return _derived(self.keys[key_id], purpose)

    def encrypt(self, data: bytes, name: str) -> bytes:
        """A document, encrypted; only the same `name` decrypts it, so that no document can stand in for another."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self.derived(self.newest, "document")).encrypt(nonce, data, name.encode())
        return MAGIC + bytes.fromhex(self.newest) + nonce + sealed

    def decrypt(self, data: bytes, name: str) -> bytes:
        """The document that `encrypt` was given; without any key, one that is stored unencrypted. Raises `UnknownKey`,
        and `ArchiveError` for a damaged one, or one that was written without the key."""
        if not data.startswith(MAGIC):
            if self:
                raise ArchiveError(f"{name} is damaged: it was not written with a key of this service.")
            return data
        body = data[len(MAGIC) :]
        key_id, nonce, sealed = (
            body[:ID_BYTES].hex(),
            body[ID_BYTES : ID_BYTES + NONCE_BYTES],
            body[ID_BYTES + NONCE_BYTES :],
        )
        try:
            return AESGCM(self.derived(key_id, "document")).decrypt(nonce, sealed, name.encode())
        except (InvalidTag, ValueError) as error:
            raise ArchiveError(f"{name} is damaged: it does not decrypt.") from error

    def to_text(self) -> str:
        """The keys for another process; `from_text` reads them. A secret."""
        return json.dumps({"uuid": self.uuid, "keys": {key_id: key.hex() for key_id, key in self.keys.items()}})

    @classmethod
    def from_text(cls, text: str) -> SessionKeys:
        """The keys in a text of `to_text`."""
        values = json.loads(text)
        return cls(values["uuid"], {key_id: bytes.fromhex(key) for key_id, key in values["keys"].items()})


class ArchiveKeys:
    """The keys in a text of ARCHIVE_KEY; false when there is none, and then nothing new is encrypted. Raises
    `SettingsError` for a malformed one."""

    def __init__(self, text: str = "") -> None:
        self._keys = {_id_of(key): key for key in map(_key_of, filter(None, map(str.strip, text.split(","))))}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArchiveKeys) and list(self._keys.items()) == list(other._keys.items())

    def __hash__(self) -> int:
        return hash(self.ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids (hex) of the keys, which reveal nothing of them; the first one encrypts."""
        return tuple(self._keys)

    def session(self, uuid: str) -> SessionKeys:
        """The keys of one session; false where there is no archive key."""
        return SessionKeys(uuid, {key_id: _derived(key, f"session {uuid}") for key_id, key in self._keys.items()})


Keys = ArchiveKeys | SessionKeys
"""Of all sessions, or of the one that a process works for."""


def new_key() -> str:
    """A new archive key, as text for ARCHIVE_KEY."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def _key_of(text: str) -> bytes:
    try:
        key = base64.b64decode(text, altchars=b"-_", validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(
            "ARCHIVE_KEY must be 32 random bytes in URL-safe base64, or several of those separated by commas. "
            "Make one with: openssl rand -base64 32 | tr '+/' '-_'"
        )
    return key


def _id_of(key: bytes) -> str:
    return hmac.new(key, b"id of an archive key", hashlib.sha256).digest()[:ID_BYTES].hex()


def _derived(key: bytes, info: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info.encode()).derive(key)


NO_KEYS = ArchiveKeys()
