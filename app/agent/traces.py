"""Passes the manager's traceparent on: it comes with a prompt and goes back with the model calls of the prompt's turn.

The agent itself traces nothing. What it keeps is in memory alone: a restart costs a trace its last part.
"""

from __future__ import annotations

import re
from collections import OrderedDict

HEADER = "traceparent"

KEPT = 1_000
"""Prompts whose traceparent is kept; the oldest is forgotten first."""

VALID = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Traces:
    """The traceparents of accepted prompts. `note` may be called from any thread."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, str] = OrderedDict()
        self._current = ""

    def note(self, id_: str, traceparent: str) -> None:
        """Keep the header that came with a prompt; an invalid one, or none, is ignored."""
        if VALID.fullmatch(traceparent):
            self._of[id_] = traceparent
            while len(self._of) > KEPT:
                self._of.popitem(last=False)

    def begin(self, id_: str) -> None:
        """The turn of this prompt begins; there is one at a time."""
        self._current = self._of.pop(id_, "")

    def headers(self) -> dict[str, str]:
        """The headers for a model call of the running turn."""
        return {HEADER: self._current} if self._current else {}
