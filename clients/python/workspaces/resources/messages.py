"""Prompts to a workspace's agent, and the conversation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from workspaces.errors import ConnectionFailed, WaitTimedOut
from workspaces.events import Event, HeldEvent, MessageEvent, StateEvent, ends_session, typed
from workspaces.models import Chat, Conversation, ConversationEntry, Message, Status
from workspaces.pages import Pages
from workspaces.resources.base import Resource, new_id, operation, path
from workspaces.sse import SILENCE, STREAM, Raw, Stream, follow, read

HELD = "The session sleeps, so this prompt waits: wake it or send another prompt to continue."


class Messages(Resource):
    """The calls on prompts, which the API calls messages. Each prompt has an `id`: the same id and text again are the
    same prompt. It is generated if left out."""

    @operation("chat")
    def send(
        self,
        uuid: str,
        message: str,
        *,
        id: str | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> Chat:
        """Send the agent a prompt, which wakes a sleeping session. Waits for the answer if the session is awake, for
        `wait` seconds if given; else the `status` is `queued`, and `wait_until_finished` waits on."""
        return self._post(
            Chat,
            path("session", uuid, "chat"),
            body={"message": message, "id": id or new_id()},
            wait=wait,
            idempotency_key=idempotency_key,
        )

    @operation("chat", STREAM)
    def stream(
        self, uuid: str, message: str, *, id: str | None = None, idempotency_key: str | None = None
    ) -> Stream[Event]:
        """Send the agent a prompt, and follow its work: tokens, tool calls and results, the session's states, and last
        a `MessageEvent` with the response, or a `HeldEvent`. A connection that breaks is resumed where it broke."""
        return Stream(self._stream(uuid, {"message": message, "id": id or new_id()}, idempotency_key))

    @operation("listMessages")
    def list(
        self, uuid: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Pages[Conversation, ConversationEntry]:
        """The conversation, oldest first, also while the session sleeps; last the prompts that the agent has not
        begun. `limit` is of one page."""

        def fetch(cursor: str | None) -> Conversation:
            query = {"limit": limit, "cursor": cursor}
            return self._get(Conversation, path("session", uuid, "messages"), query=query)

        return Pages(fetch, lambda page: page.messages, cursor)

    @operation("getMessage")
    def get(self, uuid: str, message_id: str) -> Message:
        """One prompt, with its response if there is one; raises `MessageNotFound`."""
        return self._get(Message, path("session", uuid, "messages", message_id))

    def wait_until_finished(self, uuid: str, message_id: str, *, timeout: float = 600.0) -> Message:
        """Wait until a prompt is processed or has failed. Raises `WaitTimedOut` after `timeout` seconds, and at once
        if the session was put to sleep, as the prompt then waits for the next wake."""
        deadline = time.monotonic() + timeout
        events = follow(self._http, path("session", uuid, "events"), None, deadline)
        for _ in self._about(uuid, message_id, events):
            pass
        found = self.get(uuid, message_id)
        if not found.finished:
            raise WaitTimedOut(HELD)
        return found

    def _stream(self, uuid: str, body: dict[str, Any], idempotency_key: str | None) -> Iterator[Event]:
        last = None
        try:
            with self._http.stream(
                "POST",
                path("session", uuid, "chat"),
                body=body,
                accept=STREAM,
                idempotency_key=idempotency_key,
                read_timeout=SILENCE,
            ) as response:
                for raw in read(self._http, response):
                    if raw is None:
                        continue
                    last = raw.id
                    event = typed(raw)
                    yield event
                    if is_end(event):
                        return
        except ConnectionFailed:
            if last is None:
                raise
        events = follow(self._http, path("session", uuid, "events"), last)
        yield from self._about(uuid, body["id"], events)

    def _about(self, uuid: str, message_id: str, events: Iterator[Raw]) -> Iterator[Event]:
        """The events of a session's stream that are about a prompt, until its end."""
        first = True
        for raw in events:
            event = typed(raw)
            if isinstance(event, StateEvent):
                yield event
            elif raw.data.get("message_id") == message_id:
                if isinstance(event, MessageEvent) and event.finished:
                    yield self._end(uuid, message_id, raw.id)
                    return
                yield event
            down = isinstance(event, StateEvent) and (event.status == Status.SLEEPING or ends_session(event))
            if first or down:
                end = self._end(uuid, message_id, raw.id)
                if down or end.finished:
                    yield end
                    return
            first = False

    def _end(self, uuid: str, message_id: str, event_id: str) -> MessageEvent:
        """A prompt as the last event of a stream: `held` if it is not finished."""
        found = dict(self.get(uuid, message_id).raw)
        event = typed(Raw(event_id, "message", found))
        assert isinstance(event, MessageEvent)
        if event.finished:
            return event
        held = typed(Raw(event_id, "held", found | {"session": Status.SLEEPING, "detail": HELD}))
        assert isinstance(held, HeldEvent)
        return held


def is_end(event: Event) -> bool:
    """Whether it is the last event about a prompt."""
    return isinstance(event, HeldEvent) or (isinstance(event, MessageEvent) and event.finished)
