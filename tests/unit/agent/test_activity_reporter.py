"""What the agent sees of the use of its workspace, and how often it tells."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from app.agent.activity_reporter import (
    EDITOR,
    FILE_BYTES,
    FOLDER,
    HEARTBEAT,
    NOTICE,
    REPORT_INTERVAL,
    STOPPING,
    TERMINALS,
    ActivityReporter,
    Signal,
    announce,
    read_signals,
)
from app.agent.gateway_client import Answer, GatewayDown
from tests.unit.agent.fake_gateway import FakeGateway
from tests.unit.agent.process import AgentProcess

NOW = 1_800_000_000.0


class FakeManager:
    """Takes reports, or fails to."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.resources: list[dict[str, Any] | None] = []
        self.services: list[list[dict[str, Any]] | None] = []
        self.answers: list[Answer | None] = []

    def call(self, method: str, path: str, document: Any) -> Answer:
        assert (method, path) == ("POST", "/agent/v1/activity")
        self.reports.append(document["signals"])
        self.resources.append(document.get("resources"))
        self.services.append(document.get("services"))
        answer = self.answers.pop(0) if self.answers else Answer(200, b'{"again": false}')
        if answer is None:
            raise GatewayDown("no answer")
        return answer


class Home:
    """A home folder with signs of use, and what tells its manager of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manager = FakeManager()
        self.uses: list[dict[str, float]] = []
        """What the workspace uses, to be told once."""
        self.services: list[dict[str, Any]] | None = None
        gateway: Any = self.manager
        self.opened: list[Collection[int]] = []
        """The ports that are opened, each time they are told."""
        reporter = ActivityReporter(
            folder,
            gateway,
            lambda: self.uses.pop() if self.uses else None,
            services=lambda: self.services,
            opened=self.opened.append,
        )
        self.report = reporter.report
        self.signs = folder / FOLDER
        self.signs.mkdir(parents=True)

    def edited(self, at: float, sign: Path = FOLDER / EDITOR) -> None:
        path = self.folder / sign
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (at, at))

    def terminals(self, **told: Any) -> None:
        (self.signs / TERMINALS).write_text(json.dumps(told))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_each_sign_is_told_by_its_age_and_once(home: Home) -> None:
    assert not home.report(NOW), "nothing was seen"
    home.edited(NOW - 3)
    home.terminals(input_at=NOW - 60, busy_at=NOW - 1, busy="make")
    assert home.report(NOW)
    assert home.manager.reports == [
        {"editor": {"age": 3.0}, "terminal": {"age": 60.0}, "jobs": {"age": 1.0, "detail": "make"}}
    ]
    assert not home.report(NOW + 10)
    home.edited(NOW + 15)
    assert home.report(NOW + 20)
    assert home.manager.reports[1:] == [{"editor": {"age": 5.0}}]


def test_the_managers_answer_tells_the_opened_ports(home: Home) -> None:
    told = [b'{"again": true, "opened_ports": [3000]}', b'{"again": false, "opened_ports": []}', b'{"again": false}']
    home.manager.answers = [
        Answer(200, told[0]),
        Answer(503, told[0]),
        None,
        Answer(200, told[1]),
        Answer(200, told[2]),
    ]
    for at in range(5):
        home.edited(NOW + at)
        home.report(NOW + at)
    assert home.opened == [[3000]]


def test_a_quiet_job_is_told_as_long_as_it_is_seen(home: Home) -> None:
    """With how long it is quiet, and for how long it asks to be kept up."""
    home.terminals(quiet={"at": NOW - 2, "name": "curl", "worked_at": NOW - 600})
    assert home.report(NOW)
    home.terminals(quiet={"at": NOW + 8, "name": "curl", "until": NOW + 130})
    assert home.report(NOW + 10)
    assert home.manager.reports == [
        {"quiet_job": {"age": 2.0, "detail": "curl", "quiet": 600.0}},
        {"quiet_job": {"age": 2.0, "detail": "curl", "left": 120.0}},
    ]
    home.terminals(quiet={})
    assert not home.report(NOW + 20)


@pytest.mark.parametrize(
    "answer", [None, Answer(200, b'{"again": true}'), Answer(503, b""), Answer(200, b"?"), Answer(200, b"[]")]
)
def test_what_the_manager_did_not_take_is_told_again(home: Home, answer: Answer | None) -> None:
    home.manager.answers = [answer]
    home.edited(NOW)
    assert home.report(NOW)
    assert home.report(NOW + 10)
    assert home.manager.reports == [{"editor": {"age": 0.0}}, {"editor": {"age": 10.0}}]
    assert not home.report(NOW + 20)


def test_what_the_workspace_uses_goes_along_or_alone_and_is_not_repeated(home: Home) -> None:
    """The next minute has its own."""
    home.uses.append({"cpu": 0.5})
    home.edited(NOW)
    home.manager.answers = [None]
    assert home.report(NOW)
    assert home.report(NOW + 10)
    home.uses.append({"cpu": 0.25})
    assert home.report(NOW + 60), "nothing but that"
    assert home.manager.resources == [{"cpu": 0.5}, None, {"cpu": 0.25}]
    assert home.manager.reports[-1] == {}
    assert not home.report(NOW + 70)


WEB = {"name": "web", "port": 3000, "state": "running"}


def test_services_are_told_when_they_changed_until_that_is_taken(home: Home) -> None:
    home.services = [WEB]
    home.manager.answers = [None, Answer(400, b"{}")]
    assert [home.report(NOW + n) for n in range(4)] == [True, True, True, False]
    home.services = []
    assert [home.report(NOW + n) for n in range(4, 6)] == [True, False]
    assert home.manager.services == [[WEB], [WEB], [WEB], []]


def test_that_there_are_no_services_is_told_with_what_else_there_is(home: Home) -> None:
    """The manager may know some of a volume that was replaced."""
    assert not home.report(NOW), "not known yet"
    home.services = []
    assert not home.report(NOW)
    home.edited(NOW)
    assert home.report(NOW)
    home.edited(NOW + 10)
    assert home.report(NOW + 10)
    assert home.manager.services == [[], None]


def test_a_sign_from_the_future_is_seen_and_so_is_the_next_from_the_past(home: Home) -> None:
    """The clock jumped back between the two."""
    home.edited(NOW + 5_000)
    home.report(NOW)
    home.edited(NOW + 1)
    home.report(NOW + 2)
    assert [report["editor"]["age"] for report in home.manager.reports] == [0.0, 1.0]


def test_an_editor_without_signs_of_its_own_is_seen_by_its_heartbeat(home: Home) -> None:
    """One that was not installed by this service; where ours runs, an open page alone is no sign."""
    home.edited(NOW, HEARTBEAT)
    assert read_signals(home.folder) == {"editor": Signal(NOW)}
    home.terminals(jobs=[])
    assert read_signals(home.folder) == {}


@pytest.mark.parametrize(
    "told",
    [
        "{",
        "[]",
        '{"input_at": "now", "busy_at": true, "busy": 7}',
        '{"quiet": {"at": "x"}}',
        '{"quiet": [5]}',
        '{"input_at": 1e400, "busy_at": NaN, "quiet": {"at": Infinity}}',
        json.dumps({"input_at": 10**400, "quiet": {"at": 10**12}}),
        "[" * FILE_BYTES,
    ],
)
def test_a_file_that_makes_no_sense_is_no_sign(home: Home, told: str) -> None:
    (home.signs / TERMINALS).write_text(told)
    assert read_signals(home.folder) == {}


def test_a_pipe_or_a_link_in_place_of_a_file_stops_nothing(home: Home, tmp_path: Path) -> None:
    os.mkfifo(home.signs / TERMINALS)
    assert read_signals(home.folder) == {}
    (home.signs / TERMINALS).unlink()
    (tmp_path / "elsewhere").write_text('{"input_at": 5}')
    (home.signs / TERMINALS).symlink_to(tmp_path / "elsewhere")
    assert read_signals(home.folder) == {}


def test_an_announcement_replaces_the_one_before(tmp_path: Path) -> None:
    announce(tmp_path, 10.0)
    announce(tmp_path, 60.0)
    told = json.loads((tmp_path / FOLDER / NOTICE).read_text())
    assert told["sleeps_at"] > (tmp_path / FOLDER / NOTICE).stat().st_mtime + 50
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [NOTICE]


@pytest.mark.slow
def test_an_agent_reports_what_is_new_by_itself_and_takes_announcements(
    agent: AgentProcess, gateway: FakeGateway
) -> None:
    home = Path(agent.environment["HOME"])
    agent.start()
    assert agent.call("POST", "/notice", {"seconds": 60})[0] == 200
    assert (home / FOLDER / NOTICE).exists()
    for reason, ended in (("user", False), ("sleep", True), ("delete", True)):
        (home / FOLDER / STOPPING).unlink(missing_ok=True)
        assert agent.call("POST", "/cancel", {"reason": reason})[0] == 200
        assert (home / FOLDER / STOPPING).exists() == ended
    assert [agent.call("POST", "/notice", {"seconds": wrong})[0] for wrong in (-1, "60", True, 1e9)] == [400] * 4
    (home / FOLDER / EDITOR).touch()
    gateway.wait(lambda: gateway.activity)
    assert gateway.activity[0]["editor"]["age"] < REPORT_INTERVAL
