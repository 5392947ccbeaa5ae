"""restic's repositories of a session: where they lie, and the two small files that `restic init` would make.

We make `config` and `keys/<id>` ourselves in restic's format (its design document, "Repository Format" and "Keys,
Encryption and MAC"), to choose the cost of scrypt: restic's own choice takes 0.7 s in each of its calls, to protect
passwords that people think up. Ours has 256 random bits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from cryptography.hazmat.primitives.poly1305 import Poly1305

from app.core.errors import ArchiveError
from app.core.storage.archive_keys import SessionKeys, UnknownKey
from app.core.storage.file_store import FileStore

NAME = "repository-{}"
NAME_PATTERN = re.compile(r"repository-([1-9][0-9]{0,5})")

VERSION = 2
"""Of restic's format: the one with compression, known since restic 0.14."""

SCRYPT = {"N": 2, "r": 1, "p": 1}
"""The cheapest parameters that restic accepts."""

NONCE, MAC, SALT = 16, 16, 64
KEY_BYTES = 64
"""Of a key of restic: 32 for AES-256, and 16 each for the k and r of Poly1305-AES."""

DEGREE = 53
"""Of the chunker's polynomial."""

MOST_KEYS = 20
"""Key files that restic tries before it gives up."""


class Damaged(ArchiveError):
    """A repository cannot be opened, because one of its files is damaged or missing."""


@dataclass(frozen=True)
class Head:
    """What must be known of a repository to use it: the content of its `config`, and its master key. A secret."""

    config: Mapping[str, Any]
    master: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Head({self.config.get('id')})"

    @classmethod
    def new(cls) -> Head:
        """That of a new repository."""
        config = {"version": VERSION, "id": secrets.token_hex(32), "chunker_polynomial": f"{irreducible():x}"}
        return cls(config, _key_document(os.urandom(KEY_BYTES)))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Head:
        """That of `to_document`. Raises `KeyError` or `TypeError` for a malformed one."""
        return cls(dict(values["config"]), dict(values["master"]))

    def to_document(self) -> dict[str, Any]:
        """For a sidecar, which can then repair the repository."""
        return {"config": dict(self.config), "master": dict(self.master)}


@dataclass(frozen=True)
class Repository:
    """One repository of a session. The one with the highest number is the current one. Methods raise the errors of
    `FileStore.translated`."""

    store: FileStore
    uuid: str
    number: int

    @property
    def folder(self) -> str:
        return f"{self.store.root}/{self.uuid}/{NAME.format(self.number)}"

    def head(self, keys: SessionKeys) -> Head:
        """The repository's head, after giving it a key file for the newest archive key if it has none. Raises
        `Damaged` and `UnknownKey`."""
        with self._reaching():
            masters = self._masters(keys)
            master = next(iter(masters.values()))
            try:
                config = _unsealed(self.store.read(f"{self.folder}/config"), master)
            except FileNotFoundError as error:
                raise Damaged("A repository of restore points lacks its config.") from error
            head = Head(config, master)
            if keys.newest not in masters:
                self._add_key(head, keys)
        return head

    def opened_by(self, keys: SessionKeys) -> str:
        """The id of an archive key that opens the repository as it is. Raises `Damaged` and `UnknownKey`."""
        with self._reaching():
            return next(iter(self._masters(keys)))

    def make(self, head: Head, keys: SessionKeys) -> None:
        """Write both files, in place of damaged ones too; the repository exists once the second is written."""
        with self._reaching():
            for name in self.store.names(f"{self.folder}/keys"):
                self.store.remove(f"{self.folder}/keys/{name}")
            self._add_key(head, keys)
            self.store.write(f"{self.folder}/config", _sealed(head.config, head.master))

    def unlock(self, older_than: float = math.inf) -> None:
        """Remove the locks last written before `older_than` (s since the epoch)."""
        with self._reaching():
            for name in self.store.names(f"{self.folder}/locks"):
                path = f"{self.folder}/locks/{name}"
                if older_than == math.inf or (self.store.modified(path) or 0.0) < older_than:
                    self.store.remove(path)

    def check_store(self) -> None:
        """Try whether the store can be used, in the session's folder: a Job sees no other. Raises `RetryableError` or
        `ArchiveError`."""
        self.store.check(f"{self.store.root}/{self.uuid}")

    def snapshots(self) -> list[str]:
        """restic's ids of its snapshots, of killed calls too."""
        with self._reaching():
            return self.store.names(f"{self.folder}/snapshots")

    def forget(self, snapshot: str) -> None:
        """Remove a snapshot, as `restic forget` does; a later prune removes its data."""
        with self._reaching():
            self.store.remove(f"{self.folder}/snapshots/{snapshot}")

    def size(self) -> int:
        """Bytes of all its files."""
        with self._reaching():
            return self.store.size(self.folder)

    def delete(self) -> None:
        """Delete all of it, `config` first."""
        with self._reaching():
            self.store.remove(f"{self.folder}/config")
            self.store.remove_folder(self.folder)

    def _masters(self, keys: SessionKeys) -> dict[str, dict[str, Any]]:
        """The master key, by the id of each archive key that it is encrypted under."""
        found, unknown = {}, ""
        for name in sorted(self.store.names(f"{self.folder}/keys"))[:MOST_KEYS]:
            content = self.store.read(f"{self.folder}/keys/{name}")
            try:
                if hashlib.sha256(content).hexdigest() != name:
                    continue
                document = json.loads(content)
                key_id = str(document["username"])
                if key_id not in keys.keys:
                    unknown = key_id
                    continue
                salt = base64.b64decode(document["salt"])
                scrypted = _scrypted(password(keys, key_id), salt)
                found[key_id] = _unsealed(base64.b64decode(document["data"]), scrypted)
            except (ValueError, KeyError, TypeError, Damaged):
                continue
        if not found and unknown:
            raise UnknownKey("A repository of restore points", unknown)
        if not found:
            raise Damaged("A repository of restore points has no readable key file.")
        return found

    def _add_key(self, head: Head, keys: SessionKeys) -> None:
        salt = os.urandom(SALT)
        document = {
            "created": datetime.now(UTC).isoformat(),
            # restic leaves the two names to the program that makes a key; this one tells whose password opens it.
            "username": keys.newest,
            "hostname": "",
            "kdf": "scrypt",
            **SCRYPT,
            "salt": base64.b64encode(salt).decode(),
            "data": base64.b64encode(_sealed(head.master, _scrypted(password(keys, keys.newest), salt))).decode(),
        }
        content = json.dumps(document).encode()
        self.store.write(f"{self.folder}/keys/{hashlib.sha256(content).hexdigest()}", content)

    def _reaching(self) -> Any:
        return self.store.translated("The store of restore points can't be used")


def repositories(store: FileStore, uuid: str) -> list[Repository]:
    """All of a session's, oldest first."""
    with store.translated("The store of restore points can't be used"):
        names = map(NAME_PATTERN.fullmatch, store.names(f"{store.root}/{uuid}"))
    return [Repository(store, uuid, number) for number in sorted(int(each[1]) for each in names if each)]


def password(keys: SessionKeys, key_id: str) -> str:
    """The password of a session's repositories under one archive key."""
    return keys.derived(key_id, "repository").hex()


# restic's encryption: AES-256 in counter mode, then Poly1305-AES over the ciphertext; a random nonce serves both.


def _key_document(key: bytes) -> dict[str, Any]:
    encrypt, k, r = (base64.b64encode(part).decode() for part in (key[:32], key[32:48], key[48:]))
    return {"mac": {"k": k, "r": r}, "encrypt": encrypt}


def _scrypted(password: str, salt: bytes) -> dict[str, Any]:
    cost = {name.lower(): number for name, number in SCRYPT.items()}
    return _key_document(hashlib.scrypt(password.encode(), salt=salt, dklen=KEY_BYTES, **cost))


def _sealed(document: Mapping[str, Any], key: Mapping[str, Any]) -> bytes:
    nonce = os.urandom(NONCE)
    cipher = _ciphered(json.dumps(document).encode(), key, nonce)
    return nonce + cipher + _mac(cipher, key, nonce)


def _unsealed(data: bytes, key: Mapping[str, Any]) -> dict[str, Any]:
    """Raises `Damaged`."""
    nonce, cipher, mac = data[:NONCE], data[NONCE:-MAC], data[-MAC:]
    if len(data) <= NONCE + MAC or not hmac.compare_digest(mac, _mac(cipher, key, nonce)):
        raise Damaged("A file of a repository of restore points is damaged.")
    return dict(json.loads(_ciphered(cipher, key, nonce)))


def _ciphered(data: bytes, key: Mapping[str, Any], nonce: bytes) -> bytes:
    """Counter mode encrypts and decrypts alike."""
    return Cipher(AES(base64.b64decode(key["encrypt"])), CTR(nonce)).encryptor().update(data)


def _mac(cipher: bytes, key: Mapping[str, Any], nonce: bytes) -> bytes:
    k, r = (base64.b64decode(key["mac"][part]) for part in "kr")
    # ECB: one block, as Poly1305-AES is defined.
    return Poly1305.generate_tag(r + Cipher(AES(k), ECB()).encryptor().update(nonce), cipher)


# The chunker's polynomial, with coefficients 0 and 1, as bits of a number.


def irreducible() -> int:
    """A random irreducible polynomial: about one in `DEGREE` is."""
    while True:
        candidate = 1 << DEGREE | secrets.randbits(DEGREE) | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(polynomial: int) -> bool:
    """Rabin's test for the prime degree `DEGREE`: x^(2^53) is x modulo the polynomial, and x^2 - x is prime to it."""
    power = 2
    for _ in range(DEGREE):
        power = _modulo(_square(power), polynomial)
    return power == 2 and _gcd(polynomial, 0b110) == 1


def _square(number: int) -> int:
    """Over two elements, squaring spreads the bits."""
    return int("0".join(f"{number:b}"), 2)


def _modulo(number: int, divisor: int) -> int:
    length = divisor.bit_length()
    while number.bit_length() >= length:
        number ^= divisor << (number.bit_length() - length)
    return number


def _gcd(one: int, other: int) -> int:
    while other:
        one, other = other, _modulo(one, other)
    return one
