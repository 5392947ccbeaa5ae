"""A running turn: what ends it, and the worker that works on it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from app.agent.protocol import Failure


class Ended(Exception):
    """The turn ends without an answer: the text for people, `code` for programs."""

    def __init__(self, reason: str, code: Failure) -> None:
        super().__init__(reason)
        self.code = code


class Stopping(Exception):
    """The process ends; the turn is interrupted."""


class Interrupted(Exception):
    """What worked on the turn is gone, and the turn can be resumed."""


@dataclass
class RunningTurn:
    """The running turn. `stopping` says that the process ends, `seconds` is the limit of the turn."""

    id: str
    started_at: float
    seconds: float
    stopping: threading.Event
    resumes: int = 0
    """How often it was resumed since its last message."""
    step: int = 0
    cancel: tuple[str, Failure] | None = None
    said: str = ""
    """What was told of the answer and is in no step yet."""
    spent: Counter[str] = field(default_factory=Counter)
    """The usage, in tokens, that is in no step yet, also that of replies that came to nothing."""
    _began: float = field(default_factory=time.monotonic)

    @property
    def _late(self) -> bool:
        return time.monotonic() > self._began + self.seconds

    def must_stop(self) -> bool:
        """Whether the turn must end now."""
        return self.stopping.is_set() or self.cancel is not None or self._late

    def noted(self) -> None:
        """What was said and spent is in a step now."""
        self.said, self.spent = "", Counter()

    def check(self) -> None:
        """Raises Ended or Stopping if the turn must end now."""
        if self.cancel is not None:
            raise Ended(*self.cancel)
        if self.stopping.is_set():
            raise Stopping
        if self._late:
            raise Ended(f"The turn took longer than {self.seconds:g} s.", Failure.TURN_TIMEOUT)


class Worker(Protocol):
    """Works on turns, one at a time: the service's own (`app.agent.model_worker`), or a program of the product's
    (`app.agent.program_worker`)."""

    def warm(self) -> None:
        """Prepare for the first turn, which may begin meanwhile. Called by another thread."""

    def work(self, turn: RunningTurn) -> None:
        """Work on a turn until its answer is in the conversation. A turn that was interrupted goes on from there.

        Raises Ended or ModelError if it ends without an answer, Interrupted if it is to be resumed, Stopping if the
        process ends, OSError if the disk can't be written.
        """

    def close(self) -> None:
        """End what is left of the work, whatever its thread does; there will be no other turn."""
