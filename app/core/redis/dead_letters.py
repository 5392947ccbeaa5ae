"""Dead letters: tasks that were given up, the newest ones, for operators."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

import redis

from app.core.errors import DeadLetterNotFound
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.paging import Page, page_of

KEPT = 1_000


LETTER_ID_PATTERN = re.compile(r"[0-9a-f]{16}")


def new_id() -> str:
    """The id of a dead letter."""
    return secrets.token_hex(8)


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A task that will not be retried. `args` are a uuid and, but for backups, a generation. `why` says what happened,
    without private texts (app/process/private_text.py), `error` is the kind of the last error, "" when its workers
    died. `tries` counts the attempts, `at` is when it was given up (s since the epoch)."""

    task: str
    args: tuple[str | int, ...] = ()
    why: str = ""
    error: str = ""
    tries: int = 0
    request_id: str = ""
    at: float = 0.0
    id: str = field(default_factory=new_id)

    @property
    def uuid(self) -> str:
        """The session's, "" for none."""
        return str(self.args[0]) if self.args else ""

    @property
    def generation(self) -> int | None:
        """The intent's; None for a backup, which is no intent."""
        return int(self.args[1]) if len(self.args) > 1 else None

    def to_text(self) -> str:
        return json.dumps({**vars(self), "args": list(self.args)})

    @classmethod
    def from_text(cls, text: str) -> DeadLetter:
        """The dead letter in a text of the list; fields of later releases are ignored."""
        found: dict[str, Any] = json.loads(text)
        known = {name: found[name] for name in cls.__dataclass_fields__ if name in found}
        known["args"] = tuple(found["args"])
        return cls(**known)


class DeadLetters:
    """The dead-letter list. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    @redis_errors
    def add(self, dead_letter: DeadLetter) -> None:
        """Store a task that will not be retried."""
        pipe = self._redis.pipeline()
        pipe.lpush(keys.DEAD_LETTERS, dead_letter.to_text())
        pipe.ltrim(keys.DEAD_LETTERS, 0, KEPT - 1)
        pipe.hincrby(keys.COUNTERS, "dead_letters", 1)
        pipe.execute()

    @redis_errors
    def count(self) -> int:
        """How many dead letters are kept."""
        return int(self._redis.llen(keys.DEAD_LETTERS))

    def read(self) -> list[DeadLetter]:
        """The dead letters, newest first."""
        return [DeadLetter.from_text(text) for text in self._texts()]

    def page(self, *, limit: int = 100, cursor: str | None = None) -> Page[DeadLetter]:
        """Some of them, newest first; raises `InvalidRequest` for a foreign cursor."""
        return page_of(self.read(), lambda letter: (letter.at, letter.id), limit=limit, cursor=cursor)

    def get(self, letter_id: str) -> DeadLetter:
        """Raises `DeadLetterNotFound`."""
        return DeadLetter.from_text(self._text(letter_id))

    @redis_errors
    def remove(self, letter_id: str) -> DeadLetter:
        """Remove one, whatever is added meanwhile, and answer it. Raises `DeadLetterNotFound`, also when someone
        else removed it."""
        text = self._text(letter_id)
        if not self._redis.lrem(keys.DEAD_LETTERS, 1, text):
            raise DeadLetterNotFound(letter_id)
        return DeadLetter.from_text(text)

    @redis_errors
    def _texts(self) -> list[str]:
        return list(self._redis.lrange(keys.DEAD_LETTERS, 0, KEPT - 1))

    def _text(self, letter_id: str) -> str:
        for text in self._texts():
            if DeadLetter.from_text(text).id == letter_id:
                return text
        raise DeadLetterNotFound(letter_id)
