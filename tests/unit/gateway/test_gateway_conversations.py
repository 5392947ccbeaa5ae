"""An agent's conversation is kept in pieces, and the record says when it is not the newest."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server

from app.agent.checkpoints import Keeper, load
from app.agent.gateway_client import Gateway as Line
from app.core.errors import RetryableError
from app.core.prompts import history_index
from app.core.prompts.history_index import Contended
from app.core.prompts.history_store import Checkpoint
from app.core.sessions.model import Status
from app.gateway.main import CHECKPOINTS_AT_A_TIME
from tests.unit.agent.fakes import FakeModel, World
from tests.unit.gateway.helpers import GatewayMaker, Workspace

HISTORY = "/agent/v1/history"
CHECKPOINT = "/agent/v1/checkpoint"


def said(begin: int, end: int) -> list[dict[str, Any]]:
    return [{"id": f"m{n}", "role": "user", "content": f"message {n}"} for n in range(begin, end)]


def head(messages: int, edition: str = "one") -> dict[str, Any]:
    return {"edition": edition, "messages": messages, "mark": str(messages) if messages else ""}


def add(workspace: Workspace, begin: int, end: int, edition: str = "one") -> Any:
    mark = str(begin) if begin else ""
    piece = {"edition": edition, "after": begin, "mark": mark, "then": str(end), "messages": said(begin, end)}
    return workspace.call("POST", HISTORY, json=piece)


def settle(workspace: Workspace, messages: int, edition: str = "one") -> Any:
    beside = {"context": said(messages - 1, messages), "metadata": {"turns": messages}}
    return workspace.call("PUT", CHECKPOINT, json={**head(messages, edition), **beside})


def test_a_conversation_grows_by_what_is_new(workspace: Workspace) -> None:
    """An agent learns how far it is kept, adds to it, and says when it is whole."""
    assert workspace.call("GET", f"{HISTORY}?head").json == {"current": None, "following": None}
    assert add(workspace, 0, 3).json == {"current": None, "following": head(3)}
    assert workspace.call("GET", CHECKPOINT).json["error"] == "checkpoint_not_found"
    assert workspace.call("GET", HISTORY).json["error"] == "checkpoint_not_found"
    assert settle(workspace, 3).status_code == 204
    assert add(workspace, 3, 5).json == {"current": head(5), "following": None}
    assert settle(workspace, 5).status_code == 204
    assert workspace.call("GET", f"{HISTORY}?head").json == {"current": head(5), "following": None}
    beside = {"context": said(4, 5), "metadata": {"turns": 5}}
    assert workspace.call("GET", CHECKPOINT).json == {**beside, **head(5)}
    page = workspace.call("GET", f"{HISTORY}?after=3").json
    assert page == {"messages": said(3, 5), "total": 5, "edition": "one"}


def test_what_does_not_go_on_from_there_is_told_from_where_to_go_on(workspace: Workspace) -> None:
    """A gap, an overlap, another conversation; it is no trouble that the status would show."""
    add(workspace, 0, 3)
    settle(workspace, 3)
    for refused in (add(workspace, 2, 4), add(workspace, 4, 5), add(workspace, 3, 4, "two"), settle(workspace, 4)):
        assert (refused.status_code, refused.json["error"]) == (409, "other_conversation")
        assert refused.json["current"] == head(3)
    assert workspace.record().unarchived == {}


def test_a_piece_is_bounded(make_gateway: GatewayMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.gateway.conversations.PIECE_MAX", 100)
    workspace = Workspace(make_gateway())
    assert add(workspace, 0, 5).status_code == 413


def test_a_conversation_too_long_to_be_kept_is_stale_until_it_is_whole_again(make_gateway: GatewayMaker) -> None:
    """The record says since when and why, and is written once for it; what was kept stays."""
    workspace = Workspace(make_gateway(history_max_bytes=500))
    add(workspace, 0, 5)
    settle(workspace, 5)
    before = time.time() - 0.001
    for _ in range(3):
        answer = add(workspace, 5, 50)
        assert (answer.status_code, answer.json["error"]) == (413, "conversation_too_long")
        noted = workspace.record().unarchived
        assert before <= noted["since"] <= time.time()
        assert "HISTORY_MAX_BYTES" in noted["reason"]
    assert workspace.call("GET", CHECKPOINT).json["messages"] == 5
    assert add(workspace, 5, 6).status_code == 200
    assert workspace.record().unarchived == noted
    assert settle(workspace, 6).status_code == 204
    assert workspace.record().unarchived == {}


def test_a_store_that_fails_is_noted_too(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RetryableError("The archive is away.")

    monkeypatch.setattr(workspace.core.history_store, "append", fail)
    assert add(workspace, 0, 1).status_code == 503
    assert workspace.record().unarchived["reason"] == "The archive is away."


def test_in_the_normal_case_the_record_is_not_written(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace.core.store, "change", lambda *_, **__: pytest.fail("written"))
    add(workspace, 0, 1)
    assert settle(workspace, 1).status_code == 204


def test_of_two_that_store_at_once_one_tries_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that was thought dead, say; that is no trouble the status would show."""

    def overtaken(*_: object) -> None:
        raise Contended(workspace.uuid)

    monkeypatch.setattr(workspace.core.history_store, "append", overtaken)
    answer = add(workspace, 0, 1)
    assert (answer.status_code, answer.json["error"]) == (503, "contended")
    assert workspace.record().unarchived == {}


@pytest.fixture
def line(app: Flask, workspace: Workspace) -> Iterator[Line]:
    """An agent's connection to the gateway, over HTTP."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    token = workspace.headers["Authorization"].removeprefix("Bearer ")
    connection = Line(f"http://127.0.0.1:{server.server_port}", lambda: token)
    yield connection
    connection.close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_an_agents_conversation_comes_back_as_it_was(
    line: Line, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent and the gateway as they are, with chunks small enough to need many."""
    monkeypatch.setattr("app.gateway.conversations.CHUNK_BYTES", 2_000)
    monkeypatch.setattr(history_index, "CHUNK_BYTES", 2_000)
    (tmp_path / "app").mkdir()
    world = World(tmp_path / "app", FakeModel())
    keeper = Keeper(line, world.state, 1000)
    for n in range(20):
        world.prompt(f"m{n}", "grüß dich 😀 " + "x" * 30 * n)
        world.run()
        assert keeper.save()
    edition = workspace.core.history_store.index(workspace.uuid).current
    assert edition is not None
    assert len(edition.chunks) > 5
    kept = load(line, threading.Event())
    assert kept is not None
    assert kept == world.state.documents()
    whole = workspace.core.history_store.read(workspace.uuid)
    assert whole == Checkpoint(kept.history, kept.context, kept.metadata)


@pytest.mark.parametrize("status", [Status.SLEEPING, Status.TERMINATING])
def test_a_conversation_is_kept_of_a_session_on_its_way_out(app: Flask, status: Status) -> None:
    """An agent hands it over when it is told to end, which is after its session's state has changed."""
    workspace = Workspace(app, status=status)
    assert add(workspace, 0, 1).status_code == 200
    assert settle(workspace, 1).status_code == 204


def test_a_conversation_is_its_own_sessions(app: Flask, workspace: Workspace) -> None:
    add(workspace, 0, 1)
    settle(workspace, 1)
    other = Workspace(app, "other000", "bob")
    assert [other.call("GET", path).status_code for path in (CHECKPOINT, HISTORY)] == [404, 404]


NO_OBJECTS = [b"", b"{", b"[]", b"{}", b"[" * 100_000]
NO_CHECKPOINTS = [
    *(*NO_OBJECTS, b"\xff", b'{"edition": "one", "context": [1]}', b'{"edition": "one", "metadata": []}'),
    b'{"history": [], "context": [], "metadata": {}}',
]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(("POST", HISTORY, each) for each in NO_OBJECTS),
        *(("PUT", CHECKPOINT, each) for each in NO_CHECKPOINTS),
        *(("GET", f"{HISTORY}?after={each}", b"") for each in ("x", "-1", "1" * 13)),
    ],
)
def test_what_is_no_piece_no_checkpoint_and_no_page_is_refused(
    workspace: Workspace, method: str, path: str, body: bytes
) -> None:
    assert workspace.call(method, path, data=body).status_code == 400
    assert workspace.core.history_store.read(workspace.uuid) is None


def test_a_checkpoint_too_long_is_refused(make_gateway: GatewayMaker) -> None:
    workspace = Workspace(make_gateway(history_max_bytes=50))
    answer = settle(workspace, 1)
    assert (answer.status_code, answer.json["error"]) == (413, "payload_too_large")
    assert "larger" in workspace.record().unarchived["reason"]


def test_the_places_for_conversations_are_given_back(workspace: Workspace) -> None:
    for body in (b"{", b'{"edition": "one"}') * 10:
        assert workspace.call("PUT", CHECKPOINT, data=body).status_code in (204, 400)


class SlowBody(io.RawIOBase):
    """A body that ends, empty, only when it is told to."""

    def __init__(self) -> None:
        self.awaited, self.ended = threading.Event(), threading.Event()

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        self.awaited.set()
        self.ended.wait()
        return 0


@contextmanager
def in_the_background(act: Callable[[], object]) -> Iterator[None]:
    """It is done beside the block, which ends after it."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    yield
    thread.join()


@contextmanager
def half_sent(workspace: Workspace, method: str, path: str) -> Iterator[None]:
    """A request of the workspace, whose body doesn't come until the block has ended."""
    body = SlowBody()
    given = {"wsgi.input": body, "CONTENT_LENGTH": "1000"}
    with in_the_background(lambda: workspace.call(method, path, environ_overrides=given)):
        body.awaited.wait()
        try:
            yield
        finally:
            body.ended.set()


@contextmanager
def storing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A piece of the workspace's is being stored; the list has its status afterwards."""
    append, began, goes_on = workspace.core.history_store.append, threading.Event(), threading.Event()
    seen: list[int] = []

    def slow(uuid: str, piece: history_index.Piece) -> history_index.Index:
        if not began.is_set():
            began.set()
            goes_on.wait()
        return append(uuid, piece)

    monkeypatch.setattr(workspace.core.history_store, "append", slow)
    with in_the_background(lambda: seen.append(add(workspace, 0, 1).status_code)):
        began.wait()
        try:
            yield seen
        finally:
            goes_on.set()


@pytest.mark.parametrize(("method", "path"), [("POST", HISTORY), ("PUT", CHECKPOINT)])
def test_a_body_that_never_comes_takes_no_place(
    app: Flask, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    """However many a workspace begins to send, all others store and read at once."""
    monkeypatch.setattr("app.gateway.conversations.CHECKPOINT_WAIT", 0.0)
    hostile = Workspace(app, "other000", "bob")
    with ExitStack() as held:
        for _ in range(CHECKPOINTS_AT_A_TIME):
            held.enter_context(half_sent(hostile, method, path))
        assert add(workspace, 0, 1).status_code == 200
        assert settle(workspace, 1).status_code == 204
        assert workspace.call("GET", HISTORY).status_code == 200


def test_a_session_has_one_place_at_a_time(app: Flask, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other calls are told when to try again; those of other sessions have the other places."""
    monkeypatch.setattr("app.gateway.conversations.CHECKPOINT_WAIT", 0.0)
    with storing(workspace, monkeypatch) as seen:
        for answer in (add(workspace, 0, 1), settle(workspace, 1), workspace.call("GET", HISTORY)):
            assert (answer.status_code, answer.json["error"]) == (503, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        assert add(Workspace(app, "other000", "bob"), 0, 1).status_code == 200
    assert seen == [200]
    assert settle(workspace, 1).status_code == 204
