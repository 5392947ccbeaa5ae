"""What is known of code-server: how it is started, where it answers, and which files are its own.

The values are in code_server.json, because the programs beside code-server need them too (workspace.js, guard.js,
prime.js, and page.js by `install`): so each stands once for both languages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Editor:
    """An editor. Its files are named by their paths below `data`."""

    program: str
    """Its name on PATH."""
    port: int
    """Where it listens in a pod; on one machine each editor has a port of its own."""
    health: str
    """The path that answers 200 once it serves; guard.js asks for no secret there."""
    flags: Sequence[str]
    """All arguments but the folder to open. `{host}` and `{port}` stand for where it is to listen, `{data}` for its
    folder. Without `--config` it creates a file with a password. Its own forwarding to ports is off: that would show
    programs at the editor's origin (ports.js does it). The first one says that it is to serve (launch.js)."""
    pod_flags: Sequence[str]
    """More arguments in a pod: half of what would make VS Code use an agent host elsewhere, so it starts none of its
    own: 77 MB for Copilot, which the image lacks."""
    data: str
    """Its folder below HOME: its own default, so that `code-server` in a terminal uses the same."""
    settings_file: str
    """The user's settings of VS Code."""
    settings: Mapping[str, Any]
    """What that file holds in a new workspace; the user may change it: no sign-in to another vendor, the agent's own
    folder hidden, no question about a git repository above the workspace's folder, no empty side bar at the right."""
    heartbeat: str
    """A file that it touches while a page is open."""
    caches: Sequence[str]
    """What it writes again by itself."""

    def arguments(self, port: int, data: Path, folder: Path) -> list[str]:
        """Its command line after the program on this machine: it listens on this port of the loopback, keeps its files
        in `data`, and opens `folder`. workspace.js makes that of a pod."""
        return [*(each.format(host="127.0.0.1", port=port, data=data) for each in self.flags), str(folder)]


CODE_SERVER = Editor(**json.loads(Path(__file__).with_suffix(".json").read_bytes()))
