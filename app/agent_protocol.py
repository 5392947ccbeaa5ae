"""What an agent and the manager must agree on: the events of a turn, as `POST /agent/v1/events` reports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOKEN, TOOL_CALL, TOOL_RESULT = "token", "tool_call", "tool_result"
PROCESSED, FAILED = "processed", "failed"
ENDS = frozenset({PROCESSED, FAILED})


@dataclass(frozen=True)
class Event:
    """`type` is token, tool_call, tool_result, processed or failed, and determines the fields of `data`."""

    type: str
    message_id: str
    data: Mapping[str, Any]

    @property
    def ends(self) -> bool:
        """Whether the event says how a prompt ended."""
        return self.type in ENDS

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "message_id": self.message_id, "data": dict(self.data)}
