"""The stream of the list: what it makes of the API's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from app.web import session_stream
from app.web.api import Api, Streamed
from app.web.session_stream import relayed, ticking
from tests.unit.web.conftest import Visitor

UUID = "k3v9x0qa"


def event(kind: str, data: str, event_id: str = "1-0") -> bytes:
    return f"id: {event_id}\nevent: {kind}\ndata: {data}\n\n".encode()


def names(*pieces: bytes, resumed: bool = False) -> list[str]:
    lines = "".join(relayed(pieces, resumed=resumed)).split("\n")
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


def test_a_change_of_state_names_the_session_and_the_counts() -> None:
    assert names(event("state", f'{{"uuid": "{UUID}", "status": "active"}}')) == [UUID, "counts"]
    assert names(event("state", f'{{"uuid": "{UUID}", "status": "created"}}')) == [UUID, "counts", "new"]
    assert names(event("message", f'{{"uuid": "{UUID}"}}')) == [UUID]


def test_every_event_has_data_and_the_id_to_resume_at() -> None:
    """A browser passes no event on that has no data."""
    [text] = relayed([event("backup", f'{{"uuid": "{UUID}"}}', "17-3")], resumed=False)
    assert text == f"id: 17-3\nevent: {UUID}\ndata: 1\n\n"


@pytest.mark.parametrize("uuid", ['"new\\nevent: counts"', '"counts"', "7", "null", '["k3v9x0qa"]'])
def test_what_is_no_uuid_becomes_no_name(uuid: str) -> None:
    assert names(event("state", f'{{"uuid": {uuid}}}')) == []


def test_pieces_need_not_be_whole_events() -> None:
    text = event("message", f'{{"uuid": "{UUID}"}}') + b": still here\n\n" + event("message", '{"uuid": "zzzzzzzz"}')
    assert names(*(text[at : at + 1] for at in range(len(text)))) == [UUID, "zzzzzzzz"]
    assert ": still here\n\n" in list(relayed([text], resumed=False))


def test_an_endless_event_ends_the_stream() -> None:
    endless: Iterator[bytes] = itertools.repeat(b"x" * 65_536)
    assert list(relayed(endless, resumed=False)) == []


@pytest.mark.parametrize(
    ("resumed", "complete", "wanted"), [(True, "false", "again"), (True, "true", "begin"), (False, "false", "begin")]
)
def test_a_page_that_missed_events_reloads_its_rows(resumed: bool, complete: str, wanted: str) -> None:
    assert names(event("begin", f'{{"complete": {complete}}}'), resumed=resumed) == [wanted]


def test_for_want_of_a_stream_the_rows_are_reloaded_again_and_again() -> None:
    first = list(itertools.islice(ticking(every=0.0), 4))
    assert first == [": still here\n\n", "event: again\ndata: 1\n\n"] * 2
    assert list(ticking(every=0.0, lifetime=0.0)) == []


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

        return Streamed(self.status, {}, pieces())


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


def test_a_key_without_a_stream_of_the_api_has_rows_that_reload(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Api, "open", lambda _, *args, **options: Asked(403).open(*args, **options))
    monkeypatch.setattr(session_stream, "ticking", lambda: iter(["event: again\ndata: 1\n\n"]))
    assert visitor.get("/sessions/stream").text == "event: again\ndata: 1\n\n"


def test_strangers_have_no_stream(stranger: Visitor) -> None:
    assert stranger.get("/sessions/stream", headers={"Accept": "text/event-stream"}).status_code == 401
