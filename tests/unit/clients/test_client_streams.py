"""Event streams: what they bring, how they are resumed, and when they end."""

from __future__ import annotations

import itertools
import time

import httpx
import pytest

from tests.unit.clients.api import (
    UUID,
    Api,
    Broken,
    answer,
    message,
    problem,
    queued,
    scaled_down,
    session,
    sse,
    state,
    stream,
)
from workspaces import (
    ConnectionFailed,
    Event,
    HeldEvent,
    InvalidAnswer,
    MessageEvent,
    SessionNotFound,
    StartFailed,
    StateConflict,
    StateEvent,
    TokenEvent,
    WaitTimedOut,
)
from workspaces.sse import MOST_BROKEN, parse


def phase(event_id: str, name: str) -> str:
    return sse(event_id, "phase", phase=name, ms=9)


def token(event_id: str, text: str, message_id: str = "m1") -> str:
    return sse(event_id, "token", message_id=message_id, text=text)


def end(event_id: str, message_id: str = "m1") -> str:
    return sse(event_id, "message", **message(message_id))


OVER = state("9-0", "terminated")


@pytest.mark.parametrize(
    "text",
    [
        "id: 1-0\nevent: x\ndata: {}\n\n",
        "id:1-0\nevent:x\ndata:{}\n\n",
        ": hello\n\nid: 1-0\nretry: 5\nevent: x\ndata: {\ndata: }\n\nevent: unfinished\ndata: {}",
    ],
)
def test_the_wire_format_is_that_of_the_standard(text):
    (event,) = (each for each in parse(text.split("\n")) if each is not None)
    assert (event.id, event.type, event.data) == ("1-0", "x", {})


@pytest.mark.parametrize("data", ["", "7", "[]", "{"])
def test_data_that_is_no_object_is_said_to_be_wrong(data):
    with pytest.raises(InvalidAnswer):
        list(parse([f"data: {data}", ""]))


def test_events_are_objects_of_their_type():
    events = [
        state("1-0", "waking"),
        phase("2-0", "ready"),
        sse("3-0", "idle_warning", sleeps_at="2026-11-20T08:00:00Z", why="idle"),
        sse("4-0", "tool_call", message_id="m1", call_id="c", name="run", arguments={"command": "ls"}),
        sse("5-0", "new_thing", colour="red"),
        OVER,
    ]
    found = list(Api(stream(*events)).client().sessions.events(UUID))
    assert [type(event).__name__ for event in found] == [
        "StateEvent",
        "PhaseEvent",
        "IdleWarningEvent",
        "ToolCallEvent",
        "Event",
        "StateEvent",
    ]
    assert (found[4].id, found[4].type, found[4].raw) == ("5-0", "new_thing", {"colour": "red"})


@pytest.mark.parametrize("breaks", [True, False])
def test_a_stream_goes_on_after_the_last_event_it_had(breaks):
    """Where the connection broke, and where the service ended it."""
    api = Api(
        stream(state("1-0", "waking"), phase("2-0", "ready"), breaks=breaks), stream(state("3-0", "active"), OVER)
    )
    found = [event.id for event in api.client().sessions.events(UUID)]
    assert found == ["1-0", "2-0", "3-0", "9-0"]
    assert [request.headers.get("Last-Event-ID") for request in api.requests] == [None, "2-0"]
    assert len(api.slept) == 1


def test_half_an_event_is_not_delivered_twice():
    half = httpx.Response(200, stream=Broken(state("1-0", "waking").encode(), b"id: 2-0\nevent: state\nda"))
    api = Api(half, stream(state("2-0", "active"), OVER))
    assert [event.id for event in api.client().sessions.events(UUID)] == ["1-0", "2-0", "9-0"]


def test_signs_of_life_keep_a_quiet_stream():
    """It is opened again each hour, however long nothing happens."""
    quiet = [stream(": still here\n\n") for _ in range(3 * MOST_BROKEN)]
    assert len(list(Api(*quiet, stream(OVER)).client().sessions.events(UUID))) == 1


def test_a_stream_that_brings_nothing_is_given_up():
    api = Api(*[httpx.ConnectError("refused")] * (MOST_BROKEN + 1))
    with pytest.raises(ConnectionFailed):
        list(api.client(retries=0).sessions.events(UUID))
    assert sum(api.slept) < 60


def test_a_stream_of_a_session_that_is_gone_says_so():
    api = Api(stream(state("1-0", "active")), problem(404, "session_not_found"))
    with pytest.raises(SessionNotFound):
        list(api.client().sessions.events(UUID))


def test_a_stream_that_is_closed_closes_its_connection():
    closed = []

    class Body(httpx.SyncByteStream):
        def __iter__(self):
            yield from itertools.repeat(state("1-0", "active").encode())

        def close(self):
            closed.append(True)

    with Api(httpx.Response(200, stream=Body())).client().sessions.events(UUID) as events:
        next(events)
        assert not closed
    assert closed


# Waiting for a start


def test_a_wait_ends_when_the_session_is_active():
    seen: list[Event] = []
    events = stream(state("1-0", "waking"), phase("2-0", "ready"), state("3-0", "active"))
    found = Api(events, answer(session())).client().sessions.wait_until_active(UUID, on_event=seen.append)
    assert found.status == "active"
    assert [event.id for event in seen] == ["1-0", "2-0", "3-0"]


def test_a_wait_tells_why_a_start_failed():
    events = stream(state("1-0", "failed", reason="no such image"))
    with pytest.raises(StartFailed, match="no such image") as raised:
        Api(events).client().sessions.wait_until_active(UUID)
    assert raised.value.uuid == UUID


@pytest.mark.parametrize("status", ["sleeping", "terminating", "terminated"])
def test_a_wait_for_a_session_that_does_not_start_ends(status):
    with pytest.raises(StateConflict):
        Api(stream(state("1-0", status))).client().sessions.wait_until_active(UUID)


def test_a_wait_has_a_deadline(monkeypatch):
    now = itertools.count(0.0, 1.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    events = stream(*[phase(f"{n}-0", "x") for n in range(1_000)])
    with pytest.raises(WaitTimedOut):
        Api(events).client().sessions.wait_until_active(UUID, timeout=30)


def test_a_silent_stream_ends_at_the_deadline(monkeypatch):
    """The connection is given no longer than is left."""
    now = itertools.count(0.0, 1.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))

    def silent(request: httpx.Request) -> httpx.Response:
        assert request.extensions["timeout"]["read"] <= 10
        raise httpx.ReadTimeout("silent")

    api = Api(*[silent] * 20)
    with pytest.raises(WaitTimedOut):
        api.client(retries=0).sessions.wait_until_active(UUID, timeout=10)


class Quiet(httpx.SyncByteStream):
    """A body that brings a comment each 15 s of a clock, or breaks off after the read timeout."""

    def __init__(self, clock, request):
        self._clock = clock
        self._timeout = request.extensions["timeout"]["read"]

    def __iter__(self):
        while self._timeout > 15.0:
            self._clock.append(self._clock[-1] + 15.0)
            yield b": still here\n\n"
        self._clock.append(self._clock[-1] + self._timeout)
        raise httpx.ReadTimeout("silent")


@pytest.mark.parametrize("timeout", [5.0, 20.0, 40.0, 100.0])
def test_a_stream_of_comments_ends_at_the_deadline(monkeypatch, timeout):
    """A comment does not give it longer than is left."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[-1])
    begin = stream(state("1-0", "waking"))
    api = Api(begin, *[lambda request: httpx.Response(200, stream=Quiet(clock, request))] * 9)
    with pytest.raises(WaitTimedOut):
        api.client().sessions.wait_until_active(UUID, timeout=timeout)
    assert clock[-1] == pytest.approx(timeout)


# Waiting for a sleep


def test_a_session_is_put_to_sleep_until_no_process_runs():
    api = Api(scaled_down("sleeping", 202), scaled_down("success"), answer(session("sleeping")))
    assert api.client().sessions.put_to_sleep(UUID, timeout=100).status == "sleeping"
    assert [request.headers.get("Prefer") for request in api.requests] == ["wait=60", "wait=60", None]
    assert len(api.slept) == 1


def test_processes_that_do_not_end_are_not_waited_for_without_end(monkeypatch):
    now = itertools.count(0.0, 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with pytest.raises(WaitTimedOut):
        Api(*[scaled_down("sleeping", 202) for _ in range(9)]).client().sessions.put_to_sleep(UUID, timeout=60)


# Making a backup


def backing_up(*events: str) -> Api:
    """A session whose stream has these events after a backup was asked for."""
    return Api(stream(state("1-0", "active")), queued("backup"), *([stream(*events)] if events else []))


def test_a_backup_is_made_and_waited_for():
    """The stream goes on after what was before the backup was asked for."""
    seen: list[Event] = []
    api = backing_up(state("2-0", "sleeping"), sse("3-0", "backup", status="done", name="a.zip"))
    ended = api.client().backups.make(UUID, on_event=seen.append)
    assert (ended.status, ended.name) == ("done", "a.zip")
    assert [event.id for event in seen] == ["2-0", "3-0"]
    assert [request.method for request in api.requests] == ["GET", "POST", "GET"]
    assert api.requests[2].headers["Last-Event-ID"] == "1-0"


def test_a_backup_that_fails_says_why():
    ended = backing_up(sse("3-0", "backup", status="failed", reason="full")).client().backups.make(UUID)
    assert (ended.status, ended.reason) == ("failed", "full")


def test_a_backup_of_a_session_that_ends_is_not_waited_for():
    with pytest.raises(StateConflict):
        backing_up(OVER).client().backups.make(UUID)


def test_a_backup_is_asked_for_however_short_the_wait_is():
    api = backing_up()
    with pytest.raises(WaitTimedOut):
        api.client().backups.make(UUID, timeout=0)
    assert api.turns == []


# Prompts


def test_a_prompts_stream_brings_the_work_and_ends_with_the_answer():
    waking = (state("1-0", "waking"), state("1-1", "active"))
    api = Api(stream(*waking, token("2-0", "hel"), token("3-0", "lo"), end("3-0")))
    found = list(api.client().messages.stream(UUID, "hi", id="m1"))
    assert [event.status for event in found if isinstance(event, StateEvent)] == ["waking", "active"]
    assert "".join(event.text for event in found if isinstance(event, TokenEvent)) == "hello"
    assert isinstance(found[-1], MessageEvent) and found[-1].text == "hello"
    assert api.bodies == [{"message": "hi", "id": "m1"}]
    assert api.requests[0].headers["Accept"] == "text/event-stream"


def test_a_prompts_stream_that_breaks_goes_on_where_it_broke():
    """By the session's events, so that nothing is lost and the prompt is not sent again. Those of others are left
    out."""
    api = Api(
        stream(token("1-0", "hel"), breaks=True),
        stream(token("2-0", "x", "m2"), phase("2-1", "x"), token("3-0", "lo"), end("4-0", "m2"), end("5-0")),
        answer(message("m1", "delivered")),
        answer(message("m1")),
    )
    found = list(api.client().messages.stream(UUID, "hi", id="m1"))
    assert [event.id for event in found] == ["1-0", "3-0", "5-0"]
    assert [request.method for request in api.requests] == ["POST", "GET", "GET", "GET"]
    assert api.requests[1].headers["Last-Event-ID"] == "1-0"


@pytest.mark.parametrize(
    ("status", "found", "kind", "text"),
    [("active", message("m1"), MessageEvent, "hello"), ("sleeping", message("m1", "queued"), HeldEvent, "")],
)
def test_how_a_prompt_went_on_while_the_connection_was_down_is_found(status, found, kind, text):
    """Redis may keep none of its events. It has its answer, or its session fell asleep."""
    api = Api(stream(token("1-0", "hel"), breaks=True), stream(state("2-0", status)), answer(found))
    *_, last = api.client().messages.stream(UUID, "hi", id="m1")
    assert isinstance(last, MessageEvent)
    assert (type(last), last.text) == (kind, text)


def test_a_prompt_that_is_held_back_ends_the_stream():
    held = sse("2-0", "held", **message("m1", "queued"), session="sleeping", detail="It waits.")
    *_, last = Api(stream(state("1-0", "sleeping"), held)).client().messages.stream(UUID, "hi", id="m1")
    assert isinstance(last, HeldEvent)
    assert (last.finished, last.detail) == (False, "It waits.")


def test_a_prompt_that_was_never_taken_raises():
    with pytest.raises(ConnectionFailed):
        list(Api(httpx.ConnectError("refused")).client(retries=0).messages.stream(UUID, "hi"))


def test_a_repeated_prompt_has_the_same_id():
    """The service takes it once."""
    api = Api(httpx.ReadTimeout("lost"), stream(end("1-0")))
    list(api.client().messages.stream(UUID, "hi"))
    assert api.bodies[0] == api.bodies[1]
    assert api.bodies[0]["id"]


def test_a_prompt_is_waited_for():
    api = Api(
        stream(state("1-0", "active"), end("2-0")), answer(message("m1", "delivered")), *[answer(message("m1"))] * 2
    )
    assert api.client().messages.wait_until_finished(UUID, "m1").text == "hello"


def test_a_prompt_that_finished_before_is_not_waited_for():
    api = Api(stream(state("1-0", "active")), *[answer(message("m1"))] * 2)
    assert api.client().messages.wait_until_finished(UUID, "m1").finished


def test_a_wait_for_a_prompt_ends_when_its_session_sleeps():
    api = Api(stream(state("1-0", "sleeping")), *[answer(message("m1", "queued"))] * 2)
    with pytest.raises(WaitTimedOut, match="wake it"):
        api.client().messages.wait_until_finished(UUID, "m1")


def test_the_feed_of_all_sessions_goes_on_where_it_broke():
    about = {"uuid": UUID, "user_id": "ada", "at": "2026-11-20T08:00:00.000Z"}
    api = Api(
        stream(sse("1-0", "begin", complete=True), sse("2-0", "state", status="active", **about), breaks=True),
        stream(sse("2-0", "begin", complete=False), sse("3-0", "message", message_id="m1", state="processed", **about)),
    )
    with api.client().feed.follow(user_id="ada", label=["a=b", "c=d"]) as events:
        found = [next(events) for _ in range(4)]
    assert [type(event).__name__ for event in found] == ["FeedBegin", "FeedState", "FeedBegin", "FeedMessage"]
    assert [str(request.url.query, "ascii") for request in api.requests] == ["user_id=ada&label=a%3Db&label=c%3Dd"] * 2
    assert api.requests[1].headers["Last-Event-ID"] == "2-0"
