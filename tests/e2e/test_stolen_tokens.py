"""A token stolen from inside a workspace, used from outside: of the whole service, with the workspace's own agent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping

import pytest
import requests

from tests.model_server import ModelServer
from tests.service import Service, wait_for

MODEL_KEY = "the-key-of-the-model"


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer(api_key=MODEL_KEY) as running:
        yield running


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return {"LLM_BASE_URL": model.url, "LLM_API_KEY": MODEL_KEY, "LLM_MODEL": "stub"}


def token_of(service: Service, uuid: str) -> str:
    """What is in the workspace's token file: its agent's commands can read it."""
    return (service.data_dir / "workspaces" / uuid / "agent-token").read_text().split()[0]


def shown(service: Service, token: str) -> list[tuple[int, str]]:
    """How the gateway answers it, for the conversation, a report, and the model."""
    calls = [
        ("GET", "/agent/v1/checkpoint", None),
        ("POST", "/agent/v1/events", {"events": [], "busy": True}),
        ("GET", "/llm/v1/models", None),
    ]
    said = []
    for method, path, body in calls:
        headers = {"Authorization": f"Bearer {token}"}
        answer = requests.request(method, service.gateway_url + path, json=body, headers=headers, timeout=20)
        said.append((answer.status_code, "" if answer.ok else str(answer.json()["error"])))
    return said


ENDED = [(401, "token_ended")] * 3


def good(service: Service, token: str) -> bool:
    return all(code not in ("token_ended", "unauthorized", "session_terminated") for _, code in shown(service, token))


def test_a_stolen_token_opens_nothing_after_revoke_sleep_wake_and_delete(service: Service) -> None:
    """The agent it was stolen from works on, each time with a token of its own."""
    uuid = service.create("ada")["uuid"]
    assert service.prompt(uuid, "remember 1", "m1")["status"] == "processed"
    stolen = [token_of(service, uuid)]
    assert good(service, stolen[0])

    service.done("POST", f"/session/{uuid}/revoke")
    assert shown(service, stolen[0]) == ENDED
    assert service.prompt(uuid, "remember 2", "m2")["status"] == "processed"
    stolen.append(token_of(service, uuid))
    assert good(service, stolen[1])

    service.done("POST", f"/session/{uuid}/scale-down")
    service.wait_status(uuid, "sleeping", replicas=0)
    assert [shown(service, each) for each in stolen] == [ENDED, ENDED]

    service.call("POST", f"/session/{uuid}/chat", {"message": "remember 3", "id": "m3"})
    assert service.ended(uuid, "m3")["state"] == "processed"
    service.wait_status(uuid, "active")
    assert [shown(service, each) for each in stolen] == [ENDED, ENDED]
    stolen.append(token_of(service, uuid))
    assert good(service, stolen[2])

    service.done("DELETE", f"/session/{uuid}?backup=false")
    wait_for(lambda: service.status(uuid)["session"]["status"] == "terminated", "the deletion")
    assert [shown(service, each) for each in stolen] == [[(403, "session_terminated")] * 3] * 3


def test_an_agent_that_crashed_goes_on_with_the_token_it_had(service: Service) -> None:
    """Whoever starts it again asks nobody for its epoch."""
    uuid = service.create("ada")["uuid"]
    assert service.prompt(uuid, "remember 1", "m1")["status"] == "processed"
    service.done("POST", f"/session/{uuid}/revoke")
    assert service.prompt(uuid, "remember 2", "m2")["status"] == "processed"
    held = token_of(service, uuid)
    for agent in service.processes(WORKSPACE_UUID=uuid):
        if "app.agent" in agent.cmdline():
            os.kill(agent.pid, signal.SIGKILL)
    assert service.prompt(uuid, "remember 3", "m3")["status"] == "processed"
    assert token_of(service, uuid) == held
    assert good(service, held)
    service.done("DELETE", f"/session/{uuid}?backup=false")
