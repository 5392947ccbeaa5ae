"""Going back with a real agent: files and conversation agree, and what was rolled back never runs again."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from app.core.storage.archive_keys import new_key
from tests.faults.counting import counting
from tests.model_server import Answer, ModelServer, last_prompt
from tests.service import Service
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WAIT = {"Prefer": "wait=60"}


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer(rules=[counting]) as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer) -> Iterator[Service]:
    settings = model.settings | {"ARCHIVE_KEY": new_key()}
    # The first point of the test is used at its end.
    settings |= {"RESTORE_POINT_KEEP": '{"last": 20}'}
    running = Service(tmp_path_factory.mktemp("service"), code_server, **settings)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def count(service: Service, uuid: str, number: int) -> None:
    """Have the agent write this number into a file."""
    service.prompt(uuid, f"count {number}", f"m{number}")
    assert service.ended(uuid, f"m{number}")["state"] == "processed"


def counted(service: Service, uuid: str) -> str:
    return (service.files(uuid) / "counted").read_text()


def prompts(service: Service, uuid: str, until: str = "9") -> list[str]:
    """The prompts in the conversation, in order: those that the agent had by then."""
    listed: list[Any] = service.done("GET", f"/session/{uuid}/messages?limit=1000")["messages"]
    return [each["id"] for each in listed if each["role"] == "user" and each["at"] <= until]


def says(service: Service, uuid: str, *wanted: str) -> None:
    """The conversation comes to have these prompts: its agent may still be loading it."""
    wait_for(lambda: prompts(service, uuid) == [*wanted], "the conversation", lambda: str(prompts(service, uuid)))


def rolled_back(service: Service, uuid: str, *numbers: int) -> list[bool]:
    return [service.done("GET", f"/session/{uuid}/messages/m{each}")["rolled_back_at"] is not None for each in numbers]


def test_a_session_goes_back_and_forth_and_forks(service: Service, model: ModelServer) -> None:
    uuid = service.create()["uuid"]
    count(service, uuid, 1)
    point = service.save(uuid)
    count(service, uuid, 2)
    held = threading.Event()
    before = len(model.requests)
    model.script(Answer(text="too late", hold=held))
    service.prompt(uuid, "count 3", "m3", prefer="respond-async")
    model.wait_for_requests(before + 1)
    try:
        done = service.done("POST", f"/session/{uuid}/rollback", {"restore_point": point}, headers=WAIT)
    finally:
        held.set()
    assert (done["session"]["status"], done["session"]["rolled_back"]["restored"]) == ("active", "restore_point")
    assert counted(service, uuid) == "1\n"
    says(service, uuid, "m1")
    assert rolled_back(service, uuid, 1, 2, 3) == [False, True, True]
    assert service.done("GET", f"/session/{uuid}/messages/m3")["state"] == "failed"

    # It goes on from there, and what was rolled back does not run again.
    count(service, uuid, 4)
    assert counted(service, uuid) == "1\n4\n"
    assert prompts(service, uuid) == ["m1", "m4"]
    assert {last_prompt(each.body) for each in model.requests[before + 1 :]} == {"count 4"}

    # The state before the rollback is there too: back to it, asleep.
    saved = done["session"]["rolled_back"]["saved"]
    service.done("POST", f"/session/{uuid}/sleep", headers=WAIT)
    service.wait_status(uuid, "sleeping", replicas=0)
    slept = service.done("POST", f"/session/{uuid}/rollback", {"restore_point": saved}, headers=WAIT)
    assert slept["session"]["status"] == "sleeping"
    assert counted(service, uuid) == "1\n2\n"
    assert rolled_back(service, uuid, 4) == [True]
    before = len(model.requests)
    count(service, uuid, 5)
    assert counted(service, uuid) == "1\n2\n5\n"
    assert prompts(service, uuid) == ["m1", "m2", "m3", "m5"]
    assert {last_prompt(each.body) for each in model.requests[before:]} == {"count 5"}

    # A fork for the same user has the conversation up to its point, one for another user only the project.
    (service.data_dir / "workspaces" / uuid / "home" / "mine").write_text("home")
    now = service.save(uuid)
    own = service.done("POST", f"/session/{uuid}/fork", {"restore_point": point}, headers=WAIT)["uuid"]
    other = service.done("POST", f"/session/{uuid}/fork", {"restore_point": now, "user_id": "ben"}, headers=WAIT)[
        "uuid"
    ]
    assert (counted(service, own), counted(service, other)) == ("1\n", "1\n2\n5\n")
    says(service, own, "m1")
    assert prompts(service, other) == []
    assert not (service.data_dir / "workspaces" / other / "home" / "mine").exists()
    count(service, own, 1)
    assert (counted(service, own), counted(service, uuid)) == ("1\n1\n", "1\n2\n5\n")

    # By message: the agent noted what was there before it.
    undone = service.done("POST", f"/session/{uuid}/rollback", {"message_id": "m5"}, headers=WAIT)
    assert undone["session"]["rolled_back"]["restored"] == "checkpoint"
    assert counted(service, uuid) == "1\n2\n"
    assert prompts(service, uuid) == ["m1", "m2", "m3"]
    assert rolled_back(service, uuid, 5) == [True]


BIG = 256 * 1024 * 1024
"""Bytes that a point takes seconds to read."""


def test_a_point_that_was_made_while_prompts_ran_is_of_one_moment(service: Service) -> None:
    """The conversation is read after the project. It ends where the point begins, and what ended later is marked; what
    is from before a prompt has none of its work."""
    uuid = service.create()["uuid"]
    count(service, uuid, 1)
    earlier = service.save(uuid)
    (service.files(uuid) / "big").write_bytes(os.urandom(BIG))

    made: list[str] = []
    saving = threading.Thread(target=lambda: made.append(service.save(uuid)))
    saving.start()
    numbers = itertools.count(2)
    while saving.is_alive():
        count(service, uuid, next(numbers))
    last = next(numbers) - 1
    point = service.done("GET", f"/session/{uuid}/restore-points")["restore_points"][0]
    assert made == [point["id"]]
    said = {number: service.done("GET", f"/session/{uuid}/messages/m{number}") for number in range(1, last + 1)}
    later = [number for number, each in said.items() if each["processed_at"] > point["created_at"]]
    begun = prompts(service, uuid, until=point["created_at"])
    assert len(later) > 2, (point, said)

    wanted = {"message_id": f"m{later[1]}"}
    fork = service.done("POST", f"/session/{uuid}/fork", wanted, headers=WAIT)
    assert (fork["restore_point"], counted(service, fork["uuid"])) == (earlier, "1\n")
    says(service, fork["uuid"], "m1")
    fork = service.done("POST", f"/session/{uuid}/fork", {"restore_point": point["id"]}, headers=WAIT)
    says(service, fork["uuid"], *begun)
    service.done("POST", f"/session/{uuid}/rollback", {"restore_point": point["id"]}, headers=WAIT)
    says(service, uuid, *begun)
    assert rolled_back(service, uuid, *said) == [number in later for number in said]
    assert counted(service, uuid).split()[: -1 + later[0]] == [str(number) for number in range(1, later[0])]
