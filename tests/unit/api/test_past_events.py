"""What is kept of a session's events, read page by page."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.composition import Core
from app.core.sessions.model import Status
from tests.unit.api.helpers import Client, check_problem, move, new_session


@pytest.fixture
def uuid(client: Client, core: Core) -> str:
    """A session with 300 events of its agent between its start and its sleep."""
    made = new_session(client)
    move(core, made, Status.ACTIVE, event=("state", {"status": "active"}))
    core.events.append_all(made, [("token", {"text": str(number)}) for number in range(300)])
    move(core, made, Status.SLEEPING, event=("state", {"status": "sleeping"}))
    return made


def past(client: Client, uuid: str, **query: Any) -> Any:
    answer = client.get(f"/session/{uuid}/events/past", query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json


def test_events_come_newest_first_and_in_pages(client: Client, uuid: str) -> None:
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = past(client, uuid, limit=120, **cursor)
        seen += page["events"]
        if page["next_cursor"] is None:
            break
        assert len(page["events"]) == 120
        cursor = {"cursor": page["next_cursor"]}
    assert [each["type"] for each in seen if each["type"] != "token"] == ["state"] * 3
    assert [each["data"].get("text") for each in seen[1:301]] == [str(number) for number in reversed(range(300))]
    assert [each["at"] for each in seen] == sorted((each["at"] for each in seen), reverse=True)


def test_events_of_some_types_are_found_however_far_back_they_are(client: Client, uuid: str) -> None:
    page = past(client, uuid, type="state,phase")
    assert [each["data"]["status"] for each in page["events"]] == ["sleeping", "active", "created"]
    assert page["next_cursor"] is None
    assert past(client, uuid, type="backup")["events"] == []


def test_what_is_no_cursor_and_no_session_is_refused(client: Client, uuid: str) -> None:
    cursors = [
        {"cursor": each} for each in ("(1", "+", "1-", "99999999999999999999", "1-99999999999999999999", "\u0663")
    ]
    for query in (*cursors, {"type": "STATE"}, {"limit": "0"}):
        answer = client.get(f"/session/{uuid}/events/past", query_string=query)
        check_problem(answer, 400, "invalid_request")
    check_problem(client.get("/session/aaaaaaaa/events/past"), 404, "session_not_found")


@pytest.mark.parametrize("cursor", ["0", "0-0", "00-00", "0-1", "1"])
def test_nothing_is_before_the_smallest_id(client: Client, uuid: str, cursor: str) -> None:
    page = past(client, uuid, cursor=cursor)
    assert (page["events"], page["next_cursor"]) == ([], None)


@pytest.mark.parametrize("cursor", [str(2**64 - 1), f"{2**64 - 1}-{2**64 - 1}"])
def test_all_is_before_the_largest_id(client: Client, uuid: str, cursor: str) -> None:
    assert past(client, uuid, cursor=cursor, limit=1)["events"] == past(client, uuid, limit=1)["events"]
