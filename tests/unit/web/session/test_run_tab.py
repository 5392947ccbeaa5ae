"""Commands in the dashboard."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from markupsafe import escape

from app.agent.protocol import ExecReason
from app.core.composition import Core
from app.core.redis import task_queue
from app.core.sessions.model import Status
from app.web.session import commands
from app.web.session.endings import CALM, REASONS
from tests.fake_agent import EXEC, FakeAgent
from tests.unit.api.helpers import meanwhile, move
from tests.unit.api.real_agent import Workspace
from tests.unit.web.conftest import HTMX, ORIGIN, Visitor, page
from tests.unit.web.session.conftest import HOSTILE
from tests.waiting import wait_for


@pytest.fixture
def lying(core: Core, uuid: str, agent: FakeAgent) -> FakeAgent:
    """The session's agent, which has called, and says what a test wants."""
    assert core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    return agent


def says(agent: FakeAgent, *execs: dict[str, Any]) -> None:
    """Let it know of these commands; it answers the first if asked for one."""
    found = [{**EXEC, **each} for each in execs]
    agent.raw_answer = json.dumps({"execs": found, **found[0]}).encode()


def run(visitor: Visitor, uuid: str, command: str, **fields: str) -> str:
    answer = visitor.post(f"/sessions/{uuid}/run", {"command": command, **fields}, headers=HTMX)
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def ended(visitor: Visitor, uuid: str, exec_id: str) -> str:
    """The entry of a command, once it has ended."""
    path = f"/sessions/{uuid}/run/{exec_id}"
    wait_for(lambda: "status busy" not in page(visitor, path), "the command ends")
    return page(visitor, path)


def test_a_command_is_run_and_followed_and_shown_with_its_output(
    visitor: Visitor, uuid: str, workspace: Workspace
) -> None:
    (workspace.app / "sub").mkdir()
    begun = run(visitor, uuid, "pwd\r\necho bad >&2; exit 3", cwd="sub", id="r1")
    assert 'id="exec-r1"' in begun
    assert f'sse-connect="/sessions/{uuid}/run/r1/stream"' in begun or "exit code" in begun
    entry = ended(visitor, uuid, "r1")
    assert '<span class="status bad">exit code 3</span>' in entry
    assert f"\n{workspace.app}/sub\n</pre>" in entry
    assert ">\nbad\n</pre>" in entry
    assert "In <code>sub</code>" in entry
    listed = page(visitor, f"/sessions/{uuid}/commands")
    assert "exit code 3" in listed
    assert "bad\n" not in listed, "the output is fetched when it is looked at"
    assert f'hx-get="/sessions/{uuid}/run/r1" hx-trigger="toggle' in listed


def test_a_repeated_submit_answers_the_same_run(visitor: Visitor, uuid: str, workspace: Workspace) -> None:
    for _ in range(2):
        assert 'id="exec-r1"' in run(visitor, uuid, "echo x >> count", id="r1")
    ended(visitor, uuid, "r1")
    assert (workspace.app / "count").read_text() == "x\n"
    run(visitor, uuid, "echo x >> count")
    wait_for(lambda: (workspace.app / "count").read_text() == "x\nx\n", "one without an id to run")
    assert page(visitor, f"/sessions/{uuid}/commands").count('<article class="exec"') == 2


def test_one_that_runs_is_offered_to_follow_and_ended(visitor: Visitor, uuid: str, workspace: Workspace) -> None:
    run(visitor, uuid, "touch ready; exec sleep 1000", id="r1")
    wait_for((workspace.app / "ready").exists, "the command begins")
    listed = page(visitor, f"/sessions/{uuid}/run")
    assert f'hx-get="/sessions/{uuid}/run/r1?follow=1"' in listed
    assert "sse-connect=" not in listed[listed.index('id="execs"') :], "each stream is a connection"
    assert "/run/r1/stream" in page(visitor, f"/sessions/{uuid}/run/r1?follow=1")
    again = page(visitor, f"/sessions/{uuid}/run/r1")
    assert "/run/r1/stream" not in again, "what is asked for after a stream's end leads to no other by itself"
    answer = visitor.post(f"/sessions/{uuid}/run/r1/end", headers=HTMX)
    assert "Ending …" in answer.text or "ended on request" in answer.text
    entry = ended(visitor, uuid, "r1")
    assert '<span class="status calm">ended on request</span>' in entry
    assert "It ended by SIGTERM." in entry
    assert "It wrote nothing." in entry


@pytest.mark.parametrize("command", ["", " \n"])
def test_a_command_that_is_refused_says_why(visitor: Visitor, uuid: str, workspace: Workspace, command: str) -> None:
    answer = visitor.post(f"/sessions/{uuid}/run", {"command": command}, headers=HTMX)
    assert (answer.status_code, answer.headers["HX-Retarget"]) == (400, "#notices")
    assert "Must not be blank." in answer.text
    assert "No command has run" in page(visitor, f"/sessions/{uuid}/commands")


def test_what_a_tenant_says_is_no_markup(visitor: Visitor, uuid: str, lying: FakeAgent) -> None:
    whole = {"command": HOSTILE, "cwd": HOSTILE, "stdout": HOSTILE, "stderr": HOSTILE, "truncated": True}
    for state in ("exited", "running"):
        says(lying, whole | {"state": state}, whole | {"state": state, "command": [HOSTILE, "a b"]})
        for path in ("run", "commands", "run/x1", "run/x1?follow=1"):
            shown = page(visitor, f"/sessions/{uuid}/{path}")
            assert "&lt;img src=x onerror=alert(1)&gt;" in shown, path
            assert "<img src=x" not in shown
            assert "<script>" not in shown
    says(lying, {"stdout": "\x1b[31mred\x1b[0m\r50%\rdone\n\ud800"})
    assert ">\nred\n50%\ndone\n?</pre>" in page(visitor, f"/sessions/{uuid}/run/x1")


@pytest.mark.parametrize("wrong", ["..x", "a%3fb", "%20", "x" * 65])
def test_no_command_has_another_kind_of_id(visitor: Visitor, uuid: str, wrong: str) -> None:
    assert visitor.get(f"/sessions/{uuid}/run/{wrong}").status_code == 404


@pytest.mark.parametrize("reason", ExecReason)
def test_each_reason_is_said_in_words(visitor: Visitor, uuid: str, lying: FakeAgent, reason: str) -> None:
    says(lying, {"exit_code": None, "reason": reason, "left": 2})
    shown = page(visitor, f"/sessions/{uuid}/run/x1")
    tone = "calm" if reason in CALM else "bad"
    assert f'<span class="status {tone}">{escape(REASONS[reason])}</span>' in shown
    assert "2 processes that it left running were ended too." in shown


def test_how_one_ended_is_said_in_words() -> None:
    assert commands.state_of({**EXEC, "state": "running"}) == ("busy", "running")
    assert commands.state_of(EXEC) == ("ok", "exit code 0")
    assert commands.state_of({**EXEC, "exit_code": 3}) == ("bad", "exit code 3")
    assert commands.state_of({**EXEC, "exit_code": None, "signal": "SIGKILL"}) == ("bad", "ended by SIGKILL")
    assert commands.line_of(["echo", "a b", "$HOME"]) == "echo 'a b' '$HOME'"


def test_a_long_output_is_shown_in_part_and_downloaded_whole(visitor: Visitor, uuid: str, workspace: Workspace) -> None:
    run(visitor, uuid, r"head -c 300000 /dev/zero | tr '\0' x; printf '\377<b>'", id="r1")
    shown = ended(visitor, uuid, "r1")
    assert "only the beginning and the end are shown" in shown
    assert len(shown) < 100_000
    path = f"/sessions/{uuid}/run/r1/output/stdout"
    assert f'href="{path}" download' in shown
    answer = visitor.client.get(path, base_url=ORIGIN)
    assert answer.get_data() == b"x" * 300_000 + b"\xff<b>"
    assert answer.content_type == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''r1.stdout"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    part = visitor.client.get(path, base_url=ORIGIN, headers={"Range": "bytes=299999-300000"})
    assert (part.status_code, part.get_data()) == (206, b"x\xff")
    assert visitor.get(path.replace("stdout", "stdin")).status_code == 404


def test_the_stream_is_told_from_the_beginning_or_after_what_was_seen(
    visitor: Visitor, uuid: str, workspace: Workspace
) -> None:
    run(visitor, uuid, f"echo one; echo '{HOSTILE}' >&2", id="r1")
    ended(visitor, uuid, "r1")
    path = f"/sessions/{uuid}/run/r1/stream"
    told = page(visitor, path)
    assert 'event: output\ndata: <span class="stdout">one' in told
    assert "<img" not in told
    assert told.endswith("event: end\ndata: 1\n\n")
    resumed = page(visitor, path, **{"Last-Event-ID": "4-0"})
    assert "one\n" not in resumed
    assert '<span class="stderr">' in resumed


def test_looks_do_not_wake(visitor: Visitor, core: Core, uuid: str, workspace: Workspace) -> None:
    run(visitor, uuid, "echo mine", id="r1")
    ended(visitor, uuid, "r1")
    workspace.sleep()
    for path in ("run", "commands", "run/r1"):
        assert "The session sleeps, so its commands can't be seen." in page(visitor, f"/sessions/{uuid}/{path}")
    assert "Run a command" in page(visitor, f"/sessions/{uuid}/run")
    assert page(visitor, f"/sessions/{uuid}/run/r1/stream") == "id: \nevent: end\ndata: 1\n\n"
    assert visitor.get(f"/sessions/{uuid}/run/r1/output/stdout").status_code == 409
    assert core.sessions.get(uuid).status is Status.SLEEPING
    assert core.sessions.get(uuid).task != task_queue.WAKE


def test_a_command_wakes_a_session(visitor: Visitor, core: Core, uuid: str, workspace: Workspace) -> None:
    workspace.sleep()
    meanwhile(lambda: core.store.get(uuid).status is Status.WAKING, workspace.wake)
    assert 'id="exec-r1"' in run(visitor, uuid, "echo awake", id="r1")
    assert "awake\n" in ended(visitor, uuid, "r1")


def test_an_onlooker_sees_and_changes_nothing(
    visitor: Visitor, onlooker: Visitor, uuid: str, workspace: Workspace
) -> None:
    run(visitor, uuid, "echo mine", id="r1")
    ended(visitor, uuid, "r1")
    run(visitor, uuid, "touch ready; exec sleep 1000", id="r2")
    wait_for((workspace.app / "ready").exists, "the command begins")
    shown = page(onlooker, f"/sessions/{uuid}/run")
    assert "echo mine" in shown
    assert "<form" not in shown[shown.index('class="run"') :]
    for path in ("run", "commands", "run/r1", "run/r2?follow=1"):
        shown = page(onlooker, f"/sessions/{uuid}/{path}")
        assert "/end" not in shown
        assert "Run again" not in shown
    assert "mine\n</pre>" in page(onlooker, f"/sessions/{uuid}/run/r1")
    for path in ("run", "run/r2/end"):
        assert onlooker.post(f"/sessions/{uuid}/{path}", {"command": "true"}, headers=HTMX).status_code == 403


def test_a_deleted_session_takes_no_command(visitor: Visitor, core: Core, uuid: str) -> None:
    move(core, uuid, Status.TERMINATING)
    move(core, uuid, Status.TERMINATED)
    shown = page(visitor, f"/sessions/{uuid}/run")
    assert "The session was deleted" in shown
    assert 'id="run-composer"' not in shown
