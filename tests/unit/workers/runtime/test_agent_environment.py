"""What an agent of either runtime is told."""

from __future__ import annotations

import pytest

from app.process.settings import Settings, SettingsError
from workers.runtime.agent_environment import agent_environment

PROGRAM = "python3 -I /opt/own/agent.py --name 'An agent'"


def test_an_agent_is_told_of_the_products_program() -> None:
    told = Settings(agent_program=PROGRAM).checked()
    environment = agent_environment(told, host="::", port=1, editor_port=2, stop_grace=3.0)
    assert environment["AGENT_PROGRAM"] == PROGRAM


@pytest.mark.parametrize(
    ("program", "says"), [("python3 'a", "No closing quotation"), ("./agent", "whole path"), (" ", "blank")]
)
def test_a_program_that_could_not_be_started_is_refused(program: str, says: str) -> None:
    with pytest.raises(SettingsError, match=f"AGENT_PROGRAM: .*{says}"):
        Settings(agent_program=program).checked()
