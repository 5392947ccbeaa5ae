"""One step's request to the model: with a context it accepts, and retried if a retry may help."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from app.agent.compaction import SUMMARY_PROMPT, compacted, estimate
from app.agent.model import ContextTooLong, ModelError, ModelUnavailable, Reply, Stopped
from app.agent.model_context import Message, caught_up, for_model
from app.agent.state import State
from app.agent.tools.child import TICK, Stop

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
"""Seconds between two tries, unless the provider names a pause: about 40 s in all for a model. The manager gets over
7 minutes: a container that crashed repeatedly restarts after up to 5."""

LONGEST_PAUSE = 30.0
"""Seconds of a pause that the provider names, at most."""


class AnyModel(Protocol):
    """`app.agent.model.Model`, or a test's."""

    def warm(self) -> None: ...

    def answer(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        on_text: Callable[[str], None],
        stop: Stop,
    ) -> Reply: ...


def wait_before(attempt: int, retry_after: float, chance: float) -> float:
    """Seconds to wait after a failed try, the first being 0; `chance` in 0..1 spreads simultaneous retries."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt) * (0.5 + chance / 2)
    return max(wait, min(LONGEST_PAUSE, retry_after))


class RetryingModel:
    """Asks the model for the next step, with retries. A context above `context_tokens` is shortened first."""

    def __init__(self, model: AnyModel, state: State, tools: Sequence[dict[str, Any]], context_tokens: int) -> None:
        self._model = model
        self._state = state
        self._tools = tools
        self._limit = context_tokens

    def warm(self) -> None:
        """Prepare for the first request."""
        self._model.warm()

    def next_reply(self, system: str, on_text: Callable[[str, bool], None], stop: Stop, spent: Counter[str]) -> Reply:
        """The model's reply. `on_text(text, again)`: `again` voids the text passed on so far. To `spent` the usage of
        everything that was asked is added, also if this raises.

        Raises ModelError, Stopped. Tools run only between two of these calls, so an interrupted reply can be requested
        again without doing anything twice.
        """
        limit = self._limit
        tries: Counter[type[ModelUnavailable]] = Counter()
        while True:
            context = self._context(limit, spent, stop)
            passed_on = _PassedOn(on_text)
            try:
                return self._ask(for_model(system, context), self._tools, passed_on, stop, spent)
            except ContextTooLong:
                limit //= 2
                if limit < estimate([{"content": system}]) // 2:
                    raise
            except ModelUnavailable as e:
                attempt = tries[type(e)]
                tries[type(e)] += 1
                if tries[type(e)] == e.tries:
                    raise
                log.warning("The model did not answer (%s); retrying", e)
                _wait(wait_before(attempt, e.retry_after, random.random()), stop)
            passed_on.void()

    def _ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        on_text: Callable[[str], None],
        stop: Stop,
        spent: Counter[str],
    ) -> Reply:
        """The model's reply. Its usage is added to `spent`, also that of one that broke off."""
        try:
            reply = self._model.answer(messages, tools, on_text, stop)
        except (ModelError, Stopped) as e:
            spent.update(e.usage)
            raise
        spent.update(reply.usage)
        return reply

    def _context(self, limit: int, spent: Counter[str], stop: Stop) -> list[Message]:
        """The context within the limit. Tokens used to shorten it are added to `spent`."""
        history, _ = self._state.history()
        context = caught_up(self._state.context(), history)
        summaries = 0

        def summarise(text: str) -> str:
            nonlocal summaries
            messages: list[Message] = [{"role": "system", "content": SUMMARY_PROMPT}, {"role": "user", "content": text}]
            try:
                reply = self._ask(messages, (), lambda piece: None, stop, spent)
            except ModelError as e:
                log.warning("The model did not summarise the conversation (%s); the prompts replace it", e)
                return ""
            summaries += 1
            return reply.text

        shortened = compacted(context, limit, summarise)
        self._state.set_context(shortened, write=summaries > 0)
        return shortened


class _PassedOn:
    """Passes text on, and can void it if there was any."""

    def __init__(self, on_text: Callable[[str, bool], None]) -> None:
        self._on_text = on_text
        self._any = False

    def __call__(self, text: str) -> None:
        self._any = True
        self._on_text(text, False)

    def void(self) -> None:
        """Void the text: the reply is requested again."""
        if self._any:
            self._on_text("", True)


def _wait(seconds: float, stop: Stop) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if stop():
            raise Stopped
        time.sleep(min(left, TICK))
