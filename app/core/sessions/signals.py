"""Activity signals: what shows that a session is in use.

The web process notes a person's requests to the workspace's host, the gateway what the agent reports. Signals are
fields of the record (`signal_*`), so that the script that puts a session to sleep can check that none came since the
idle verdict. Until the record's next change they stand in a hash beside it, since the gateway may not write records.
app/core/sessions/idle_policy.py decides how long each one counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.scripts import Script
from app.core.sessions.model import Signal, number
from app.core.signal_kinds import SIGNAL_PREFIX, SIGNALS
from app.core.throttle import Throttle

WRITE_INTERVAL = 10.0
"""s between two writes for one session by one process; shorter than every window in which a signal counts."""

REMEMBERED = 10_000
"""Sessions whose last write a process remembers; one it has forgotten may be written early."""

DETAIL_LENGTH = 96
"""Characters; enough for the hours of a week."""


class Activity:
    """Writes and reads signals. Safe to use from several threads. `ticks` is monotonic, in seconds."""

    def __init__(self, client: redis.Redis, ticks: Callable[[], float] = time.monotonic) -> None:
        self._redis = client
        self._write = Script(client, "signals")
        self._ticks = ticks
        self._throttle = Throttle(WRITE_INTERVAL, REMEMBERED)
        self._lock = threading.Lock()
        self._pending: dict[str, dict[str, Signal]] = {}

    def note(self, uuid: str, name: str, at: float, until: float = 0.0) -> None:
        """Note one signal. A session is written once in a `WRITE_INTERVAL`; earlier signals wait for the next write.
        Raises `StateUnavailable` when the write fails."""
        self.note_all(uuid, {name: Signal(at, until)})

    def note_all(self, uuid: str, signals: Mapping[str, Signal]) -> bool:
        """Note several signals; False when they wait for the next write: callers that can should repeat them."""
        with self._lock:
            pending = self._pending.setdefault(uuid, {})
            pending |= signals
            while len(self._pending) > REMEMBERED:
                del self._pending[next(iter(self._pending))]
            if not self._throttle.due(uuid, self._ticks()):
                return False
            due = self._pending.pop(uuid)
        self.write(uuid, due)
        return True

    @redis_errors
    def write(self, uuid: str, signals: Mapping[str, Signal]) -> bool:
        """Write signals at once, for a person's request; False when the session does not exist."""
        fields = [
            text for name, signal in signals.items() for text in (SIGNAL_PREFIX + _known(name), _cut(signal).to_text())
        ]
        newest = max(signal.at for signal in signals.values())
        return bool(self._write(session=keys.SESSION.format(uuid=uuid), newest=number(newest), fields=fields))

    @redis_errors
    def read(self, uuid: str) -> Mapping[str, Signal]:
        """All signals ever noted for a session."""
        pipe = self._redis.pipeline(transaction=False)
        for key in (keys.SESSION, keys.USE):
            pipe.hmget(key.format(uuid=uuid), [SIGNAL_PREFIX + name for name in SIGNALS])
        said, noted = pipe.execute()
        texts = zip(SIGNALS, said, noted, strict=True)
        return {name: Signal.from_text(newer or text) for name, text, newer in texts if newer or text}


def _known(name: str) -> str:
    if name not in SIGNALS:
        raise ValueError(f"{name!r} is not a signal.")
    return name


def _cut(signal: Signal) -> Signal:
    """The signal with a detail fit for a record: short, and one line of printable characters."""
    detail = "".join(each for each in signal.detail[:DETAIL_LENGTH] if each.isprintable())
    return Signal(signal.at, signal.until, detail.strip())
