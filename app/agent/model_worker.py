"""The service's own agent: asks the model, runs the tools it calls, and asks again until it answers.

Every step is on disk before the next one starts, so an interrupted turn resumes where it was, and no step is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.agent.model import Call, Reply, Stopped
from app.agent.protocol import Failure
from app.agent.retry import RetryingModel
from app.agent.steps import Steps, total_usage
from app.agent.tools.child import Stop
from app.agent.tools.registry import Toolbox
from app.agent.turn import Ended, RunningTurn


class ModelWorker:
    """The worker that asks a model. `system` is the system message, `tokens` the limit of a turn as the provider counts
    them; `before_tools` may wait before each call of a tool."""

    def __init__(
        self,
        model: RetryingModel,
        toolbox: Toolbox,
        system: Callable[[], str],
        steps: Steps,
        tokens: int,
        *,
        before_tools: Callable[[Stop], None] = lambda stop: None,
    ) -> None:
        self._model = model
        self._toolbox = toolbox
        self._system = system
        self._steps = steps
        self._tokens = tokens
        self._before_tools = before_tools

    def warm(self) -> None:
        """Import the model's client."""
        self._model.warm()

    def work(self, turn: RunningTurn) -> None:
        """Take steps until the model answers (`Worker.work`)."""
        while not self._step(turn):
            pass

    def close(self) -> None:
        """Nothing is left between two turns."""

    def _step(self, turn: RunningTurn) -> bool:
        """Ask the model and run its tool calls; True if it made none: that was its answer."""
        turn.check()
        messages = self._steps.begin(turn)
        if total_usage(messages)["total_tokens"] >= self._tokens:
            raise Ended(f"The turn reached its limit of {self._tokens} tokens; ask to go on.", Failure.TOKEN_LIMIT)
        reply = self._ask(turn)
        if not reply.calls:
            self._steps.answer(turn, reply.text, complete=reply.complete)
            return True
        calls = distinct(reply.calls)
        self._steps.calls(turn, reply.text, calls)
        for call in calls:
            self._before_tools(turn.must_stop)
            turn.check()
            self._steps.begins(turn, call)
            result = self._toolbox.call(call.name, call.arguments, turn.must_stop)
            self._steps.result(turn, call, result.ok, result.text)
        return False

    def _ask(self, turn: RunningTurn) -> Reply:
        try:
            return self._model.next_reply(
                self._system(), lambda text, again: self._steps.text(turn, text, again), turn.must_stop, turn.spent
            )
        except Stopped:
            turn.check()
            raise


def distinct(calls: Sequence[Call]) -> list[Call]:
    """The calls with unique ids: a result refers to one of them."""
    seen: set[str] = set()
    unique = []
    for n, call in enumerate(calls):
        id_ = call.id if call.id not in seen else f"{call.id}-{n}"
        seen.add(id_)
        unique.append(Call(id_, call.name, call.arguments))
    return unique
