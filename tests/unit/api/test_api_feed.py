"""GET /events: who sees which sessions' events, what they say, and how the stream resumes and ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask

from app.api.feed import lines
from app.api.feed_schemas import FEED_SCHEMAS
from app.core.composition import Core
from app.core.redis import keys
from app.core.sessions.model import Status
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    KEYS,
    SERVICE_KEY,
    Client,
    add_backup,
    check_problem,
    key_entry,
    keyed,
    move,
    new_session,
    terminate,
)


class Stream:
    """An open stream, read event by event."""

    def __init__(self, answer: Any) -> None:
        assert (answer.status_code, answer.mimetype) == (200, "text/event-stream"), answer.text
        self._pieces = answer.response
        self.last_id = ""

    def event(self) -> tuple[str, dict[str, Any]]:
        """The next event: its type and data, which is as documented."""
        piece = ""
        while not piece.startswith("id:"):
            piece = next(self._pieces)
            piece = piece.decode() if isinstance(piece, bytes) else piece
        fields = dict(line.split(": ", 1) for line in piece.splitlines() if line)
        kind, data, self.last_id = fields["event"], json.loads(fields["data"]), fields["id"]
        assert FEED_SCHEMAS[kind]().validate(data) == {}, (kind, data)
        return kind, data

    def told(self, count: int) -> list[tuple[str, str]]:
        """Of the next events: the session and its status or state."""
        found = [self.event()[1] for _ in range(count)]
        return [(each["uuid"], each.get("status") or each["state"]) for each in found]


@contextmanager
def following(client: Client, query: str = "", complete: bool = True, **headers: str) -> Iterator[Stream]:
    answer = client.get(f"/events{query}", headers={name.replace("_", "-"): text for name, text in headers.items()})
    try:
        stream = Stream(answer)
        assert stream.event() == ("begin", {"complete": complete})
        yield stream
    finally:
        answer.close()


def test_states_backups_and_ends_of_prompts_of_all_sessions_are_told(client: Client, core: Core) -> None:
    with following(client) as stream:
        first = new_session(client, "ada")
        second = new_session(client, "bob")
        move(core, first, Status.ACTIVE)
        move(core, second, Status.FAILED, reason="no room", reason_code="no_capacity")
        core.events.append(first, "backup", {"status": "failed", "reason": "the disk is full"})
        done = ("backup", {"status": "done", "name": add_backup(core, first).name, "unreadable": ["/app/x"]})
        core.store.change(first, time.time(), backup=done[1]["name"], event=done)
        begun = time.time()
        assert stream.told(3) == [(first, "created"), (second, "created"), (first, "active")]
        kind, failed = stream.event()
        at = failed.pop("at")
        assert (kind, failed) == (
            "state",
            {"uuid": second, "user_id": "bob", "status": "failed", "reason": "no room", "reason_code": "no_capacity"},
        )
        assert at.endswith("Z")
        assert at[:10] == time.strftime("%Y-%m-%d", time.gmtime(begun))
        kind, backup = stream.event()
        assert (kind, backup["reason"]) == ("backup", "the disk is full")
        kind, backup = stream.event()
        assert (kind, backup["name"], "unreadable" in backup) == ("backup", done[1]["name"], False)


def test_of_prompts_the_end_is_told_of_steps_the_archive_and_of_the_agents_work_nothing(
    client: Client, core: Core, uuid: str
) -> None:
    with following(client) as stream:
        now = time.time()
        core.inbox.take(uuid, "hello", "m1", now=now)
        core.inbox.delivered(uuid, "m1", now=now)
        core.events.append_all(uuid, [("token", {"text": "x"}), ("tool_call", {"name": "read"}), ("phase", {"ms": 1})])
        core.inbox.finish(uuid, "m1", now=now, reason="the model refused")
        core.events.append_all(uuid, [("phase", {"phase": each, "ms": 1}) for each in ("stopped", "archived")])
        terminate(core, uuid)
        kind, data = stream.event()
        assert (kind, data["message_id"], data["state"]) == ("message", "m1", "failed")
        assert data["reason"] == "the model refused"
        kind, data = stream.event()
        assert (kind, data["uuid"], data.get("phase"), "ms" in data) == ("phase", uuid, "archived", False)
        assert stream.told(2) == [(uuid, "terminating"), (uuid, "terminated")]


@pytest.fixture
def three(client: Client, service: Client) -> dict[str, str]:
    """Sessions by who made them: the admin for ada, the service's key for ada and for a user of the bound key."""
    return {
        "admin": new_session(client, "ada", labels={"course": "a", "team": "x"}),
        "service": new_session(service, "ada", labels={"course": "a"}),
        "bound": new_session(service, "course-1"),
    }


@pytest.mark.parametrize(
    ("key", "query", "seen", "marker"),
    [
        (ADMIN_KEY, "", ["admin", "service", "bound"], {}),
        (ADMIN_KEY, "?user_id=ada", ["admin", "service"], {}),
        (ADMIN_KEY, "?label=course=a", ["admin", "service"], {"course": "a"}),
        (ADMIN_KEY, "?label=course=a&label=team=x", ["admin"], {"course": "a", "team": "x"}),
        (ADMIN_KEY, "?label=course=b", [], {"course": "b"}),
        (SERVICE_KEY, "", ["service", "bound"], {}),
        (SERVICE_KEY, "?user_id=ada", ["admin", "service"], {}),
        (SERVICE_KEY, "?label=team=x", [], {"team": "x"}),
        (BOUND_KEY, "", ["bound"], {}),
        (BOUND_KEY, "?user_id=course-1", ["bound"], {}),
        (BOUND_KEY, "?user_id=course-1&label=course=a", [], {"course": "a"}),
    ],
)
def test_a_key_sees_what_it_may_and_asked_for(
    app: Flask, core: Core, three: dict[str, str], key: str, query: str, seen: list[str], marker: dict[str, str]
) -> None:
    with following(keyed(app, key), query) as stream:
        for uuid in three.values():
            move(core, uuid, Status.ACTIVE)
        assert stream.told(len(seen)) == [(three[name], "active") for name in seen]
        # Nothing else was on its way: the next event is of a session that this stream shows.
        owner = "course-1" if key == BOUND_KEY else "ada"
        last = new_session(keyed(app, SERVICE_KEY), owner, labels=marker)
        assert stream.told(1) == [(last, "created")]


@pytest.mark.parametrize(
    "query",
    ["?user_id=a%00", "?label=x", "?a=b", "?user_id=ada&user_id=bob", "?limit=1", "?label=" + "a=b&label=" * 33],
)
def test_a_query_it_does_not_understand_is_refused(client: Client, query: str) -> None:
    check_problem(client.get(f"/events{query}"), 400, "invalid_request")


@pytest.mark.parametrize("event_id", ["x", "1-", "-1", "1-2-3", "99999999999999999999-0", ""])
def test_a_foreign_event_id_is_refused(client: Client, event_id: str) -> None:
    check_problem(client.get("/events", headers={"Last-Event-ID": event_id}), 400, "invalid_request")


def test_a_stream_resumes_where_it_was_left(client: Client, core: Core, uuid: str) -> None:
    """One that told nothing by the id of its first event."""
    with following(client) as stream:
        left = stream.last_id
    move(core, uuid, Status.SLEEPING)
    with following(client, Last_Event_ID=left) as stream:
        assert stream.told(1) == [(uuid, "sleeping")]
        left = stream.last_id
    move(core, uuid, Status.WAKING)
    with following(client, Last_Event_ID=left) as stream:
        move(core, uuid, Status.ACTIVE)
        assert stream.told(2) == [(uuid, "waking"), (uuid, "active")]


def test_a_stream_says_that_it_has_lost_events(client: Client, core: Core, uuid: str) -> None:
    with following(client) as stream:
        left = stream.last_id
    move(core, uuid, Status.SLEEPING)
    core.redis.xtrim(keys.FEED, maxlen=1, approximate=False)
    with following(client, complete=False, Last_Event_ID=left) as stream:
        assert stream.told(1) == [(uuid, "sleeping")]


def test_a_quiet_stream_has_a_comment_now_and_then(core: Core) -> None:
    quiet = lines(core.feed, core.feed.last_id(), True, lambda event: True, heartbeat=0.02)
    assert next(quiet).startswith("id: 0-0\nevent: begin")
    assert [next(quiet) for _ in range(2)] == [": still here\n\n"] * 2


@pytest.mark.settings(
    max_streams=3,
    max_concurrent_per_user=1,
    api_keys=json.dumps([key_entry("backend", SERVICE_KEY, max_concurrent=1), *KEYS[1:]]),
)
def test_the_limits_of_streams_hold(client: Client, service: Client, bound: Client, core: Core) -> None:
    with following(service):
        check_problem(service.get("/events"), 429, "too_many_streams")
        with following(client, "?user_id=ada"):
            check_problem(client.get("/events?user_id=ada"), 429, "too_many_streams")
            with following(bound):
                check_problem(client.get("/events"), 503, "too_many_streams")
    with following(service), following(client):
        assert core.feed.last_id() == "0-0"


def test_restore_points_and_lost_volumes_are_told(client: Client, core: Core, uuid: str) -> None:
    """With when the files are, by which is known what is lost. A point that found nothing new is none."""
    point, at = f"point-{uuid}-p000000000000001", "2026-01-01T10:00:00Z"
    made = {"status": "done", "restore_point": "p000000000000001", "saved_at": at}
    told: list[tuple[str, dict[str, Any]]] = [
        ("restore_point", made),
        ("restore_point", {"status": "failed", "reason": "the store is away"}),
        ("drill_failed", {"restore_point": "p000000000000001", "reason": "2 files did not come back as they were."}),
        ("files_lost", {"restore_from": point, "files_of": at}),
        ("files_lost", {"restore_from": point, "files_of": None, "kept": "user-k3v9x0qa"}),
        ("files_restored", {"restore_from": point, "files_of": at, "fell_back": False}),
        ("rolled_back", {"status": "done", "restore_point": "p000000000000001", "files_of": at, "fell_back": False}),
        ("rolled_back", {"status": "failed", "restore_point": "p000000000000001", "reason": "the store is away"}),
    ]
    more: dict[str, dict[str, Any]] = {
        "drill_failed": {"differences": ["a name"]},
        "restore_point": {"unchanged": False},
    }
    with following(client) as stream:
        core.events.append(uuid, "restore_point", {**made, "unchanged": True})
        for kind, data in told:
            core.events.append(uuid, kind, data | more.get(kind, {}))
        for kind, data in told:
            seen_kind, seen = stream.event()
            assert (seen_kind, seen["uuid"], seen["user_id"]) == (kind, uuid, "ada")
            assert data.items() <= seen.items()
            assert "differences" not in seen
