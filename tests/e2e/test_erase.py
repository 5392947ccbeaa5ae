"""A session that is erased, as the whole service does it on one machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from tests.model_server import ModelServer
from tests.service import KEY, Service
from tests.waiting import wait_for

USER = "auth0|ada:lovelace@example.com"
CANARY = "the-canary-in-the-prompt"


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return model.settings


def call(service: Service, method: str, path: str, status: int, **body: str) -> dict[str, object]:
    headers = {"X-API-Key": KEY, "Prefer": "wait=60"}
    answer = requests.request(method, service.url + path, json=body or None, headers=headers, timeout=90)
    assert answer.status_code == status, answer.text
    found: dict[str, object] = answer.json()
    return found


def left(service: Service, uuid: str) -> list[str]:
    """The paths in the data folder that name the session, but for what fences it off."""
    data = Path(service.data_dir)
    found = [str(path.relative_to(data)) for path in data.rglob(f"*{uuid}*")]
    return [path for path in found if not path.startswith(("locks/", "trash/"))]


def test_nothing_is_left_of_a_session_with_backups_and_a_conversation(service: Service) -> None:
    """The conversation was beside the project, and came back beside it in a copy for the same user only."""
    uuid = str(call(service, "POST", "/session/create", 201, user_id=USER)["uuid"])
    call(service, "POST", f"/session/{uuid}/chat", 200, message=f"remember {CANARY}")
    place = Path(service.data_dir) / "workspaces" / uuid
    assert CANARY in (place / ".session" / "history.json").read_text()
    assert not (place / "app" / ".session").exists()
    name = call(service, "POST", f"/session/{uuid}/backup", 200)["backup"]
    copies = [str(call(service, "POST", f"/backups/{name}/restore", 201, user_id=who)["uuid"]) for who in (USER, "eve")]
    told = [Path(service.data_dir) / "workspaces" / copy / ".session" / "history.json" for copy in copies]
    wait_for(lambda: all(path.exists() for path in told), "the agents of the copies")
    assert [CANARY in path.read_text() for path in told] == [True, False]
    answer = call(service, "DELETE", f"/session/{uuid}?erase=true", 200)
    assert answer["status"] == "terminated"
    assert left(service, uuid) == []
    assert call(service, "GET", f"/session/{uuid}/backups", 200)["backups"] == []
    assert call(service, "DELETE", f"/session/{uuid}?erase=true", 200) == answer
    entries = call(service, "GET", f"/audit?uuid={uuid}", 200)["entries"]
    assert isinstance(entries, list) and {entry["user_id"] for entry in entries} == {f"erased-{uuid}"}
