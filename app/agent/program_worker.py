"""A program of the product's own, which works on prompts in place of the service's agent.

It gets each prompt as a line of JSON on its standard input, and answers by lines of JSON on its standard output:

    → {"type": "prompt", "id", "message", "again": false, "messages": [… as a chat completions API takes them]}
    ← {"type": "token", "id", "text", "again"?: true}
    ← {"type": "tool_call", "id", "call_id", "name", "arguments": {…}}
    → {"type": "go", "id", "call_id"}, once the call is on disk
    ← {"type": "tool_result", "id", "call_id", "ok": true, "text"}
    ← {"type": "processed", "id", "response": {"text"?, "usage"?, …}}  or  {"type": "failed", "id", "reason", "code"?}

docs/own-agent.md has the whole contract. The queue, the conversation, undo points, limits and reports stay ours, so a
program need not keep anything from one prompt to the next.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import threading
from collections.abc import Callable, Mapping
from typing import Any

from app.agent import run
from app.agent.compaction import compacted
from app.agent.model_context import caught_up, for_model
from app.agent.program import LineTooLong, Program
from app.agent.program_answer import Answer, Broken
from app.agent.protocol import Failure
from app.agent.settings import AgentSettings
from app.agent.state import State
from app.agent.steps import Steps
from app.agent.tools.child import Stop
from app.agent.turn import Ended, Interrupted, RunningTurn, Stopping
from app.volume.environment import NOWHERE, of_commands

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds before a prompt is handed over again, as the program ended while it worked on it."""


def mark_of(uuid: str) -> str:
    """The mark in the environment of a session's program and of all that it starts."""
    return f"{uuid}.program"


def program_environment(settings: AgentSettings, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the program. It holds the workspace's token, so its HOME is not the user's, whose files would
    tell its libraries what to do: that one is WORKSPACE_HOME. What it runs for the model, it runs by AGENT_RUN."""
    return {
        **of_commands(environment, settings.token()),
        "HOME": NOWHERE,
        "WORKSPACE_UUID": settings.uuid,
        "WORKSPACE_DIR": str(settings.folder),
        run.HOME: str(settings.home),
        "LLM_BASE_URL": f"{settings.gateway_url}/llm/v1" if settings.gateway_url else "",
        "LLM_MODEL": settings.model or "default",
        "AGENT_TOKEN_FILE": str(settings.token_file),
        "AGENT_RUN": run.command_line(),
        "AGENT_COMMAND_TIMEOUT": f"{settings.command_timeout:g}",
        "AGENT_TURN_TIMEOUT": f"{settings.turn_timeout:g}",
    }


def program_of(settings: AgentSettings, environment: Mapping[str, str]) -> Program:
    """Start the program that the settings name. Raises Ended if that is impossible."""
    try:
        command = shlex.split(settings.program)
        return Program(command, program_environment(settings, environment), mark_of(settings.uuid))
    except (OSError, ValueError) as e:
        log.error("AGENT_PROGRAM can't be started: %s", e)
        raise Ended("The agent's program can't be started; see the agent's log.", Failure.INTERNAL) from None


def conversation(state: State, tokens: int) -> list[dict[str, Any]]:
    """The conversation as a chat completions API takes it, its older part shortened if it has more than about so many
    tokens."""
    history, _ = state.history()
    context = compacted(caught_up(state.context(), history), tokens, lambda text: "")
    state.set_context(context)
    summary, *messages = for_model("", context)
    return [{**summary, "content": summary["content"].strip()}, *messages] if summary["content"] else messages


class ProgramWorker:
    """The worker that hands prompts to a program, one at a time. The program may run on between two prompts; one that
    has ended is started again. `start` starts it, `messages` returns the conversation; `before_tools` may wait before
    each call of a tool."""

    def __init__(
        self,
        start: Callable[[], Program],
        messages: Callable[[], list[dict[str, Any]]],
        steps: Steps,
        *,
        before_tools: Callable[[Stop], None] = lambda stop: None,
    ) -> None:
        self._start = start
        self._messages = messages
        self._steps = steps
        self._before_tools = before_tools
        self._lock = threading.Lock()
        self._program: Program | None = None
        self._over = False

    def warm(self) -> None:
        """Start the program."""
        try:
            self._running()
        except (Ended, Stopping):
            return  # Its first prompt fails, and says why.

    def work(self, turn: RunningTurn) -> None:
        """Hand the prompt over, and listen until its answer (`Worker.work`)."""
        if turn.resumes:
            turn.stopping.wait(PAUSE)
        turn.check()
        answer = Answer(turn, self._steps)
        try:
            self._listen(turn, answer)
        except (Broken, LineTooLong) as e:
            self._break_off(answer)
            log.error("The program broke its contract: %s", e)
            raise Ended(f"The agent's program broke its contract: {e}.", Failure.INTERNAL) from None
        except Exception:
            self._break_off(answer)
            raise
        if answer.failure is not None:
            raise answer.failure

    def _listen(self, turn: RunningTurn, answer: Answer) -> None:
        said = self._steps.begin(turn)
        again = turn.resumes > 0 or len(said) > 1
        program = self._running()
        prompt = {"type": "prompt", "id": turn.id, "message": said[0]["content"], "again": again}
        program.send(_line({**prompt, "messages": self._messages()}), turn.must_stop)
        while (line := program.line(turn.must_stop)) is not None:
            call = answer.take(line)
            if answer.ended:
                return
            if call is not None:
                self._before_tools(turn.must_stop)
                turn.check()
                answer.call_begun = True
                program.send(_line({"type": "go", "id": turn.id, "call_id": call.id}), turn.must_stop)
        turn.check()
        log.warning("The program ended while it worked on a prompt")
        raise Interrupted

    def _break_off(self, answer: Answer) -> None:
        with self._lock:
            program, self._program = self._program, None
        if program is not None:
            log.info("The program was ended, with status %d", program.end())
        with contextlib.suppress(OSError):
            answer.interrupt()

    def close(self) -> None:
        """End the program; it is not started again."""
        with self._lock:
            self._over = True
            program = self._program
        if program is not None:
            program.stop()

    def _running(self) -> Program:
        with self._lock:
            if self._program is not None and not self._program.running:
                self._program.end()
                self._program = None
            if self._program is None:
                if self._over:
                    raise Stopping
                self._program = self._start()
            return self._program


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode()
