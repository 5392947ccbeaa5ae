"""sessionctl: its texts, its exit codes, and what a tenant's text may not do to a terminal."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from tests.unit.clients.api import (
    TIME,
    URL,
    UUID,
    Api,
    Body,
    Turn,
    action,
    answer,
    created,
    problem,
    session,
    sse,
    stream,
)
from tests.unit.clients.conftest import Sessionctl
from workspaces.cli.app import app
from workspaces.cli.context import EXIT_CODES
from workspaces.cli.doctor import examine, reach
from workspaces.client import Workspaces
from workspaces.errors import WorkspacesError

SESSION = {"uuid": UUID, "user_id": "ada\x1b[31m[bold]", "status": "sleeping", "created_at": TIME, "new": 1}
HEALTH: dict[str, Any] = {
    "status": "healthy",
    "version": "0.2.0",
    "redis": "connected",
    "kubernetes": "connected",
    "workers": 4,
    "runtime": "local",
    "timestamp": "2026-01-01T10:00:00Z",
}
POINT = "p000000000000001"
COMMANDS = """
create list status metrics open wake sleep revoke delete chat run execs logs kill ls cp events backups backup restore
download decrypt dead-letters costs audit recover recovery doctor restore-points restore-point rollback fork services
shell serve restart unserve service-log ports preview close-port watch
"""

WITHOUT_JSON = [("shell",)]
"""Commands that are for people alone."""


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found += [(name, each) for each in inner] if inner else [(name,)]
    return found


def page(*rows: dict[str, Any]) -> httpx.Response:
    return answer({"total": len(rows), "sessions": rows, "next_cursor": None})


def test_all_commands_are_there() -> None:
    assert {name for name, *_ in commands()} == set(COMMANDS.split())


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_has_json_and_an_example_in_its_help(sessionctl: Sessionctl, command: tuple[str, ...]) -> None:
    text = sessionctl(Api(), *command, "--help").out
    assert re.search(rf"Example: sessionctl {' '.join(command)}( |\b)", text)
    assert ("--json" in text) == (command not in WITHOUT_JSON)


def test_what_a_workspace_uses_is_shown_with_the_most_of_the_hour(sessionctl: Sessionctl) -> None:
    used = {"cpu": 0.25, "memory_bytes": 300_000_000, "disk_bytes": 1_200_000_000}
    most = {"cpu": 1.5, "memory_bytes": 900_000_000, "disk_bytes": 1_200_000_000}
    hour = [{"at": TIME, **each} for each in (used, most, used)]
    tokens = {"prompt": 12_000, "completion": 300}
    told = {"uuid": UUID, "now": used, "hour": hour, "tokens": tokens, "timestamp": TIME}
    shown = sessionctl(Api(answer(told | {"chat_ms": {"p50": 3_000, "p95": 4_000}})), "metrics", UUID).out
    amounts = ("0.25 cores", "1.50 at the most", "300 MB", "900 MB at the most")
    for words in (*amounts, "half within 3000 ms", "12,000 read"):
        assert words in shown
    assert "within" not in sessionctl(Api(answer(told | {"chat_ms": {"p50": None, "p95": None}})), "metrics", UUID).out


@pytest.mark.parametrize(("options", "sent"), [([], b""), (["--restart"], b'{"restart":true}')])
def test_access_is_revoked_with_a_restart_where_that_is_asked_for(
    sessionctl: Sessionctl, options: list[str], sent: bytes
) -> None:
    api = Api(action("revoke"))
    assert sessionctl(api, "revoke", UUID, *options).code == 0
    assert [(each.url.path, each.content) for each in api.requests] == [(f"/session/{UUID}/revoke", sent)]


def test_a_revocation_as_json_is_the_answer(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(action("revoke")), "revoke", UUID, "--json")
    assert json.loads(ended.out) == {"uuid": UUID, "action": "revoke", "status": "success"}


def test_a_download_as_json_says_where_it_is(sessionctl: Sessionctl, tmp_path: Path) -> None:
    content = b"a zip"
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    api = Api(httpx.Response(200, headers={"ETag": etag}, stream=Body(content)))
    ended = sessionctl(api, "download", "a.zip", "--to", str(tmp_path), "--json")
    assert (ended.code, json.loads(ended.out)) == (0, {"path": str(tmp_path / "a.zip")})


def test_a_download_into_a_folder_that_is_not_there_says_so(sessionctl: Sessionctl, tmp_path: Path) -> None:
    api = Api(httpx.Response(200, headers={"ETag": '"0"'}, stream=Body(b"a zip")))
    ended = sessionctl(api, "download", "a.zip", "--to", str(tmp_path / "none" / "a.zip"))
    assert ended.code == 1
    assert "none" in ended.err and "No such file or directory" in ended.err
    assert "Traceback" not in ended.err


# Dead letters


def test_dead_letters_are_listed_with_why(sessionctl: Sessionctl) -> None:
    letter = {"id": "0123456789abcdef", "at": TIME, "task": "wake", "uuid": UUID, "tries": 5, "reason": "no such image"}
    api = Api(*(answer({"total": len(each), "dead_letters": each, "next_cursor": None}) for each in ([letter], [])))
    ended = sessionctl(api, "dead-letters", "list")
    for words in ("0123456789abcdef", "wake", UUID, "5", "no such image"):
        assert words in ended.out
    none = sessionctl(api, "dead-letters", "list")
    assert (none.out, "no task was given up" in none.err) == ("", True)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_dead_letter_is_retried(sessionctl: Sessionctl, options: tuple[str, ...]) -> None:
    body = {"id": "d1", "uuid": UUID, "task": "wake", "status": "waking"}
    api = Api(answer(body, 202))
    ended = sessionctl(api, "dead-letters", "retry", "d1", *options)
    assert (api.requests[0].method, api.requests[0].url.path) == ("POST", "/dead-letters/d1/retry")
    assert json.loads(ended.out) == body if options else f"wake of session {UUID}" in ended.err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_dead_letter_is_dropped(sessionctl: Sessionctl, options: tuple[str, ...]) -> None:
    api = Api(httpx.Response(204))
    ended = sessionctl(api, "dead-letters", "drop", "d1", *options)
    assert (ended.code, api.requests[0].method, api.requests[0].url.path) == (0, "DELETE", "/dead-letters/d1")
    assert json.loads(ended.out) == {"id": "d1", "status": "dropped"} if options else "Dropped." in ended.err


# Following a session


def test_events_are_shown_until_the_session_ends(sessionctl: Sessionctl) -> None:
    told = (sse("6-0", "phase", phase="ready", ms=412), sse("7-0", "state", status="terminated", reason=None))
    api = Api(stream(*told), stream(*told))
    ended = sessionctl(api, "events", UUID, "--after", "5-0")
    assert (ended.code, api.requests[0].headers["Last-Event-ID"]) == (0, "5-0")
    assert [line.split() for line in ended.out.splitlines() if line.strip()] == [
        ["phase", "phase=ready", "ms=412"],
        ["state", "status=terminated"],
    ]
    lines = [json.loads(line) for line in sessionctl(api, "events", UUID, "--json").out.splitlines()]
    assert lines[0] == {"id": "6-0", "type": "phase", "data": {"phase": "ready", "ms": 412}}
    assert lines[1]["data"]["status"] == "terminated"


def test_a_list_shows_texts_of_tenants_as_they_are_without_control_characters(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(page(SESSION)), "list")
    assert ended.code == 0
    assert "\x1b" not in ended.out + ended.err
    assert "ada\N{REPLACEMENT CHARACTER}[31m[bold]" in ended.out


def test_json_is_what_the_api_answered(sessionctl: Sessionctl) -> None:
    assert json.loads(sessionctl(Api(page(SESSION)), "list", "--json").out) == [SESSION]


def test_filters_and_limits_reach_the_api(sessionctl: Sessionctl) -> None:
    api = Api(page())
    given = ("--label", "a=1", "--label", "b=2", "--search", "ada", "--tier", "archived", "--limit", "7")
    assert "Create one with" in sessionctl(api, "list", *given).err
    params = api.requests[0].url.params
    assert params.get_list("label") == ["a=1", "b=2"]
    assert params["tier"] == "archived"
    assert (params["q"], params["limit"]) == ("ada", "8"), "one more tells whether there are more"


@pytest.mark.parametrize(
    ("command", "status", "code", "exit_code"),
    [
        (("status", UUID), 404, "session_not_found", 4),
        (("status", UUID), 401, "unauthorized", 3),
        (("status", UUID), 409, "illegal_state", 1),
        (("status", UUID), 400, "invalid_request", 1),
        (("dead-letters", "drop", "d1"), 404, "dead_letter_not_found", 4),
    ],
)
def test_errors_are_one_sentence_and_an_exit_code(
    sessionctl: Sessionctl, command: tuple[str, ...], status: int, code: str, exit_code: int
) -> None:
    ended = sessionctl(Api(problem(status, code, f"It is {code}.", request_id="r-1")), *command)
    assert ended.code == exit_code
    assert f"sessionctl: It is {code}." in ended.err
    assert "r-1" in ended.err
    assert "Traceback" not in ended.err


def test_every_error_of_the_client_has_an_exit_code() -> None:
    assert EXIT_CODES[-1][0] is WorkspacesError


def test_a_label_that_is_none_is_a_usage_error(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(), "create", "ada", "--label", "course")
    assert ended.code == 2
    assert "NAME=VALUE" in ended.err


def test_a_deletion_asks_first(sessionctl: Sessionctl) -> None:
    api = Api(answer(session()))
    assert sessionctl(api, "delete", UUID, typed="n\n").code == 1
    assert [each.method for each in api.requests] == ["GET"]


@pytest.mark.parametrize(("said", "code", "asked"), [("n\n", 1, []), ("y\n", 0, ["DELETE backup=true&erase=true"])])
def test_an_erasure_asks_first_and_shows_what_it_takes(
    sessionctl: Sessionctl, said: str, code: int, asked: list[str]
) -> None:
    """Of a session that has no record any more, too."""
    api = Api(answer({"uuid": UUID, "status": "terminated", "message": "", "backup": None, "risk": None}))
    ended = sessionctl(api, "delete", UUID, "--erase", typed=said)
    assert "restore points, conversation?" in ended.out + ended.err
    assert (ended.code, [f"{each.method} {each.url.query.decode()}" for each in api.requests]) == (code, asked)


# The doctor

LATE = httpx.ReadTimeout("late")
HTML = httpx.Response(200, text="<html>")
PARTS = {"redis": "ok", "workers": "ok", "observer": "ok"}


def doctor(*turns: Turn) -> dict[str, str]:
    """What it finds, by what was checked, if the health, the diagnosis and the settings are answered so."""
    return {each.check: each.status for each in examine(lambda: Api(*turns).client(retries=0))}


def test_the_doctor_says_that_nothing_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("API_URL", URL)
    monkeypatch.delenv("API_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    [finding] = examine(Workspaces.from_env)
    assert (finding.check, finding.status) == ("configuration", "failed")
    assert "API_KEY" in finding.found


@pytest.mark.parametrize("turn", [httpx.ConnectError("refused"), HTML])
def test_the_doctor_says_that_nothing_or_something_else_answers(turn: Turn) -> None:
    assert doctor(turn) == {"api": "failed"}


def test_without_a_valid_key_the_doctor_goes_by_the_health() -> None:
    health = answer(HEALTH | {"workers": 0, "kubernetes": "disconnected"}, 503)
    parts = {"redis": "ok", "workers": "failed", "observer": "failed"}
    assert doctor(health, problem(401, "unauthorized")) == {"api": "ok", "clock": "warning", "key": "failed", **parts}


@pytest.mark.parametrize("failure", [problem(503, "state_unavailable"), problem(500, "internal_error"), LATE])
def test_a_diagnosis_that_fails_is_a_finding(failure: Turn) -> None:
    assert doctor(answer(HEALTH), failure) == {"api": "ok", "clock": "warning", "key": "unknown", **PARTS}


@pytest.mark.parametrize(
    "settings", [problem(403, "forbidden"), problem(503, "state_unavailable"), LATE, HTML, answer({"settings": []})]
)
def test_settings_that_are_not_told_are_a_finding(settings: Turn) -> None:
    diagnosis = answer({"status": "ok", "checks": [], "timestamp": TIME})
    found = doctor(answer(HEALTH), diagnosis, settings)
    assert found == {"api": "ok", "clock": "warning", "key": "ok", "ingress_from_here": "unknown"}


def test_an_address_that_is_none_is_a_finding() -> None:
    assert reach("http://vs-code-00000000.example.com:port", Api(LATE)).status == "failed"


@pytest.mark.parametrize(("status", "found"), [(401, "ok"), (404, "ok"), (302, "ok"), (200, "failed"), (502, "failed")])
def test_an_ingress_must_refuse_a_workspace_that_does_not_exist(status: int, found: str) -> None:
    api = Api(httpx.Response(status))
    assert reach("http://vs-code-00000000.localhost:8080", api).status == found
    [request] = api.requests
    assert (request.url.host, request.headers["Host"]) == ("127.0.0.1", "vs-code-00000000.localhost:8080")


# Going back


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (("--point", POINT), {"restore_point": POINT}),
        (("--point", f"point-{UUID}-{POINT}"), {"restore_point": POINT}),
        (("--message", "m1"), {"message_id": "m1"}),
    ],
)
def test_a_rollback_says_how_it_ended(sessionctl: Sessionctl, options: tuple[str, ...], sent: dict[str, str]) -> None:
    back = {"files_of": TIME, "saved": "p000000000000002"}
    api = Api(answer(session(rollback_to=None, rolled_back=back)))
    ended = sessionctl(api, "rollback", UUID, *options)
    assert ended.code == 0, ended.err
    assert "p000000000000002" in ended.out
    assert ([each.url.path for each in api.requests], api.bodies) == ([f"/session/{UUID}/rollback"], [sent])


def test_a_rollback_to_nothing_is_a_usage_error(sessionctl: Sessionctl) -> None:
    assert sessionctl(Api(), "rollback", UUID).code == 2


def test_a_fork_names_the_new_session(sessionctl: Sessionctl) -> None:
    api = Api(created(uuid="newone12", forked_from=UUID, restore_point=POINT, files_of=TIME))
    ended = sessionctl(api, "fork", UUID, "--user", "ben")
    assert ended.code == 0, ended.err
    assert "newone12" in ended.out
    assert ([each.url.path for each in api.requests], api.bodies) == ([f"/session/{UUID}/fork"], [{"user_id": "ben"}])
