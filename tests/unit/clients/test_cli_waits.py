"""The waits of sessionctl: what they wait for, and what they say and answer when they run out."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.unit.clients.api import (
    UUID,
    Api,
    action,
    answer,
    created,
    problem,
    queued,
    scaled_down,
    session,
    sse,
    state,
    stream,
)
from tests.unit.clients.conftest import Sessionctl
from workspaces.cli.context import FAILED, TIMED_OUT
from workspaces.resources import sessions

SLEEPING = scaled_down("sleeping", 202)


def silent(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("silent")


def asked(api: Api) -> list[str]:
    """The requests, each with the wait that it asked for."""
    return [f"{each.method} {each.url.path} {each.headers.get('Prefer', '')}".rstrip() for each in api.requests]


def test_a_sleep_waits_until_no_process_runs(sessionctl: Sessionctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's status is `sleeping` from the first moment on."""
    monkeypatch.setattr(sessions, "PAUSE", 0.0)
    api = Api(SLEEPING, SLEEPING, scaled_down("success"), *[answer(session("sleeping"))] * 2)
    ended = sessionctl(api, "sleep", UUID)
    assert (ended.code, asked(api)[:3]) == (0, [f"POST /session/{UUID}/scale-down wait=60"] * 3)
    assert "sleeping" in ended.out


def test_a_sleep_that_takes_longer_says_so(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(SLEEPING, answer(session("sleeping"))), "sleep", UUID, "--timeout", "0", "--json")
    assert ended.code == TIMED_OUT
    assert json.loads(ended.out)["uuid"] == UUID
    assert f"sessionctl sleep {UUID}" in ended.err


def test_a_sleep_need_not_be_waited_for(sessionctl: Sessionctl) -> None:
    api = Api(action("sleep", "sleeping"), answer(session("sleeping")))
    assert sessionctl(api, "sleep", UUID, "--no-wait").code == 0
    assert asked(api)[0] == f"POST /session/{UUID}/sleep respond-async"


def test_a_workspace_that_does_not_stop_is_an_error(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(problem(409, "stop_failed"), answer(session("failed"))), "sleep", UUID)
    assert (ended.code, "failed" in ended.out) == (FAILED, True)


def test_a_wake_waits_until_the_workspace_is_up(sessionctl: Sessionctl) -> None:
    phase = sse("2-0", "phase", phase="ready", ms=412)
    api = Api(
        action("wake", "waking"),
        stream(state("1-0", "waking"), phase, state("3-0", "active")),
        *[answer(session())] * 2,
    )
    ended = sessionctl(api, "wake", UUID)
    assert (ended.code, asked(api)[0]) == (0, f"POST /session/{UUID}/wake respond-async")
    assert "active" in ended.out
    assert "ready 412 ms" in ended.err


def test_a_wake_that_restores_says_what(sessionctl: Sessionctl) -> None:
    brings = {"files": 10_000, "bytes": 304_000_000, "of": "2026-05-03T14:02:11.000Z"}
    begun = sse("2-0", "phase", phase="restoring", ms=90, **brings)
    waking = answer(session("waking", restoring=brings))
    api = Api(action("wake", "waking"), stream(state("1-0", "waking"), begun, state("3-0", "active")), waking, waking)
    ended = sessionctl(api, "wake", UUID)
    assert "restoring 10,000 files, 304 MB, of 2026-05-03" in ended.err
    assert "10,000 files, 304 MB, of 2026-05-03" in ended.out


def test_a_wake_need_not_be_waited_for(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(action("wake", "waking"), answer(session("waking"))), "wake", UUID, "--no-wait", "--json")
    assert (ended.code, json.loads(ended.out)["session"]["status"]) == (0, "waking")


@pytest.mark.parametrize(
    ("command", "begin"),
    [(("create", "ada"), created()), (("wake", UUID), action("wake", "waking")), (("restore", "a.zip"), created())],
)
def test_a_start_that_takes_longer_names_its_session(
    sessionctl: Sessionctl, command: tuple[str, ...], begin: httpx.Response
) -> None:
    """Nobody could find the new session otherwise."""
    ended = sessionctl(Api(begin, answer(session("created"))), *command, "--timeout", "0", "--json")
    assert (ended.code, json.loads(ended.out)["uuid"]) == (TIMED_OUT, UUID)
    assert f"sessionctl status {UUID}" in ended.err


def test_a_start_that_fails_names_its_session(sessionctl: Sessionctl) -> None:
    api = Api(created(), stream(state("1-0", "failed")), answer(session("failed")))
    ended = sessionctl(api, "create", "ada", "--json")
    assert (ended.code, json.loads(ended.out)["session"]["status"]) == (FAILED, "failed")


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("failed", FAILED)])
def test_a_backup_says_how_it_ended(sessionctl: Sessionctl, status: str, code: int) -> None:
    end = sse("2-0", "backup", status=status, name="a.zip", reason=None)
    api = Api(stream(state("1-0", "active")), queued("backup"), stream(end))
    ended = sessionctl(api, "backup", UUID, "--json")
    assert (ended.code, json.loads(ended.out)) == (code, {"status": status, "name": "a.zip", "reason": None})


def test_a_backup_of_which_nothing_is_heard_ends_at_its_time(sessionctl: Sessionctl) -> None:
    api = Api(stream(state("1-0", "active")), queued("backup"), *[silent] * 20)
    ended = sessionctl(api, "backup", UUID, "--timeout", "0.05", "--json")
    assert (ended.code, json.loads(ended.out)["status"]) == (TIMED_OUT, "queued")
    assert f"sessionctl backups {UUID}" in ended.err


def test_a_restore_point_that_takes_longer_says_so(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(queued("restore_point")), "restore-point", UUID, "--json")
    assert (ended.code, json.loads(ended.out)["status"]) == (TIMED_OUT, "queued")
    assert f"sessionctl restore-points {UUID}" in ended.err


@pytest.mark.parametrize(
    ("made", "options", "code"),
    [
        (action("restore_point", "done"), (), 0),
        (queued("restore_point", message="the disk is full"), (), FAILED),
        (queued("restore_point"), ("--no-wait",), 0),
        (queued("restore_point", message="of the attempt before"), ("--no-wait",), 0),
    ],
)
def test_a_restore_point_says_how_it_ended(
    sessionctl: Sessionctl, made: httpx.Response, options: tuple[str, ...], code: int
) -> None:
    assert sessionctl(Api(made), "restore-point", UUID, *options).code == code


@pytest.mark.parametrize(("status", "to"), [("waking", "p000000000000001"), ("waking", None)])
def test_a_rollback_that_takes_longer_says_so(sessionctl: Sessionctl, status: str, to: str | None) -> None:
    """It takes until the workspace is up again."""
    before = {"files_of": None, "saved": "p-of-the-one-before"}
    late = session(status, rollback_to=to, rolled_back=before)
    command = ("rollback", UUID, "--point", "p000000000000001", "--timeout", "0")
    ended = sessionctl(Api(answer(late, 202), answer(late)), *command)
    assert ended.code == TIMED_OUT
    assert "under way" in ended.out and "p-of-the-one-before" not in ended.out
    assert f"sessionctl status {UUID}" in ended.err
    as_json = sessionctl(Api(answer(late, 202), answer(late)), *command, "--json")
    assert json.loads(as_json.out)["uuid"] == UUID
    assert sessionctl(Api(answer(late, 202)), *command, "--no-wait").code == 0


def rolling_back(*ends: dict[str, Any]) -> Api:
    """A rollback of a session that is up: its last state is each of `ends` in turn."""
    under_way = session("waking", rollback_to="p000000000000001")
    happens = stream(
        state("1-0", "waking"),
        sse("2-0", "phase", phase="editor", ms=300),
        sse("3-0", "rolled_back", status="done", restore_point="p000000000000001"),
        state("4-0", "active"),
    )
    return Api(answer(under_way, 202), happens, *map(answer, [under_way, *ends]))


def test_a_rollback_shows_the_steps_of_the_start_that_ends_it(sessionctl: Sessionctl) -> None:
    done = session("active", rolled_back={"files_of": "2026-01-01T10:00:00Z", "saved": "p000000000000002"})
    api = rolling_back(session("waking"), done)
    ended = sessionctl(api, "rollback", UUID, "--point", "p000000000000001")
    assert ended.code == 0, ended.err
    assert "p000000000000002" in ended.out and "done" in ended.out
    assert "editor" in ended.err and "300 ms" in ended.err
    assert asked(api)[:2] == [f"POST /session/{UUID}/rollback respond-async", f"GET /session/{UUID}/events"]


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (session("active", rolled_back={"error": "the point is broken"}), "the point is broken"),
        (session("failed", reason="no room"), "no room"),
    ],
)
def test_a_rollback_that_is_called_off_says_why(sessionctl: Sessionctl, end: dict[str, Any], why: str) -> None:
    ended = sessionctl(rolling_back(end), "rollback", UUID, "--point", "p000000000000001")
    assert ended.code == FAILED
    assert why in ended.err


def test_a_message_is_undone_within_the_call(sessionctl: Sessionctl) -> None:
    api = Api(answer(session("active", rolled_back={"files_of": None, "saved": "p000000000000002"})))
    assert sessionctl(api, "rollback", UUID, "--message", "m1").code == 0
    assert asked(api) == [f"POST /session/{UUID}/rollback wait=60"]


def test_an_undo_or_a_fork_whose_restore_point_takes_longer_says_so(sessionctl: Sessionctl) -> None:
    late = problem(504, "restore_point_late")
    assert sessionctl(Api(late), "rollback", UUID, "--message", "m1").code == TIMED_OUT
    ended = sessionctl(Api(late), "fork", UUID)
    assert (ended.code, f"sessionctl restore-points {UUID}" in ended.err) == (TIMED_OUT, True)


@pytest.mark.parametrize(("options", "look"), [((), "status {}"), (("--erase",), "delete {} --erase")])
def test_a_deletion_that_takes_longer_says_so(sessionctl: Sessionctl, options: tuple[str, ...], look: str) -> None:
    body = {"uuid": UUID, "status": "terminating", "message": "", "backup": None, "risk": None}
    ended = sessionctl(Api(answer(body, 202)), "delete", UUID, "--yes", "--json", *options)
    assert (ended.code, json.loads(ended.out)["status"]) == (TIMED_OUT, "terminating")
    assert f"sessionctl {look.format(UUID)}" in ended.err
