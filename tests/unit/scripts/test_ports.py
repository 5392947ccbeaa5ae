"""A run's ports: the same in the next run, and no other run's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from scripts.lib import ports
from scripts.lib.data_dir import StartError
from scripts.lib.ports import PORTS, Ports
from tests.ports import free_port

SOME = 20


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Ports]:
    with closing(Ports(tmp_path)) as running:
        yield running


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Ports]:
    """A run with another folder."""
    with closing(Ports(tmp_path / "other")) as running:
        yield running


def remembered(folder: Path) -> int:
    """That of the next run with this folder."""
    with closing(Ports(folder)) as following:
        return following.given_or_remembered("WORKSPACE_PORT", "0")


def test_a_port_is_remembered_while_it_is_free_and_gives_way_to_another_when_it_is_taken(tmp_path: Path) -> None:
    """Workspace URLs stay the same from run to run; a run starts even when its old port is someone else's by now, and
    remembers the new one."""
    port = remembered(tmp_path)
    assert port in PORTS
    assert remembered(tmp_path) == port
    with socket.create_server(("127.0.0.1", port)):
        other = remembered(tmp_path)
    assert other != port
    assert remembered(tmp_path) == other


def test_no_two_names_and_no_two_runs_get_one_port(run: Ports, other: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens on them yet: two runs that start at the same moment find each of them free."""
    monkeypatch.setattr(ports, "PORTS", range(PORTS.start, PORTS.start + 5 * SOME))
    chosen = [run.remembered(f"PORT_{number}") for number in range(SOME)]
    others = [other.remembered(f"PORT_{number}") for number in range(SOME)]
    assert len({*chosen, *others}) == 2 * SOME
    with pytest.raises(StartError, match="WORKSPACE_PORT"):
        other.given("WORKSPACE_PORT", str(chosen[0]))
    run.close()
    assert other.given("WORKSPACE_PORT", str(chosen[0])) == chosen[0]


def test_a_given_port_that_is_taken_is_an_error_that_names_the_setting(run: Ports) -> None:
    """The user reads which variable to change."""
    port = free_port()
    assert run.given_or_remembered("FLOWER_PORT", str(port)) == port
    with pytest.raises(StartError, match="PORT"):
        run.given("PORT", str(port))
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(StartError, match="PORT"):
        run.given("PORT", str(server.getsockname()[1]))


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "-1"])
def test_a_port_that_is_none_is_an_error_that_names_the_setting(run: Ports, text: str) -> None:
    """Nonsense is refused before anything starts."""
    with pytest.raises(StartError, match="FLOWER_PORT"):
        run.given("FLOWER_PORT", text)
