"""The agent, from the prompt to the file in the browser, on one machine (the suite is tests/suites/prompts.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.model_server import ModelServer
from tests.service import KEY, Service
from tests.stored import backups_of
from tests.suites.prompts import Place, Prompts


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer) -> Iterator[Service]:
    """One that has a model, and lets a workspace sleep however short it is up."""
    running = Service(tmp_path_factory.mktemp("service"), code_server, **model.settings, WAKE_GRACE="0")
    running.start()
    try:
        yield running
    finally:
        running.stop()
    assert running.processes() == []


@pytest.fixture(scope="module")
def place(service: Service) -> Place:
    def left(uuid: str) -> list[object]:
        return [*service.processes(WORKSPACE_UUID=uuid)]

    return Place(backups_of(service.data_dir), 50, left, sys.prefix)


class TestPromptsLocally(Prompts):
    """The whole service, as scripts/run starts it."""


def test_a_command_of_the_agent_finds_no_secret_in_its_environment(service: Service, model: ModelServer) -> None:
    """Neither the service's nor its own; and no log has the model's key or the prompt."""
    uuid = service.create("ada")["uuid"]
    text = service.prompt(uuid, "run: env && echo the-prompt-of-this-test", "env")["pod_response"]["text"]
    assert f"WORKSPACE_UUID={uuid}" in text
    secrets = [model.api_key, KEY, (service.data_dir / "secret-key").read_text().strip()]
    secrets.append((service.data_dir / "redis" / "password").read_text().strip())
    secrets += (service.files(uuid).parent / "agent-token").read_text().split()
    assert [secret for secret in secrets if secret in text] == []
    logs = [*(service.data_dir / "log").iterdir(), service.files(uuid).parent / "agent.log"]
    for log in logs:
        said = log.read_text(errors="replace")
        assert [secret for secret in [*secrets, "the-prompt-of-this-test"] if secret in said] == [], log
    service.done("DELETE", f"/session/{uuid}?backup=false")
