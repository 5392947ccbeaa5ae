"""The signs that a session is in use, on their way into its record.

Whoever sees one notes it here: the web process a person's request of a workspace's host, the gateway what the agent
tells from inside. They stand in the record (`signal_*`), so that the script that puts a session to sleep can see
that none came since the verdict. What each of them is worth is decided in app/sessions/verdict.py.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import redis

from app.sessions import keys
from app.sessions.model import SIGNAL_PREFIX, SIGNALS, Signal
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import script
from app.sessions.store import number

WRITE_INTERVAL = 10.0
"""s between two writes for one session by one process; every window a signal may count for is longer."""

REMEMBERED = 10_000
"""Sessions a process remembers having written for; one that is forgotten may be written for early."""

DETAIL_LENGTH = 96
"""Characters; hours of the week fit in."""


@dataclass
class _Pending:
    """What was seen of a session and not yet written, and when it was written last (monotonic)."""

    written_at: float = float("-inf")
    signals: dict[str, Signal] = field(default_factory=dict)


class Signals:
    """Writes and reads signals. Safe to use from several threads. `ticks` is monotonic, in seconds."""

    def __init__(self, client: redis.Redis, ticks: Callable[[], float] = time.monotonic) -> None:
        self._redis = client
        self._write = client.register_script(script("signals"))
        self._ticks = ticks
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, _Pending] = OrderedDict()

    def note(self, uuid: str, name: str, at: float, until: float = 0.0) -> None:
        """Note one signal, at most one write for a session each `WRITE_INTERVAL`: one that comes too soon is
        written along with the next. Raises `StateUnavailable` when it is time and Redis can't be reached."""
        self.note_all(uuid, {name: Signal(at, until)})

    def note_all(self, uuid: str, signals: Mapping[str, Signal]) -> bool:
        """The same for several at once; False when they wait for the next: who can should tell them again."""
        with self._lock:
            pending = self._sessions.setdefault(uuid, _Pending())
            self._sessions.move_to_end(uuid)
            while len(self._sessions) > REMEMBERED:
                self._sessions.popitem(last=False)
            pending.signals |= signals
            now = self._ticks()
            if now - pending.written_at < WRITE_INTERVAL:
                return False
            pending.written_at, due, pending.signals = now, pending.signals, {}
        self.write(uuid, due)
        return True

    def write(self, uuid: str, signals: Mapping[str, Signal]) -> bool:
        """Write signals at once, for what a person asked for; False when there is no such session."""
        fields = [
            text for name, signal in signals.items() for text in (SIGNAL_PREFIX + _known(name), _cut(signal).to_text())
        ]
        newest = max(signal.at for signal in signals.values())
        with redis_errors():
            return bool(self._write(keys=[keys.SESSION.format(uuid=uuid)], args=[number(newest), *fields]))

    def read(self, uuid: str) -> Mapping[str, Signal]:
        """The signals of a session, those that were ever seen."""
        with redis_errors():
            texts = self._redis.hmget(keys.SESSION.format(uuid=uuid), [SIGNAL_PREFIX + name for name in SIGNALS])
        return {name: Signal.from_text(text) for name, text in zip(SIGNALS, texts, strict=True) if text}


def _known(name: str) -> str:
    if name not in SIGNALS:
        raise ValueError(f"{name!r} is not a signal.")
    return name


def _cut(signal: Signal) -> Signal:
    """The same with its text fit for a record: short, and one line of printable characters."""
    detail = "".join(each for each in signal.detail[:DETAIL_LENGTH] if each.isprintable())
    return Signal(signal.at, signal.until, detail.strip())
