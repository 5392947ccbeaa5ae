"""The Python client with the real service: a session's whole life, and each answer and event as documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documented_transport import DocumentedTransport
from tests.model_server import MODEL, ModelServer
from tests.service import KEY, Service
from workspaces import (
    BackupEvent,
    Event,
    HeldEvent,
    MessageEvent,
    PhaseEvent,
    SessionNotFound,
    StateConflict,
    StateEvent,
    TokenEvent,
    ToolCallEvent,
    ToolResultEvent,
    Workspaces,
)

PROMPT = "create hello.py that prints hi and run it"
README = (ROOT / "clients/python/README.md").read_text()
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> Iterator[Service]:
    """One that has a model."""
    with ModelServer() as model:
        settings = {"LLM_BASE_URL": model.url, "LLM_API_KEY": "any", "LLM_MODEL": MODEL}
        running = Service(tmp_path_factory.mktemp("service"), code_server, **settings)
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def transport(service: Service) -> DocumentedTransport:
    return DocumentedTransport(service.url)


@pytest.fixture
def client(service: Service, transport: DocumentedTransport) -> Workspaces:
    return Workspaces(service.url, KEY, transport=transport)


def test_a_session_from_its_creation_to_its_end(service: Service, client: Workspaces, tmp_path: Path) -> None:
    made = client.sessions.create("ada", labels={"course": "python-101"}, idempotency_key="first")
    assert client.sessions.create("ada", labels={"course": "python-101"}, idempotency_key="first").uuid == made.uuid
    started: list[Event] = []
    session = client.sessions.wait_until_active(made.uuid, timeout=120, on_event=started.append)
    assert (session.status, session.labels["course"], session.replicas) == ("active", "python-101", 1)
    assert abs((datetime.now(UTC) - session.created_at).total_seconds()) < 300
    assert [event.status for event in started if isinstance(event, StateEvent)][-1] == "active"
    assert any(isinstance(event, PhaseEvent) for event in started)

    work = list(client.messages.stream(made.uuid, PROMPT, id="m1"))
    end = work[-1]
    assert isinstance(end, MessageEvent)
    assert end.text.endswith("It printed:\n\nhi")
    assert end.text in "".join(event.text for event in work if isinstance(event, TokenEvent))
    calls = [event for event in work if isinstance(event, ToolCallEvent)]
    assert [call.name for call in calls] == ["write_file", "run_command"]
    assert [event.ok for event in work if isinstance(event, ToolResultEvent)] == [True, True]
    assert (service.files(made.uuid) / "hello.py").read_text() == "print('hi')\n"

    conversation = list(client.messages.list(made.uuid, limit=2))
    assert [entry.role for entry in conversation] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    uses = [use for entry in conversation for use in entry.tool_calls]
    assert [use.arguments for use in uses] == [call.arguments for call in calls], "the same in both places"
    assert conversation[-1].outcome is not None and conversation[-1].outcome.status == "processed"
    assert client.messages.get(made.uuid, "m1").response == end.response

    asked = client.sessions.events(made.uuid)
    next(asked)
    assert client.backups.create(made.uuid).status == "queued"
    done = next(event for event in asked if isinstance(event, BackupEvent))
    asked.close()
    assert (done.status, done.name) == ("done", next(iter(client.backups.list_of_session(made.uuid))).name)

    assert client.sessions.scale_down(made.uuid, wait=60).status == "success"
    assert client.sessions.get(made.uuid).status == "sleeping"
    with pytest.raises(StateConflict):
        client.sessions.wait_until_active(made.uuid)
    assert client.sessions.wake(made.uuid).status == "waking"
    assert client.sessions.wait_until_active(made.uuid, timeout=120).status == "active"
    told = client.messages.send(made.uuid, "remember 7", id="m2", wait=0)
    assert client.messages.wait_until_finished(made.uuid, told.message_id).text == "7 noted"

    deleted = client.sessions.delete(made.uuid, wait=60)
    assert (deleted.status, deleted.backup is not None) == ("terminated", True)
    assert deleted.backup is not None
    found = client.backups.download(deleted.backup, tmp_path)
    assert "hello.py" in {Path(name).name for name in zipfile.ZipFile(found).namelist()}

    restored = client.backups.restore(deleted.backup, user_id="bob", wait=60)
    assert client.sessions.get(restored.uuid).restore_from is None
    assert (service.files(restored.uuid) / "hello.py").exists()
    assert client.sessions.delete(restored.uuid, backup="false", wait=60).backup is None
    client.backups.delete(deleted.backup)
    assert deleted.backup not in {backup.name for backup in client.backups.list(user_id="ada")}


def awake(client: Workspaces) -> str:
    """The uuid of a new session that is active."""
    made = client.sessions.create("ada", wait=60)
    return client.sessions.wait_until_active(made.uuid, timeout=120).uuid


def test_a_sleep_is_told_once(client: Workspaces) -> None:
    """The state as it is asked for, then the phase in which the processes have ended."""
    uuid = awake(client)
    with client.sessions.events(uuid) as events:
        first = next(events)
        client.sessions.scale_down(uuid, wait=60)
        seen: list[Event] = [first]
        while not (isinstance(seen[-1], PhaseEvent) and seen[-1].phase == "stopped"):
            seen.append(next(events))
        client.sessions.delete(uuid, backup="false", wait=60)
        seen += events
    states = [event.status for event in seen if isinstance(event, StateEvent)]
    assert states == ["active", "sleeping", "terminating", "terminated"]


def test_prompts_of_a_session_that_is_put_to_sleep(client: Workspaces) -> None:
    """The one that runs fails, the one behind it is held back; both streams say so."""
    uuid = awake(client)
    running = client.messages.stream(uuid, "count to 900", id="m1")
    while not isinstance(next(running), TokenEvent):
        pass
    behind = client.messages.stream(uuid, "remember 7", id="m2")
    next(behind)
    client.sessions.sleep(uuid)
    *_, failed = running
    *_, held = behind
    assert isinstance(failed, MessageEvent) and failed.state == "failed"
    assert isinstance(held, HeldEvent) and held.message_id == "m2"
    assert client.messages.get(uuid, "m2").finished is False
    client.sessions.delete(uuid, backup="false", wait=60)


def test_every_other_call(client: Workspaces, service: Service, transport: DocumentedTransport) -> None:
    """And all answers so far were as documented."""
    uuid = awake(client)
    assert client.sessions.status(uuid).uuid == uuid
    assert uuid in {row.uuid for row in client.sessions.list(user_id="ada", limit=1)}
    backup = client.backups.make(uuid, timeout=120)
    assert (backup.status, backup.name) == ("done", next(iter(client.backups.list_of_session(uuid))).name)
    assert client.sessions.sleep(uuid, wait=60).status == "sleeping"
    assert client.sessions.put_to_sleep(uuid, timeout=60).status == "sleeping"
    assert client.sessions.scale_up(uuid, wait=60).status == "success"
    assert client.sessions.activity(uuid).verdict.idle is False
    assert client.sessions.keepalive(uuid, seconds=60).until is not None
    assert client.sessions.keepalive(uuid, until=datetime(2099, 1, 1, tzinfo=UTC)).uuid == uuid
    assert client.sessions.keepalive(uuid, hours="Mon-Fri 08:00-18:00").hours == "Mon-Fri 08:00-18:00"
    assert "workspace-link=" in client.sessions.open(uuid, path="/?folder=/app").url
    assert client.sessions.token(uuid).expires_at > datetime.now(UTC)
    assert client.sessions.revoke(uuid).status == "success"
    assert client.costs.of_session(uuid).dollars.total >= 0
    assert client.costs.list(group_by="user").page().group_by == "user"
    table, following = client.costs.csv(group_by="size")
    assert table.startswith("size,") and following is None
    assert "create" in {entry.action for entry in client.audit.list(uuid=uuid)}
    assert client.system.health().status == "healthy"
    assert client.system.metrics().active_sessions >= 1
    assert "sessions" in client.system.metrics_text()
    assert client.system.live() and client.system.ready()
    assert client.system.openapi() == transport.document.document
    assert client.sessions.delete(uuid, backup="false", wait=60).status == "terminated"
    with pytest.raises(SessionNotFound):
        client.sessions.get("zzzzzzzz")
    kinds = {kind for operation, _, _, kind in transport.document.seen if operation in ("chat", "followSession")}
    assert kinds >= {"state", "phase", "token", "tool_call", "tool_result", "message", "held", "backup"}


def ran(service: Service, folder: Path, program: str) -> str:
    """What a program prints that uses the client, in this folder."""
    settings = {"API_URL": service.url, "API_KEY": KEY, "PYTHONPATH": str(ROOT / "clients/python")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_of_the_readme_work(service: Service, tmp_path: Path) -> None:
    session, workspace, *calls = EXAMPLE.findall(README)
    assert ran(service, tmp_path, session).endswith("hi")
    assert "hello.py" in {Path(name).name for name in zipfile.ZipFile(tmp_path / "work.zip").namelist()}
    assert ran(service, tmp_path, workspace) == "hi\n\n"
    (tmp_path / "data.csv").write_text("1,2\n")
    begin = f"{workspace}\nclient = Client()\nsession = client.sessions.get(ws.uuid)\nws.write('src/a/b.py', 'x')\n"
    told = ran(service, tmp_path, begin + "".join(calls)).splitlines()
    changed = "gone [] there ['new.txt']"
    assert told == ["hi", "", "hi", "exit code 0", "src/a/b.py 1", "b'a,b\\n'", changed, "1 1"]
    assert (tmp_path / "copy.csv").read_text() == "a,b\n"
    assert (tmp_path / "my-copy/a/b.py").read_text() == "x"
    assert zipfile.ZipFile(tmp_path / "work.zip").read("src/a/b.py") == b"x"
