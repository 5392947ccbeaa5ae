"""What a workspace uses, as it reports it: its editor's processes, its agent's with their commands, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.model_server import ModelServer
from tests.service import Service
from tests.waiting import wait_for

MB = 1_000_000
WRITTEN = 50 * MB
BUSY = "run: timeout 250 sh -c 'while :; do :; done'"
PATIENCE = 200.0
"""s until a workspace has reported, which it does once a minute."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return model.settings | {"AGENT_COMMAND_TIMEOUT": "300"}


def metrics(service: Service, uuid: str) -> Any:
    return service.done("GET", f"/session/{uuid}/metrics")


def test_an_awake_workspace_shows_what_it_uses_and_a_sleeping_one_its_disk(service: Service) -> None:
    uuid = service.create("ada")["uuid"]
    (service.files(uuid) / "large").write_bytes(b"x" * WRITTEN)
    service.prompt(uuid, BUSY, "m1", prefer="respond-async")

    def reported() -> Any:
        now = metrics(service, uuid)["now"]
        return now if now["cpu"] > 0.1 and now["disk_bytes"] > WRITTEN else None

    now = wait_for(reported, "the workspace's report", lambda: str(metrics(service, uuid)["now"]), PATIENCE)
    assert 50 * MB < now["memory_bytes"] < 5_000 * MB, "an editor and an agent"
    assert now["cpu"] < 16
    assert WRITTEN < now["disk_bytes"] < WRITTEN + 500 * MB
    service.done("POST", f"/session/{uuid}/scale-down")
    asleep = metrics(service, uuid)
    assert (asleep["now"]["cpu"], asleep["now"]["memory_bytes"]) == (0.0, 0)
    assert asleep["now"]["disk_bytes"] == pytest.approx(now["disk_bytes"], abs=20 * MB)
    assert len(asleep["hour"]) == 60
    service.done("DELETE", f"/session/{uuid}?erase=true")
    assert list(service.redis().scan_iter(f"*{uuid}*resources")) == []
