"""Orders to end connections, which the agent passes on to the editor beside it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from app.agent import editor
from app.agent.editor import ORDER_HEADER, ORDER_PATH, EditorDown, pass_order
from tests.unit.agent.process import AgentProcess
from tests.waiting import PATIENCE

ORDER = f"7 {'0' * 32} {'a' * 64}"


@contextmanager
def answering(status: int, text: str) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The port of an editor, and the path and order of each request it got."""
    asked: list[tuple[str, str]] = []

    class Editor(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.headers[ORDER_HEADER]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests look at `asked`."""

    server = HTTPServer(("127.0.0.1", 0), Editor)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def listening(said: bytes) -> Iterator[int]:
    """The port of a program that says this to whoever connects, and no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.sendall(said)
                connection.settimeout(PATIENCE)
                while connection.recv(65_536):
                    pass

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(PATIENCE)


def test_an_order_is_passed_on_as_it_is_and_so_is_the_confirmation() -> None:
    """No more of it than a confirmation has: it may be of any program."""
    with answering(200, "b" * 100) as (port, asked):
        assert pass_order(ORDER, port) == "b" * 64
    assert asked == [(ORDER_PATH, ORDER)]


def test_what_is_no_editor_confirms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor, "TIMEOUT", 0.2)
    cases: tuple[Callable[[ExitStack], int], ...] = (
        lambda stack: stack.enter_context(answering(403, "refused"))[0],
        lambda stack: stack.enter_context(listening(b"SSH-2.0\r\n")),
        lambda stack: stack.enter_context(listening(b"")),
        lambda stack: 1,
    )
    for opened in cases:
        with ExitStack() as stack, pytest.raises(EditorDown):
            pass_order(ORDER, opened(stack))
    with pytest.raises(EditorDown):
        pass_order("7\r\nHost: elsewhere", 1)


def test_an_agent_passes_orders_on_and_says_when_the_editor_is_down(agent: AgentProcess) -> None:
    with answering(200, "b" * 64) as (port, asked):
        agent.environment["EDITOR_PORT"] = str(port)
        agent.start()
        assert agent.call("POST", "/disconnect", {"order": ORDER}) == (200, {"confirmation": "b" * 64})
        assert asked == [(ORDER_PATH, ORDER)]
        assert [agent.call("POST", "/disconnect", wrong)[0] for wrong in ({}, {"order": 7})] == [400, 400]
    status, said = agent.call("POST", "/disconnect", {"order": ORDER})
    assert (status, said["error"]) == (502, "editor_down")
