"""An agent of the product's own, the example of docs/own-agent.md, in place of the service's: through the API.

One suite for wherever the service runs. A module of tests derives a class from `OwnAgent`, and has fixtures of its own:
`place`, `model`, the one that the service is told of, and `chat`, a session there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.conftest import ROOT
from tests.conversation import Conversation
from tests.model_server import Answer, ModelServer, ToolCall

AGENT = ROOT / "docs" / "own-image" / "agent.py"


@dataclass(frozen=True)
class Place:
    """Where its sessions are. `running` tells the processes of a session that run the agent's program; `left` all that
    still runs of it."""

    running: Callable[[str], Sequence[object]]
    left: Callable[[str], Sequence[object]]


class OwnAgent:
    """What its user sees of it."""

    def test_its_work_reads_as_that_of_the_services_own(self, chat: Conversation, model: ModelServer) -> None:
        """A file, the answer, the conversation after a sleep, and what is billed: all come from the same places. So
        does what is undone."""
        call = ToolCall("run_command", {"command": "printf hi >hello.txt"})
        model.script(Answer(tool_calls=(call,)), Answer(text="hello.txt says hi"))
        answer = chat.answer("m1", "write hello.txt")
        assert answer["status"] == "processed"
        assert answer["pod_response"]["text"] == "hello.txt says hi"
        assert answer["pod_response"]["tool_calls"] == [{"name": "run_command", "ok": True}]
        assert chat.inside("cat hello.txt") == "hi"
        billed = chat.call("GET", f"/session/{chat.uuid}/metrics").json()["tokens"]
        assert billed["prompt"] > 0, "counted where it asked the model"

        chat.sleep()
        ended = chat.prompt("m2", "how many prompts did I send?")
        assert ended["response"]["text"] == "2 prompts", "it knows what was said before the sleep"
        assert chat.said() == [
            ("user", "write hello.txt"),
            ("assistant", ""),
            ("tool", "(no output)"),
            ("assistant", "hello.txt says hi"),
            ("user", "how many prompts did I send?"),
            ("assistant", "2 prompts"),
        ]
        chat.roll_back("m1")
        assert chat.inside("ls") == ""

    def test_a_sleep_on_demand_ends_its_turn_and_its_process(
        self, place: Place, chat: Conversation, model: ModelServer
    ) -> None:
        held, before = threading.Event(), len(model.requests)
        model.script(Answer(text="one two three", hold=held))
        try:
            chat.send("m1", "count")
            model.wait_for_requests(before + 1)
            assert len(place.running(chat.uuid)) == 1
            chat.sleep()
        finally:
            held.set()
        ended = chat.ended("m1")
        assert (ended["state"], ended["reason"]) == ("failed", "The workspace was put to sleep while this ran.")
        assert place.left(chat.uuid) == []
