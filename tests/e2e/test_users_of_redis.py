"""A session's whole life while each process is its own user of Redis, and none is refused anything it needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from app.core.redis.users import ADMIN
from tests.model_server import ModelServer
from tests.redis_users import Guarded, guarded_redis, password
from tests.service import KEY, Service
from tests.waiting import wait_for

IDENTITY = """\
import os

user = os.environ.get("PROCESS_NAME", "{admin}")
os.environ["REDIS_USERNAME"], os.environ["REDIS_PASSWORD"] = user, "{before}" + user
"""
"""Python runs it at the start of each process, which by that becomes the user of its name."""

VISITOR = {
    "Accept": "text/html",
    "Sec_Fetch_Mode": "navigate",
    "Sec_Fetch_Dest": "document",
    "Sec_Fetch_Site": "none",
}
"""A person's navigation."""

ROUTES = "~traefik/* +mset +scan +exists"
"""What the local mode has besides: it leads visitors to workspaces by Redis, and Traefik reads it there."""

STORE = "~backups ~backups:* ~backup:* ~session:*:backups ~user:*:backups ~ledger:* ~costs:*"
"""And web deletes backups by itself, which books what they cost, where on a cluster it asks a worker."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    rules = "~traefik* &* +@read +@connection +@pubsub +scan -@admin +config|set"
    traefik = f"user traefik on >{password('traefik')} {rules}\n"
    with guarded_redis(tmp_path_factory.mktemp("redis"), traefik) as running:
        admin = running.client(ADMIN)
        for name in ("worker", "sweeper", "backup-worker", "observer"):
            admin.execute_command("ACL", "SETUSER", name, *ROUTES.split())
        admin.execute_command("ACL", "SETUSER", "web", *STORE.split())
        yield running


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, code_server: str, guarded: Guarded, model: ModelServer
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "sitecustomize.py").write_text(IDENTITY.format(admin=ADMIN, before=password("")))
    root = Path(__file__).resolve().parents[2]
    running = Service(
        folder,
        code_server,
        REDIS_URL=f"redis://127.0.0.1:{guarded.port}/0",
        PYTHONPATH=f"{folder}:{root}",
        LLM_BASE_URL=model.url,
        LLM_MODEL="stub",
        RECONCILE_INTERVAL="2",
        RETENTION_INTERVAL="2",
        WAKE_GRACE="0",
        ARCHIVE_RETENTION="60",
        ACTIVITY_WINDOWS='{"browser": 1, "prompt": 1, "turn": 1, "editor": 1, "terminal": 1, "jobs": 1}',
    )
    # What scripts/run ends in; before that it would set PYTHONPATH.
    running.command = [sys.executable, "-m", "scripts.lib.serve"]
    running.start()
    try:
        yield running
    finally:
        running.stop()


def test_every_process_does_its_work_as_its_own_user(service: Service, guarded: Guarded) -> None:
    """Create, open, prompt, sleep, wake, back up, restore, delete, and all that is asked and swept meanwhile."""
    session = service.create("ada")
    uuid, seen = session["uuid"], lambda: str(guarded.refused())
    assert service.prompt(uuid, "remember 7", "m1")["status"] == "processed"
    visit(service, session)
    look_at(service, uuid)

    service.done("POST", f"/session/{uuid}/exec", {"command": "true"})
    service.done("POST", f"/session/{uuid}/scale-down")
    service.call("POST", f"/session/{uuid}/chat", {"message": "what was it?", "id": "m2"})
    assert service.ended(uuid, "m2")["state"] == "processed"
    service.done("POST", f"/session/{uuid}/revoke")
    wait_for(lambda: not guarded.client(ADMIN).zcard("sessions:disconnects"), "the disconnect", seen)

    service.done("POST", f"/session/{uuid}/scale-down")
    visit(service, session)
    service.wait_status(uuid, "active")

    service.done("POST", f"/session/{uuid}/backup")
    wait_for(lambda: service.done("GET", f"/session/{uuid}/backups")["total"] == 1, "the backup", seen)
    gone = service.done("DELETE", f"/session/{uuid}")
    restored = service.done("POST", f"/backups/{gone['backup']}/restore")
    service.wait_status(restored["uuid"], "active")
    assert service.call("GET", f"/backups/{gone['backup']}/download").ok
    service.done("DELETE", f"/session/{restored['uuid']}?backup=false")
    assert service.call("DELETE", f"/backups/{gone['backup']}").status_code == 204
    assert guarded.refused() == []


def test_a_session_falls_asleep_is_archived_and_expires_by_itself(service: Service, guarded: Guarded) -> None:
    """What only sweeps do, and what is warned of before."""
    wanted = {"user_id": "bob", "idle_timeout": 3, "ttl": 5}
    uuid = service.done("POST", "/session/create", wanted, headers={"Prefer": "respond-async"})["uuid"]

    def session() -> Any:
        return service.status(uuid)["session"]

    wait_for(lambda: session()["status"] == "sleeping", "it to sleep")
    wait_for(lambda: session()["tier"] == "archived", "it to be archived", lambda: str(guarded.refused()))
    wait_for(lambda: session()["status"] == "terminated", "it to expire", lambda: str(guarded.refused()), 150)
    wait_for(lambda: guarded.client(ADMIN).exists("backups:looked"), "the sweep of backups")
    assert guarded.refused() == []


def test_a_workspace_that_dies_is_noticed_and_comes_up_again(service: Service, guarded: Guarded) -> None:
    """By the observer, and by whoever is asked to."""
    uuid = service.create("eve")["uuid"]
    for process in service.processes(WORKSPACE_UUID=uuid):
        process.kill()
    service.wait_status(uuid, "failed")
    service.done("POST", f"/session/{uuid}/wake")
    service.wait_status(uuid, "active")
    service.done("DELETE", f"/session/{uuid}?backup=false")
    assert guarded.refused() == []


def test_operators_see_that_all_is_well(service: Service, guarded: Guarded) -> None:
    """Each process reports itself, the stores and the model answer, and the sweep takes samples."""

    def alive() -> bool:
        found = service.done("GET", "/processes")["processes"]
        return all(each["status"] == "alive" for each in found)

    wait_for(alive, "every process", lambda: str(service.done("GET", "/processes")))

    def trouble() -> list[dict[str, str]]:
        checks = service.done("GET", "/diagnosis")["checks"]
        return [each for each in checks if each["status"] != "ok"]

    wait_for(lambda: not trouble(), "a diagnosis without trouble", lambda: str(trouble()))
    wait_for(lambda: service.done("GET", "/overview/history?hours=1")["samples"], "a sample")
    for path in ("/settings", "/keys", "/dead-letters"):
        service.done("GET", path)
    assert guarded.refused() == []


def test_flower_shows_workers_tasks_and_queues_and_changes_nothing(service: Service, guarded: Guarded) -> None:
    """From the workers' events: it asks them nothing, and says nothing of what is missing for that."""
    address = next(line.strip().partition("=")[2] for line in service.printed if "FLOWER_URL=" in line)
    flower = requests.Session()
    flower.auth = ("admin", KEY)

    def shown(path: str) -> Any:
        answer = flower.get(f"{address}/api/{path}", timeout=30)
        return answer.json() if answer.ok else {}

    wait_for(lambda: list(shown("workers?status=1").values()) == [True] * 4, "four workers")
    service.create("flo")
    wait_for(lambda: "sessions.provision" in {each["name"] for each in shown("tasks").values()}, "the task")
    names = {each["name"] for each in shown("queues/length")["active_queues"]}
    assert names == {"wake", "deliver", "lifecycle", "sweep", "backup"}
    worker = next(iter(shown("workers?status=1")))
    for path in (f"worker/shutdown/{worker}", "task/revoke/any", "task/send-task/sessions.teardown"):
        assert flower.post(f"{address}/api/{path}", json={"args": []}, timeout=30).status_code == 403
    assert "Inspect method" not in (service.data_dir / "log" / "run.log").read_text()
    assert guarded.refused() == []


def visit(service: Service, session: dict[str, str]) -> None:
    """As a browser that follows a link and is let in, and as a program with a token."""
    service.workspace(session)
    link = urlsplit(service.link(session["uuid"]))
    let_in = service.workspace(session, f"{link.path}?{link.query}", **VISITOR)
    (cookie,) = let_in.cookies.items()
    service.workspace(session, Cookie="=".join(cookie), **VISITOR)


def look_at(service: Service, uuid: str) -> None:
    """All that can be asked of a session and of the service."""
    for path in ("", "/status", "/activity", "/messages", "/messages/m1", "/backups"):
        service.done("GET", f"/session/{uuid}{path}")
    service.done("POST", f"/session/{uuid}/keepalive", {"seconds": 5})
    service.done("POST", f"/session/{uuid}/keepalive", {"seconds": 0})
    for path in ("/sessions", "/sessions?user_id=ada", "/sessions?status=active", "/backups", "/backups?user_id=ada"):
        service.done("GET", path)
    for path in ("/health", "/readyz", "/metrics"):
        assert service.call("GET", path).ok
    for _ in range(2):
        service.done("POST", f"/session/{uuid}/token", headers={"Idempotency-Key": "once"})
        service.done("POST", f"/session/{uuid}/wake", headers={"Idempotency-Key": "twice"})
    guess = {"Authorization": f"Bearer {uuid}.1.{'0' * 64}"}
    assert requests.get(f"{service.gateway_url}/llm/v1/models", headers=guess, timeout=10).status_code == 401
    assert [each["action"] for each in service.done("GET", f"/audit?uuid={uuid}&key=anonymous")["entries"]] == ["model"]
    with requests.get(
        f"{service.url}/session/{uuid}/events", headers={"X-API-Key": KEY}, stream=True, timeout=10
    ) as answer:
        assert next(answer.iter_lines())
