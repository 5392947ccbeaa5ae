"""A stand-in for the API server: objects in memory, over HTTP, so that the adapter is under test as well.

It does what the runtime relies on, and no more: versions that grow, `resourceVersion` as a condition,
POST that won't overwrite, PUT that won't make, merge and server-side apply patches (with conflicts over replicas and
annotations), DELETE (with finalizers), lists in pages, and watches. Controllers there are none: a test makes the pods.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

from app.core.access.forwarded_request import NOWHERE
from workers.runtime.kubernetes.api_server import ApiServer

Object = dict[str, Any]
NAMESPACE = "workspaces"
LONG_AGO = "2026-01-01T00:00:00Z"

KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "resourceVersion")
"""What a PUT without it leaves in the metadata."""


class FakeApi:
    """What the server holds. `answers` maps "METHOD kind" to a status with which such requests fail;
    `requests` lists those that came, as "METHOD kind", `lists` the kinds of which lists were asked for, and `applied`
    what was applied to objects that were there. `lose` counts down to the request whose answer gets lost, and says
    whether it was done before."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.version = 100
        self.forgotten = 0
        self.objects: dict[tuple[str, str], Object] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.answers: dict[str, tuple[int, str]] = {}
        self.requests: list[str] = []
        self.lists: list[str] = []
        self.applied: list[Object] = []
        self.before: dict[str, Any] = {}
        self.page = 500
        self.cuts = 0
        self.url = ""
        self.lose: tuple[int, bool] = (0, False)

    # What a test does

    def put(self, kind: str, item: Object) -> Object:
        """Make or replace an object, as a controller would."""
        with self.changed:
            return self._store(kind, item, "MODIFIED" if self._key(kind, item) in self.objects else "ADDED")

    def drop(self, kind: str, name: str) -> None:
        """An object goes."""
        with self.changed:
            item = self.objects.pop((kind, name))
            self._note(kind, "DELETED", item)

    def change(self, kind: str, name: str, patch: Object) -> Object:
        """Change an object, as somebody else would; an empty patch makes another version of it."""
        return self.put(kind, merged(self.get(kind, name), patch))

    def get(self, kind: str, name: str) -> Object:
        return self.objects[(kind, name)]

    def names(self) -> set[tuple[str, str]]:
        """The kinds and names of all but the route of sessions that have none."""
        with self.changed:
            return {(kind, name) for kind, name in self.objects if name != NOWHERE}

    def kinds(self) -> set[str]:
        return {kind for kind, _ in self.names()}

    def named(self, *kinds: str) -> list[str]:
        """The names of the objects of these kinds."""
        return sorted(name for kind, name in self.names() if kind in kinds)

    def changes(self) -> list[str]:
        """The requests that came, but those that only read."""
        return [each for each in self.requests if not each.startswith(("GET", "WATCH"))]

    def cut(self, *, forget: bool = False) -> None:
        """End every open watch; with `forget`, its version is too old afterwards."""
        with self.changed:
            self.cuts += 1
            self.version += 1
            if forget:
                self.forgotten = self.version
            self.changed.notify_all()

    def cluster(self, timeout: float = 5.0) -> ApiServer:
        """The adapter under test, connected to this."""
        return ApiServer(NAMESPACE, timeout, client.Configuration(host=self.url))

    # What the server does

    def answer(self, method: str, kind: str, name: str, query: dict[str, str], body: Object) -> tuple[int, Object]:
        key = f"{method} {kind}"
        if (interruption := self.before.pop(key, None)) is not None:
            interruption()
        with self.changed:
            self.requests.append(key)
            self.lists += [kind] if method == "GET" and not name else []
            if key in self.answers:
                return _status(*self.answers[key])
            left, done = self.lose
            self.lose = (left - 1, done)
            if left == 1:
                if done:
                    self._do(method, kind, name, query, body)
                return _status(500, "lost")
            return self._do(method, kind, name, query, body)

    def _do(self, method: str, kind: str, name: str, query: dict[str, str], body: Object) -> tuple[int, Object]:
        if method == "POST":
            return self._create(kind, body)
        if not name:
            return self._list(kind, query)
        if method == "PATCH" and query.get("force") and (kind, name) not in self.objects:
            return self._create(kind, body)
        if (kind, name) not in self.objects:
            return _status(404, f"{kind} {name} not found")
        there = self.objects[(kind, name)]
        return getattr(self, f"_{method.lower()}")(kind, there, query, body)

    def _list(self, kind: str, query: dict[str, str]) -> tuple[int, Object]:
        wanted = self._selected(kind, query.get("labelSelector", ""))
        start = int(query.get("continue", "0"))
        more = {"continue": str(start + self.page)} if len(wanted) > start + self.page else {}
        metadata = {"resourceVersion": str(self.version), **more}
        return 200, {"items": wanted[start : start + self.page], "metadata": metadata}

    def _selected(self, kind: str, selector: str) -> list[Object]:
        items = [item for (each, _), item in sorted(self.objects.items(), key=lambda pair: pair[0]) if each == kind]
        return [item for item in items if selects(selector, item)]

    def _create(self, kind: str, body: Object) -> tuple[int, Object]:
        if self._key(kind, body) in self.objects:
            return _status(409, "already exists")
        metadata = {"uid": f"uid-{self.version}", "creationTimestamp": LONG_AGO, **body["metadata"]}
        return 201, self._store(kind, {**body, "metadata": metadata}, "ADDED")

    def _get(self, kind: str, there: Object, query: dict[str, str], body: Object) -> tuple[int, Object]:
        return 200, there

    def _put(self, kind: str, there: Object, query: dict[str, str], body: Object) -> tuple[int, Object]:
        if _outdated(there, body["metadata"]):
            return _status(409, "the object has been modified")
        kept = {name: there["metadata"][name] for name in KEPT if name in there["metadata"]}
        item = {**body, "metadata": {**body["metadata"], **kept}}
        if "deletionTimestamp" in kept and not item["metadata"].get("finalizers"):
            # What kept it until now is no longer in it.
            self.drop(kind, item["metadata"]["name"])
            return 200, item
        return 200, there if item == there else self._store(kind, item, "MODIFIED")

    def _patch(self, kind: str, there: Object, query: dict[str, str], body: Object) -> tuple[int, Object]:
        if _outdated(there, body["metadata"]):
            return _status(409, "the object has been modified")
        replicas = (body.get("spec") or {}).get("replicas")
        if "force" in query:
            self.applied.append(body)
        if query.get("force") == "false" and replicas not in (None, (there.get("spec") or {}).get("replicas")):
            return _status(409, "conflict with another field manager over replicas")
        noted, notes = (each["metadata"].get("annotations") or {} for each in (there, body))
        if query.get("force") == "false" and any(noted.get(name, value) != value for name, value in notes.items()):
            return _status(409, "conflict with another field manager over annotations")
        return 200, self._store(kind, merged(there, body), "MODIFIED")

    def _delete(self, kind: str, there: Object, query: dict[str, str], body: Object) -> tuple[int, Object]:
        if _outdated(there, body.get("preconditions") or {}):
            return _status(409, "the object has been modified")
        if there["metadata"].get("finalizers"):
            return 200, self._store(kind, merged(there, {"metadata": {"deletionTimestamp": LONG_AGO}}), "MODIFIED")
        for (each, name), item in list(self.objects.items()):
            owners = {owner["uid"] for owner in item["metadata"].get("ownerReferences") or []}
            if there["metadata"]["uid"] in owners:
                self._note(each, "DELETED", self.objects.pop((each, name)))
        self._note(kind, "DELETED", self.objects.pop(self._key(kind, there)))
        return 200, {"kind": "Status", "status": "Success"}

    def _store(self, kind: str, item: Object, what: str) -> Object:
        self._note(kind, what, item)
        stored: Object = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
        self.history[-1] = (self.version, kind, what, stored)
        self.objects[self._key(kind, item)] = stored
        return stored

    def _note(self, kind: str, what: str, item: Object) -> None:
        self.version += 1
        self.history.append((self.version, kind, what, item))
        self.changed.notify_all()

    def _key(self, kind: str, item: Object) -> tuple[str, str]:
        return kind, item["metadata"]["name"]

    def follow(self, kind: str, query: dict[str, str]) -> Iterator[Object]:
        """The events of a watch, until it is cut."""
        reached = int(query["resourceVersion"])
        with self.changed:
            self.requests.append(f"WATCH {kind}")
            self.changed.notify_all()
            cuts = self.cuts
            if reached < self.forgotten:
                yield {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
                return
        while True:
            with self.changed:
                fresh = [entry for entry in self.history if entry[0] > reached and entry[1] == kind]
                if self.cuts != cuts:
                    return
                if not fresh:
                    self.changed.wait(0.5)  # meant: it looks again
                    continue
            for version, _, what, item in fresh:
                reached = version
                if selects(query.get("labelSelector", ""), item):
                    metadata = {**item["metadata"], "resourceVersion": str(version)}
                    yield {"type": what, "object": {**item, "metadata": metadata}}


def selects(selector: str, item: Object) -> bool:
    """Whether a label selector of `a`, `a=b` and `a!=b` finds the object."""
    labels = item["metadata"].get("labels") or {}
    for each in filter(None, selector.split(",")):
        name, unequal, value = each.partition("!=")
        if unequal:
            if labels.get(name) == value:
                return False
            continue
        name, _, value = each.partition("=")
        if name not in labels or (value and labels[name] != value):
            return False
    return True


def merged(there: Object, patch: Object) -> Object:
    """A JSON merge patch (RFC 7396) without its deletions."""
    result = dict(there)
    for name, value in patch.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return result


def _outdated(there: Object, condition: Object) -> bool:
    return condition.get("resourceVersion") not in (None, there["metadata"]["resourceVersion"])


def _status(code: int, message: str) -> tuple[int, Object]:
    return code, {"kind": "Status", "code": code, "message": message}


@contextmanager
def serving() -> Iterator[FakeApi]:
    """A fake API server on a loopback port."""
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            kind, _, name = url.path.partition(f"/namespaces/{NAMESPACE}/")[2].partition("/")
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            if query.get("watch"):
                self._stream(kind, query)
                return
            if url.path == f"/api/v1/namespaces/{NAMESPACE}":
                kind, name = "namespaces", NAMESPACE
            code, answer = api.answer(self.command, kind, name, query, body)
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def _stream(self, kind: str, query: dict[str, str]) -> None:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                for event in api.follow(kind, query):
                    self.wfile.write(json.dumps(event).encode() + b"\n")
                    self.wfile.flush()
            except OSError:
                # Whoever watched is gone.
                return
            finally:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        api.cut()
        server.shutdown()
        thread.join()
        server.server_close()
