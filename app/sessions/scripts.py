"""The Lua scripts, each a change of several keys that must not be seen half done.

Redis refuses what may take memory when it is full, but only as the first thing a script writes: one that has begun is
not stopped half way (6.2 and 7; the flag `allow-oom` is not in 6.2). So each script begins by freeing what isn't there.
A script that takes in something new asks for room itself (lua/room.lua).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

EVEN_WHEN_FULL = "redis.call('UNLINK', KEYS[1] .. ':nothing')\n"

ON_PROMPTS = ("delivered", "close", "hold", "release", "agent_here", "agent_failed", "agent_leaves", "agent_stays")
PARTS: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(ON_PROMPTS, ("log", "prompts")),
    "append": ("log",),
    **dict.fromkeys(("audit_add", "audit_count"), ("room", "audit_fit")),
    "change": ("log",),
    "create": ("room",),
    "finish": ("log", "prompts", "room", "budget"),
    "revoke": ("log", "change"),
    "take": ("log", "change", "prompts", "room", "budget"),
}
"""What stands in front of a script: functions it calls. `change` is a script of its own, and a function for others."""


def script(name: str) -> str:
    """The text of the script `name` in the folder `lua` beside this file, with all it needs."""
    return EVEN_WHEN_FULL + "".join(map(_function, PARTS.get(name, ()))) + _text(name)


def _function(name: str) -> str:
    # It reads KEYS and ARGV, and ends with a return.
    return f"local function change(KEYS, ARGV)\n{_text(name)}\nend\n" if name == "change" else _text(name) + "\n"


def _text(name: str) -> str:
    return files("app.sessions").joinpath("lua", f"{name}.lua").read_text()
