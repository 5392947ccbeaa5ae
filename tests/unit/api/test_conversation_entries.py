"""The messages of a conversation as the API shows them."""

from __future__ import annotations

from app.core.composition import Core
from app.core.prompts.history_store import Checkpoint
from tests.unit.api.helpers import Client


def test_arguments_of_tools_are_objects_in_the_conversation_too(client: Client, core: Core, uuid: str) -> None:
    written = ['{"path": "a"}', "", "{", "[1]", "[" * 9_999, '{"a": "\\ud800"}']
    calls = [{"call_id": f"c{n}", "name": "run", "arguments": text} for n, text in enumerate(written)]
    core.history_store.write(uuid, Checkpoint([{"id": "m1", "role": "assistant", "content": "", "tool_calls": calls}]))
    [entry] = client.get(f"/session/{uuid}/messages").json["messages"]
    shown = [call["arguments"] for call in entry["tool_calls"]]
    assert shown == [{"path": "a"}, {}, "{", "[1]", "[" * 9_999, {"a": "\ud800"}]
