"""What the local runtime tells an editor besides its arguments: the secret of its session, and who may embed it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.core.access.agent_credentials import AgentCredentials
from tests.contract.runtimes import environment
from tests.unit.workers.runtime.local.test_local_runtime import A, B, Stage, stage

__all__ = ["stage"]

KEY, NEW = "k" * 32, "n" * 32


@pytest.mark.slow
def test_an_editor_gets_its_secret_in_a_file_of_its_own(stage: Stage) -> None:
    """Its owner's alone, outside of what the user sees, written anew with each start; the agent hears nothing of it."""
    stage.settings = replace(stage.settings, secret_key=KEY)
    running = stage.up(A)
    told = environment(running.pid)
    file = Path(told["WORKSPACE_SECRET_FILE"])
    assert file.read_text() == AgentCredentials([KEY]).editor_file(A)
    assert file.stat().st_mode & 0o777 == 0o600
    assert {stage.folders.app(A), stage.folders.home(A)}.isdisjoint(file.parents)
    assert file.read_text().strip() not in str(told)
    assert "WORKSPACE_SECRET_FILE" not in environment(running.agent_pid)
    assert "AGENT_TOKEN_FILE" not in told
    stage.runtime.stop(A, 2)
    stage.settings = replace(stage.settings, secret_key=f"{NEW},{KEY}")
    stage.runtime.start(A, 3)
    assert file.read_text() == AgentCredentials([NEW, KEY]).editor_file(A)


@pytest.mark.slow
def test_without_a_key_an_editor_opens_to_nobody(stage: Stage) -> None:
    """Nobody has a pass then, either; it runs all the same."""
    file = Path(environment(stage.up(A).pid)["WORKSPACE_SECRET_FILE"])
    assert file.read_text() == ""


@pytest.mark.slow
def test_an_editor_is_told_who_may_embed_it_and_for_how_long_a_command_may_ask_to_be_kept_up(stage: Stage) -> None:
    """At its start; without a setting nobody may embed it."""
    told = environment(stage.up(B).pid)
    assert "EMBED_ORIGINS" not in told and told["KEEPALIVE_MAX"] == "28800"
    stage.settings = replace(stage.settings, embed_origins="https://a.example.com, https://b.example.com")
    assert environment(stage.up(A).pid)["EMBED_ORIGINS"] == "https://a.example.com https://b.example.com"


@pytest.mark.slow
def test_an_editor_is_told_how_its_ports_are_shown(stage: Stage) -> None:
    """Its own and its agent's are not; and that others listen in the same network. The agent's commands get the address
    too."""
    stage.settings = replace(stage.settings, secret_key=KEY, workspace_port=8090)
    running = stage.up(A)
    told, agents = environment(running.pid), environment(running.agent_pid)
    assert told["WORKSPACE_OWN_PORTS"] == f"{running.port} {running.agent_port}"
    for each in (told, agents):
        assert each["WORKSPACE_NETWORK"] == "shared"
        assert each["VSCODE_PROXY_URI"] == f"http://{{{{port}}}}--vs-code-{A}.localhost:8090/"
    stage.settings = replace(stage.settings, secret_key="")
    bare = stage.up(B)
    assert environment(bare.pid)["WORKSPACE_OWN_PORTS"] == str(bare.port)
