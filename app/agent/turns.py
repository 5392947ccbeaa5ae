"""Runs the turns: one at a time, in the order of their prompts, each until the model answers or it is ended.

A turn is a loop of steps. Every step is on disk before the next one starts, so an interrupted turn resumes where it
was, and no step is repeated.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.agent.context import INTERRUPTED, NOT_RUN, open_calls
from app.agent.documents import Message
from app.agent.events import Publish, outcome_event, truncated
from app.agent.model import Call, ModelError, Reply, Stopped
from app.agent.retry import RetryingModel
from app.agent.state import State, Turn
from app.agent.text import moment, trace
from app.agent.tools.child import Stop
from app.agent.tools.registry import Toolbox
from app.agent_protocol import Event, Failure

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


@dataclass(frozen=True)
class Limits:
    """Limits of one turn: seconds, model replies, tokens as the provider counts them."""

    seconds: float
    steps: int
    tokens: int


@dataclass
class _Running:
    """The running turn."""

    id: str
    started_at: float
    deadline: float
    step: int = 0
    cancel: tuple[str, Failure] | None = None


class Ended(Exception):
    """The turn ends without an answer: the text for people, `code` for programs."""

    def __init__(self, reason: str, code: Failure) -> None:
        super().__init__(reason)
        self.code = code


class Busy(Exception):
    """A turn runs or is about to."""


class Stopping(Exception):
    """The process ends; the turn is interrupted."""


class Turns:
    """Runs the prompts of `state`. `run` needs its own thread; the other methods are thread-safe. `begins` is told
    the id of each turn; `before_tools` may wait before each of its calls."""

    def __init__(
        self,
        state: State,
        model: RetryingModel,
        toolbox: Toolbox,
        system: Callable[[], str],
        publish: Publish,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.time,
        begins: Callable[[str], None] = lambda id_: None,
        before_tools: Callable[[Stop], None] = lambda stop: None,
    ) -> None:
        self._begins = begins
        self._before_tools = before_tools
        self._state = state
        self._model = model
        self._toolbox = toolbox
        self._system = system
        self._publish = publish
        self._limits = limits
        self._clock = clock
        self._lock = threading.Condition()
        self._running: _Running | None = None
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
            now = self._clock()
            running = _Running(turn.id, now, time.monotonic() + self._limits.seconds)
            self._running = running
        self._begins(turn.id)
        try:
            self._run(turn, running)
        finally:
            with self._lock:
                self._running = None
                self._lock.notify_all()
        return True

    def _run(self, turn: Turn, running: _Running) -> None:
        try:
            if turn.resumes > RESUMES:
                raise Ended("The agent ended unexpectedly each time it worked on this prompt.", Failure.CRASHED)
            if turn.withdrawn is not None:
                raise Ended(*turn.withdrawn)
            self._answer_open_calls(turn.id, first=INTERRUPTED)
            while not self._step(running):
                pass
        except Stopping:
            self._answer_open_calls(turn.id, first=NOT_RUN)
            self._state.stopped(turn.id)
            return
        except (Ended, ModelError) as e:
            self._fail(turn.id, str(e), e.code)
        except OSError as e:
            log.error("A turn could not be written to disk: %s", trace(e))
            self._fail(turn.id, f"The workspace's disk could not be written ({e.strerror}).", Failure.DISK)
        except Exception as e:  # noqa: BLE001 - one turn must not end the agent
            log.error("A turn failed unexpectedly: %s", trace(e))
            self._fail(turn.id, "The agent failed unexpectedly; see its log.", Failure.INTERNAL)
        outcome = self._state.outcome(turn.id)
        if outcome is not None:
            self._publish(outcome_event(turn.id, outcome))
        self._state.try_fold()

    def _fail(self, id_: str, reason: str, code: Failure) -> None:
        try:
            self._answer_open_calls(id_, first=NOT_RUN)
        except OSError:
            log.warning("Results of tools can't be written; only the turn's outcome is kept")
        self._state.finish(id_, failure=(reason, code))

    # A step

    def _step(self, running: _Running) -> bool:
        """Ask the model and run its tool calls; True if it made none: that was its answer."""
        self._check(running)
        messages = self._state.turn_messages(running.id)
        steps = [message for message in messages if message["role"] == "assistant"]
        running.step = len(steps) + 1
        if len(steps) >= self._limits.steps:
            raise Ended(f"The turn reached its limit of {self._limits.steps} steps; ask to go on.", Failure.STEP_LIMIT)
        if total_usage(steps)["total_tokens"] >= self._limits.tokens:
            text = f"The turn reached its limit of {self._limits.tokens} tokens; ask to go on."
            raise Ended(text, Failure.TOKEN_LIMIT)
        reply = self._ask(running)
        message: Message = {"id": running.id, "role": "assistant", "content": reply.text, "usage": reply.usage}
        if not reply.calls:
            message["outcome"] = {"status": "processed", "response": response(messages, reply)}
            self._state.append(message)
            return True
        calls = distinct(reply.calls)
        message["tool_calls"] = [{"call_id": call.id, "name": call.name, "arguments": call.arguments} for call in calls]
        self._state.append(message)
        for call in calls:
            self._before_tools(lambda: self._must_stop(running))
            self._check(running)
            self._call(running, call)
        return False

    def _ask(self, running: _Running) -> Reply:
        def on_text(text: str, again: bool) -> None:
            data = {"text": text, "again": True} if again else {"text": text}
            self._publish(Event("token", running.id, data))

        try:
            return self._model.next_reply(self._system(), on_text, lambda: self._must_stop(running))
        except Stopped:
            self._check(running)
            raise

    def _call(self, running: _Running, call: Call) -> None:
        named = {"call_id": call.id, "name": call.name}
        self._publish(Event("tool_call", running.id, {**named, "arguments": truncated(_arguments(call.arguments))}))
        result = self._toolbox.call(call.name, call.arguments, lambda: self._must_stop(running))
        self._state.append({"id": running.id, "role": "tool", **named, "ok": result.ok, "content": result.text})
        self._publish(Event("tool_result", running.id, {**named, "ok": result.ok, "text": truncated(result.text)}))

    def _must_stop(self, running: _Running) -> bool:
        return self._stopping.is_set() or running.cancel is not None or time.monotonic() > running.deadline

    def _check(self, running: _Running) -> None:
        if running.cancel is not None:
            raise Ended(*running.cancel)
        if self._stopping.is_set():
            raise Stopping
        if time.monotonic() > running.deadline:
            raise Ended(f"The turn took longer than {self._limits.seconds:g} s.", Failure.TURN_TIMEOUT)

    def _answer_open_calls(self, id_: str, *, first: str) -> None:
        """Add the missing results of calls: `first` for the one that may have run; later ones did not run."""
        messages = self._state.turn_messages(id_)
        names = {call["call_id"]: call["name"] for message in messages for call in message.get("tool_calls") or []}
        for n, call_id in enumerate(open_calls(messages)):
            named = {"call_id": call_id, "name": names[call_id], "ok": False}
            self._state.append({"id": id_, "role": "tool", **named, "content": NOT_RUN if n else first})


def distinct(calls: Sequence[Call]) -> list[Call]:
    """The calls with unique ids: a result refers to one of them."""
    seen: set[str] = set()
    unique = []
    for n, call in enumerate(calls):
        id_ = call.id if call.id not in seen else f"{call.id}-{n}"
        seen.add(id_)
        unique.append(Call(id_, call.name, call.arguments))
    return unique


def total_usage(steps: Sequence[Message]) -> dict[str, int]:
    """Total tokens of these steps."""
    prompt = sum((step.get("usage") or {}).get("prompt_tokens", 0) for step in steps)
    completion = sum((step.get("usage") or {}).get("completion_tokens", 0) for step in steps)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def response(messages: Sequence[Message], reply: Reply) -> dict[str, Any]:
    """The response to a prompt: `{"text", "steps", "tool_calls": [{"name", "ok"}], "usage"}`."""
    steps = [message for message in messages if message["role"] == "assistant"]
    tools = [{"name": message["name"], "ok": message["ok"]} for message in messages if message["role"] == "tool"]
    answer = {
        "text": reply.text,
        "steps": len(steps) + 1,
        "tool_calls": tools,
        "usage": total_usage([*steps, {"usage": reply.usage}]),
    }
    return answer if reply.complete else {**answer, "truncated": True}


def _arguments(text: str) -> Any:
    """The arguments of a call as an object, or as the text they are if that is none."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text
