"""A program of the product's own, which works on prompts in place of the service's agent.

It gets each prompt as a line of JSON on its standard input, and answers by lines of JSON on its standard output:

    → {"type": "prompt", "id", "message", "again": false, "messages": [… as a chat completions API takes them]}
    ← {"type": "token", "id", "text", "again"?: true}
    ← {"type": "tool_call", "id", "call_id", "name", "arguments": {…}}
    ← {"type": "tool_result", "id", "call_id", "ok": true, "text"}
    ← {"type": "processed", "id", "response": {"text"?, "usage"?, …}}  or  {"type": "failed", "id", "reason", "code"?}

docs/own-agent.md has the whole contract. The queue, the conversation, undo points, limits and reports stay ours, so a
program need not keep anything from one prompt to the next.
"""

from __future__ import annotations

import json
import logging
import shlex
import threading
from collections.abc import Callable, Mapping
from typing import Any

from app.agent import run
from app.agent.compaction import compacted
from app.agent.context import caught_up, for_model
from app.agent.model import ANSWER_CHARACTERS, Call, Reply
from app.agent.program import LineTooLong, Program
from app.agent.settings import AgentSettings
from app.agent.state import State
from app.agent.steps import Steps
from app.agent.text import clean, cut
from app.agent.tools.child import Stop
from app.agent.tools.registry import RESULT_CHARACTERS
from app.agent.turn import Ended, Interrupted, RunningTurn
from app.agent_protocol import FAILED, PROCESSED, TOKEN, TOOL_CALL, TOOL_RESULT, Failure
from app.volume.environment import NOWHERE, of_commands

log = logging.getLogger(__name__)

NAME_CHARACTERS = 128
"""Of a tool's name and a call's id; the manager shows no more."""

REASON_CHARACTERS = 1_000

PAUSE = 0.5
"""Seconds before a prompt is handed over again, as the program ended while it worked on it."""

NO_RESULT = "the agent told no result"

TYPES = frozenset({TOKEN, TOOL_CALL, TOOL_RESULT, PROCESSED, FAILED})


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
    """The worker that hands prompts to a program, one at a time. The program may run on between two prompts; it is
    started again if it has ended. `start` starts it, `messages` returns the conversation, `before` may wait until its
    tools may run."""

    def __init__(
        self,
        start: Callable[[], Program],
        messages: Callable[[], list[dict[str, Any]]],
        steps: Steps,
        *,
        before: Callable[[Stop], None] = lambda stop: None,
    ) -> None:
        self._start = start
        self._messages = messages
        self._steps = steps
        self._before = before
        self._lock = threading.Lock()
        self._program: Program | None = None
        self._over = False

    def warm(self) -> None:
        """Start the program."""
        try:
            self._running()
        except Ended:
            return  # Its first prompt fails, and says why.

    def work(self, turn: RunningTurn) -> None:
        """Hand the prompt over, and listen until its answer (`Worker.work`)."""
        self._before(turn.must_stop)
        if turn.resumes:
            turn.stopping.wait(PAUSE)
        turn.check()
        said = self._steps.begin(turn)
        again = turn.resumes > 0 or len(said) > 1
        prompt = {"type": "prompt", "id": turn.id, "message": said[0]["content"], "again": again}
        answer = _Answer(turn, self._steps)
        try:
            program = self._running()
            program.send(json.dumps({**prompt, "messages": self._messages()}).encode(), turn.must_stop)
            while (line := program.line(turn.must_stop)) is not None:
                if answer.take(line):
                    break
            else:
                status = self._end()
                turn.check()
                log.warning("The program ended while it worked on a prompt, with status %s", status)
                raise Interrupted
        except (_Broken, LineTooLong) as e:
            self._end()
            log.error("The program broke its contract: %s", e)
            raise Ended(f"The agent's program broke its contract: {e}.", Failure.INTERNAL) from None
        except (Ended, OSError):
            self._end()
            raise
        if answer.failure is not None:
            raise answer.failure

    def close(self) -> None:
        """End the program; it is not started again."""
        with self._lock:
            self._over = True
        self._end()

    def _running(self) -> Program:
        with self._lock:
            if self._program is not None and not self._program.running:
                self._program.end()
                self._program = None
            if self._program is None:
                if self._over:
                    raise Ended("The agent is ending.", Failure.INTERNAL)
                self._program = self._start()
            return self._program

    def _end(self) -> int | None:
        with self._lock:
            program, self._program = self._program, None
        return program.end() if program is not None else None


class _Broken(Exception):
    """A line that is not of the contract; the text says what it lacks."""


class _Answer:
    """The lines of a program about one prompt, as steps of its turn."""

    def __init__(self, turn: RunningTurn, steps: Steps) -> None:
        self._turn = turn
        self._steps = steps
        self._text = ""
        self._call: Call | None = None
        self.failure: Ended | None = None
        """How the turn ended, if it did without an answer."""

    def take(self, line: bytes) -> bool:
        """Take a line; whether it ends the turn. Raises _Broken, and Ended where the turn had too many steps."""
        event = _parsed(line)
        kind = None if event is None else event.get("type")
        if event is None or kind not in TYPES:
            log.warning("The program wrote a line that is no event of the contract; it is ignored")
            return False
        if _text(event, "id") != self._turn.id:
            log.warning("The program wrote of another prompt than the one it works on; that is ignored")
            return False
        if kind == TOKEN:
            self._token(_text(event, "text"), event.get("again") is True)
        elif kind == TOOL_CALL:
            self._begin_call(event)
        elif kind == TOOL_RESULT:
            self._end_call(event)
        elif kind == PROCESSED:
            self._answer(event.get("response"))
        else:
            reason = cut(_text(event, "reason"), REASON_CHARACTERS)
            self.failure = Ended(reason, Failure.of(event.get("code")))
        return kind in (PROCESSED, FAILED)

    def _token(self, text: str, again: bool) -> None:
        self._text = text if again else self._text + text
        if len(self._text) > ANSWER_CHARACTERS:
            raise _Broken(f"its answer has more than {ANSWER_CHARACTERS} characters")
        self._steps.text(self._turn, text, again)

    def _begin_call(self, event: Mapping[str, Any]) -> None:
        self._close_call()
        arguments = event.get("arguments", {})
        told = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        call = Call(_name(event, "call_id"), _name(event, "name"), told)
        self._steps.begin(self._turn)
        self._steps.calls(self._turn, self._text, [call], {})
        self._text, self._call = "", call
        self._steps.begins(self._turn, call)

    def _end_call(self, event: Mapping[str, Any]) -> None:
        call = self._call
        if call is None or event.get("call_id") != call.id:
            raise _Broken(f"`{TOOL_RESULT}` must have the `call_id` of the `{TOOL_CALL}` before it")
        self._call = None
        self._steps.result(self._turn, call, event.get("ok") is True, cut(_text(event, "text"), RESULT_CHARACTERS))

    def _close_call(self) -> None:
        if self._call is not None:
            self._steps.result(self._turn, self._call, False, NO_RESULT)
            self._call = None

    def _answer(self, response: Any) -> None:
        if not isinstance(response, dict):
            raise _Broken(f"`response` of `{PROCESSED}` must be an object")
        self._close_call()
        text = _text(response, "text") if "text" in response else self._text
        usage = response.get("usage")
        counted = {name: _count(usage, name) for name in ("prompt_tokens", "completion_tokens")}
        self._steps.answer(self._turn, Reply(text, (), counted), response)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object in a line, None if it holds none."""
    try:
        event = _cleaned(json.loads(line, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _cleaned(value: Any) -> Any:
    """A JSON value that can be written as UTF-8."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): _cleaned(inner) for name, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, list) else value


def _text(event: Mapping[str, Any], name: str) -> str:
    text = event.get(name)
    if not isinstance(text, str):
        raise _Broken(f"`{name}` of `{event.get('type', 'response')}` must be a text")
    return text


def _name(event: Mapping[str, Any], name: str) -> str:
    text = _text(event, name)
    if not 0 < len(text) <= NAME_CHARACTERS:
        raise _Broken(f"`{name}` of `{event['type']}` must have 1 to {NAME_CHARACTERS} characters")
    return text


def _count(usage: Any, name: str) -> int:
    """Tokens that a program says it used, 0 if it says nothing sensible."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**53 else 0
