"""An agent of the product's own, the example of docs/own-agent.md, in place of the service's: through the API."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.model_server import Answer, ModelServer, ToolCall
from tests.service import Service
from tests.waiting import wait_for

AGENT = ROOT / "docs" / "own-image" / "agent.py"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer) -> Iterator[Service]:
    """One whose workspaces have that agent."""
    program = {"AGENT_PROGRAM": f"{sys.executable} -I {AGENT}"}
    running = Service(tmp_path_factory.mktemp("service"), code_server, **model.settings, WAKE_GRACE="0", **program)
    running.start()
    try:
        yield running
    finally:
        running.stop()
    assert running.processes() == []


def writes(name: str, content: str) -> Answer:
    return Answer(tool_calls=(ToolCall("run_command", {"command": f"printf %s {content} >{name}"}),))


def test_its_work_reads_as_that_of_the_services_own(service: Service, model: ModelServer) -> None:
    """A file, the answer, the conversation after a sleep, and what is billed: all come from the same places."""
    uuid = service.create("ada")["uuid"]
    model.script(writes("hello.txt", "hi"), Answer(text="hello.txt says hi"))
    answer = service.prompt(uuid, "write hello.txt", "m1")
    assert answer["status"] == "processed"
    assert answer["pod_response"]["text"] == "hello.txt says hi"
    assert answer["pod_response"]["tool_calls"] == [{"name": "run_command", "ok": True}]
    assert (service.files(uuid) / "hello.txt").read_text() == "hi"
    assert service.done("GET", f"/session/{uuid}/metrics")["tokens"]["prompt"] > 0, "counted where it asked the model"

    service.done("POST", f"/session/{uuid}/scale-down")
    service.call("POST", f"/session/{uuid}/chat", {"message": "how many prompts did I send?", "id": "m2"})
    assert service.ended(uuid, "m2")["response"]["text"] == "2 prompts", "it knows what was said before the sleep"
    said = [(each["role"], each["content"]) for each in service.conversation(uuid)]
    assert said == [
        ("user", "write hello.txt"),
        ("assistant", ""),
        ("tool", "(no output)"),
        ("assistant", "hello.txt says hi"),
        ("user", "how many prompts did I send?"),
        ("assistant", "2 prompts"),
    ]
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_a_sleep_on_demand_ends_its_turn_and_its_process(service: Service, model: ModelServer) -> None:
    uuid = service.create("bob")["uuid"]
    model.script(Answer(text="one two three", hold=threading.Event()))
    before = len(model.requests)
    service.call("POST", f"/session/{uuid}/chat", {"message": "count", "id": "m1"})
    wait_for(lambda: len(model.requests) > before, "it asks the model")
    assert len(service.processes(str(AGENT), WORKSPACE_UUID=uuid)) == 1
    service.done("POST", f"/session/{uuid}/scale-down")
    ended = service.ended(uuid, "m1")
    assert (ended["state"], ended["reason"]) == ("failed", "The workspace was put to sleep while this ran.")
    assert service.processes(str(AGENT)) == []
    service.done("DELETE", f"/session/{uuid}?backup=false")
