"""The real editor, reached past the ingress: it lets nobody in who doesn't know its session's secret."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from app.core.access.agent_credentials import AgentCredentials
from app.editor.code_server import CODE_SERVER
from tests.ports import free_port
from tests.waiting import PATIENCE, wait_for

UUID = "aaaa0001"
SECRETS = AgentCredentials(["the-secret-key-of-this-test-of-the-editor"])
(SECRET,) = SECRETS.editor_secrets(UUID)
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
SOCKET = "/?reconnectionToken=00000000-0000-4000-8000-000000000000&reconnection=false&skipWebSocketFrames=false"


@contextlib.contextmanager
def editor(program: str, folder: Path, **settings: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The port and the process of an editor that is told no more than the arguments it always gets."""
    port = free_port()
    arguments = CODE_SERVER.arguments(port, folder, folder)
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), **settings}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *arguments], env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        yield port, process
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait(PATIENCE)
        for each in children:
            with contextlib.suppress(psutil.Error):
                each.kill()


@pytest.fixture(scope="module")
def port(code_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of an editor that knows who is let in, and which page may embed it."""
    folder = tmp_path_factory.mktemp("editor")
    secret = folder / "secret"
    secret.write_text(SECRETS.editor_file(UUID))
    settings = {
        "WORKSPACE_SECRET_FILE": str(secret),
        "EMBED_ORIGINS": "https://app.example.com",
        "VSCODE_PROXY_URI": f"https://{host_of('{{port}}')}/",
    }
    with editor(code_server, folder, **settings) as (served, process):
        wait_for_editor(served, process, folder / "log")
        yield served


def host_of(port: object) -> str:
    return f"{port}--vs-code-{UUID}.ws.example.org"


def wait_for_editor(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    wait_for(lambda: process.poll() is not None or answers(port), "the editor answers", log.read_text, interval=0.02)
    assert process.poll() is None, log.read_text()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return ask(port, "/healthz")[0] == 200
    return False


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    """Status, headers and text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode(errors="replace")


def shake_hands(port: int, path: str, **shown: str) -> str:
    """The first line of the answer to a WebSocket's handshake."""
    host = {"Host": f"127.0.0.1:{port}"}
    headers = HANDSHAKE | host | {name.replace("_", "-"): text for name, text in shown.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection.recv(4_096).decode(errors="replace").partition("\r\n")[0]


@pytest.fixture
def program() -> Iterator[tuple[int, list[str]]]:
    """The port of a program in the workspace, and the headers it was sent, as one text for each request."""
    seen: list[str] = []

    class Program(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers))
            if "Upgrade" in self.headers:
                self.send_response(101)
                self.send_header("Connection", "Upgrade")
                self.send_header("Upgrade", "websocket")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"hi")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Program) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], seen
        server.shutdown()


def test_who_finds_the_editors_port_gets_no_further(port: int, program: tuple[int, list[str]]) -> None:
    """No page, no file, no socket, none of the user's programs; the probes' question aside."""
    behind, seen = program
    for path in ("/", "/?folder=/", "/vscode/", "/_static/src/browser/robots.txt", "/login"):
        for shown in (
            {},
            {"X_Workspace_Secret": "x"},
            {"Authorization": f"Bearer {SECRET}"},
            {"Host": host_of(behind), "X_Workspace_Secret": f"port={behind}"},
        ):
            status, headers, text = ask(port, path, **shown)
            assert (status, headers["Content-Type"]) == (403, "text/plain; charset=utf-8"), path
            assert "own address" in text
    for path in (SOCKET, "/healthz"):
        for shown in ({}, {"Host": host_of(behind), "X_Workspace_Secret": f"port={behind}"}):
            assert shake_hands(port, path, **shown) == "HTTP/1.1 403 Forbidden", path
    assert ask(port, "/mint-key", "POST")[0] == 403
    assert seen == []
    assert [ask(port, "/healthz", method)[0] for method in ("GET", "HEAD")] == [200, 200]


def test_with_the_secret_the_editor_works_and_no_program_in_it_sees_it(
    port: int, program: tuple[int, list[str]]
) -> None:
    behind, seen = program
    status, _, page = ask(port, "/?folder=/", X_Workspace_Secret=SECRET)
    assert status == 200 and "workbench" in page
    assert shake_hands(port, SOCKET, X_Workspace_Secret=SECRET).startswith("HTTP/1.1 101")
    shown = {"X_Workspace_Secret": f"{'0' * 64} {SECRET} port={behind}", "X_Other": "kept", "Host": host_of(behind)}
    assert ask(port, "/", **shown)[0::2] == (200, "hi")
    assert shake_hands(port, "/", **shown).startswith("HTTP/1.1 101")
    assert len(seen) == 2
    assert all("kept" in each and "ecret" not in each and SECRET not in each for each in seen), seen


def test_no_path_of_the_editors_own_origin_leads_to_a_program(port: int, program: tuple[int, list[str]]) -> None:
    """A page of a program there would have the terminal. VS Code leads to the port's own address instead."""
    behind, seen = program
    shown = {"X_Workspace_Secret": SECRET}
    for way in ("proxy", "absproxy"):
        assert ask(port, f"/{way}/{behind}/", **shown)[0] == 403
        assert "101" not in shake_hands(port, f"/{way}/{behind}/", **shown)
    assert seen == []
    assert host_of("{{port}}") in ask(port, "/?folder=/", **shown)[2]


def test_its_page_says_who_may_embed_it(port: int) -> None:
    """VS Code's own policy says nothing of that, and stays as it is besides."""
    _, headers, _ = ask(port, "/?folder=/", X_Workspace_Secret=SECRET)
    (policy,) = headers.get_all("Content-Security-Policy") or []
    assert "X-Frame-Options" not in headers
    directives = [each.strip() for each in policy.split(";")]
    assert [each for each in directives if each.startswith("frame-ancestors")] == [
        "frame-ancestors 'self' https://app.example.com"
    ]
    assert {"default-src 'self'", "manifest-src 'self'"} <= set(directives)


def test_an_editor_that_was_told_nothing_does_not_start(code_server: str, tmp_path: Path) -> None:
    """It says what is missing, where the reason of a failed session is taken from."""
    with editor(code_server, tmp_path) as (port, process):
        assert process.wait(PATIENCE) == 1
        assert not answers(port)
    assert "WORKSPACE_SECRET_FILE is not set" in (tmp_path / "log").read_text()


def test_one_that_is_tried_by_hand_says_so(code_server: str, tmp_path: Path) -> None:
    """And sends the policy that VS Code made."""
    with editor(code_server, tmp_path, WORKSPACE_SECRET_FILE="none") as (port, process):
        wait_for_editor(port, process, tmp_path / "log")
        status, headers, _ = ask(port, "/?folder=/")
    assert status == 200
    assert "frame-ancestors" not in headers["Content-Security-Policy"]
