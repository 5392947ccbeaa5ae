"""A workspace as the gateway sees it: a session's record, and requests with its token."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from flask import Flask

from app.core.prompts.inbox import Prompt
from app.core.prompts.token_usage import Tokens
from app.core.sessions.model import Record, Status
from app.gateway.parts import EXTENSION, Gateway
from tests.world import FakeTasks

SECRET_KEY = "a-secret-key-of-the-gateways-tests"
API_KEY = "sk-key-of-the-provider-0123456789"
USER = "ada-zimmermann"
"""Whom no answer, metric or trace may name: a word that no random id has by chance."""

PROMPT = {"messages": [{"role": "user", "content": "hello"}]}

GatewayMaker = Callable[..., Flask]


def parts_of(app: Flask) -> Gateway:
    parts = app.extensions[EXTENSION]
    assert isinstance(parts, Gateway)
    return parts


def in_a_test(app: Flask) -> Flask:
    """The app, with a queue that only keeps what was sent, and the clock of its paces standing still."""
    parts = parts_of(app)
    core = copy.copy(parts.core)
    core.tasks = FakeTasks()  # type: ignore[assignment]
    core.delivery = copy.copy(core.delivery)
    core.delivery._tasks = core.tasks
    app.extensions[EXTENSION] = dataclasses.replace(parts, core=core, ticks=lambda: 100.0)
    return app


def event(kind: str, message_id: str = "m1", **data: object) -> dict[str, object]:
    """What an agent tells of a message."""
    return {"type": kind, "message_id": message_id, "data": data}


class Workspace:
    """One session and its token."""

    def __init__(self, app: Flask, uuid: str = "abcd1234", user_id: str = USER, status: Status = Status.ACTIVE) -> None:
        self.uuid = uuid
        self.parts = parts_of(app)
        self.core = self.parts.core
        self._client = app.test_client()
        now = time.time() - 100
        record = Record(
            uuid=uuid, user_id=user_id, created_at=now, last_activity=now, status=status, settled=1, epoch=1
        )
        self.core.store.create(record, quota=None)
        self.headers = {"Authorization": f"Bearer {self.core.credentials.token(uuid, 1)}"}

    @property
    def sent(self) -> list[tuple[str, tuple[Any, ...]]]:
        """The tasks that were enqueued."""
        assert isinstance(self.core.tasks, FakeTasks)
        return self.core.tasks.sent

    def call(self, method: str, path: str, buffered: bool = True, **more: Any) -> Any:
        """A request to its end; one that isn't `buffered` ends when its answer is closed."""
        headers = self.headers | more.pop("headers", {})
        return self._client.open(path, method=method, headers=headers, buffered=buffered, **more)

    def ask(self, **more: Any) -> Any:
        """A request for a completion."""
        return self.call("POST", "/llm/v1/chat/completions", json=PROMPT | more)

    def report(self, *events: dict[str, object], busy: bool = False) -> Any:
        return self.call("POST", "/agent/v1/events", json={"events": list(events), "busy": busy})

    def record(self) -> Record:
        return self.core.store.get(self.uuid)

    def take(self, *ids: str, delivered: bool = True, ago: float = 0.0) -> None:
        """Prompts that the agent has, or that wait for it; `ago` seconds ago they were stored."""
        for each in ids or ("m1",):
            self.core.inbox.take(self.uuid, "a prompt", each, now=time.time() - ago)
            if delivered:
                self.core.inbox.delivered(self.uuid, each, time.time())

    def message(self, message_id: str = "m1") -> Prompt:
        return self.core.inbox.get(self.uuid, message_id)

    def tokens(self) -> Tokens:
        """What was counted for the session."""
        return self.parts.token_usage.of_session(self.uuid)

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """What the session's event stream holds, without changes of its state."""
        told = self.core.events.follow(self.uuid, "0-0", 5.0, quiet=0.01)
        return [(event.type, dict(event.data)) for event in takewhile(bool, told) if event and event.type != "state"]
