"""Revoking access to a workspace, and ending the connections made with it.

Revocation is an intent: `access_epoch` of the record counts revocations. While older connections may exist the session
is in `sessions:disconnects`, by when to try again to end them. A lost broker message, a killed worker or an unreachable
agent only delay that. A workspace that does not confirm it is replaced. A sleeping session has no connections.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from secrets import token_hex

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.events import REVOKED
from app.core.redis.scripts import Script
from app.core.sessions.change import Change, Changed, change_keys
from app.core.sessions.model import Record, Status
from app.core.sessions.store import SessionStore

FIRST_RETRY = 1.0
LONGEST_RETRY = 300.0
"""s between two tries, doubled from the first to the longest. An agent that died is back within a second; a broken one
must not keep the delivery workers from the others."""

TRIES_KEPT = 86_400

HANDSHAKE = 5.0
"""s from forward auth's admission of a handshake until its connection exists, even on a busy machine. Connections are
ended once more after this time: what was admitted just before the revocation may come into being after the first."""


class Revocations:
    """Revocations and the disconnects due after them. Times are seconds since the epoch; every method raises
    `StateUnavailable`. A broker message that no worker took within `patience` (s) counts as lost."""

    def __init__(self, client: redis.Redis, store: SessionStore, patience: float) -> None:
        self._redis = client
        self._store = store
        self._patience = patience
        self._revoke = Script(client, "revoke")
        self._done = Script(client, "disconnected")

    @redis_errors
    def revoke(self, uuid: str, access_epoch: int, now: float) -> Changed:
        """Revoke all access of this access epoch and before, and schedule the disconnect, in one step. Raises
        `SessionNotFound`, and `Superseded` when the access epoch has changed."""
        following = access_epoch + 1
        change = Change(
            expect={"access_epoch": access_epoch},
            fields={"access_epoch": following, "opened_ports": ()},
            event=(REVOKED, {"access_epoch": following}),
        )
        answer = self._revoke(
            **change_keys(uuid),
            **_keys(uuid),
            request=change.to_json(uuid, now),
            uuid=uuid,
            due=now + self._patience,
        )
        return Changed.from_answer(uuid, None, answer)

    @redis_errors
    def may_still_connect(self, record: Record, now: float) -> bool:
        """Note that connections were ended; whether that must be done once more, as handshakes that were admitted
        before the revocation may not be over."""
        key, this = keys.DISCONNECTED_AT.format(uuid=record.uuid), str(record.access_epoch)
        epoch, _, first = (self._redis.get(key) or "").partition(" ")
        if epoch != this:
            self._redis.set(key, f"{this} {now}", ex=TRIES_KEPT)
        over = (float(first) if epoch == this else now) + HANDSHAKE
        if now < over:
            self._store.defer(keys.DISCONNECTS, record.uuid, over)
        return now < over

    def due(self, uuid: str) -> bool:
        """Whether connections made with revoked access may still exist."""
        return self._store.pending(keys.DISCONNECTS, uuid)

    @redis_errors
    def disconnected(self, record: Record) -> bool:
        """Note that all connections before this access epoch have ended; False when access was revoked again since."""
        done = self._done(
            session=keys.SESSION.format(uuid=record.uuid),
            **_keys(record.uuid),
            uuid=record.uuid,
            access_epoch=record.access_epoch,
        )
        return bool(done)

    @redis_errors
    def clear(self, uuid: str) -> None:
        """Cancel the disconnect of a session that no longer exists."""
        self._redis.zrem(keys.DISCONNECTS, uuid)

    @redis_errors
    def sent(self, uuid: str, now: float) -> None:
        """Note that the task was enqueued: try again when its message may have been lost, later each time."""
        pipe = self._redis.pipeline()
        pipe.incr(keys.DISCONNECT_TRIES.format(uuid=uuid))
        pipe.expire(keys.DISCONNECT_TRIES.format(uuid=uuid), TRIES_KEPT)
        tries = int(pipe.execute()[0])
        self._store.defer(keys.DISCONNECTS, uuid, now + max(self._patience, _pause(tries)))

    @redis_errors
    def failed(self, uuid: str, now: float) -> None:
        """Note that the disconnect failed: try again soon, and later each time."""
        tries = int(self._redis.get(keys.DISCONNECT_TRIES.format(uuid=uuid)) or 0)
        self._store.defer(keys.DISCONNECTS, uuid, now + _pause(tries))


def nothing_runs(record: Record) -> bool:
    """Whether no process of the session runs, so that it has no connections."""
    asleep = record.status is Status.SLEEPING and record.settled >= record.generation
    return asleep or record.status is Status.TERMINATED


def _pause(tries: int) -> float:
    return min(FIRST_RETRY * 2.0 ** min(tries, 30), LONGEST_RETRY)


def _keys(uuid: str) -> dict[str, str]:
    return {"disconnects": keys.DISCONNECTS, "tries": keys.DISCONNECT_TRIES.format(uuid=uuid)}


@dataclass(frozen=True)
class DisconnectOrder:
    """An order to a session's editor to end the connections made before `access_epoch`. The editor may know any of the
    `secrets`.

    The agent passes both the order and the editor's confirmation on, and programs of the user may stand in its way: so
    both are authenticated by a secret that only the manager and the editor's process have, and each order has a nonce
    of its own. app/editor/guard.js has the other side."""

    secrets: Sequence[str] = field(repr=False)
    access_epoch: int
    nonce: str = field(default_factory=lambda: token_hex(16))

    def __str__(self) -> str:
        """The order as it is sent: access epoch, nonce, and a MAC by each secret."""
        return " ".join([str(self.access_epoch), self.nonce, *self._macs("disconnect")])

    def confirmed_by(self, text: object) -> bool:
        """Whether this is the editor's confirmation of this order."""
        given = text if isinstance(text, str) and text.isascii() else ""
        return any(hmac.compare_digest(given, mac) for mac in self._macs("disconnected"))

    def _macs(self, said: str) -> list[str]:
        text = f"{said} {self.access_epoch} {self.nonce}".encode()
        return [hmac.new(secret.encode(), text, hashlib.sha256).hexdigest() for secret in self.secrets]
