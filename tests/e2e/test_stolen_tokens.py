"""A token stolen from inside a workspace, used from outside: of the whole service, with the workspace's own agent."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.model_server import ModelServer
from tests.service import Service
from tests.suites.stolen_tokens import Victim, opens_nothing_after_revoke_sleep_wake_and_delete


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return model.settings


def token_of(service: Service, uuid: str) -> str:
    """What is in the workspace's token file: its agent's commands can read it."""
    return (service.data_dir / "workspaces" / uuid / "agent-token").read_text().split()[0]


def victim_of(service: Service) -> Victim:
    uuid = service.create("ada")["uuid"]
    return Victim(uuid, service.gateway_url, service.done, lambda: token_of(service, uuid))


def test_a_stolen_token_opens_nothing_after_revoke_sleep_wake_and_delete(service: Service) -> None:
    """Each time it was tried is in the audit."""
    victim = victim_of(service)
    opens_nothing_after_revoke_sleep_wake_and_delete(victim)
    noted = service.done("GET", f"/audit?key=workspace:{victim.uuid}")["entries"]
    assert {(each["action"], each["reason"], each["address"]) for each in noted} == {
        (action, reason, "127.0.0.1")
        for action in ("conversation", "report", "model")
        for reason in ("token_ended", "session_terminated")
    }


def test_an_agent_that_crashed_goes_on_with_the_token_it_had(service: Service) -> None:
    """Whoever starts it again asks nobody for its epoch."""
    victim = victim_of(service)
    victim.works(1)
    service.done("POST", f"/session/{victim.uuid}/revoke")
    victim.works(2)
    held = victim.steal()
    (agent,) = service.processes("app.agent", WORKSPACE_UUID=victim.uuid)
    agent.kill()
    victim.works(3)
    assert victim.steal() == held
    assert victim.good(held)
    service.done("DELETE", f"/session/{victim.uuid}?backup=false")
