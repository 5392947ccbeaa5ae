"""The Lua scripts, each an atomic change of several keys.

A full Redis refuses a script only if the script's first write may take memory (6.2 and 7; 6.2 lacks the flag
`allow-oom`). So each script begins by unlinking a key that never exists. Scripts that store something new check for
room themselves (lua/room.lua).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from app.core.redis import use_fields

EVEN_WHEN_FULL = "redis.call('UNLINK', KEYS[1] .. ':nothing')\n"

ON_PROMPTS = (
    *("delivered", "close", "hold", "release", "rolled_back"),
    *("agent_here", "agent_failed", "agent_leaves", "agent_stays"),
)
PARTS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(ON_PROMPTS, ("log", "noted", "prompts")),
    "append": ("log",),
    **dict.fromkeys(("audit_add", "audit_count"), ("room", "audit_fit")),
    **dict.fromkeys(("begin", "count", "link", "signals"), ("noted",)),
    "change": ("log", "noted", "ledger", "source"),
    "create": ("log", "room", "source"),
    "erase": ("source",),
    "feed_shrink": ("log",),
    "finish": ("log", "noted", "prompts", "room", "budget", "timed"),
    "first_token": ("log", "noted", "prompts", "timed"),
    "index": ("ledger",),
    "retire": ("ledger", "stored"),
    "revoke": ("log", "noted", "ledger", "source", "change"),
    "spend": ("ledger",),
    "take": ("log", "noted", "ledger", "source", "change", "prompts", "room", "budget"),
    "unindex": ("ledger", "stored"),
}
"""The functions a script calls, put in front of it. `change` is a script of its own, and a function for others."""


@cache
def script(name: str) -> str:
    """The script `name` of the folder `lua`, with the functions it calls."""
    return with_parts(script_text(name), *PARTS.get(name, ()))


def with_parts(text: str, *parts: str) -> str:
    """A script as it is sent to Redis, with these parts in front."""
    return EVEN_WHEN_FULL + "".join(map(_part, parts)) + text


def flatten(fields: Mapping[str, Any]) -> list[Any]:
    """Fields as a script takes them: name, value, name, value, ..."""
    return [part for pair in fields.items() for part in pair]


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """The hash in a script's answer, which has the same form."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _part(name: str) -> str:
    if name == "change":
        # The script reads KEYS and ARGV, and ends with a return.
        return f"local function change(KEYS, ARGV)\n{script_text(name)}\nend\n"
    before = use_fields.as_lua() if name == "noted" else ""
    return before + script_text(name) + "\n"


@cache
def script_text(name: str, package: str = "app.core.redis") -> str:
    """A file of the package's folder `lua`, read once a process."""
    return files(package).joinpath("lua", f"{name}.lua").read_text()
