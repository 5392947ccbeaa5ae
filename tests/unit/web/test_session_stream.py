"""The stream of the list: what it makes of the API's."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.web.api import Api, Streamed
from app.web.session_stream import lines
from tests.unit.web.conftest import Visitor

UUID = "k3v9x0qa"


def event(kind: str, data: str, event_id: str = "1-0") -> bytes:
    return f"id: {event_id}\nevent: {kind}\ndata: {data}\n\n".encode()


def names(*pieces: bytes, late: bool = False) -> list[str]:
    text = b"".join(lines(pieces, late=late)).decode()
    return [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event: ")]


def test_a_change_of_state_names_the_session_and_the_counts() -> None:
    assert names(event("state", f'{{"uuid": "{UUID}", "status": "active"}}')) == [UUID, "counts"]
    assert names(event("state", f'{{"uuid": "{UUID}", "status": "created"}}')) == [UUID, "counts", "new"]
    assert names(event("phase", f'{{"uuid": "{UUID}", "phase": "archived"}}')) == [UUID, "counts"]
    assert names(event("message", f'{{"uuid": "{UUID}"}}')) == [UUID]


def test_every_event_has_data_and_the_id_to_resume_at() -> None:
    """A browser passes no event on that has no data."""
    [text] = lines([event("backup", f'{{"uuid": "{UUID}"}}', "17-3")], late=False)
    assert text.decode() == f"id: 17-3\nevent: {UUID}\ndata: 1\n\n"


@pytest.mark.parametrize("uuid", ['"new\\nevent: counts"', '"counts"', "7", "null", '["k3v9x0qa"]'])
def test_what_is_no_uuid_becomes_no_name(uuid: str) -> None:
    assert names(event("state", f'{{"uuid": {uuid}}}')) == []


def test_pieces_need_not_be_whole_events() -> None:
    text = event("message", f'{{"uuid": "{UUID}"}}') + b": still here\n\n" + event("message", '{"uuid": "zzzzzzzz"}')
    assert names(*(text[at : at + 1] for at in range(len(text)))) == [UUID, "zzzzzzzz"]
    assert b": still here\n\n" in list(lines([text], late=False))


def test_an_endless_event_ends_the_stream() -> None:
    endless: Iterator[bytes] = itertools.repeat(b"x" * 65_536)
    assert list(lines(endless, late=False)) == []


@pytest.mark.parametrize(
    ("late", "complete", "wanted"), [(True, "false", "again"), (True, "true", "begin"), (False, "false", "begin")]
)
def test_a_page_that_missed_events_reloads_its_rows(late: bool, complete: str, wanted: str) -> None:
    assert names(event("begin", f'{{"complete": {complete}}}'), late=late) == [wanted]


class Asked:
    """An API that has a stream to give, or not; what it was asked."""

    def __init__(self, status: int) -> None:
        self.status, self.calls, self.closed = status, [], False  # type: ignore[var-annotated]

    def open(self, method: str, path: str, **options: Any) -> Streamed:
        self.calls.append((method, path, options["query"], options["headers"]))

        def pieces() -> Iterator[bytes]:
            try:
                yield event("state", f'{{"uuid": "{UUID}"}}')
            finally:
                self.closed = True

        headers = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        return Streamed(self.status, headers, pieces())


def test_the_stream_resumes_where_the_browser_was_and_ends_the_api_s(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(200)
    monkeypatch.setattr(Api, "open", lambda _, *args, **options: asked.open(*args, **options))
    answer = visitor.get("/sessions/stream?user_id=ada&after=5-0")
    assert (answer.mimetype, answer.headers["X-Accel-Buffering"]) == ("text/event-stream", "no")
    assert f"event: {UUID}\n" in answer.text
    assert asked.closed
    visitor.get("/sessions/stream?after=5-0", headers={"Last-Event-ID": "9-0"}).close()
    assert asked.calls == [
        ("GET", "/events", {"user_id": "ada"}, {"Last-Event-ID": "5-0"}),
        ("GET", "/events", {"user_id": None}, {"Last-Event-ID": "9-0"}),
    ]


@pytest.mark.parametrize(("age", "last", "wanted"), [(1.0, "", "begin"), (3_600.0, "", "again"), (1.0, "5-0", "again")])
def test_a_page_that_was_there_before_may_have_missed_events(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, age: float, last: str, wanted: str
) -> None:
    """Whether its stream broke off, or was refused until now."""
    begin = event("begin", '{"complete": false}')
    monkeypatch.setattr(Api, "open", lambda *_, **__: Streamed(200, {}, (piece for piece in [begin])))
    headers = {"Last-Event-ID": last} if last else {}
    answer = visitor.get(f"/sessions/stream?after={int((time.time() - age) * 1000)}-0", headers=headers)
    assert f"event: {wanted}\n" in answer.text


@pytest.mark.parametrize("status", [429, 503])
def test_a_stream_that_the_api_refuses_holds_no_connection(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The browser asks again, after longer and longer pauses."""
    asked = Asked(status)
    monkeypatch.setattr(Api, "open", lambda _, *args, **options: asked.open(*args, **options))
    assert visitor.get("/sessions/stream").status_code == status
    assert asked.closed


def test_strangers_have_no_stream(stranger: Visitor) -> None:
    assert stranger.get("/sessions/stream", headers={"Accept": "text/event-stream"}).status_code == 401
