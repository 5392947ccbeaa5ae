"""What programs write to a terminal, as a page shows it."""

from __future__ import annotations

import re

CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # as colours and moves of the cursor (ECMA-48, CSI)
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # as titles and links (OSC)
    r"|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
LINE_ENDS = re.compile(r"\r\n?")


def plain(text: str) -> str:
    """The text without what a terminal would obey, its lines ended by `\\n` alone: each state of a progress bar, which
    goes back to the beginning of its line, is a line."""
    return CONTROLS.sub("", LINE_ENDS.sub("\n", text))
