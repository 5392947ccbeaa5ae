"""The archive, with everything running: an unused session leaves the disk, and comes back as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.model_server import ModelServer
from tests.service import Service
from tests.waiting import wait_for

VISIT = {"Accept": "text/html", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document", "Sec_Fetch_Site": "none"}


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return model.settings | {"IDLE_TIMEOUT": "0"}


def session_of(service: Service, uuid: str) -> Any:
    return service.status(uuid)["session"]


def archived(service: Service, uuid: str) -> Any:
    """Put it to sleep, and wait until nobody's use has archived it."""
    service.done("POST", f"/session/{uuid}/sleep")

    def gone() -> Any:
        session = session_of(service, uuid)
        there = (service.data_dir / "workspaces" / uuid).exists()
        return session if session["tier"] == "archived" and not there else None

    session = wait_for(gone, "the session to be archived", lambda: str(service.status(uuid)))
    assert session["status"] == "sleeping"
    return session


def test_an_unused_session_leaves_the_disk_and_comes_back_by_a_prompt_and_by_a_visit(
    service: Service, model: ModelServer
) -> None:
    """And after Redis was lost, as which session it was: its files, its conversation, its labels."""
    made = service.create("ada", ttl=2, labels={"course": "python-101"})
    uuid = made["uuid"]
    files = service.files(uuid)
    (files / "kept.txt").write_text("kept")
    assert service.prompt(uuid, "hello", "first")["state"] == "processed"
    before = service.conversation(uuid)

    first = archived(service, uuid)
    assert not files.parent.exists()
    assert service.conversation(uuid) == before
    assert (first["archives_at"], first["labels"]) == (None, {"course": "python-101"})
    assert service.prompt(uuid, "are you there?", "second")["state"] == "processed"
    assert (files / "kept.txt").read_text() == "kept"
    assert session_of(service, uuid)["tier"] == "hot"
    told = service.done("GET", f"/session/{uuid}/events/past?type=phase&limit=1000")["events"]
    brings = {each["data"]["phase"]: each["data"] for each in told if "files" in each["data"]}
    assert brings.keys() == {"restoring", "restored"}
    assert all(each["files"] and each["bytes"] and each["of"] for each in brings.values())
    assert len(service.conversation(uuid)) > len(before)

    (files / "kept.txt").write_text("kept again")
    archived(service, uuid)
    with service.redis() as redis:
        redis.flushall()
    wait_for(lambda: service.call("GET", f"/session/{uuid}").status_code == 200, "the session to be back")
    back = session_of(service, uuid)
    assert (back["status"], back["tier"], back["user_id"], back["ttl"]) == ("sleeping", "archived", "ada", 2)
    assert (back["created_at"], back["labels"]) == (first["created_at"], {"course": "python-101"})

    page = visited(service, made)
    assert "archive" in page.text and "takes longer" in page.text
    service.wait_status(uuid, "active")
    assert (files / "kept.txt").read_text() == "kept again"
    assert len(service.conversation(uuid)) > len(before)
    service.done("DELETE", f"/session/{uuid}?backup=false")
    assert list((service.data_dir / "backups").glob(f"{uuid}/archived.json")) == []


def visited(service: Service, session: Mapping[str, str]) -> requests.Response:
    """What a person's browser gets at the workspace's address, after a login link let it in."""
    link = urlsplit(service.link(session["uuid"]))
    let_in = service.workspace(session, f"{link.path}?{link.query}", **VISIT)
    (cookie,) = let_in.cookies.items()
    return service.workspace(session, Cookie="=".join(cookie), **VISIT)
