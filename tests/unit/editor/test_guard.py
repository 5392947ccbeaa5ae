"""What app/editor/guard.js lets through to a server, and what that sees of it; with a server of a few lines in the
place of the editor (tests/integration/test_editor_guard.py has the editor itself)."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.agent.editor import ORDER_HEADER, ORDER_PATH
from app.core.access.revocation import DisconnectOrder
from app.process.settings import Settings, SettingsError
from tests.conftest import ROOT
from tests.unit.editor.node import NODE
from tests.waiting import PATIENCE

OLD, NEW = "0" * 64, "1" * 64
HANDSHAKE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
PAGES = {
    "/head": "default-src 'self'; manifest-src 'self';",
    "/header": "default-src 'self'",
    "/none": "frame-ancestors 'none'",
    "/own": "frame-ancestors 'self' https://old.example.com; script-src 'self'",
}
"""By path, the policy of what the server answers."""

SERVER = """
const { guard, settingsOf } = require(process.argv[1]);
const { Connections } = require(process.argv[1].replace("guard", "disconnect"));
const pages = JSON.parse(process.argv[2]);
const server = require("node:http").createServer((request, response) => {
  const policy = pages[request.url];
  if (policy && request.url === "/header") response.setHeader("Content-Security-Policy", policy);
  response.writeHead(200, policy && request.url !== "/header" ? { "Content-Security-Policy": policy } : {});
  const { headers, headersDistinct, rawHeaders } = request;
  response.end(JSON.stringify([headers, headersDistinct, rawHeaders, process.env]));
});
guard(server, settingsOf(process.env), new Connections(server));
const greet = (request, socket) => socket.end(`HTTP/1.1 101 Hello\\r\\n\\r\\n${JSON.stringify(request.rawHeaders)}`);
server.on("upgrade", greet).on("connect", greet);
server.on("checkContinue", (request, response) => response.writeContinue());
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume().on("end", () => process.exit());
"""
COMMAND = [str(NODE), "-e", SERVER, str(ROOT / "app/editor/guard.js"), json.dumps(PAGES)]


@contextlib.contextmanager
def serving(file: Path | str, **settings: str) -> Iterator[int]:
    """The port of a guarded server; the file holds what opens it."""
    environ = {"WORKSPACE_SECRET_FILE": str(file), **settings}
    process = subprocess.Popen(COMMAND, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secrets") / "secret"
    file.write_text(f"{NEW}\n{OLD}\ndisconnect={'9' * 64}\n")
    return file


@pytest.fixture(scope="module")
def port(secrets: Path) -> Iterator[int]:
    with serving(secrets) as served:
        yield served


def ask(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    """Status, headers and text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def say(port: int, line: str, headers: Mapping[str, str]) -> str:
    """All that comes back to a request that is written out, until its connection is closed."""
    lines = [f"{line} HTTP/1.1", "Host: x", *(f"{name}: {text}" for name, text in headers.items()), "", ""]
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()


@pytest.mark.parametrize("shown", [{}, {"X-Workspace-Secret": ""}, {"X-Workspace-Secret": "0" * 63}])
def test_nobody_gets_in_without_the_secret(port: int, shown: dict[str, str]) -> None:
    """By no kind of request; and is told in a line what to do."""
    for method, path in (("GET", "/"), ("POST", "/healthz"), ("GET", "/healthz/x"), ("OPTIONS", "/vscode/")):
        status, headers, text = ask(port, path, method, **shown)
        assert (status, headers["Content-Type"]) == (403, "text/plain; charset=utf-8")
        assert "own address" in text and len(text.splitlines()) == 1
    for line, more in (
        ("GET /", HANDSHAKE),
        ("GET /healthz", HANDSHAKE),
        ("CONNECT 127.0.0.1:22", {}),
        ("POST /", {"Expect": "100-continue", "Content-Length": "5"}),
    ):
        assert say(port, line, more | shown).startswith("HTTP/1.1 403 Forbidden\r\n"), line


@pytest.mark.parametrize("shown", [OLD, NEW, f"{'2' * 64} {OLD}", f"{NEW}, {'2' * 64}"])
def test_one_secret_of_several_opens_and_is_seen_by_nobody_behind(port: int, shown: str) -> None:
    """Programs of the user are behind it too."""
    status, _, seen = ask(port, X_Workspace_Secret=shown, X_Other="kept")
    headers, distinct, raw, environ = json.loads(seen)
    assert (status, headers["x-other"], distinct["x-other"]) == (200, "kept", ["kept"])
    assert "X-Other" in raw
    assert "workspace-secret" not in seen.lower() and OLD not in seen and NEW not in seen
    assert {"WORKSPACE_SECRET_FILE", "EMBED_ORIGINS"}.isdisjoint(environ)
    greeted = say(port, "GET /", HANDSHAKE | {"x-workspace-SECRET": shown})
    assert greeted.startswith("HTTP/1.1 101 Hello") and "secret" not in greeted.lower()


def test_each_request_of_a_connection_is_asked(port: int) -> None:
    """Who was let in once has let in nobody after him."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        seen = []
        for headers in ({"X-Workspace-Secret": NEW}, {}):
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            answer.read()
            seen.append(answer.status)
    assert seen == [200, 403]


class Kept:
    """A connection that its server leaves open, by the access epoch that forward auth names."""

    def __init__(self, port: int, epoch: int | None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.status = self.ask(epoch)

    def ask(self, epoch: int | None) -> int:
        """The status of one more request."""
        shown = NEW if epoch is None else f"{NEW} epoch={epoch}"
        self._socket.sendall(f"HEAD / HTTP/1.1\r\nHost: x\r\nX-Workspace-Secret: {shown}\r\n\r\n".encode())
        return int(self._socket.recv(65_536).split()[1])

    @property
    def ended(self) -> bool:
        try:
            return self._socket.recv(1) == b""
        except ConnectionError:
            return True


def test_the_first_request_of_a_new_access_epoch_ends_older_connections(secrets: Path) -> None:
    """Not its own, nor those after it; of a request that was let in before, and comes later, nothing is served."""
    with serving(secrets) as port:
        old, unnamed, new = (Kept(port, epoch) for epoch in (3, None, 4))
        assert (old.status, unnamed.status, new.status) == (200, 200, 200)
        assert old.ended and unnamed.ended
        late, beside = Kept(port, 3), Kept(port, 4)
        assert (late.status, beside.status, Kept(port, None).status) == (403, 200, 200)
        assert new.ask(4) == 200 and beside.ask(4) == 200


def give(port: int, order: object) -> tuple[int, str]:
    """Status and text of the answer to an order, as the agent passes it on."""
    status, _, text = ask(port, ORDER_PATH, "POST", **{ORDER_HEADER: str(order)})
    return status, text


def test_an_order_ends_older_connections_once_and_is_confirmed(secrets: Path) -> None:
    """Whichever of several keys the two have in common; the connections made after it stay."""
    with serving(secrets) as port:
        old, order = Kept(port, 3), DisconnectOrder(["8" * 64, "9" * 64], 4)
        status, said = give(port, order)
        assert (status, order.confirmed_by(said), old.ended) == (200, True, True)
        new, again = Kept(port, 4), DisconnectOrder(["9" * 64], 4)
        status, said = give(port, again)
        assert (status, again.confirmed_by(said), order.confirmed_by(said), new.ask(4)) == (200, True, False, 200)
        assert Kept(port, 3).status == 403, "a request that was let in before the revocation"


def test_an_order_that_no_disconnect_secret_has_signed_ends_nothing(secrets: Path) -> None:
    """Not one signed by the secret that is in every request, which any program in the editor's place sees."""
    with serving(secrets) as port:
        here = Kept(port, 3)
        signed = str(DisconnectOrder(["9" * 64], 4))
        for order in (
            *("", "4", signed.replace("4 ", "5 ", 1), signed.rsplit(" ", 1)[0], f"{signed} x", signed.upper()),
            *(DisconnectOrder([each], 4) for each in (NEW, OLD, "disconnect=" + "9" * 64)),
        ):
            assert give(port, order)[0] == 403, order
        assert ask(port, ORDER_PATH, X_Workspace_Secret=f"{NEW} epoch=3")[0] == 403
        assert ask(port, X_Workspace_Secret="9" * 64)[0] == 403, "it opens nothing"
        assert here.ask(3) == 200
    with serving("none") as port:
        assert give(port, signed)[0] == 403


def test_what_stands_in_the_editors_place_confirms_nothing() -> None:
    """It knows the order, and the secret of every request."""
    order = DisconnectOrder(["9" * 64], 4)
    macs = str(order).split()[2:]
    forged = DisconnectOrder([NEW], 4, order.nonce)
    for text in ("", "ok", *macs, forged._macs("disconnected")[0], "é" * 64, None, 1, ["x"]):
        assert not order.confirmed_by(text)
    assert "9" * 64 not in repr(order) + str(order)


def test_probes_need_no_secret(port: int) -> None:
    """A kubelet has none."""
    asked = [(path, method) for path in ("/healthz", "/healthz?x") for method in ("GET", "HEAD")]
    assert [ask(port, *each)[0] for each in asked] == [200] * 4


def test_a_file_without_a_secret_opens_to_nobody() -> None:
    """As where there is no key to make one with."""
    with serving("/dev/null") as port:
        assert [ask(port, path)[0] for path in ("/", "/healthz")] == [403, 200]
        assert ask(port, X_Workspace_Secret="undefined")[0] == 403


def test_only_who_says_so_starts_an_editor_that_asks_for_nothing(tmp_path: Path) -> None:
    with serving("none") as port:
        assert ask(port)[0] == 200
        assert OLD not in ask(port, X_Workspace_Secret=OLD)[2], "it is taken out all the same"
    for file in ("", str(tmp_path / "missing")):
        wrong: dict[str, Any] = {"env": {"WORKSPACE_SECRET_FILE": file}, "input": ""}
        done = subprocess.run(COMMAND, **wrong, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode != 0
        assert "WORKSPACE_SECRET_FILE" in done.stderr


SEARCHED = ("home/.node_modules", "home/.node_libraries", "path")
"""Folders of the user's in which Node looks for modules."""

EDITORS_MAIN = """
const found = JSON.parse(process.env.WANTED).filter((name) => {
  try { return require(name); } catch { return false; }
});
console.log(JSON.stringify([found, process.env.HOME, process.env.NODE_PATH]));
process.exit();
"""


@pytest.mark.parametrize("path", [True, False], ids=["with NODE_PATH", "without"])
def test_the_process_with_the_secret_loads_no_module_of_the_users(tmp_path: Path, path: bool) -> None:
    """Packages of the editor try to load some that are not installed. The terminals' variables stay as they are."""
    for number, folder in enumerate(SEARCHED):
        (tmp_path / folder / f"module{number}").mkdir(parents=True)
        (tmp_path / folder / f"module{number}" / "index.js").touch()
    code = tmp_path / "editor" / "node_modules" / "code-server" / "out" / "node"
    code.mkdir(parents=True)
    for file in (ROOT / "app" / "editor").glob("*.js*"):
        shutil.copy(file, tmp_path / "editor")
    (code / "cli.js").touch()
    (code / "main.js").write_text(EDITORS_MAIN)
    home = str(tmp_path / "home")
    environ = {"HOME": home, "WANTED": json.dumps([f"module{number}" for number in range(len(SEARCHED))])}
    if path:
        environ["NODE_PATH"] = str(tmp_path / "path")
    command = [str(NODE), str(tmp_path / "editor" / "launch.js"), "--bind-addr", "x"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert json.loads(done.stdout or "null") == [[], home, environ.get("NODE_PATH")], done.stderr


def policies(port: int) -> dict[str, str]:
    """By path, the one policy that is sent."""
    sent = {path: ask(port, path, X_Workspace_Secret=NEW)[1].get_all("Content-Security-Policy") for path in PAGES}
    assert all(each is not None and len(each) == 1 for each in sent.values()), sent
    return {path: each[0] for path, each in sent.items() if each}


def test_pages_that_are_named_may_embed_the_editor_and_no_others(secrets: Path, port: int) -> None:
    """Its own webviews too, which are frames of its own."""
    a, b = "https://a.example.com", "https://b.example.com:8443"
    with serving(secrets, EMBED_ORIGINS=f"{a} {b}") as embedding:
        assert policies(embedding) == {
            "/head": f"default-src 'self'; manifest-src 'self'; frame-ancestors 'self' {a} {b}",
            "/header": f"default-src 'self'; frame-ancestors 'self' {a} {b}",
            "/none": f"frame-ancestors {a} {b}",
            "/own": f"script-src 'self'; frame-ancestors 'self' https://old.example.com {a} {b}",
        }
        assert ask(embedding, "/", X_Workspace_Secret=NEW)[1]["Content-Security-Policy"] is None
    assert policies(port) == PAGES


NO_ORIGINS = ["*", "null", "app.example.com", "https://a.example.com/page", "https://*.example.com", "https://a; x *"]


@pytest.mark.parametrize("origins", NO_ORIGINS)
def test_what_is_no_origin_stops_the_start(origins: str) -> None:
    """Nothing in it may begin another directive of the policy."""
    with pytest.raises(SettingsError, match="EMBED_ORIGINS"):
        Settings(embed_origins=origins).checked()


@pytest.mark.parametrize(
    "host", ["vs-code-aaaa0001.ws.example.org:8443", "VS-Code-aaaa0001.Other.example.org", "api.ws.example.org"]
)
@pytest.mark.parametrize("setting", ["embed_origins", "cors_origins"])
def test_an_origin_whose_pages_tenants_write_stops_the_start(setting: str, host: str) -> None:
    def start(other: str) -> Settings:
        named: Any = {setting: f"https://app.example.com,https://{other}"}
        return Settings(workspace_domain="ws.example.org", **named).checked()

    with pytest.raises(SettingsError, match=setting.upper()):
        start(host)
    assert start("vs-code-tools.example.com")


def test_origins_are_those_of_the_setting_in_its_order() -> None:
    chosen = Settings(embed_origins="https://b.example.com/, http://localhost:3000,https://b.example.com").checked()
    assert chosen.embedding_origins() == ("https://b.example.com", "http://localhost:3000")
    assert Settings().checked().embedding_origins() == ()
