"""The flags and settings that editors of both runtimes start with: app/editor/defaults.json.

    flags     of code-server; without `--config` it creates a file with a password
    settings  of VS Code in a new workspace, which the user may change: no sign-in to another vendor, the agent's own
              folder hidden, no question about a git repository above the workspace's folder, no empty
              side bar at the right

app/editor/workspace.js reads the same file in a cluster.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


@cache
def editor_defaults() -> dict[str, Any]:
    """`{"flags": [...], "settings": {...}}`."""
    defaults: dict[str, Any] = json.loads((ROOT / "app" / "editor" / "defaults.json").read_bytes())
    return defaults
