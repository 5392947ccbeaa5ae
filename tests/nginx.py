"""A real nginx in front of a service's workspaces, set up as ingress-nginx sets it up for the annotations of
`manifests/components/nginx`.

What it has in common with the controller's own template is what forward auth depends on: one server for each host; the
call of forward auth, which is told the URL with the visitor's `Host` in it; headers replaced by those of its answer;
and a 401 that becomes a redirect with forward auth's cookie. The controller leads to a Service's address, which stays
while the pod behind it comes and goes; here that is a forwarder for each workspace. It learns of a new one after a
while; here a test says when.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.core.access.forwarded_request import NOWHERE
from tests.conftest import ROOT
from tests.service import Service
from tests.waiting import wait_for

ADDRESS = "127.0.0.2"
"""Where it listens, on the port at which Traefik serves the same URLs at 127.0.0.1."""

DOMAIN = "ws.localhost"
API_HOST, AGENTS_HOST = f"api.{DOMAIN}", f"agents.{DOMAIN}"
INSTALL_LIMIT = 300.0
STOP_LIMIT = 20.0
CONNECT_LIMIT = 10.0
"""Seconds; none of it takes one, but for the first run of the first."""

LARGE_HEADERS = "4 64k"
"""The controller's `large-client-header-buffers`, as docs/kubernetes.md has operators set it."""

CHUNK = 65_536
ANNOTATION = "nginx.ingress.kubernetes.io/"


@pytest.fixture(scope="session")
def nginx_program() -> Path:
    """Debian's nginx: NGINX, else one that is unpacked (a second, once)."""
    if named := os.environ.get("NGINX"):
        return Path(named)
    script = ROOT / "scripts" / "lib" / "nginx"
    done = subprocess.run([str(script)], capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False)
    if done.returncode:
        pytest.skip(f"there is no nginx, and no Debian to take it from: {done.stderr[-500:]}")
    return Path(done.stdout.strip())


def component_setting(name: str) -> str:
    """A setting, as the component gives it to the service's processes."""
    lines = (ROOT / "manifests" / "components" / "nginx" / "settings.env").read_text().splitlines()
    (text,) = [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]
    return text


def annotations_in(setting: str) -> dict[str, str]:
    """Those in such a setting, by their names behind the prefix."""
    annotations = json.loads(component_setting(setting))
    return {name.removeprefix(ANNOTATION): value for name, value in annotations.items()}


SETTINGS = {
    "WORKSPACE_DOMAIN": DOMAIN,
    "API_HOST": AGENTS_HOST,
    "INGRESS_FORWARD_AUTH": component_setting("INGRESS_FORWARD_AUTH"),
}
"""Of a service behind it."""


class Front:
    """nginx at the addresses of some workspaces and of their agents, and, as the route of those that have none, at all
    others of their domain."""

    def __init__(self, service: Service, program: Path, folder: Path) -> None:
        self._service, self._program, self._folder = service, program, folder
        self._ways = contextlib.ExitStack()
        self._ways_to: dict[str, dict[str, tuple[str, int]]] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def lead_to(self, uuid: str) -> None:
        """Have a route for one more workspace, as the controller does when it sees its Ingress."""
        self._add(uuid)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def lead_to_port(self, uuid: str, port: int) -> None:
        """The same for a port of a workspace, which its editor answers for."""
        self._add_way(f"{port}--vs-code-{uuid}.{DOMAIN}", "/", f"user-{uuid}", f"vs-code-{uuid}")
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def start(self, uuids: list[str]) -> None:
        self._add_way(f"*.{DOMAIN}", "/", NOWHERE, "of none")
        self._add_way(AGENTS_HOST, "/chat/", NOWHERE, "of none")
        for uuid in uuids:
            self._add(uuid)
        with (self._folder / "log").open("wb") as log:
            command = [str(self._program), "-c", str(self._folder / "nginx.conf"), "-e", "stderr"]
            process = self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: process.poll() is not None or answers(self._service.workspace_port), "nginx to listen")
        assert process.poll() is None, (self._folder / "log").read_text()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_LIMIT)
        self._ways.close()

    def _add(self, uuid: str) -> None:
        self._add_way(f"vs-code-{uuid}.{DOMAIN}", "/", f"user-{uuid}", f"vs-code-{uuid}")
        self._add_way(AGENTS_HOST, f"/chat/{uuid}/", f"user-{uuid}", f"chat-{uuid}")

    def _add_way(self, host: str, path: str, kubernetes_service: str, route: str) -> None:
        port = self._ways.enter_context(way_to(self._service, route))
        self._ways_to.setdefault(host, {})[path] = kubernetes_service, port
        text = config(self._service, self._program, self._folder, self._ways_to)
        (self._folder / "nginx.conf").write_text(text)


@contextlib.contextmanager
def in_front(service: Service, program: Path, folder: Path, uuids: list[str]) -> Iterator[Front]:
    """nginx in front of these workspaces, until the end of the block."""
    front = Front(service, program, folder)
    try:
        front.start(uuids)
        yield front
    finally:
        front.stop()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((ADDRESS, port)) == 0


@contextlib.contextmanager
def way_to(service: Service, route: str) -> Iterator[int]:
    """A port that leads where Traefik's route of this name does, to an editor or an agent, and nowhere while it sleeps:
    as a Service does."""
    key = f"traefik/http/services/{route}/loadbalancer/servers/0/url"

    class Way(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with service.redis(database=1) as routes:
                port = urlsplit(str(routes.get(key) or "")).port
            if port is not None:
                forward(self.request, port)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Way) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


def forward(outer: socket.socket, port: int) -> None:
    """Copy both ways until both ends are reached."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), CONNECT_LIMIT) as inner:
        inner.settimeout(None)
        back = threading.Thread(target=copy, args=(inner, outer), daemon=True)
        back.start()
        copy(outer, inner)
        back.join()


def copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def config(service: Service, program: Path, folder: Path, ways: Mapping[str, Mapping[str, tuple[str, int]]]) -> str:
    """nginx.conf: a server for each host, with the Service and the port of each of its paths; and the API's."""
    modules = program.parents[1] / "lib" / "nginx" / "modules"
    listen = f"listen {ADDRESS}:{service.workspace_port}"
    servers = "".join(server(service, listen, host, paths) for host, paths in ways.items())
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
worker_processes 1;
pid {folder}/pid;
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_set_misc_module.so;
events {{ worker_connections 512; }}
http {{
access_log off;
large_client_header_buffers {LARGE_HEADERS};
{temporary}
map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
server {{ {listen} default_server; return 404; }}
server {{ {listen}; server_name {API_HOST}; location / {{ proxy_pass {service.url}; }} }}
{servers}
}}
"""


def server(service: Service, listen: str, host: str, paths: Mapping[str, tuple[str, int]]) -> str:
    """The server of one host, or of several, whose requests pass forward auth."""
    chosen, others = annotations_in("INGRESS_FORWARD_AUTH"), annotations_in("INGRESS_ANNOTATIONS")
    forward_auth, signin = urlsplit(chosen["auth-url"]), urlsplit(chosen["auth-signin"])
    replaced = "".join(
        f"auth_request_set $authHeader{number} $upstream_http_{name.lower().replace('-', '_')};\n"
        f"proxy_set_header {name} $authHeader{number};\n"
        for number, name in enumerate(chosen["auth-response-headers"].split(","))
    )
    locations = "".join(location(replaced, path, *way) for path, way in paths.items())
    return f"""\
server {{
{listen};
server_name {host};
location = /_forward_auth {{
    internal;
    proxy_pass_request_body off;
    proxy_set_header Content-Length "";
    proxy_set_header Host {forward_auth.hostname};
    proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
    proxy_set_header X-Original-Method $request_method;
    proxy_buffer_size {others["proxy-buffer-size"]};
    proxy_buffers 4 {others["proxy-buffer-size"]};
    set $forward_auth {service.forward_auth_url}{forward_auth.path}?{forward_auth.query};
    proxy_pass $forward_auth;
}}
location @signin {{
    internal;
    add_header Set-Cookie $forward_auth_cookie;
    return 302 http://{API_HOST}:{service.workspace_port}{signin.path}?{signin.query}&rd=$scheme://$http_host$escaped_uri;
}}
{locations}
}}
"""


def location(replaced: str, path: str, kubernetes_service: str, port: int) -> str:
    """One of a server's paths; `replaced` has the headers that forward auth answers."""
    return f"""\
location {path} {{
    set $service_name "{kubernetes_service}";
    auth_request /_forward_auth;
    auth_request_set $forward_auth_cookie $upstream_http_set_cookie;
    add_header Set-Cookie $forward_auth_cookie;
    {replaced}
    set_escape_uri $escaped_uri $request_uri;
    error_page 401 = @signin;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_pass http://127.0.0.1:{port};
}}
"""
