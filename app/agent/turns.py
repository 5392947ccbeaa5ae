"""Runs the turns: one at a time, in the order of their prompts, each until it is answered or ended."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app.agent.events import Publish, outcome_event
from app.agent.model import ModelError
from app.agent.model_context import INTERRUPTED, NOT_RUN
from app.agent.protocol import Failure
from app.agent.state import State, Turn
from app.agent.steps import Steps
from app.agent.text import moment, trace
from app.agent.turn import Ended, Interrupted, RunningTurn, Stopping, Worker

log = logging.getLogger(__name__)

RESUMES = 5
"""A turn resumed more often without progress is taken as the cause of the agent's crashes."""

PAUSE = 60.0
"""Seconds without new turns after a cancel for a sleep: within them the process ends, or never. A cancelled sleep ends
the pause earlier (`resume`)."""

POLL_INTERVAL = 5.0
"""Seconds between two checks for prompts; new ones normally wake the thread."""

REASONS: Mapping[str, str] = {
    "sleep": "The workspace was put to sleep while this ran.",
    "delete": "The workspace was deleted while this ran.",
    "user": "Cancelled by the user.",
}
"""Texts of failed turns, by the reason of their cancel."""

PAUSING = frozenset({"sleep", "delete"})


class Busy(Exception):
    """A turn runs or is about to."""


class Turns:
    """Has `worker` work on the prompts of `state`, on each for at most `seconds`. `run` needs its own thread; the other
    methods are thread-safe. `begins` is told the id of each turn."""

    def __init__(
        self,
        state: State,
        worker: Worker,
        steps: Steps,
        publish: Publish,
        seconds: float,
        *,
        clock: Callable[[], float] = time.time,
        begins: Callable[[str], None] = lambda id_: None,
    ) -> None:
        self._begins = begins
        self._state = state
        self._worker = worker
        self._steps = steps
        self._publish = publish
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Condition()
        self._running: RunningTurn | None = None
        self._stopping = threading.Event()
        self._held = False
        self._paused_until = 0.0
        self._paused_by = self._resumed = 0
        """The generations of the stop that paused, and of the newest `resume`."""

    # For other threads

    @property
    def busy(self) -> bool:
        """Whether a turn runs or could start now."""
        return self._running is not None or (self._state.waiting() > 0 and not self.closed)

    @property
    def closed(self) -> bool:
        """Whether new prompts are refused: the process or the workspace is stopping."""
        return self._stopping.is_set() or time.monotonic() < self._paused_until

    def current(self) -> dict[str, Any] | None:
        """The running turn for `/activity`."""
        running = self._running
        if running is None:
            return None
        return {"id": running.id, "started_at": moment(running.started_at), "step": running.step}

    def cancel(self, reason: str, id_: str = "", generation: int = 0) -> str | None:
        """Cancel the running turn, or a given one, without waiting for its end. Its id, None if there is none.

        A cancel for a sleep or a delete begins a pause. If that stop, of this `generation` (0: unknown), was cancelled
        already by `resume`, nothing is done.
        """
        text = REASONS.get(reason) or reason
        code = Failure(reason) if reason in REASONS else Failure.CANCELLED
        with self._lock:
            if reason in PAUSING:
                if 0 < generation <= self._resumed:
                    return None
                self._paused_until = time.monotonic() + PAUSE
                self._paused_by = max(self._paused_by, generation)
            running = self._running
            if running is not None and id_ in ("", running.id):
                running.cancel = running.cancel or (text, code)
                return running.id
        return id_ if id_ and self._state.withdraw(id_, reason=text, code=code) else None

    def resume(self, generation: int) -> None:
        """End the pause of a cancelled stop, unless a stop newer than `generation` began it."""
        with self._lock:
            self._resumed = max(self._resumed, generation)
            if self._paused_by <= generation:
                self._paused_until = 0.0
            self._lock.notify_all()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Let no turn start meanwhile. Raises Busy if one runs, or could start now."""
        with self._lock:
            if self._running is not None and self._state.outcome(self._running.id) is not None:
                # It has ended, and its caller may know that; only the documents are still written.
                self._lock.wait_for(lambda: self._running is None, POLL_INTERVAL)
            waiting = self._state.waiting() > 0 or self._state.open_turn() is not None
            if self._held or self._running is not None or (waiting and not self.closed):
                raise Busy
            self._held = True
        try:
            yield
        finally:
            with self._lock:
                self._held = False
                self._lock.notify_all()

    def stop(self) -> None:
        """End `run`: the turn is interrupted after its step, whose command is killed. The next process resumes it."""
        self._stopping.set()
        with self._lock:
            self._lock.notify_all()
        self._state.notify()

    # The thread of the turns

    def run(self) -> None:
        """Run turns until `stop`."""
        while not self._stopping.is_set():
            try:
                if not self.run_next():
                    self._wait()
            except OSError as e:
                log.error("The conversation can't be written (%s); retrying", type(e).__name__)
                self._stopping.wait(5.0)

    def _wait(self) -> None:
        with self._lock:
            left = self._paused_until - time.monotonic()
            if self._held and not self._stopping.is_set():
                self._lock.wait(POLL_INTERVAL)
                return
            if left > 0 and not self._stopping.is_set():
                self._lock.wait(left)
                return
        if not self._stopping.is_set():
            self._state.wait_for_prompt(POLL_INTERVAL, unless=self._stopping.is_set)

    def run_next(self) -> bool:
        """Run the next turn to its end; False if there is none, or none may start. OSError: it could not start."""
        with self._lock:
            # Under the lock: if a cancel sees no running turn, none starts after it.
            turn = None if self.closed or self._held else self._state.next_turn()
            if turn is None:
                return False
            running = RunningTurn(turn.id, self._clock(), self._seconds, self._stopping, turn.resumes)
            self._running = running
        self._begins(turn.id)
        try:
            self._run(turn, running)
        finally:
            with self._lock:
                self._running = None
                self._lock.notify_all()
        return True

    def _run(self, turn: Turn, running: RunningTurn) -> None:
        try:
            if turn.resumes > RESUMES:
                raise Ended("The agent ended unexpectedly each time it worked on this prompt.", Failure.CRASHED)
            if turn.withdrawn is not None:
                raise Ended(*turn.withdrawn)
            self._steps.answer_open_calls(turn.id, first=INTERRUPTED)
            self._worker.work(running)
        except Interrupted:
            return
        except Stopping:
            self._steps.answer_open_calls(turn.id, first=NOT_RUN)
            self._state.stopped(turn.id)
            return
        except (Ended, ModelError) as e:
            self._fail(running, str(e), e.code)
        except OSError as e:
            log.error("A turn could not be written to disk: %s", trace(e))
            self._fail(running, f"The workspace's disk could not be written ({e.strerror}).", Failure.DISK)
        except Exception as e:  # noqa: BLE001 - one turn must not end the agent
            log.error("A turn failed unexpectedly: %s", trace(e))
            self._fail(running, "The agent failed unexpectedly; see its log.", Failure.INTERNAL)
        outcome = self._state.outcome(turn.id)
        if outcome is not None:
            self._publish(outcome_event(turn.id, outcome))
        self._state.try_fold()

    def _fail(self, turn: RunningTurn, reason: str, code: Failure) -> None:
        try:
            self._steps.answer_open_calls(turn.id, first=NOT_RUN)
        except OSError:
            log.warning("Results of tools can't be written; only the turn's outcome is kept")
        self._steps.fail(turn, reason, code)
