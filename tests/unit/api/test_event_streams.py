"""The events of one session: its stream, what that says beyond their log, and what is kept of them, page by page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from app.api import event_streams
from app.api.event_streams import follow, follow_message, revoked
from app.core.access.tokens import AccessToken, Kind
from app.core.composition import Core
from app.core.prompts.inbox import Prompt
from app.core.redis import keys
from app.core.redis.events import REVOKED, SessionEvent
from app.core.sessions.model import Status
from tests.events import Events
from tests.unit.api.helpers import Client, check_problem, move, new_session, terminate


def told(lines: Iterator[str]) -> list[tuple[str, Any]]:
    """The events of a stream that ends."""
    return list(Events("".join(lines).split("\n")))


def messages_of(core: Core, uuid: str) -> list[Any]:
    """The events of messages in the stream of a session that is over, from the first on."""
    terminate(core, uuid)
    events = told(follow(core, core.store.get(uuid), "0-0", announce=False))
    return [data for kind, data in events if kind == "message"]


def prompt(core: Core, uuid: str, **outcome: Any) -> None:
    """One that was taken, delivered and ended."""
    core.inbox.take(uuid, "a long text", "m1", now=time.time())
    core.inbox.delivered(uuid, "m1", time.time())
    core.inbox.finish(uuid, "m1", now=time.time(), **outcome)


def test_a_stream_begins_with_the_state_and_ends_with_the_session(client: Client, core: Core) -> None:
    uuid = new_session(client)
    answer = client.get(f"/session/{uuid}/events")
    assert answer.mimetype == "text/event-stream"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["Cache-Control"] == "no-store"
    events = Events(line for part in answer.response for line in part.decode().split("\n"))
    kind, data = next(events)
    assert (kind, data["status"]) == ("state", "created")
    move(core, uuid, Status.ACTIVE)
    terminate(core, uuid)
    assert [data["status"] for _, data in events] == ["active", "terminating", "terminated"]


def test_a_stream_resumes_after_the_event_it_is_given(client: Client, core: Core, uuid: str) -> None:
    seen = core.events.last_id(uuid)
    terminate(core, uuid)
    text = client.get(f"/session/{uuid}/events", headers={"Last-Event-ID": seen}).text
    assert [line for line in text.split("\n") if line.startswith("data")] == [
        'data: {"status": "terminating", "reason": null, "reason_code": null}',
        'data: {"status": "terminated", "reason": null, "reason_code": null}',
    ]
    assert '"terminated"' in client.get(f"/session/{uuid}/events").text
    last = core.events.last_id(uuid)
    assert client.get(f"/session/{uuid}/events", headers={"Last-Event-ID": last}).text == ""


@pytest.mark.parametrize("last", ["", "x", "1-", "99999999999999999999", "1-99999999999999999999", "1\u0661"])
def test_a_last_event_id_of_elsewhere_is_400(client: Client, uuid: str, last: str) -> None:
    answer = client.get(f"/session/{uuid}/events", headers={"Last-Event-ID": last.encode().decode("latin-1")})
    check_problem(answer, 400, "invalid_request")


@pytest.mark.settings(max_streams=1)
def test_streams_are_bounded_and_free_their_place(client: Client, uuid: str) -> None:
    first = client.get(f"/session/{uuid}/events")
    refused = client.get(f"/session/{uuid}/events")
    check_problem(refused, 503, "too_many_streams")
    assert refused.headers["Retry-After"]
    first.close()
    again = client.get(f"/session/{uuid}/events")
    assert again.status_code == 200
    again.close()


def test_an_event_revokes_the_tokens_of_earlier_access_epochs() -> None:
    event = SessionEvent("1-0", REVOKED, {"access_epoch": 2})
    tokens = [None, *(AccessToken(Kind.TOKEN, "aaaa0001", epoch, 0.0, 1.0) for epoch in (1, 2))]
    assert [revoked(token, event) for token in tokens] == [False, True, False]


@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_ends_with_the_pass_that_opened_it(core: Core, uuid: str, chat: bool) -> None:
    """One opened with a key goes on, and so does one whose pass was made since."""
    old, new = (AccessToken(Kind.TOKEN, uuid, epoch, time.time(), time.time() + 60) for epoch in (0, 1))
    start = core.events.last_id(uuid)
    message = core.inbox.take(uuid, "hello", "m1", now=time.time()).prompt if chat else None
    core.sessions.revoke(uuid)
    record = core.store.get(uuid)

    def lines(held: AccessToken | None) -> Iterator[str]:
        if message:
            return follow_message(core, uuid, message, start, held=held, heartbeat=0.0)
        return follow(core, record, start, announce=False, held=held, heartbeat=0.0)

    assert not any(line.startswith(":") for line in lines(old))
    for held in (None, new):
        assert any(line.startswith(":") for line in islice(lines(held), 10))


def test_a_quiet_stream_shows_that_it_lives_and_ends_when_the_session_vanishes(core: Core, uuid: str) -> None:
    lines = follow(core, core.store.get(uuid), core.events.last_id(uuid), announce=False, heartbeat=0.0)
    assert next(lines).startswith(":")
    core.redis.delete(f"session:{uuid}")
    assert all(line.startswith(":") for line in lines)


def test_the_sessions_stream_has_the_whole_message_too(client: Client, core: Core, uuid: str) -> None:
    """The same as at the end of the stream of the prompt, and each state as it was then."""
    prompt(core, uuid, response={"text": "hello"})
    whole = client.get(f"/session/{uuid}/messages/m1").json
    queued, delivered, processed = messages_of(core, uuid)
    assert processed == whole
    assert delivered == whole | {"state": "delivered", "response": None, "processed_at": None}
    assert queued == delivered | {"state": "queued", "delivered_at": None}


@pytest.mark.parametrize("response", [None, {"text": "half an"}])
def test_a_failed_message_has_its_reason_and_what_there_was_of_its_answer(
    client: Client, core: Core, uuid: str, response: Any
) -> None:
    """Once it has failed, and not in the states before."""
    prompt(core, uuid, reason="No room.", response=response)
    assert client.get(f"/session/{uuid}/messages/m1").json["response"] == response
    states = [(data["state"], data["reason"], data["response"]) for data in messages_of(core, uuid)]
    assert states == [("queued", None, None), ("delivered", None, None), ("failed", "No room.", response)]


def test_the_event_of_a_message_that_has_expired_says_its_state(core: Core, uuid: str) -> None:
    prompt(core, uuid, response={"text": "hello"})
    core.redis.delete(keys.PROMPT.format(uuid=uuid, id="m1"))
    processed = messages_of(core, uuid)[-1]
    assert (processed["state"], processed["created_at"]) == ("processed", None)


def test_a_state_that_was_announced_is_not_told_again(core: Core, uuid: str) -> None:
    """It may have been reached between the reads of the position and of the record."""
    before = core.events.last_id(uuid)
    move(core, uuid, Status.TERMINATING)
    record = core.store.get(uuid)
    move(core, uuid, Status.TERMINATED)
    events = told(follow(core, record, before, announce=True))
    assert [data["status"] for _, data in events] == ["terminating", "terminated"]


def test_a_stream_that_is_resumed_leaves_out_no_state(core: Core, uuid: str) -> None:
    """Not the present one either: its caller has not heard of it."""
    move(core, uuid, Status.TERMINATING)
    before = core.events.last_id(uuid)
    move(core, uuid, Status.TERMINATED)
    events = told(follow(core, core.store.get(uuid), before, announce=False))
    assert [data["status"] for _, data in events] == ["terminated"]


def test_the_stream_of_a_prompt_that_ends_between_two_reads_has_all_the_work(
    core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is read, then the prompt: what happens in between is told too."""
    core.inbox.take(uuid, "hi", "m1", now=time.time())
    progress = core.inbox.progress

    def after_the_work(of: str, message_id: str) -> tuple[Prompt, bool]:
        if not core.inbox.get(of, message_id).finished:
            core.inbox.delivered(of, message_id, time.time())
            core.events.append(of, "token", {"message_id": message_id, "text": "hello"})
            core.inbox.finish(of, message_id, response={"text": "hello"}, now=time.time())
        return progress(of, message_id)

    monkeypatch.setattr(core.inbox, "progress", after_the_work)
    events = told(follow_message(core, uuid, core.inbox.get(uuid, "m1"), core.events.last_id(uuid)))
    shown = [(kind, data.get("state") or data["text"]) for kind, data in events]
    assert shown == [("message", "delivered"), ("token", "hello"), ("message", "processed")]


def test_the_stream_of_a_prompt_whose_end_the_log_has_no_more_ends(
    core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "QUIET", 0.01)
    queued = core.inbox.take(uuid, "hi", "m1", now=time.time()).prompt
    core.inbox.finish(uuid, "m1", response={"text": "hello"}, now=time.time())
    events = told(follow_message(core, uuid, queued, core.events.last_id(uuid)))
    assert [data["state"] for _, data in events] == ["processed"]


# What is kept, page by page


@pytest.fixture
def eventful(core: Core, uuid: str) -> str:
    """A session with 300 events of its agent between its start and its sleep."""
    core.events.append_all(uuid, [("token", {"text": str(number)}) for number in range(300)])
    move(core, uuid, Status.SLEEPING)
    return uuid


def past(client: Client, uuid: str, **query: Any) -> Any:
    answer = client.get(f"/session/{uuid}/events/past", query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json


def test_past_events_come_newest_first_and_in_pages(client: Client, eventful: str) -> None:
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for length in (120, 120, 63):
        page = past(client, eventful, limit=120, **cursor)
        seen += page["events"]
        assert len(page["events"]) == length
        cursor = {"cursor": page["next_cursor"]}
    assert page["next_cursor"] is None
    assert [each["type"] for each in seen if each["type"] != "token"] == ["state"] * 3
    assert [each["data"].get("text") for each in seen[1:301]] == [str(number) for number in reversed(range(300))]
    assert [each["at"] for each in seen] == sorted((each["at"] for each in seen), reverse=True)


def test_past_events_of_some_types_are_found_however_far_back_they_are(client: Client, eventful: str) -> None:
    page = past(client, eventful, type="state,phase")
    assert [each["data"]["status"] for each in page["events"]] == ["sleeping", "active", "created"]
    assert page["next_cursor"] is None
    assert past(client, eventful, type="backup")["events"] == []


@pytest.mark.parametrize(
    "query",
    [
        *({"cursor": each} for each in ("(1", "+", "1-", "99999999999999999999", "1-99999999999999999999", "\u0663")),
        {"type": "STATE"},
        {"limit": "0"},
    ],
)
def test_what_is_no_cursor_type_or_limit_is_refused(client: Client, uuid: str, query: dict[str, str]) -> None:
    check_problem(client.get(f"/session/{uuid}/events/past", query_string=query), 400, "invalid_request")


def test_nothing_is_before_the_smallest_id_and_all_before_the_largest(client: Client, uuid: str) -> None:
    for cursor in ("0", "0-0", "00-00", "0-1", "1"):
        page = past(client, uuid, cursor=cursor)
        assert (page["events"], page["next_cursor"]) == ([], None)
    for cursor in (str(2**64 - 1), f"{2**64 - 1}-{2**64 - 1}"):
        assert past(client, uuid, cursor=cursor, limit=1)["events"] == past(client, uuid, limit=1)["events"] != []
