"""A service that answers as a test says, in place of a connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from workspaces import Workspaces
from workspaces.http import Http
from workspaces.retries import Retries

URL = "http://api.test"
KEY = "a-key-of-the-tests"
UUID = "k3v9x0qa"
TIME = "2026-11-20T08:00:00.000Z"

Turn = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Api(httpx.BaseTransport):
    """Answers each request with the next of its `turns`; `requests` are those that came, `slept` the pauses of the
    client."""

    def __init__(self, *turns: Turn) -> None:
        self.turns = list(turns)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        assert self.turns, f"unexpected: {request.method} {request.url}"
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return turn if isinstance(turn, httpx.Response) else turn(request)

    def client(self, retries: int = 3) -> Workspaces:
        """A client of this that sleeps for no time, and whose pauses have no jitter."""
        client = Workspaces(URL, KEY, retries=retries, transport=self)
        http: Http = client._http
        http.sleep = self.slept.append
        http.retries = Retries(retries, jitter=lambda: 1.0)
        return client

    @property
    def bodies(self) -> list[Any]:
        """The JSON bodies of the requests."""
        return [json.loads(request.content) if request.content else None for request in self.requests]


def asked(api: Api) -> list[str]:
    """Method and URL of each request that came."""
    return [f"{each.method} {each.url.raw_path.decode()}" for each in api.requests]


def answer(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    """A JSON answer."""
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def problem(status: int, code: str, detail: str = "no", *, retry_after: str = "", **more: Any) -> httpx.Response:
    """A problem document."""
    body = {"type": "about:blank", "status": status, "error": code, "detail": detail, "request_id": "r1", **more}
    headers = {"Retry-After": retry_after} if retry_after else {}
    return httpx.Response(status, json=body, headers=headers | {"Content-Type": "application/problem+json"})


class Body(httpx.SyncByteStream):
    """A body of these parts that is read as it comes."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts


class Broken(Body):
    """A body that breaks off after its parts."""

    def __iter__(self) -> Iterator[bytes]:
        yield from super().__iter__()
        raise httpx.ReadError("the connection was reset")


def sse(event_id: str, kind: str, **data: Any) -> str:
    """One event as it is sent."""
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"


def stream(*events: str, breaks: bool = False) -> httpx.Response:
    """A stream with these events, which ends or breaks off."""
    headers = {"Content-Type": "text/event-stream"}
    if breaks:
        return httpx.Response(200, headers=headers, stream=Broken(*(event.encode() for event in events)))
    return httpx.Response(200, headers=headers, text="".join(events))


def state(event_id: str, status: str, **more: Any) -> str:
    """A change of a session's state as it is sent."""
    return sse(event_id, "state", status=status, **more)


def scaled_down(status: str, code: int = 200) -> httpx.Response:
    """The answer to a sleep that is waited for."""
    return answer({"uuid": UUID, "action": "scale_down", "status": status}, code)


def queued(name: str, **more: Any) -> httpx.Response:
    """The answer to an action that goes on."""
    return answer({"uuid": UUID, "action": name, "status": "queued", **more}, 202)


def action(name: str, status: str = "success") -> httpx.Response:
    """The answer to an action."""
    return answer({"uuid": UUID, "action": name, "status": status})


def session(status: str = "active", **fields: Any) -> dict[str, Any]:
    """A session as `GET /session/{uuid}` answers it."""
    detail = {
        "user_id": "ada",
        "status": status,
        "created_at": TIME,
        "last_activity": TIME,
        "tier": "hot",
        "archives_at": None,
        "expires_at": None,
        "workspace_url": "http://vs-code-k3v9x0qa.localhost",
        "pod_name": None,
        "reason": None,
        "reason_code": None,
        "size": "small",
        "idle_timeout": 600,
        "ttl": 0.0,
        "labels": {"course": "python-101"},
        "restore_from": None,
        "backup": None,
        "backup_lacks": None,
        "generation": 1,
        "risk": None,
        "conversation": {"stale": False, "unsaved_since": None, "reason": None},
    }
    about = {"uuid": UUID, "replicas": 1, "queue_length": 0, "phases": {"ready": 412}, "timestamp": TIME}
    return {**about, "session": detail | fields}


def message(message_id: str, state: str = "processed", **fields: Any) -> dict[str, Any]:
    """A prompt as `GET /session/{uuid}/messages/{message_id}` answers it."""
    done = state == "processed"
    return {
        "uuid": UUID,
        "message_id": message_id,
        "state": state,
        "message": None if done else "hi",
        "response": {"text": "hello"} if done else None,
        "reason": None,
        "created_at": TIME,
        "delivered_at": None,
        "processed_at": TIME if done else None,
        **fields,
    }


def command(exec_id: str = "e1", **fields: Any) -> dict[str, Any]:
    """A command as a list has it, one that has ended well."""
    return {
        "uuid": UUID,
        "exec_id": exec_id,
        "command": "make",
        "cwd": ".",
        "detached": False,
        "state": "exited",
        "exit_code": 0,
        "signal": None,
        "reason": None,
        "left": 0,
        "started_at": TIME,
        "ended_at": TIME,
        "ms": 1200,
        "stdout_bytes": 4,
        "stderr_bytes": 0,
        "tty": None,
        "input_bytes": 0,
        **fields,
    }


def with_output(exec_id: str = "e1", stdout: str = "out\n", **fields: Any) -> dict[str, Any]:
    """A command as `GET /session/{uuid}/exec/{exec_id}` answers it."""
    return {**command(exec_id, **fields), "stdout": stdout, "stderr": "", "truncated": False}


def entry(path: str = "a.py", **fields: Any) -> dict[str, Any]:
    """A file as a list has it."""
    shown = {"path": path, "raw_path": None, "type": "file", "size": 12, "mode": "644", "modified_at": TIME}
    return {"uuid": UUID, **shown, "target": None, "etag": '"v1"', **fields}


def listed(*entries: dict[str, Any], next_cursor: str | None = None) -> httpx.Response:
    """A page of files."""
    return answer({"uuid": UUID, "path": ".", "entries": entries, "next_cursor": next_cursor})


def wrote(path: str = "a.py", etag: str = '"v2"', status: int = 201) -> httpx.Response:
    """The answer to a file that was written."""
    return answer(entry(path, etag=etag), status, ETag=etag)


def content_of(content: bytes, etag: str = '"v1"') -> httpx.Response:
    """The answer to a file that is read."""
    return httpx.Response(200, stream=Body(content), headers={"Content-Length": str(len(content)), "ETag": etag})


def archive_of(*parts: bytes, media: str = "application/gzip", breaks: bool = False) -> httpx.Response:
    """The answer to a folder that is read, which breaks off after its parts if it `breaks`."""
    body = Broken(*parts) if breaks else Body(*parts)
    return httpx.Response(200, stream=body, headers={"Content-Type": media})


def unpacked(path: str = ".", files: int = 2, bytes: int = 12) -> httpx.Response:
    """The answer to an archive that was written."""
    return answer({"uuid": UUID, "path": path, "files": files, "bytes": bytes})


def service(name: str = "web", **fields: Any) -> dict[str, Any]:
    """A service of a workspace, by default one that runs for the first time."""
    return {
        "uuid": UUID,
        "name": name,
        "command": "npm run dev",
        "cwd": ".",
        "port": 3000,
        "restart": "on_failure",
        "autostart": False,
        "state": "running",
        "exit_code": None,
        "signal": None,
        "reason": None,
        "starts": 1,
        "started_at": TIME,
        "ended_at": None if fields.get("state") in (None, "running", "starting") else TIME,
        "log_bytes": 4,
        **fields,
    }


def port(number: int = 3000, **fields: Any) -> dict[str, Any]:
    """A port of a workspace as a list has it, by default one that is not opened."""
    shown = {"port": number, "state": "listening", "process": "node", "service": None}
    times = {"opened_at": None, "public_until": None}
    return {**shown, "url": f"http://{number}--vs-code-{UUID}.localhost", **times, **fields}


def opened(number: int = 3000, **fields: Any) -> dict[str, Any]:
    """The answer to a port that was opened, by default a private one."""
    link = f"http://{number}--vs-code-{UUID}.localhost/?link=secret"
    private = {"uuid": UUID, "url": link, "expires_at": TIME, "opened_at": TIME}
    return port(number, **private | fields)


RUNNING: dict[str, Any] = {"state": "running", "exit_code": None, "ended_at": None}
"""The fields of a command that runs."""


def created(**fields: Any) -> httpx.Response:
    """The answer to a creation."""
    body = {"uuid": UUID, "user_id": "ada", "status": "created", "workspace_url": "http://w", "created_at": TIME}
    return answer(body | fields, 201)
