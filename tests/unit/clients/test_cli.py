"""sessionctl: its texts, its exit codes, and what a tenant's text may not do to a terminal."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from tests.unit.clients.api import TIME, UUID, Api, Body, action, session, sse, stream
from tests.unit.clients.api import answer as answered
from tests.unit.clients.conftest import Sessionctl
from workspaces.cli.app import app
from workspaces.cli.context import EXIT_CODES, State, run
from workspaces.cli.doctor import examine, reach
from workspaces.client import Workspaces
from workspaces.errors import WorkspacesError

Handler = Callable[[httpx.Request], httpx.Response]

SESSION: dict[str, Any] = {
    "uuid": "k3v9x2ab",
    "user_id": "ada\x1b[31m[bold]",
    "status": "sleeping",
    "created_at": "2026-01-01T10:00:00Z",
    "last_activity": None,
    "expires_at": None,
    "workspace_url": "https://vs-code-k3v9x2ab.example.com",
    "reason": None,
    "reason_code": None,
    "labels": {},
}
HEALTH: dict[str, Any] = {
    "status": "healthy",
    "version": "0.2.0",
    "redis": "connected",
    "redis_memory": None,
    "kubernetes": "connected",
    "workers": 4,
    "runtime": "local",
    "network_policies": None,
    "warnings": [],
    "observer_age_seconds": 0.1,
    "timestamp": "2026-01-01T10:00:00Z",
}


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_URL", "https://api.example.com")
    monkeypatch.setenv("API_KEY", "a-key-of-the-tests")
    monkeypatch.setenv("TERM", "dumb")


def call(handler: Handler, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, obj=State(None, httpx.MockTransport(handler)))


def problem(status: int, code: str) -> Handler:
    body = {"title": "x", "status": status, "detail": f"It is {code}.", "error": code, "request_id": "r-1"}
    return lambda _: httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found += [(name, each) for each in inner] if inner else [(name,)]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_help_of_each_command_has_an_example(command: tuple[str, ...]) -> None:
    text = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).output
    assert re.search(rf"Example: sessionctl {' '.join(command)}( |\b)", text)


def test_all_commands_are_there() -> None:
    names = {name for name, *_ in commands()}
    wanted = (
        "create list status metrics open wake sleep revoke delete chat events backups backup restore download decrypt "
        "dead-letters costs audit recover recovery"
    )
    assert names == {
        *wanted.split(),
        "doctor",
        "restore-points",
        "restore-point",
        "rollback",
        "fork",
        "recover",
        "recovery",
    }


def test_what_a_workspace_uses_is_shown_with_the_most_of_the_hour() -> None:
    used = {"cpu": 0.25, "memory_bytes": 300_000_000, "disk_bytes": 1_200_000_000}
    most = {"cpu": 1.5, "memory_bytes": 900_000_000, "disk_bytes": 1_200_000_000}
    hour = [{"at": "2026-01-01T10:00:00Z", **each} for each in (used, most, used)]
    chat_ms: dict[str, int | None] = {"p50": 3_000, "p95": 4_000}
    tokens = {"prompt": 12_000, "completion": 300}
    told = {"uuid": "k3v9x2ab", "now": used, "hour": hour, "chat_ms": chat_ms, "tokens": tokens}
    answer = {**told, "timestamp": "2026-01-01T11:00:00Z"}
    shown = call(lambda _: httpx.Response(200, json=answer), "metrics", "k3v9x2ab").output
    for words in (
        "0.25 cores",
        "1.50 at the most",
        "300 MB",
        "900 MB at the most",
        "half within 3000 ms",
        "12,000 read",
    ):
        assert words in shown
    chat_ms |= {"p50": None, "p95": None}
    assert "within" not in call(lambda _: httpx.Response(200, json=answer), "metrics", "k3v9x2ab").output


@pytest.mark.parametrize(("options", "sent"), [([], b""), (["--restart"], b'{"restart":true}')])
def test_access_is_revoked_with_a_restart_where_that_is_asked_for(options: list[str], sent: bytes) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"uuid": "abcd1234", "action": "revoke", "status": "success"})

    assert call(answer, "revoke", "abcd1234", *options).exit_code == 0
    assert [(each.url.path, each.content) for each in asked] == [("/session/abcd1234/revoke", sent)]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_has_json(command: tuple[str, ...]) -> None:
    assert "--json" in CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).output


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


def test_a_revocation_as_json_is_the_answer(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(action("revoke")), "revoke", UUID, "--json")
    assert json.loads(ended.out) == {"uuid": UUID, "action": "revoke", "status": "success"}


# Dead letters


def test_dead_letters_are_listed_with_why(sessionctl: Sessionctl) -> None:
    letter = {"id": "0123456789abcdef", "at": TIME, "task": "wake", "uuid": UUID, "tries": 5, "reason": "no such image"}
    ended = sessionctl(
        Api(answered({"total": 1, "dead_letters": [letter], "next_cursor": None})), "dead-letters", "list"
    )
    for words in ("0123456789abcdef", "wake", UUID, "5", "no such image"):
        assert words in ended.out
    none = sessionctl(Api(answered({"total": 0, "dead_letters": [], "next_cursor": None})), "dead-letters", "list")
    assert (none.out, "no task was given up" in none.err) == ("", True)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_dead_letter_is_retried(sessionctl: Sessionctl, options: tuple[str, ...]) -> None:
    body = {"id": "d1", "uuid": UUID, "task": "wake", "status": "waking"}
    api = Api(answered(body, 202))
    ended = sessionctl(api, "dead-letters", "retry", "d1", *options)
    assert (api.requests[0].method, api.requests[0].url.path) == ("POST", "/dead-letters/d1/retry")
    assert json.loads(ended.out) == body if options else f"wake of session {UUID}" in ended.err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_dead_letter_is_dropped(sessionctl: Sessionctl, options: tuple[str, ...]) -> None:
    api = Api(httpx.Response(204))
    ended = sessionctl(api, "dead-letters", "drop", "d1", *options)
    assert (ended.code, api.requests[0].method, api.requests[0].url.path) == (0, "DELETE", "/dead-letters/d1")
    assert json.loads(ended.out) == {"id": "d1", "status": "dropped"} if options else "Dropped." in ended.err


def test_a_dead_letter_that_is_gone_is_not_found(sessionctl: Sessionctl) -> None:
    gone = sessionctl(httpx.MockTransport(problem(404, "dead_letter_not_found")), "dead-letters", "drop", "d1")
    assert gone.code == 4


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


def test_a_list_shows_texts_of_tenants_as_they_are_without_control_characters() -> None:
    result = call(lambda _: httpx.Response(200, json={"total": 1, "sessions": [SESSION], "next_cursor": None}), "list")
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "ada\N{REPLACEMENT CHARACTER}[31m[bold]" in result.output


def test_json_is_what_the_api_answered() -> None:
    answer = {"total": 1, "sessions": [SESSION | {"new": 1}], "next_cursor": None}
    result = call(lambda _: httpx.Response(200, json=answer), "list", "--json")
    assert json.loads(result.output) == answer["sessions"]


def test_filters_and_limits_reach_the_api() -> None:
    asked: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, json={"total": 0, "sessions": [], "next_cursor": None})

    given = ("--label", "a=1", "--label", "b=2", "--search", "ada", "--tier", "archived", "--limit", "7")
    result = call(answer, "list", *given)
    assert "Create one with" in result.output
    assert asked[0].params.get_list("label") == ["a=1", "b=2"]
    assert asked[0].params["tier"] == "archived"
    assert (asked[0].params["q"], asked[0].params["limit"]) == ("ada", "8"), "one more tells whether there are more"


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(404, "session_not_found", 4), (401, "unauthorized", 3), (409, "illegal_state", 1), (400, "invalid_request", 1)],
)
def test_errors_are_one_sentence_and_an_exit_code(
    status: int, code: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def program() -> None:
        typer.main.get_command(app).main(
            ["status", "k3v9x2ab"], obj=State(None, httpx.MockTransport(problem(status, code))), standalone_mode=False
        )

    assert run(program) == exit_code
    shown = capsys.readouterr().err
    assert f"sessionctl: It is {code}." in shown
    assert "r-1" in shown
    assert "Traceback" not in shown


def test_every_error_of_the_client_has_an_exit_code() -> None:
    assert EXIT_CODES[-1][0] is WorkspacesError


def test_a_label_that_is_none_is_a_usage_error() -> None:
    result = call(problem(500, "never_asked"), "create", "ada", "--label", "course")
    assert result.exit_code == 2
    assert "NAME=VALUE" in result.output


def test_a_deletion_asks_first() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        return httpx.Response(200, json={"uuid": "k3v9x2ab", "session": SESSION})

    result = CliRunner().invoke(app, ["delete", "k3v9x2ab"], obj=State(None, httpx.MockTransport(answer)), input="n\n")
    assert result.exit_code == 1
    assert asked == ["GET"]


def test_an_erasure_asks_first_and_shows_what_it_takes() -> None:
    """Of a session that has no record any more, too."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.query.decode()}")
        gone = {"uuid": "k3v9x2ab", "status": "terminated", "message": "", "backup": None, "risk": None}
        return httpx.Response(200, json=gone)

    def erase(said: str) -> int:
        state = State(None, httpx.MockTransport(answer))
        result = CliRunner().invoke(app, ["delete", "k3v9x2ab", "--erase"], obj=state, input=said)
        assert "restore points, conversation?" in result.output
        return result.exit_code

    assert (erase("n\n"), asked) == (1, [])
    assert (erase("y\n"), asked) == (0, ["DELETE backup=true&erase=true"])


def doctor(handler: Handler) -> dict[str, str]:
    def make() -> Workspaces:
        return Workspaces("https://api.example.com", "k" * 16, retries=0, transport=httpx.MockTransport(handler))

    return {each.check: each.status for each in examine(make)}


def test_the_doctor_says_that_nothing_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("API_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    [finding] = examine(Workspaces.from_env)
    assert (finding.check, finding.status) == ("configuration", "failed")
    assert "API_KEY" in finding.found


def test_the_doctor_says_that_nothing_answers() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    assert doctor(refuse) == {"api": "failed"}


def test_the_doctor_says_that_something_else_answers() -> None:
    assert doctor(lambda _: httpx.Response(200, text="<html>")) == {"api": "failed"}


def test_without_a_valid_key_the_doctor_goes_by_the_health() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/health":
            return httpx.Response(503, json=HEALTH | {"workers": 0, "kubernetes": "disconnected"})
        return problem(401, "unauthorized")(request)

    assert doctor(answer) == {
        "api": "ok",
        "clock": "warning",
        "key": "failed",
        "redis": "ok",
        "workers": "failed",
        "observer": "failed",
    }


def late(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("late", request=request)


DIAGNOSIS = {"status": "ok", "checks": [], "timestamp": "2026-01-01T10:00:00Z"}
PARTS = {"redis": "ok", "workers": "ok", "observer": "ok"}


@pytest.mark.parametrize("failure", [problem(503, "state_unavailable"), problem(500, "internal_error"), late])
def test_a_diagnosis_that_fails_is_a_finding(failure: Handler) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=HEALTH) if request.url.path == "/health" else failure(request)

    assert doctor(answer) == {"api": "ok", "clock": "warning", "key": "unknown", **PARTS}


@pytest.mark.parametrize(
    "settings",
    [
        problem(403, "forbidden"),
        problem(503, "state_unavailable"),
        late,
        lambda _: httpx.Response(200, text="<html>"),
        lambda _: httpx.Response(200, json={"settings": []}),
    ],
)
def test_settings_that_are_not_told_are_a_finding(settings: Handler) -> None:
    """Where workspaces are is in them."""

    def answer(request: httpx.Request) -> httpx.Response:
        known = {"/health": HEALTH, "/diagnosis": DIAGNOSIS}.get(request.url.path)
        return httpx.Response(200, json=known) if known else settings(request)

    assert doctor(answer) == {"api": "ok", "clock": "warning", "key": "ok", "ingress_from_here": "unknown"}


def test_an_address_that_is_none_is_a_finding() -> None:
    assert reach("http://vs-code-00000000.example.com:port", httpx.MockTransport(late)).status == "failed"


@pytest.mark.parametrize(("status", "found"), [(401, "ok"), (404, "ok"), (302, "ok"), (200, "failed"), (502, "failed")])
def test_an_ingress_must_refuse_a_workspace_that_does_not_exist(status: int, found: str) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status)

    assert reach("http://vs-code-00000000.localhost:8080", httpx.MockTransport(answer)).status == found
    assert (seen[0].url.host, seen[0].headers["Host"]) == ("127.0.0.1", "vs-code-00000000.localhost:8080")


# Going back


def test_a_rollback_says_how_it_ended() -> None:
    bodies: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append((request.url.path, json.loads(request.content)))
        told: dict[str, Any] = {
            "rollback_to": None,
            "rolled_back": {"files_of": "2026-01-01T10:00:00Z", "saved": "p000000000000002"},
        }
        return httpx.Response(200, json=session(**told))

    point = "p000000000000001"
    for given in (point, f"point-k3v9x2ab-{point}"):
        result = call(answer, "rollback", "k3v9x2ab", "--point", given)
        assert result.exit_code == 0, result.output
        assert "p000000000000002" in result.output
    call(answer, "rollback", "k3v9x2ab", "--message", "m1")
    path = "/session/k3v9x2ab/rollback"
    assert bodies == [(path, {"restore_point": point})] * 2 + [(path, {"message_id": "m1"})]
    assert call(answer, "rollback", "k3v9x2ab").exit_code == 2


def test_a_fork_names_the_new_session() -> None:
    bodies: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append((request.url.path, json.loads(request.content)))
        more = {"forked_from": "k3v9x2ab", "restore_point": "p000000000000001", "files_of": "2026-01-01T10:00:00Z"}
        return httpx.Response(201, json=SESSION | {"uuid": "newone12"} | more)

    result = call(answer, "fork", "k3v9x2ab", "--user", "ben")
    assert result.exit_code == 0, result.output
    assert "newone12" in result.output
    assert bodies == [("/session/k3v9x2ab/fork", {"user_id": "ben"})]
