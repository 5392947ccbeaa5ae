"""The Lua scripts, each a change of several keys that must not be seen half done."""

from __future__ import annotations

from importlib.resources import files


def script(name: str) -> str:
    """The text of the script `name` in the folder `lua` beside this file."""
    return files("app.sessions").joinpath("lua", f"{name}.lua").read_text()
