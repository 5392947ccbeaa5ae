"""A long conversation made short enough for the model; the history keeps all of it.

First the outputs of tools that lie some steps back are shortened: they are most of the text, and can be had
again. If that isn't enough, all but the last steps become a summary, which the model writes; if it can't,
the prompts alone stand for them. Sizes are estimates, a quarter of the bytes, since nobody here knows the
model's own way of counting: the limit is meant to be well below what the model takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from app.agent.context import Message
from app.agent.text import cut

RECENT = 8
"""Messages at the end whose outputs stay whole: what the model is working with."""

SHORT = 400
"""Characters that are left of an older output or argument."""

PROMPT = 120
"""Characters of a prompt when nobody wrote a summary."""

ENOUGH = 0.6
"""Of the limit: shortened to this there is room for some steps before it must be done again."""

TAIL = 0.3
"""Of the limit: how much stays as it was beside a summary."""

SUMMARY_PROMPT = """\
Below is the first part of a conversation between a user and you, an agent that works on the user's files. \
It will be replaced by your summary. Write down what is needed to go on without it: what the user wants and \
has decided, facts the user asked you to remember, what was done to which files, what was found out, what \
is still open. Be brief and exact, and quote names, paths and values as they were. Answer with the summary alone."""


def estimate(messages: Sequence[Message]) -> int:
    """About how many tokens these messages are."""
    return sum(_size(message) for message in messages) // 4


def _size(message: Message) -> int:
    calls = sum(
        len(call["function"]["arguments"].encode()) + len(call["function"]["name"])
        for call in message.get("tool_calls") or []
    )
    return len((message.get("content") or "").encode()) + calls + 16


def compacted(context: Sequence[Message], limit: int, summarise: Callable[[str], str]) -> list[Message]:
    """The context itself if it is within the limit, else one that is.

    `summarise` gets a conversation as text and returns a summary, "" when there is none to be had.
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
    """Older outputs and long arguments cut to a few lines."""
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
    # The note of what is missing makes it longer than said; cut again it would only lose that.
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
    """What is to be summarised, and the steps at the end that stay: at least one, more while they fit.

    A call stays with its results. What stays begins with a prompt, if need be that of the turn it was cut from.
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
    """Messages as text a model can read."""
    lines = []
    for message in messages:
        if message.get("content"):
            lines.append(f"[{message['role']}] {message['content']}")
        for call in message.get("tool_calls") or []:
            lines.append(f"[call] {call['function']['name']} {call['function']['arguments']}")
    return "\n\n".join(lines)


def prompts_only(messages: Sequence[Message]) -> str:
    """What stands for a conversation nobody summarised: an earlier summary and the beginnings of the prompts."""
    summaries = [message["content"] for message in messages if message["role"] == "summary"]
    prompts = [f"- {cut(message['content'], PROMPT)}" for message in messages if message["role"] == "user"]
    return "\n".join([*summaries, "The user asked, and you answered (the answers are left out here):", *prompts])


def fitted(context: Sequence[Message], limit: int) -> list[Message]:
    """The last resort: the longest contents are halved until all is within the limit."""
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
