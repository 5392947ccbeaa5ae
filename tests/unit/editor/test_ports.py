"""How a port of a workspace is shown by app/editor/ports.js: what the program there is sent, and what its visitor is
answered; with programs of a few lines, and a server of a few lines in the place of the editor."""

from __future__ import annotations

import contextlib
import email.message
import http.client
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.agent.editor import ORDER_HEADER, ORDER_PATH
from app.core.access.revocation import DisconnectOrder
from tests.conftest import ROOT
from tests.ports import free_port
from tests.unit.editor.node import NODE
from tests.waiting import PATIENCE, wait_for

SECRET, DISCONNECT = "0" * 64, "9" * 64
UUID = "abcd1234"

SERVER = """
const { guard, settingsOf } = require(process.argv[1]);
const { Connections } = require(process.argv[1].replace("guard", "disconnect"));
const server = require("node:http").createServer((request, response) => {
  server.getConnections((error, count) => response.end(JSON.stringify({ count, environ: process.env })));
});
guard(server, settingsOf(process.env), new Connections(server));
server.on("upgrade", (request, socket) => socket.end("HTTP/1.1 101 Editor\\r\\n\\r\\n"));
server.on("connect", (request, socket) => socket.end("HTTP/1.1 200 Editor\\r\\n\\r\\n"));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume().on("end", () => process.exit());
"""


@contextlib.contextmanager
def editor(folder: Path, **settings: str) -> Iterator[int]:
    """The port of a guarded server, which answers with its count of connections and its environment."""
    file = folder / "secret"
    file.write_text(f"{SECRET}\ndisconnect={DISCONNECT}\n")
    command = [str(NODE), "-e", SERVER, str(ROOT / "app/editor/guard.js")]
    environ = {"WORKSPACE_SECRET_FILE": str(file), "WORKSPACE_UUID": UUID, **settings}
    process = subprocess.Popen(command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        assert process.poll() is None, "nothing that a program or a visitor does ends the editor"
    finally:
        process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with editor(tmp_path_factory.mktemp("editor"), WORKSPACE_OWN_PORTS="8080 1111") as port:
        yield port


Program = Callable[[socket.socket], object]


@contextlib.contextmanager
def listening(program: Program, host: str = "127.0.0.1") -> Iterator[int]:
    """The port of a program, which is called with each connection."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=program, args=(server.accept()[0],), daemon=True).start()

    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen(64)
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def head_of(connection: socket.socket) -> str:
    """What comes up to the empty line, read byte by byte so that nothing behind it is taken."""
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        one = connection.recv(1)
        if not one:
            break
        got += one
    return got.decode("latin-1")


def answering(answer: str, heads: list[str] | None = None) -> Program:
    """A program that sends this to each request, and then closes; it notes the heads."""

    def program(connection: socket.socket) -> None:
        with connection:
            head = head_of(connection)
            if heads is not None:
                heads.append(head)
            connection.sendall(answer.encode("latin-1"))

    return program


OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def named(port: object, secret: str = SECRET) -> str:
    """What forward auth says of a request for a port."""
    return f"{secret} port={port}"


def host_of(port: object) -> str:
    return f"{port}--vs-code-{UUID}.ws.example.org"


@contextlib.contextmanager
def visit(
    served: int, line: str, port: object, headers: Mapping[str, str] | None = None, secret: str = SECRET
) -> Iterator[socket.socket]:
    """A connection on which a request for a port was sent."""
    shown = {"Host": host_of(port), "X-Workspace-Secret": named(port, secret)} | dict(headers or {})
    lines = [f"{line} HTTP/1.1", *(f"{name}: {text}" for name, text in shown.items()), "", ""]
    with socket.create_connection(("127.0.0.1", served), PATIENCE) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            got += piece
    return bytes(got)


def ask(
    served: int, port: object, path: str = "/", method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, email.message.Message, str]:
    """Status, headers and text of the answer."""
    shown = {"Host": host_of(port), "X-Workspace-Secret": named(port)}
    shown |= {name.replace("_", "-"): text for name, text in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", served, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, body, shown)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def heard(served: int, line: str = "GET /", **headers: str) -> dict[str, list[str]]:
    """The headers that a program gets of such a request, by their names in lower case."""
    heads: list[str] = []
    with listening(answering(OK, heads)) as port:
        shown = {name.replace("_", "-"): text.replace("{port}", str(port)) for name, text in headers.items()}
        with visit(served, line, port, shown | {"Connection": "close"}) as connection:
            assert rest_of(connection).startswith(b"HTTP/1.1 200 OK"), line
    found: dict[str, list[str]] = {"port": [str(port)]}
    for each in heads[0].split("\r\n")[1:-2]:
        name, _, text = each.partition(": ")
        found.setdefault(name.lower(), []).append(text)
    return found


NO_HANDSHAKE = "HTTP/1.1 101 Hello\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
"""To one that asked for none."""

# The way to a program.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_program_is_reached_wherever_on_the_loopback_it_listens(served: int, host: str) -> None:
    with listening(answering(OK), host) as port:
        assert ask(served, port)[0::2] == (200, "hi")


def test_the_path_arrives_as_it_was_sent(served: int) -> None:
    heads: list[str] = []
    with listening(answering(OK, heads)) as port:
        for path in ("/", "//a//b", "/a/../b", "/%2e%2E/?q=a//b?c", "/a\\b", "/healthz", ORDER_PATH, "/proxy/1/"):
            assert ask(served, port, path)[0] == 200
            assert heads.pop().split(" ")[:2] == ["GET", path]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_a_body_arrives_with_its_framing(served: int, method: str) -> None:
    def echo(connection: socket.socket) -> None:
        with connection:
            head = head_of(connection).lower()
            body = b""
            if "transfer-encoding: chunked" in head:
                while not body.endswith(b"0\r\n\r\n"):
                    body += connection.recv(1)
            elif "content-length: " in head:
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                while len(body) < length:
                    body += connection.recv(length - len(body))
            answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            connection.sendall(answer)

    with listening(echo) as port:
        assert ask(served, port, method=method)[2] == ""
        assert ask(served, port, method=method, body="with a length")[2] == "with a length"
        assert "in pieces" in ask(served, port, method=method, body=iter([b"in pieces"]))[2]
        assert ask(served, port, method=method, body="waited for", Expect="100-continue")[2] == "waited for"


def test_a_large_body_comes_back_as_it_went(served: int) -> None:
    """64 MiB, more than any buffer, sent while the answer is read."""
    size = 64 * 1_048_576

    def echo(connection: socket.socket) -> None:
        with connection:
            head_of(connection)
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            left = size
            while left and (piece := connection.recv(min(left, 1_048_576))):
                connection.sendall(piece)
                left -= len(piece)

    block = bytes(range(256)) * 4_096
    with (
        listening(echo) as port,
        visit(served, "POST /", port, {"Content-Length": str(size), "Connection": "close"}) as connection,
    ):
        sender = threading.Thread(target=connection.sendall, args=(block * 64,), daemon=True)
        sender.start()
        assert head_of(connection).startswith("HTTP/1.1 200 OK")
        got = rest_of(connection)
        sender.join()
    assert len(got) == size and got == block * 64


def test_an_answer_is_passed_on_piece_by_piece(served: int) -> None:
    """Its head before there is anything else, as of a stream of events: the program goes on when it was told."""
    told = threading.Event()

    def program(connection: socket.socket) -> None:
        with connection:
            head_of(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            for number in range(3):
                told.wait(PATIENCE)
                told.clear()
                connection.sendall(b"data: %d\n\n" % number)

    with listening(program) as port, visit(served, "GET /", port) as connection:
        assert "text/event-stream" in head_of(connection)
        for number in range(3):
            told.set()
            got = b""
            while b"data: %d\n\n" % number not in got:
                got += connection.recv(65_536)


def test_an_upload_is_passed_on_piece_by_piece(served: int) -> None:
    """The head of it, too."""
    arrived: list[bytes] = []

    def program(connection: socket.socket) -> None:
        with connection:
            arrived.append(head_of(connection).encode())
            while piece := connection.recv(65_536):
                arrived.append(piece)

    with (
        listening(program) as port,
        visit(served, "POST /", port, {"Transfer-Encoding": "chunked"}) as connection,
    ):
        wait_for(lambda: arrived, "the head")
        connection.sendall(b"3\r\none\r\n")
        wait_for(lambda: b"one" in b"".join(arrived), "the first piece")
        connection.sendall(b"3\r\ntwo\r\n")
        wait_for(lambda: b"two" in b"".join(arrived), "the second piece")


def test_a_visitor_who_goes_away_ends_the_request(served: int) -> None:
    ended = threading.Event()
    begun = threading.Event()

    def program(connection: socket.socket) -> None:
        with connection:
            head_of(connection)
            begun.set()
            if rest_of(connection) == b"":
                ended.set()

    with listening(program) as port:
        with visit(served, "GET /", port):
            assert begun.wait(PATIENCE)
        assert ended.wait(PATIENCE)


@pytest.mark.parametrize("length", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_program_that_breaks_off_ends_the_visitors_connection(served: int, length: str) -> None:
    """So that nobody takes the answer for whole."""
    with (
        listening(answering(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n5\r\nparts\r\n")) as port,
        visit(served, "GET /", port) as connection,
    ):
        got = rest_of(connection)
    assert got.startswith(b"HTTP/1.1 200 OK") and b"parts" in got and not got.endswith(b"0\r\n\r\n")


def test_an_answer_that_comes_before_the_end_of_an_upload_is_passed_on(served: int) -> None:
    """And the connection serves the next request."""
    refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"
    with (
        listening(answering(refusal)) as port,
        visit(served, "POST /", port, {"Content-Length": "1000"}) as connection,
    ):
        assert "413 Too Large" in head_of(connection)
        assert connection.recv(3) == b"no!"
        connection.sendall(b"x" * 1_000)
        again = f"GET / HTTP/1.1\r\nHost: {host_of(port)}\r\nX-Workspace-Secret: {named(port)}\r\n\r\n"
        connection.sendall(again.encode())
        assert "413 Too Large" in head_of(connection)


@pytest.mark.parametrize(
    "answer", ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 099 No\r\n\r\n", "HTTP/1.1 200 OK\r\nA\x01: b\r\n\r\n", NO_HANDSHAKE]
)
def test_what_speaks_no_http_is_told_to_the_visitor_or_ends_the_connection(served: int, answer: str) -> None:
    with listening(answering(answer)) as port, visit(served, "GET /", port, {"Connection": "close"}) as connection:
        got = rest_of(connection)
    assert got == b"" or (got.startswith(b"HTTP/1.1 502 ") and b"port_not_http" in got)


def test_an_answer_without_a_body_or_a_length_is_passed_on(served: int) -> None:
    """As some servers answer by HTTP/1.0, and all answer HEAD."""
    with listening(answering("HTTP/1.0 200 OK\r\nX: 1\r\n\r\nup to the end")) as port:
        assert ask(served, port)[2] == "up to the end"
    with listening(answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTrailer: x\r\n\r\n")) as port:
        status, headers, text = ask(served, port, method="HEAD")
        assert (status, headers["Content-Length"], text) == (200, "9", "")
    with listening(answering(f"HTTP/1.1 200 OK\r\nX: {30_000 * 'x'}\r\nContent-Length: 2\r\n\r\nhi")) as port:
        assert ask(served, port)[2] == "hi", "with a long head"
    with listening(answering('HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')) as port:
        assert ask(served, port)[0] == 304


# What a program sees.


def test_a_program_is_called_at_its_local_address(served: int) -> None:
    """With no word of another one; what is not about the address stays, with its case and number."""
    seen = heard(
        served,
        X_Forwarded_For="1.2.3.4",
        X_Forwarded_Host=host_of("{port}"),
        X_Forwarded_Proto="https",
        X_Forwarded_Port="443",
        X_Forwarded_Server="traefik",
        X_Forwarded_Prefix="/x",
        X_Forwarded_Scheme="https",
        X_Scheme="https",
        Forwarded=f"host={host_of('{port}')};proto=https",
        Cookie="a=b",
        X_Latin="caf\xe9",
        Upgrade="websocket",
        Keep_Alive="timeout=5",
    )
    (port,) = seen.pop("port")
    assert seen == {
        "host": [f"localhost:{port}"],
        "x-forwarded-for": ["1.2.3.4"],
        "cookie": ["a=b"],
        "x-latin": ["caf\xe9"],
        "connection": ["close"],
    }


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("https://{own}", "http://localhost:{port}"),
        ("http://{own}", "http://localhost:{port}"),
        ("https://{OWN}:443", "http://localhost:{port}"),
        ("https://{own}:8443", "https://{own}:8443"),
        ("https://vs-code-abcd1234.ws.example.org", "https://vs-code-abcd1234.ws.example.org"),
        ("https://{own}.evil.example", "https://{own}.evil.example"),
        ("https://1{own}", "https://1{own}"),
        ("null", "null"),
        ("http://localhost:{port}", "http://localhost:{port}"),
    ],
)
def test_an_origin_of_its_own_is_its_local_one(served: int, sent: str, expected: str) -> None:
    heads: list[str] = []
    with listening(answering(OK, heads)) as port:
        own = host_of(port)

        def filled(text: str) -> str:
            return text.replace("{own}", own).replace("{OWN}", own.upper()).replace("{port}", str(port))

        ask(served, port, Origin=filled(sent), Referer=filled(f"{sent}/a?b=//c"))
    assert f"\r\nOrigin: {filled(expected)}\r\n" in heads[0]
    assert f"\r\nReferer: {filled(expected)}/a?b=//c\r\n" in heads[0]


def test_a_port_of_the_visitors_address_belongs_to_the_origin(served: int) -> None:
    """As on one machine, where workspaces are at a port of it."""
    heads: list[str] = []
    with listening(answering(OK, heads)) as port:
        ask(served, port, Host=f"{host_of(port)}:8443", Origin=f"https://{host_of(port)}:8443")
        ask(served, port, Host=f"{host_of(port)}:8443", Origin=f"https://{host_of(port)}")
    assert [f"\r\nOrigin: http://localhost:{port}\r\n" in each for each in heads] == [True, False]


def test_no_program_sees_the_secret(served: int) -> None:
    """Nor one who sends it twice; the visitor who has none sees nothing of a program."""
    heads: list[str] = []
    hello = "HTTP/1.1 101 Hello\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with listening(answering(OK, heads)) as port:
        ask(served, port, **{"x-workspace-SECRET": f"{'1' * 64}, {SECRET} epoch=3 port={port}"})
        assert ask(served, port, "/healthz", X_Workspace_Secret=f"x port={port}")[0] == 403
        assert ask(served, port, "/healthz", X_Workspace_Secret=f"port={port}")[0] == 403
        assert len(heads) == 1
    with listening(answering(hello, heads)) as port:
        with visit(served, "GET /", port, HANDSHAKE) as connection:
            assert head_of(connection).startswith("HTTP/1.1 101")
        with visit(served, "GET /", port, HANDSHAKE, secret="x") as connection:
            assert head_of(connection).startswith("HTTP/1.1 403")
    assert len(heads) == 2
    assert "secret" not in str(heads).lower() and SECRET not in str(heads)


# What a visitor is answered.


def answered(served: int, headers: str, **sent: str) -> tuple[str, email.message.Message]:
    """The program's port, and the headers that a visitor gets of an answer with these; `{port}` stands for the port."""
    texts: list[str] = []

    def program(connection: socket.socket) -> None:
        with connection:
            head_of(connection)
            connection.sendall(texts[0].encode("latin-1"))

    with listening(program) as port:
        texts.append(f"HTTP/1.1 302 Found\r\n{headers}\r\nContent-Length: 0\r\n\r\n".replace("{port}", str(port)))
        _, got, _ = ask(served, port, **{name: text.replace("{own}", host_of(port)) for name, text in sent.items()})
    return str(port), got


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://localhost:{port}/a/b?c=d#e", "/a/b?c=d#e"),
        ("https://LOCALHOST:{port}/a", "/a"),
        ("http://127.0.0.1:{port}", "/"),
        ("http://[::1]:{port}?a", "/?a"),
        ("http://0.0.0.0:{port}/", "/"),
        ("http://localhost:{port}//evil.example/", "/.//evil.example/"),
        ("http://localhost:{port}/\\evil.example/", "/./\\evil.example/"),
        ("http://localhost:{port}/\t/evil.example/", "/./\t/evil.example/"),
        ("http://localhost:1/a", "http://localhost:1/a"),
        ("http://localhost:{port}.evil.example/", "http://localhost:{port}.evil.example/"),
        ("http://localhost:{port}@evil.example/", "http://localhost:{port}@evil.example/"),
        (
            "https://sign-in.example/?back=http://localhost:{port}/",
            "https://sign-in.example/?back=http://localhost:{port}/",
        ),
        ("/a", "/a"),
        ("a", "a"),
    ],
)
def test_a_redirect_to_its_local_address_leads_to_the_visitors(served: int, location: str, expected: str) -> None:
    """And to no other host that it didn't name."""
    port, headers = answered(served, f"Location: {location}")
    assert headers["Location"] == expected.replace("{port}", port)


def test_a_cookie_for_localhost_is_one_for_the_visitors_host(served: int) -> None:
    _, headers = answered(
        served,
        "Set-Cookie: a=domain=localhost; Domain=localhost; Path=/\r\nset-cookie: b=1; HttpOnly; domain=127.0.0.1\r\n"
        "Set-Cookie: c=1; Domain=.localhost\r\nSet-Cookie: d=1; Domain=localhost.example",
    )
    assert headers.get_all("Set-Cookie") == [
        "a=domain=localhost; Path=/",
        "b=1; HttpOnly",
        "c=1",
        "d=1; Domain=localhost.example",
    ]


def test_its_own_page_may_read_what_its_local_page_may(served: int) -> None:
    """And no page of another origin."""
    allowed = "Access-Control-Allow-Origin: http://localhost:{port}"
    port, headers = answered(served, allowed, Origin="https://{own}")
    assert headers["Access-Control-Allow-Origin"] == f"https://{host_of(port)}"
    for origin in ({"Origin": "https://evil.example"}, {}):
        port, headers = answered(served, allowed, **origin)
        assert headers["Access-Control-Allow-Origin"] == f"http://localhost:{port}"
    for other in ("*", "https://evil.example"):
        _, headers = answered(served, f"Access-Control-Allow-Origin: {other}", Origin="https://{own}")
        assert headers["Access-Control-Allow-Origin"] == other


def test_the_rest_of_an_answer_is_left_alone(served: int) -> None:
    """Its case, its order, what stands twice in it, its policies, and no date of ours."""
    sent = (
        "X-B: 2\r\nx-a: 1\r\nX-B: 3\r\nX-Frame-Options: DENY\r\nContent-Security-Policy: frame-ancestors 'none'\r\n"
        "Content-Location: http://localhost:{port}/\r\nX-Latin: caf\xe9"
    )
    port, headers = answered(served, sent)
    got = [f"{name}: {text}" for name, text in headers.items() if name not in ("Connection", "Keep-Alive")]
    assert got == [*sent.replace("{port}", port).split("\r\n"), "Content-Length: 0"]


# WebSockets.

HANDSHAKE = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
WELCOME = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Set-Cookie: a=1; Domain=localhost\r\n\r\n"
)


def echoing(ended: threading.Event | None = None, heads: list[str] | None = None) -> Program:
    """A program that says hello at once, and sends back what it gets."""

    def program(connection: socket.socket) -> None:
        with connection:
            head = head_of(connection)
            if heads is not None:
                heads.append(head)
            connection.sendall(WELCOME + b"hello")
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(65_536):
                    connection.sendall(piece)
        if ended is not None:
            ended.set()

    return program


def read(connection: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length and (piece := connection.recv(length - len(got))):
        got += piece
    return got


def test_a_websocket_goes_both_ways_from_its_first_byte(served: int) -> None:
    """What either sends right behind its head arrives too; an end of one is an end of the other."""
    ended, heads = threading.Event(), list[str]()
    with listening(echoing(ended, heads), "::1") as port:
        own = {"Origin": f"https://{host_of(port)}", "X-Forwarded-Host": host_of(port)}
        with visit(served, "GET /ws?a=//b", port, HANDSHAKE | own) as connection:
            connection.sendall(b"early")
            head = head_of(connection)
            assert read(connection, 10) == b"helloearly"
            block = bytes(range(256)) * 4_096
            sender = threading.Thread(target=connection.sendall, args=(block,), daemon=True)
            sender.start()
            assert read(connection, len(block)) == block
            connection.shutdown(socket.SHUT_WR)
            assert rest_of(connection) == b""
        assert ended.wait(PATIENCE)
    assert head.startswith("HTTP/1.1 101 Switching Protocols\r\n")
    assert "\r\nUpgrade: websocket\r\n" in head and "\r\nSet-Cookie: a=1\r\n" in head
    assert heads[0].startswith("GET /ws?a=//b HTTP/1.1\r\n")
    for line in (
        f"Host: localhost:{port}",
        f"Origin: http://localhost:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
    ):
        assert f"\r\n{line}\r\n" in heads[0]
    assert "Sec-WebSocket-Key: " in heads[0] and "Forwarded" not in heads[0]


def test_early_bytes_in_the_same_piece_as_the_head_arrive(served: int) -> None:
    with listening(echoing()) as port:
        lines = [f"{name}: {text}" for name, text in HANDSHAKE.items()]
        head = "\r\n".join(
            ["GET / HTTP/1.1", f"Host: {host_of(port)}", f"X-Workspace-Secret: {named(port)}", *lines, "", ""]
        )
        with socket.create_connection(("127.0.0.1", served), PATIENCE) as connection:
            connection.sendall(head.encode() + b"early")
            head_of(connection)
            assert read(connection, 10) == b"helloearly"


def test_a_program_that_refuses_a_handshake_is_heard(served: int) -> None:
    """In whatever framing."""
    for answer in (
        "HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "HTTP/1.0 401 No\r\n\r\nno",
    ):
        with listening(answering(answer)) as port, visit(served, "GET /", port, HANDSHAKE) as connection:
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert (response.status, response.read()) == (401, b"no")
            assert rest_of(connection) == b""


def test_a_program_that_ends_ends_its_websockets(served: int) -> None:
    with listening(answering(WELCOME.decode() + "bye")) as port, visit(served, "GET /", port, HANDSHAKE) as connection:
        head_of(connection)
        assert rest_of(connection) == b"bye"


def test_a_revocation_ends_what_is_shown(tmp_path: Path) -> None:
    """Both a WebSocket and an answer that goes on; the programs see it."""
    ended = [threading.Event(), threading.Event()]

    def endless(connection: socket.socket) -> None:
        with connection:
            head_of(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nfor ever")
            rest_of(connection)
        ended[1].set()

    with (
        editor(tmp_path) as served,
        listening(echoing(ended[0])) as first,
        listening(endless) as second,
        visit(served, "GET /", first, HANDSHAKE, secret=f"{SECRET} epoch=3") as a_socket,
        visit(served, "GET /", second, secret=f"{SECRET} epoch=3") as stream,
    ):
        assert head_of(a_socket).startswith("HTTP/1.1 101") and head_of(stream).startswith("HTTP/1.1 200")
        order = str(DisconnectOrder([DISCONNECT], 4))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served, timeout=PATIENCE)) as connection:
            connection.request("POST", ORDER_PATH, headers={ORDER_HEADER: order})
            assert connection.getresponse().status == 200
        rest_of(a_socket), rest_of(stream)
        assert all(each.wait(PATIENCE) for each in ended)
        assert ask(served, first, X_Workspace_Secret=named(first, f"{SECRET} epoch=3"))[0] == 403


# Where nothing listens.


def expect_stopped(served: int, port: int) -> None:
    status, headers, text = ask(served, port, Accept="application/json")
    assert (status, headers["Content-Type"]) == (503, "application/problem+json")
    assert (headers["Retry-After"], headers["Cache-Control"], headers["Workspace-Status"]) == (
        "1",
        "no-store",
        "unknown",
    )
    assert json.loads(text) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": f"Port {port} does not answer: nothing listens on it.",
        "error": "port_not_listening",
    }
    status, headers, text = ask(served, port, Accept="text/html,*/*")
    assert (status, headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert (headers["Retry-After"], headers["Cache-Control"], headers["Workspace-Status"]) == (
        "1",
        "no-store",
        "unknown",
    )
    assert f"<h1>Port {port} does not answer</h1>" in text and "{t" not in text
    with visit(served, "GET /", port, HANDSHAKE) as connection:
        head, body = head_of(connection), rest_of(connection)
    assert head.startswith("HTTP/1.1 503 Service Unavailable\r\n") and body == b""
    assert "\r\nWorkspace-Status: unknown\r\n" in head


def test_a_port_on_which_nothing_listens_is_told(served: int) -> None:
    expect_stopped(served, free_port())


def test_a_program_that_ends_before_it_answers_is_told_alike(served: int) -> None:
    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.close()

    for program in (reset, answering("")):
        with listening(program) as port:
            expect_stopped(served, port)
            assert ask(served, port, method="POST", body="x" * 1_000_000)[0] == 503


def test_the_services_own_ports_are_not_shown(served: int) -> None:
    """Whether anything listens there or not."""
    for port in (8080, 1111):
        expect_stopped(served, port)


def test_an_own_port_is_not_shown_though_it_listens(tmp_path: Path) -> None:
    with listening(answering(OK)) as port, editor(tmp_path, WORKSPACE_OWN_PORTS=f"8080 {port}") as served:
        expect_stopped(served, port)


def test_forward_auth_alone_says_which_port_it_is(served: int) -> None:
    """Whatever the headers name."""
    with listening(answering(OK)) as port:
        for name in ("Host", "X-Forwarded-Host", "X-Original-Host"):
            assert "environ" in ask(served, port, **{"X-Workspace-Secret": SECRET, name: host_of(port)})[2]
            assert ask(served, port, **{name: f"vs-code-{UUID}.ws.example.org"})[2] == "hi"


def test_a_port_is_no_proxy(served: int) -> None:
    with listening(answering(OK)) as port, visit(served, f"CONNECT 127.0.0.1:{port}", port) as connection:
        assert head_of(connection).startswith("HTTP/1.1 405 ")


def test_a_page_of_a_port_is_no_open_page_of_the_editor(served: int) -> None:
    """code-server counts the connections of its server for such pages, and keeps the workspace awake by them."""
    host = f"vs-code-{UUID}.ws.example.org"

    def count() -> int:
        return int(json.loads(ask(served, "", Host=host, X_Workspace_Secret=SECRET)[2])["count"])

    with listening(echoing()) as port, listening(answering(OK)) as other:
        wait_for(lambda: count() == 1, "earlier connections to end")
        with visit(served, "GET /", port, HANDSHAKE) as shown, visit(served, "GET /", other) as used:
            head_of(shown), head_of(used)
            assert count() == 1
            used.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nX-Workspace-Secret: {SECRET}\r\n\r\n".encode())
            assert read(used, 2) == b"hi" and head_of(used)
            assert count() == 2, "its last request was for the editor"
        wait_for(lambda: count() == 1, "them to end")


def test_no_setting_of_the_ports_is_seen_by_terminals(tmp_path: Path) -> None:
    with editor(tmp_path, WORKSPACE_OWN_PORTS="8080", WORKSPACE_NETWORK="shared", VSCODE_PROXY_URI="kept") as served:
        environ = json.loads(ask(served, "", X_Workspace_Secret=SECRET)[2])["environ"]
    assert {"WORKSPACE_OWN_PORTS", "WORKSPACE_NETWORK"}.isdisjoint(environ)
    assert (environ["VSCODE_PROXY_URI"], environ["WORKSPACE_UUID"]) == ("kept", UUID)


# A network that workspaces share.

PROGRAM = """
import socket, sys
servers = []
for host in sys.argv[2:]:
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if host == "::":
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind((host, int(sys.argv[1])))
    server.listen(8)
    servers.append(server)
print(servers[0].getsockname()[1], flush=True)
import threading
def serve(server):
    while True:
        connection = server.accept()[0]
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nhi")
        connection.close()
for server in servers:
    threading.Thread(target=serve, args=(server,), daemon=True).start()
sys.stdin.read()
"""


@contextlib.contextmanager
def process_of(uuid: str | None, *hosts: str, port: int = 0) -> Iterator[int]:
    """The port of a process that has the mark of this workspace."""
    environ = {"PATH": os.environ["PATH"], **({"WORKSPACE_UUID": uuid} if uuid else {})}
    command = ["python3", "-c", PROGRAM, str(port), *hosts]
    process = subprocess.Popen(command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with editor(tmp_path_factory.mktemp("shared"), WORKSPACE_NETWORK="shared") as port:
        yield port


@pytest.mark.parametrize("hosts", [("127.0.0.1",), ("::1",), ("0.0.0.0",), ("::",), ("127.0.0.1", "::1")])
def test_in_a_shared_network_only_the_workspaces_own_programs_are_shown(shared: int, hosts: tuple[str, ...]) -> None:
    with process_of(UUID, *hosts) as port:
        assert [ask(shared, port)[0] for _ in range(2)] == [200, 200]
    expect_stopped(shared, port)
    for other in ("abcd1235", None):
        with process_of(other, *hosts, port=port):
            expect_stopped(shared, port)
    with process_of(UUID, *hosts, port=port):
        assert ask(shared, port)[0] == 200, "it was started again"


def test_another_ones_program_at_the_other_address_of_a_port_is_not_shown(shared: int, tmp_path: Path) -> None:
    """A name like localhost leads to either."""
    with process_of(UUID, "::1") as port, process_of("abcd1235", "127.0.0.1", port=port):
        assert ask(shared, port)[0] == 200
    with process_of("abcd1235", "::1", port=port), process_of(UUID, "127.0.0.1", port=port):
        assert ask(shared, port)[0] == 200
    with process_of("abcd1235", "::1", "127.0.0.1", port=port):
        expect_stopped(shared, port)


def test_an_editor_without_a_mark_shows_nothing_in_a_shared_network(tmp_path: Path) -> None:
    with (
        process_of(None, "127.0.0.1") as port,
        editor(tmp_path, WORKSPACE_NETWORK="shared", WORKSPACE_UUID="") as served,
    ):
        expect_stopped(served, port)
