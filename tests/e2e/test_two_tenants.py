"""Two tenants against each other: all that one of them can hold, tried at everything that is the other's.

The endpoints are those of the applications themselves: a new one that no table here has fails the first test. Every try
must be refused as it is documented, nothing of the victim's may be in any answer, and nothing of it may change.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from flask import Flask

from app.agent.server import create_app as create_agent
from app.core.access.tokens import COOKIE, FRAME_COOKIE
from app.gateway.main import create_app as create_gateway
from app.main import create_app, create_forward_auth
from app.process.settings import Settings
from tests.browser import HANDSHAKE
from tests.model_server import ModelServer
from tests.ports import free_port, listens
from tests.service import Service
from tests.tenant_tables import AGENT, CROOKED, EDITOR, FORWARD_AUTH, GATEWAY, VISITS, WEB, Try
from tests.tenants import BOUND_KEYS, FILE, SERVICE, SETTINGS, Answer, Attacker, Shown, Victim, ask
from tests.waiting import wait_for

NOBODYS = "zzzzzzzz"
"""A session that never was."""


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return SETTINGS | model.settings


@pytest.fixture(scope="module")
def bob(service: Service) -> Victim:
    return Victim(service)


@pytest.fixture(scope="module")
def ada(service: Service, bob: Victim) -> Attacker:
    return Attacker(service, bob.uuid)


@dataclass(frozen=True)
class Route:
    """A way to call an endpoint, by one of its methods; `path` is its rule."""

    endpoint: str
    method: str
    path: str


def routes(app: Flask) -> list[Route]:
    """All there are, what is written before it is read; HEAD is GET without a body."""
    rules = sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
    return [
        Route(rule.endpoint, method, rule.rule)
        for rule in rules
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}, reverse=True)
    ]


Served = Mapping[str, list[Route]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The routes of every application of the service, and of the agent."""
    folder = tmp_path_factory.mktemp("served")
    settings = Settings(api_key="0123456789abcdef", secret_key="0123456789abcdef0123456789abcdef", data_dir=folder)
    agent = SimpleNamespace(settings=SimpleNamespace(uuid=NOBODYS, prompt_max_bytes=1))
    agent.execs = agent.services = agent.ports = agent.files = agent.trees = agent.changed = agent.workspace = None
    return {
        "web": routes(create_app(settings)),
        "forward_auth": routes(create_forward_auth(settings)),
        "gateway": routes(create_gateway(settings)),
        "agent": routes(create_agent(cast(Any, agent))),
    }


REFUSED = (401, 403)
AGENTS_HOST = "api.localhost"
TABLES = {"web": WEB, "forward_auth": FORWARD_AUTH, "gateway": GATEWAY, "agent": AGENT}


@dataclass(frozen=True)
class Attempt:
    """One request, and the statuses that are right for it."""

    port: int
    method: str
    path: str
    headers: Mapping[str, str]
    allowed: tuple[int, ...]
    what: str
    body: Any = None

    def made(self) -> Answer:
        return ask(self.port, self.path, self.method, self.headers, self.body)


@dataclass(frozen=True)
class Contest:
    """Whose secrets are tried at what is whose."""

    service: Service
    ada: Attacker
    bob: Victim
    served: Served

    def fill(self, text: Any) -> Any:
        """The names in angle brackets, in a text or in the texts of a document."""
        if isinstance(text, dict):
            return {self.fill(name): self.fill(each) for name, each in text.items()}
        if isinstance(text, list):
            return [self.fill(each) for each in text]
        if not isinstance(text, str):
            return text
        names = {
            "own": self.ada.uuid,
            "session:uuid": self.bob.uuid,
            "name": self.bob.backup,
            "message_id": self.bob.message,
            "exec_id": self.bob.exec_id,
            "file:path": FILE,
            "service:name": SERVICE,
            "service_name": SERVICE,
            "port:port": "3000",
            "id_": self.bob.exec_id,
            "port": "3000",
            "letter_id": "0123456789abcdef",
            "asset": "docs.js",
            "path:filename": "x",
            "host": self.bob.host,
            "agents": AGENTS_HOST,
            "agent": str(self.bob.port_of("chat")) if "<agent>" in text else "",
        }
        return re.sub("<([a-z_: ]+)>", lambda match: names[match[1]], text)

    def shown(self) -> Iterator[Shown]:
        """Each of the attacker's secrets in each place."""
        return self.ada.shown(f"http://{self.bob.host}")

    def run(self, attempts: Iterable[Attempt]) -> None:
        """Make them, some at a time, as each waits for the service. Fails where an answer was wrong, and where anything
        of the victim's has changed."""
        before = self.bob.state()
        with ThreadPoolExecutor(4) as pool:
            answers = [(each, pool.submit(each.made)) for each in attempts]
        wrong = [trouble for each, answer in answers for trouble in self.troubles(each, answer.result())]
        wrong += self.bob.changes(before)
        assert not wrong, "\n".join(wrong)

    def troubles(self, attempt: Attempt, answer: Answer) -> Iterator[str]:
        """What is wrong with an answer."""
        if answer.status not in attempt.allowed:
            yield f"{attempt.what}: {answer.status}, not {attempt.allowed}"
        told = [number for number, text in enumerate(self.bob.private) if text.lower() in answer.text.lower()]
        if told:
            yield f"{attempt.what}: {answer.status} tells {told}"

    def by_table(self, port: int, name: str) -> None:
        """Every route of an application, with each of its entries in the table, asked at its own port."""
        entries = [(route, each) for route in self.served[name] for each in TABLES[name][route.endpoint]]
        self.run(
            Attempt(
                port,
                route.method,
                self.fill(route.path) + (f"?{self.fill(each.query)}" if each.query else ""),
                shown.headers,
                (expected(each, shown),),
                f"{route.method} {route.path}?{each.query} with the {shown.name} as {shown.place}",
                self.fill(each.body),
            )
            for route, each in entries
            for shown in self.shown()
            if shown.place != "visit"
        )

    def visits(self) -> Iterator[tuple[str, str, str, Shown]]:
        """Host, method, path and headers of every visit there is."""
        for host, method, path in VISITS:
            for shown in self.shown():
                socket = HANDSHAKE if method == "SOCKET" else {}
                asked = self.fill(path)
                linked = f"{asked}{'&' if '?' in asked else '?'}{shown.query}" if shown.query else asked
                headers = {**shown.headers, **socket}
                yield self.fill(host), method.replace("SOCKET", "GET"), linked, replace(shown, headers=headers)


def expected(each: Try, shown: Shown) -> int:
    """What the table says of who shows this."""
    match shown.name, shown.place:
        case (("bound service key" | "bound admin key"), "key"):
            return each.key
        case "session token", "bearer":
            return each.token
        case "workspace token", "bearer":
            return each.workspace
    return each.rest


@pytest.fixture
def contest(service: Service, ada: Attacker, bob: Victim, served: Served) -> Contest:
    return Contest(service, ada, bob, served)


@pytest.mark.parametrize("name", TABLES)
def test_every_endpoint_there_is_has_an_entry_here(name: str, served: Served) -> None:
    assert {route.endpoint for route in served[name]} == TABLES[name].keys()


def test_the_api(contest: Contest) -> None:
    contest.by_table(contest.service.port, "web")


def test_the_gateway(contest: Contest) -> None:
    """With its own token a workspace reads and writes what is its own, whoever it says it is."""
    contest.by_table(port_of(contest.service.gateway_url), "gateway")


def test_the_agents_own_port(contest: Contest) -> None:
    contest.by_table(contest.bob.port_of("chat"), "agent")


def test_the_editors_own_port(contest: Contest) -> None:
    """Also for those who tell it the secret of their own editor."""
    asked: list[tuple[str, str, Mapping[str, str]]] = [("GET", path, {}) for path in EDITOR] + [
        ("POST", "/", {}),
        ("GET", "/", HANDSHAKE),
    ]
    port = contest.bob.port_of("vs-code")
    contest.run(
        Attempt(
            port, method, contest.fill(path), {**shown.headers, **more}, (403,), f"{method} {path} with {shown.name}"
        )
        for method, path, more in asked
        for shown in contest.shown()
    )


def test_forward_auth(contest: Contest) -> None:
    """Asked in the ingress's words, Traefik's and nginx's: it lets nobody in, and says nothing that lets anyone in."""
    port = port_of(contest.service.forward_auth_url)
    contest.by_table(port, "forward_auth")
    attempts = []
    for host, method, path, shown in contest.visits():
        traefik = {"X-Forwarded-Host": host, "X-Forwarded-Uri": path, "X-Forwarded-Method": method}
        nginx = {"X-Original-URL": f"http://{host}{path}", "X-Original-Method": method}
        name = host.partition(":")[0]
        for verify, told in (("/auth/verify", traefik), (f"/auth/verify?proxy=nginx&host={name}", nginx)):
            # As Traefik does, before it asks.
            headers = {name: text for name, text in shown.headers.items() if name not in ("Connection", "Upgrade")}
            what = f"{method} {host}{path} in {verify} with the {shown.name} as {shown.place}"
            attempts.append(Attempt(port, "GET", verify, {**headers, **told}, REFUSED, what))
    contest.run(attempts)


def test_both_hosts_of_a_workspace(contest: Contest) -> None:
    """Through Traefik, with headers of the attacker's own that name another host as well."""
    own = {
        "X-Forwarded-Host": contest.ada.host,
        "X-Forwarded-Uri": "/",
        "X-Original-URL": f"http://{contest.ada.host}/",
    }
    contest.run(
        Attempt(
            contest.service.workspace_port,
            method,
            path,
            {**shown.headers, **lies, "Host": host},
            REFUSED,
            f"{method} {host}{path} with the {shown.name} as {shown.place}",
        )
        for host, method, path, shown in contest.visits()
        for lies in ({}, own)
    )


def test_every_endpoint_at_hosts_that_are_not_its_own(contest: Contest) -> None:
    """The host of workspaces and that of agents serve nothing of the API, the gateway or forward-auth; an agent's
    endpoints are behind forward auth."""
    port, everything = contest.service.workspace_port, contest.ada.all_at_once()
    paths = {(route.method, contest.fill(route.path)) for each in contest.served.values() for route in each}
    attempts = [
        Attempt(port, method, path, {**everything, "Host": host}, refused, f"{method} {host}{path}")
        for method, path in sorted(paths)
        for host, refused in ((contest.bob.host, REFUSED), (AGENTS_HOST, (404,)))
    ]
    for route in contest.served["agent"]:
        path, headers = f"/chat/{contest.bob.uuid}{contest.fill(route.path)}", {**everything, "Host": AGENTS_HOST}
        what = f"{route.method} {path}"
        attempts.append(Attempt(port, route.method, path, headers, (401,), what))
        attempts.append(Attempt(contest.service.port, route.method, path, headers, (404,), f"{what} of the API"))
    contest.run(attempts)


def test_paths_that_begin_as_ones_own(contest: Contest) -> None:
    everything = {**contest.ada.all_at_once(), "Host": AGENTS_HOST}
    refused = (400, 401, 404)
    contest.run(
        Attempt(contest.service.workspace_port, "GET", contest.fill(path), everything, refused, path)
        for path in CROOKED
    )


def test_from_inside_ones_own_workspace(contest: Contest) -> None:
    """By the address of an own port, at which the machine has another program than one's own."""
    service, ada, own = contest.service, contest.ada, free_port()
    verify = f"/auth/verify?proxy=nginx&host={contest.bob.host.partition(':')[0]}"
    ways = [
        (contest.bob.port_of("vs-code"), "/"),
        (contest.bob.port_of("chat"), "/history"),
        (port_of(service.gateway_url), "/agent/v1/checkpoint"),
        (port_of(service.forward_auth_url), verify),
        (service.port, "/livez"),
        (ada.port_of("vs-code"), "/"),
        (ada.port_of("chat"), "/health"),
    ]
    forged = {"X-Original-URL": f"http://{contest.bob.host}/", "X-Original-Method": "GET"}
    inside = {"Authorization": f"Bearer {ada.secrets['session token']}", **forged}

    def attempt(port: int, path: str, allowed: tuple[int, ...]) -> Attempt:
        by_its_cookie = {"Host": ada.host, "Cookie": ada.cookies(), "Accept": "text/html"}
        led = ask(service.workspace_port, f"/.session/port?port={port}&path=/", headers=by_its_cookie)
        assert led.status == 302, "it is opened by that"
        headers = {**inside, "Host": f"{port}--{ada.host}"}
        return Attempt(service.workspace_port, "GET", path, headers, allowed, f"port {port}{path}")

    program = [sys.executable, "-m", "http.server", str(own), "--bind", "127.0.0.1"]
    with subprocess.Popen(program, env={"WORKSPACE_UUID": ada.uuid}, stdout=subprocess.DEVNULL) as running:
        wait_for(lambda: listens(own), "its own program to listen")
        contest.run([*(attempt(port, path, (503,)) for port, path in ways), attempt(own, "/", (200,))])
        running.terminate()


def test_an_agent_that_says_it_is_where_the_others_is(contest: Contest) -> None:
    """A prompt for the one is not taken by the other."""
    own, others = (f"http://127.0.0.1:{each.port_of('chat')}" for each in (contest.ada, contest.bob))
    path, body = f"/session/{contest.ada.uuid}/chat", {"message": "remember me", "id": "astray"}
    before = contest.bob.state()
    contest.ada.says_it_is_at(others)
    sent = contest.service.call("POST", path, body, headers={"Prefer": "wait=2"})
    assert contest.bob.changes(before) == []
    assert (sent.status_code, sent.json()["status"]) == (202, "queued")
    contest.ada.says_it_is_at(own)
    assert contest.service.ended(contest.ada.uuid, "astray")["state"] == "processed"


def test_all_of_it_is_good_for_ones_own(service: Service, ada: Attacker) -> None:
    """Or its refusals would mean nothing."""
    held = ada.secrets
    bearer = {name: {"Authorization": f"Bearer {secret}"} for name, secret in held.items()}
    assert ask(service.port, f"/session/{ada.uuid}", headers=bearer["session token"]).status == 200
    for role in BOUND_KEYS:
        assert ask(service.port, f"/session/{ada.uuid}", headers={"X-API-Key": held[f"bound {role} key"]}).status == 200
    gateway = port_of(service.gateway_url)
    assert ask(gateway, "/llm/v1/models", headers=bearer["workspace token"]).status == 200
    assert ask(ada.port_of("chat"), "/history", headers=bearer["agent's secret"]).status == 200
    secret = {"X-Workspace-Secret": held["editor's secret"]}
    assert ask(ada.port_of("vs-code"), "/login", headers=secret).status != 403
    page = {"Host": ada.host, "Sec-Fetch-Site": "same-origin"}
    for name, text in ((COOKIE, held["cookie"]), (FRAME_COOKIE, held["frame cookie"])):
        cookie = {**page, "Cookie": f"{name}={text}"}
        assert ask(service.workspace_port, "/healthz", headers=cookie).status == 200
    (link,) = [shown for shown in ada.shown(f"http://{ada.host}") if (shown.name, shown.place) == ("link", "visit")]
    entered = ask(service.workspace_port, f"/?{link.query}", headers={**link.headers, "Host": ada.host})
    assert entered.status == 302 and f"{COOKIE}=" in entered.text


def port_of(url: str) -> int:
    return urlsplit(url).port or 0
