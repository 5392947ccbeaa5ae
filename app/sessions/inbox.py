"""The inbox: the prompts of a session from the moment they are taken until their end is known.

Taking a prompt and waking its session is one step, so that no sweep comes in between; and a prompt leaves
the inbox only when the agent has it for good. Between the two anything may die: what was not delivered is
delivered again, in order, and the agent drops what it has seen. In effect each prompt runs exactly once.

`queue:{uuid}` holds the ids of the prompts to deliver, and, where KEDA scales, one marker for as long as the
session should be up. A session that is put to sleep on demand keeps its prompts apart from it, in
`queue:{uuid}:held`: there they wake nothing. The next wake, or the next prompt, puts them back.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import redis

from app.sessions import keys, queue
from app.sessions.agents import Agent
from app.sessions.errors import (
    InboxFull,
    InvalidRequest,
    MessageIdReused,
    MessageNotFound,
    MessageTooLarge,
    StoreFull,
    UserInboxFull,
)
from app.sessions.events import EVENTS_KEPT
from app.sessions.model import UP, Record, Status
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import ON_PROMPTS, script
from app.sessions.store import SessionStore, change_keys, change_of, intent, number
from app.settings import Settings

ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")

MARKER = "*up*"
"""The entry of a list that keeps its session up; no prompt's id looks like this."""

UNFINISHED_PER_WAITING = 2
"""How many prompts may be unfinished for each that may wait: the agent's own queue is bounded by this."""

COUNTS = keys.PROMPT_BYTES.split("{user_id}")
"""What the name of a user's count consists of, besides the user."""

REASON_LENGTH = 2_000
"""Characters of a failure's reason that are kept; the text is the agent's."""

MESSAGE_BYTES = 1_024
"""What Redis takes for a message besides its texts, its places in the lists included (measured: 600 to 900)."""

FIRST_RETRY = 1.0
LONGEST_RETRY = 300.0
"""s between two tries to reach an agent that does not answer: doubled from the first to the longest. One that is
broken for good must not keep the couriers from the others."""


class State(StrEnum):
    """Of a message: waiting for the agent, in its hands, answered, or given up for the `reason`."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    PROCESSED = "processed"
    FAILED = "failed"


FINISHED = frozenset({State.PROCESSED, State.FAILED})


@dataclass(frozen=True, kw_only=True)
class Message:
    """A prompt as Redis holds it (hash `message:{uuid}:{id}`). Times are seconds since the epoch, 0 for not yet.

    `text` is there until the end: after that the agent's history has it. `response` is what the agent answered:
    `text`, `steps`, `tool_calls`, `usage`.
    """

    id: str
    state: State
    text: str = ""
    response: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    created_at: float = 0.0
    delivered_at: float = 0.0
    processed_at: float = 0.0
    request_id: str = ""

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @classmethod
    def from_hash(cls, message_id: str, hashed: Mapping[str, str]) -> Message:
        times = {name: float(hashed.get(name) or 0) for name in ("created_at", "delivered_at", "processed_at")}
        return cls(
            id=message_id,
            state=State(hashed["state"]),
            text=hashed.get("text", ""),
            response=json.loads(hashed.get("response") or "{}"),
            reason=hashed.get("reason", ""),
            request_id=hashed.get("request_id", ""),
            **times,
        )


@dataclass(frozen=True)
class Taken:
    """What became of a prompt that was brought: `record` is the session's, None when nothing had to be done
    because the message is past waiting; `woken` whether it was woken for it, `deliver` whether an agent is there."""

    message: Message
    record: Record | None = None
    woken: bool = False
    deliver: bool = False


class Inbox:
    """The prompts of all sessions, and where their agents are. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis, store: SessionStore, settings: Settings) -> None:
        self._redis = client
        self._store = store
        self._settings = settings
        self._scripts = {name: client.register_script(script(name)) for name in ("take", "finish", *ON_PROMPTS)}

    def take(self, uuid: str, text: str, message_id: str = "", *, now: float, request_id: str = "") -> Taken:
        """Store a prompt, and wake its session if it isn't up. The same id and text again is the same message.

        Raises `InvalidRequest`, `MessageTooLarge`, `MessageIdReused`, `InboxFull`, `UserInboxFull`, `StoreFull`,
        `SessionNotFound`, and `IllegalState` for a session that is deleted or being deleted.
        """
        data = self._checked(text, message_id)
        message_id = message_id or secrets.token_hex(8)
        due = now + self._settings.stale_after
        wakes = [
            self._store.request(
                uuid, now, **intent(Status.WAKING, task=task, noop=UP, due=due, request_id=request_id), touch=True
            )
            for task in (queue.WAKE, queue.RESTORE)
        ]
        given = {
            "digest": hashlib.sha256(data).hexdigest(),
            "text": text,
            "request_id": request_id,
            "limit": self._settings.inbox_limit,
            "most": self._settings.inbox_limit * UNFINISHED_PER_WAITING,
            **self._budget(),
        }
        with redis_errors():
            code, detail, record, message, agent = self._scripts["take"](
                keys=_keys(uuid, message_id), args=[self._given(uuid, message_id, now, **given), *wakes]
            )
        if code == "reused":
            raise MessageIdReused("This message id came with another text before.")
        if code == "no_room":
            raise StoreFull
        if code == "full":
            raise self._full(detail)
        if code == "known":
            return Taken(Message.from_hash(message_id, _pairs(message)))
        change = change_of(uuid, Status.WAKING, (code, detail, record))
        taken = Message.from_hash(message_id, _pairs(message))
        return Taken(taken, change.record, woken=change.applied, deliver=bool(agent))

    def head(self, uuid: str) -> Message | None:
        """The prompt to deliver next, None when none waits. A name without its message is dropped."""
        while True:
            with redis_errors():
                first = [name for name in self._redis.lrange(keys.INBOX.format(uuid=uuid), 0, 1) if name != MARKER]
            if not first:
                return None
            message = self._find(uuid, first[0])
            if message is not None and message.state is State.QUEUED:
                return message
            self.delivered(uuid, first[0], 0.0)

    def delivered(self, uuid: str, message_id: str, now: float) -> bool:
        """Note that the agent has this prompt; False when that was known."""
        return self._run("delivered", uuid, message_id, now)

    def finish(
        self, uuid: str, message_id: str, *, response: Mapping[str, Any] | None = None, reason: str = "", now: float
    ) -> bool:
        """Note the end of a prompt: processed, with its response, or failed where a `reason` is given. The first
        end stands; False for one that came later, or whose message is unknown."""
        given = {
            "state": State.FAILED if reason else State.PROCESSED,
            "response": json.dumps(dict(response)) if response else "",
            "reason": reason[:REASON_LENGTH],
            "kept": max(1, int(self._settings.message_kept)),
            **self._budget(),
        }
        return self._run("finish", uuid, message_id, now, **given)

    def get(self, uuid: str, message_id: str) -> Message:
        """The message; raises `MessageNotFound`, also `MESSAGE_KEPT` after its end."""
        message = self._find(uuid, message_id)
        if message is None:
            raise MessageNotFound(message_id)
        return message

    def look(self, uuid: str, message_id: str) -> tuple[Message, bool]:
        """The message, and whether it rests with its session, which was put to sleep: nothing becomes of it until
        somebody wakes that. Both as they are at one moment; raises as `get`."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hgetall(keys.MESSAGE.format(uuid=uuid, id=message_id))
            pipe.lpos(keys.HELD.format(uuid=uuid), message_id)
            pipe.hmget(keys.SESSION.format(uuid=uuid), ["status", "generation", "settled"])
            hashed, place, (status, generation, settled) = pipe.execute()
        if not hashed:
            raise MessageNotFound(message_id)
        message = Message.from_hash(message_id, hashed)
        with_agent = message.state is State.DELIVERED and generation == settled
        return message, status == Status.SLEEPING and (place is not None or with_agent)

    def waiting(self, uuid: str) -> int:
        """How many prompts wait that may be delivered now."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=True)
            pipe.llen(keys.INBOX.format(uuid=uuid))
            pipe.lpos(keys.INBOX.format(uuid=uuid), MARKER)
            length, marker = pipe.execute()
        return int(length) - (marker is not None)

    def unfinished(self, uuid: str) -> list[Message]:
        """All prompts whose end is not known, in the order they came: waiting, and in the agent's hands."""
        with redis_errors():
            ids = self._redis.lrange(keys.PROMPTS.format(uuid=uuid), 0, -1)
            pipe = self._redis.pipeline(transaction=False)
            for message_id in ids:
                pipe.hgetall(keys.MESSAGE.format(uuid=uuid, id=message_id))
            found = zip(ids, pipe.execute(), strict=True)
        messages = [Message.from_hash(message_id, hashed) for message_id, hashed in found if hashed]
        return [message for message in messages if not message.finished]

    def states(self, uuid: str, ids: Sequence[str]) -> list[State | None]:
        """The state of each of these prompts, None for one of which nothing is known (any more)."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for message_id in ids:
                pipe.hget(keys.MESSAGE.format(uuid=uuid, id=message_id), "state")
            return [State(state) if state else None for state in pipe.execute()]

    def hold(self, uuid: str, generation: int, now: float) -> bool:
        """Give the session's agent no more and hold its prompts back, as the intent `generation` is about to stop it.
        False, and nothing is done, when a newer intent stands: a prompt came meanwhile."""
        return self._run("hold", uuid, "", now, generation=str(generation))

    def release(self, uuid: str, now: float) -> None:
        """Let the prompts that were held back be delivered, as the session is about to be started. An agent that was
        being stopped is called back, if it runs: who delivers is reminded of that until it is done."""
        self._run("release", uuid, "", now)

    def close(self, uuid: str, reason: str, now: float) -> None:
        """End all prompts of a session that is being deleted, and forget its agent. The ends are kept for a while."""
        for message in self.unfinished(uuid):
            self.finish(uuid, message.id, reason=reason, now=now)
        self._run("close", uuid, "", now, counts=COUNTS)

    def agent(self, uuid: str) -> Agent | None:
        """Where the session's agent is, None while it has not called or once it is being stopped."""
        hashed, epoch = self._agent_hash(uuid)
        return Agent.from_hash(uuid, hashed, epoch) if hashed and "leaving" not in hashed else None

    def leaving_agent(self, uuid: str) -> Agent | None:
        """The session's agent if it is being stopped, or was to be: it may have been told to take nothing more."""
        hashed, epoch = self._agent_hash(uuid)
        return Agent.from_hash(uuid, hashed, epoch) if "leaving" in hashed else None

    def has_agent(self, uuid: str) -> bool:
        """Whether the session's agent is known, leaving or not."""
        with redis_errors():
            return bool(self._redis.exists(keys.AGENT.format(uuid=uuid)))

    def agent_leaves(self, uuid: str) -> None:
        """Note that the session's agent is being stopped."""
        self._run("agent_leaves", uuid, "", 0.0)

    def agent_stays(self, uuid: str, generation: int, now: float) -> None:
        """Note that the stop was broken off by the intent `generation`, and its agent takes prompts again. Nothing is
        noted when a newer intent stands."""
        self._run("agent_stays", uuid, "", now, generation=str(generation))

    def agent_here(self, uuid: str, address: str, name: str, boot: str, now: float) -> bool:
        """Note that the session's agent listens at `address`. One with another `boot` than before is given again what
        is not finished. False when it is being stopped, or its session is gone. Raises `InvalidRequest` for an address
        that no agent can have."""
        agent = Agent.at_address(uuid, address, self._settings, name=name, boot=boot)
        return self._run("agent_here", uuid, "", now, address=agent.address, pod=agent.name, boot=agent.boot)

    def agent_gone(self, uuid: str) -> None:
        """Forget where the session's agent was."""
        with redis_errors():
            self._redis.delete(keys.AGENT.format(uuid=uuid))

    def agent_failed(self, agent: Agent, now: float) -> None:
        """Note that a delivery found the agent unable: it is left alone for a while, longer each time, until it
        calls again. Then the sweep comes."""
        self._run("agent_failed", agent.uuid, "", now, boot=agent.boot, first=FIRST_RETRY, longest=LONGEST_RETRY)

    def _agent_hash(self, uuid: str) -> tuple[dict[str, str], int]:
        """What is known of the agent, and the epoch of its session."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hgetall(keys.AGENT.format(uuid=uuid))
            pipe.hget(keys.SESSION.format(uuid=uuid), "epoch")
            hashed, epoch = pipe.execute()
        return dict(hashed), int(epoch or 0)

    def _checked(self, text: str, message_id: str) -> bytes:
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("A message must be text that UTF-8 can hold.") from error
        if not text.strip():
            raise InvalidRequest("A message must say something.")
        if len(data) > self._settings.message_max_bytes:
            raise MessageTooLarge(
                f"The message has {len(data)} bytes; at most {self._settings.message_max_bytes} are taken. "
                "Put longer texts into a file of the workspace."
            )
        if message_id and not ID_PATTERN.fullmatch(message_id):
            raise InvalidRequest("A message id is 1 to 64 of A-Z a-z 0-9 . _ -")
        return data

    def _budget(self) -> dict[str, Any]:
        """What lua/budget.lua and lua/room.lua go by."""
        return {
            "message_bytes": MESSAGE_BYTES,
            "session_bytes": self._settings.session_prompt_bytes,
            "user_bytes": self._settings.user_prompt_bytes,
            "counts": COUNTS,
            "reserve": self._settings.redis_reserve,
        }

    def _full(self, what: str) -> InboxFull:
        settings = self._settings
        if what == "user":
            return UserInboxFull(
                f"The prompts and answers of all sessions of this user would take over {settings.user_prompt_bytes} "
                "bytes, which is USER_PROMPT_BYTES. Retry when their agents have caught up, or delete sessions."
            )
        if what == "session":
            return InboxFull(
                f"The prompts of this session would take over {settings.session_prompt_bytes} bytes, which is "
                "SESSION_PROMPT_BYTES. Retry when its agent has caught up, or put long texts into files."
            )
        return InboxFull(
            f"The prompt queue of this session is full: {settings.inbox_limit} may wait, which is INBOX_LIMIT. Retry "
            "when its agent has caught up."
        )

    def _find(self, uuid: str, message_id: str) -> Message | None:
        if not ID_PATTERN.fullmatch(message_id):
            return None
        with redis_errors():
            hashed = self._redis.hgetall(keys.MESSAGE.format(uuid=uuid, id=message_id))
        return Message.from_hash(message_id, hashed) if hashed else None

    def _run(self, script_name: str, uuid: str, message_id: str, now: float, **more: Any) -> bool:
        with redis_errors():
            given = self._given(uuid, message_id, now, **more)
            return bool(self._scripts[script_name](keys=_keys(uuid, message_id), args=[given]))

    def _given(self, uuid: str, message_id: str, now: float, **more: Any) -> str:
        common = {
            "uuid": uuid,
            "id": message_id,
            "now": number(now),
            "marker": MARKER,
            "due": now + self._settings.stale_after,
            "events_kept": EVENTS_KEPT,
            "events_bytes": self._settings.session_event_bytes,
        }
        return json.dumps(common | more)


def _keys(uuid: str, message_id: str) -> list[str]:
    own = (keys.INBOX, keys.HELD, keys.PROMPTS, keys.INBOX_PENDING, keys.AGENT)
    return [
        *change_keys(uuid),
        *(name.format(uuid=uuid) for name in own),
        keys.MESSAGE.format(uuid=uuid, id=message_id),
        keys.ANSWERED.format(uuid=uuid),
    ]


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
