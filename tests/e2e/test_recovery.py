"""Redis and all volumes are lost at once: what the store has brings every session back, when an operator says so."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import pytest

from tests.model_server import ModelServer
from tests.service import Service
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return model.settings | {"IDLE_TIMEOUT": "0", "RECONCILE_INTERVAL": "1"}


def with_point(service: Service, user_id: str, text: str) -> str:
    """A session with a conversation and a file, which are in a restore point."""
    uuid = str(service.create(user_id, labels={"course": "python-101"})["uuid"])
    (service.files(uuid) / "kept.txt").write_text(text)
    assert service.prompt(uuid, "hello", "first")["state"] == "processed"
    service.save(uuid)
    return uuid


def lose_all(service: Service, *uuids: str) -> None:
    """Asleep, so that no process writes on; then the disk goes, and what Redis knew of it."""
    for uuid in uuids:
        service.done("POST", f"/session/{uuid}/sleep", headers={"Prefer": "wait=60"})
        service.wait_status(uuid, "sleeping", replicas=0)
    shutil.rmtree(service.data_dir / "workspaces")
    (service.data_dir / "workspaces").mkdir(mode=0o700)
    with service.redis() as redis:
        redis.flushall()


def recovered(service: Service, **body: bool) -> dict[str, object]:
    service.done("POST", "/recovery", body)
    last: dict[str, object] = wait_for(
        lambda: found if (found := service.done("GET", "/recovery"))["status"] == "done" else None, "the recovery"
    )
    return last


def test_every_session_comes_back_with_files_and_conversation(service: Service) -> None:
    texts = {with_point(service, f"user{number}", f"text {number}"): f"text {number}" for number in range(2)}
    before = {uuid: service.status(uuid)["session"] for uuid in texts}
    lose_all(service, *texts)

    counted = recovered(service, dry_run=True)
    assert (counted["found"], counted["recovered"], counted["damaged"]) == (2, 0, 0)
    assert service.done("GET", "/sessions")["total"] == 0
    done = recovered(service)
    assert (done["found"], done["recovered"], done["damaged"]) == (2, 2, 0)
    for uuid, text in texts.items():
        session = service.status(uuid)["session"]
        assert (session["status"], session["tier"]) == ("sleeping", "archived")
        same = ("user_id", "labels", "created_at", "idle_timeout", "ttl")
        assert {name: session[name] for name in same} == {name: before[uuid][name] for name in same}
        assert session["files_of"] is not None
        assert service.prompt(uuid, "are you there?", "second")["state"] == "processed"
        assert (service.files(uuid) / "kept.txt").read_text() == text
        prompts = [each["content"] for each in service.conversation(uuid) if each["role"] == "user"]
        assert prompts == ["hello", "are you there?"]
        kinds = {each["type"] for each in service.done("GET", f"/session/{uuid}/events/past?limit=100")["events"]}
        assert "files_restored" in kinds
