"""A token stolen from inside a workspace of one machine, used from outside (the suite is
tests/suites/stolen_tokens.py); and an agent that crashed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.conversation import Conversation
from tests.model_server import ModelServer
from tests.service import Service
from tests.suites.stolen_tokens import Place, StolenTokens, works


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return model.settings


@pytest.fixture(scope="module")
def place(service: Service) -> Place:
    def steal(chat: Conversation) -> str:
        """What is in the workspace's token file: its agent's commands can read it."""
        return (service.data_dir / "workspaces" / chat.uuid / "agent-token").read_text().split()[0]

    return Place(service.gateway_url, "127.0.0.1/32", steal)


class TestStolenTokensLocally(StolenTokens):
    """The whole service, as scripts/run starts it."""


def test_an_agent_that_crashed_goes_on_with_the_token_it_had(
    place: Place, service: Service, chat: Conversation
) -> None:
    """Whoever starts it again asks nobody for its epoch."""
    works(chat, 1)
    chat.call("POST", f"/session/{chat.uuid}/revoke")
    works(chat, 2)
    held = place.steal(chat)
    (agent,) = service.processes("app.agent", WORKSPACE_UUID=chat.uuid)
    agent.kill()
    works(chat, 3)
    assert place.steal(chat) == held
    assert place.good(held)
