"""Shortens a long conversation for the model; the history keeps all of it.

First, older outputs of tools are shortened: they are most of the text, and the model can get them again. If that is not
enough, the model summarises all but the last steps; if it can't, only their prompts are kept. Sizes in tokens are
estimated as a quarter of the bytes, since the model's tokenizer is unknown. So set the limit well below the model's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from app.agent.model_context import Message
from app.agent.text import cut

RECENT = 8
"""Messages at the end whose outputs are not shortened: the model is working with them."""

SHORT = 400
"""Characters kept of an older output or argument."""

PROMPT = 120
"""Characters of a prompt where there is no summary."""

ENOUGH = 0.6
"""Share of the limit to shorten to, which leaves room for some steps."""

TAIL = 0.3
"""Share of the limit kept verbatim after a summary."""

SUMMARY_PROMPT = """\
Below is the first part of a conversation between a user and you, an agent that works on the user's files. \
It will be replaced by your summary. Write down what is needed to go on without it: what the user wants and \
has decided, facts the user asked you to remember, what was done to which files, what was found out, what \
is still open. Be brief and exact, and quote names, paths and values as they were. Answer with the summary alone."""


def estimate(messages: Sequence[Message]) -> int:
    """Estimated tokens of these messages."""
    return sum(_size(message) for message in messages) // 4


def _size(message: Message) -> int:
    calls = sum(
        len(call["function"]["arguments"].encode()) + len(call["function"]["name"])
        for call in message.get("tool_calls") or []
    )
    return len((message.get("content") or "").encode()) + calls + 16


def compacted(context: Sequence[Message], limit: int, summarise: Callable[[str], str]) -> list[Message]:
    """The context, shortened if it exceeds the limit.

    `summarise` takes a conversation as text and returns a summary, "" if it fails.
    """
    if estimate(context) <= limit:
        return list(context)
    shorter = shortened(context)
    if estimate(shorter) <= limit * ENOUGH:
        return shorter
    head, tail = split(shorter, int(limit * TAIL))
    if head:
        summary = summarise(cut(transcript(head), limit * 3)) or prompts_only(head)
        first: Message = {"role": "summary", "content": cut(summary, limit), "through": head[-1]["through"]}
        shorter = [first, *tail]
    return fitted(shorter, limit)


def shortened(context: Sequence[Message]) -> list[Message]:
    """The context with older outputs and long arguments cut to a few lines."""
    border = max(0, len(context) - RECENT)
    return [_short(message) if n < border else message for n, message in enumerate(context)]


def _short(message: Message) -> Message:
    if message["role"] == "tool":
        return {**message, "content": _short_text(message["content"])}
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _short_arguments(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _short_text(text: str) -> str:
    # The note of the length left out exceeds the limit a little; cut again, only the note would be lost.
    return cut(text, SHORT) if len(text) > 2 * SHORT else text


def _short_arguments(text: str) -> str:
    if len(text) <= SHORT:
        return text
    try:
        arguments = json.loads(text)
    except ValueError:
        return "{}"
    if not isinstance(arguments, dict):
        return "{}"
    short: dict[str, Any] = {
        name: _short_text(value) if isinstance(value, str) else value for name, value in arguments.items()
    }
    return json.dumps(short, ensure_ascii=False)


def split(context: Sequence[Message], budget: int) -> tuple[list[Message], list[Message]]:
    """The messages to summarise, and the steps at the end to keep: at least one, more while they fit.

    A call stays with its results. The kept part begins with a prompt, if need be a copy of its turn's.
    """
    start = len(context)
    for n in range(len(context) - 1, -1, -1):
        if context[n]["role"] == "tool":
            continue
        if start < len(context) and estimate(context[n:]) > budget:
            break
        start = n
    head, tail = list(context[:start]), list(context[start:])
    if not tail or tail[0]["role"] == "user":
        return head, tail
    prompt = next((message for message in reversed(head) if message["role"] == "user"), None)
    if all(message is prompt for message in head):
        return [], list(context)
    return head, tail if prompt is None else [{**prompt, "through": head[-1]["through"]}, *tail]


def transcript(messages: Sequence[Message]) -> str:
    """Messages as text for the model."""
    lines = []
    for message in messages:
        if message.get("content"):
            lines.append(f"[{message['role']}] {message['content']}")
        for call in message.get("tool_calls") or []:
            lines.append(f"[call] {call['function']['name']} {call['function']['arguments']}")
    return "\n\n".join(lines)


def prompts_only(messages: Sequence[Message]) -> str:
    """The substitute for a summary: an earlier summary and the beginnings of the prompts."""
    summaries = [message["content"] for message in messages if message["role"] == "summary"]
    prompts = [f"- {cut(message['content'], PROMPT)}" for message in messages if message["role"] == "user"]
    return "\n".join([*summaries, "The user asked, and you answered (the answers are left out here):", *prompts])


def fitted(context: Sequence[Message], limit: int) -> list[Message]:
    """The last resort: halve the longest contents until the limit is met."""
    messages = list(context)
    for _ in range(20 * max(1, len(messages))):
        if estimate(messages) <= limit:
            break
        longest = max(range(len(messages)), key=lambda n: len(messages[n].get("content") or ""))
        content = messages[longest].get("content") or ""
        if len(content) <= SHORT:
            break
        messages[longest] = {**messages[longest], "content": cut(content, len(content) // 2)}
    return messages
