"""What the model is sent: the system message, with the agent's instructions and the project's own, and the history as
chat messages for the provider's API, always well-formed.

A context message is a chat message with `through`: how many messages of the history it and those before it represent.
A context that lags behind its history, after a crash or a restore, is updated by appending the later messages. The
first may have the role `summary`; it becomes part of the system message.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from app.agent.tools.sandbox_path import ToolError, Workspace

Message = dict[str, Any]

INTERRUPTED = "interrupted: it is not known how far this came; look before doing it again"
NOT_RUN = "not run: the workspace was stopped before this"

INSTRUCTIONS = "AGENTS.md"
INSTRUCTIONS_BYTES = 32_000
"""Limit of a project's instructions, which are part of every request."""


def chat_message(message: Message, through: int) -> Message:
    """A message of the history as a chat message."""
    role = message["role"]
    if role == "tool":
        result = {"role": "tool", "tool_call_id": message.get("call_id", ""), "content": message["content"]}
        return {**result, "through": through}
    if role != "assistant":
        return {"role": "user", "content": message["content"], "through": through}
    content = message["content"]
    outcome = message.get("outcome") or {}
    if outcome.get("status") == "failed":
        note = f"(This turn ended without an answer: {outcome.get('reason', '')})"
        content = f"{content}\n\n{note}" if content else note
    answer: Message = {"role": "assistant", "content": content, "through": through}
    if message.get("tool_calls"):
        answer["content"] = content or None
        answer["tool_calls"] = [
            {
                "id": call["call_id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": sound_arguments(call["arguments"])},
            }
            for call in message["tool_calls"]
        ]
    return answer


def sound_arguments(text: str) -> str:
    """Arguments that a provider accepts: a JSON object, `{}` if the model wrote something else."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return "{}"
    return text or "{}" if isinstance(value, dict) else "{}"


def caught_up(context: Sequence[Message], history: Sequence[Message]) -> list[Message]:
    """The context with later messages of the history; rebuilt if it does not belong to this history."""
    known = list(context)
    through = known[-1].get("through", 0) if known else 0
    if not isinstance(through, int) or through > len(history) or not all(_usable(message) for message in known):
        known, through = [], 0
    return known + [chat_message(message, n) for n, message in enumerate(history[through:], start=through + 1)]


def _usable(message: Message) -> bool:
    return message.get("role") in ("summary", "user", "assistant", "tool") and "content" in message


def open_calls(messages: Sequence[Message]) -> list[str]:
    """Ids of the calls in the last assistant message that have no result yet, in order."""
    done = set()
    for message in reversed(messages):
        if message["role"] == "tool":
            done.add(message.get("call_id"))
        elif message.get("tool_calls"):
            return [call["call_id"] for call in message["tool_calls"] if call["call_id"] not in done]
        else:
            break
    return []


def for_model(system: str, context: Sequence[Message]) -> list[Message]:
    """The messages of a request: the system message first, each call followed by its results."""
    summaries = [message["content"] for message in context if message["role"] == "summary"]
    if summaries:
        system = f"{system}\n\n# The conversation before this, in short\n\n{summaries[0]}"
    messages: list[Message] = [{"role": "system", "content": system}]
    expected: list[str] = []
    for message in context:
        if message["role"] == "summary":
            continue
        sent = {name: value for name, value in message.items() if name != "through"}
        if message["role"] == "tool":
            if message.get("tool_call_id") in expected:
                expected.remove(message["tool_call_id"])
                messages.append(sent)
            continue
        messages += [_interrupted(call_id) for call_id in expected]
        expected = [call["id"] for call in message.get("tool_calls") or []]
        messages.append(sent)
    return messages + [_interrupted(call_id) for call_id in expected]


def _interrupted(call_id: str) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": INTERRUPTED}


@cache
def _own() -> str:
    return Path(__file__).with_name("system_prompt.md").read_text(encoding="utf-8")


def system_prompt(workspace: Workspace) -> str:
    """The current system message; a project's instructions may change between two prompts."""
    instructions = project_instructions(workspace)
    return f"{_own()}\n# {INSTRUCTIONS} of this workspace\n\n{instructions}\n" if instructions else _own()


def project_instructions(workspace: Workspace) -> str:
    """The beginning of the workspace's AGENTS.md, "" if it has no readable one."""
    try:
        with workspace.resolve(INSTRUCTIONS) as place:
            fd = place.open(os.O_RDONLY)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return ""
                return file.read(INSTRUCTIONS_BYTES).decode("utf-8", "replace").strip()
    except ToolError:
        return ""
