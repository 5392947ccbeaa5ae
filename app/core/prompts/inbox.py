"""The inbox: a session's prompts from their arrival until they are finished.

Storing a prompt and waking its session is one step, so that no sweep comes in between. A prompt leaves the inbox only
once the agent has it on its disk. Any process may die in between: undelivered prompts are delivered again, in order,
and the agent drops those it has seen. In effect each prompt runs exactly once.

`queue:{uuid}` holds the ids of the prompts to deliver and, where KEDA scales, one marker for as long as the session
should run. When a user puts the session to sleep, its prompts move to `queue:{uuid}:held`, where they wake nothing. The
next wake, or the next prompt, puts them back.
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

from app.agent.protocol import Failure
from app.core.agents.agent import Agent
from app.core.errors import InvalidRequest, PromptIdReused, PromptNotFound, PromptTooLarge, StoreFull
from app.core.limit_errors import InboxFull, Owner, SessionPromptBytesFull, UserInboxFull
from app.core.redis import keys, task_queue
from app.core.redis.counters import PROMPT_BUCKETS
from app.core.redis.errors import redis_errors
from app.core.redis.events import EVENTS_BYTES, EVENTS_KEPT
from app.core.redis.memory import RESERVE
from app.core.redis.scripts import Script, pairs
from app.core.sessions.change import Change, Changed, change_keys
from app.core.sessions.model import UP, Record, Status, number
from app.process import tracing
from app.process.settings import Settings

ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")

MARKER = "*up*"
"""The list entry that makes KEDA keep the session running; no prompt's id has this form."""

UNFINISHED_PER_WAITING = 2
"""Unfinished prompts allowed for each one that may wait: bounds the agent's own queue."""

COUNTS = keys.PROMPT_BYTES.format(user_id="%s")
"""A user's key, as scripts complete it."""

ON_PROMPTS = (
    *("take", "delivered", "finish", "first_token", "hold", "release", "close", "rolled_back"),
    *("agent_here", "agent_failed", "agent_leaves", "agent_stays"),
)
"""The scripts of lua/prompts.lua."""

REASON_LENGTH = 2_000
"""Characters kept of a failure's reason, which the agent wrote."""

PROMPT_OVERHEAD = 1_024
"""Bytes of Redis for a prompt besides its texts, its list entries included (measured: 600 to 900)."""

FIRST_RETRY = 1.0
LONGEST_RETRY = 300.0
"""s between two tries to reach an agent that does not answer, doubled from the first to the longest. A broken agent
must not keep the delivery workers from the others."""


class State(StrEnum):
    """Of a prompt: waiting for the agent, with the agent, answered, or failed for the `reason`."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    PROCESSED = "processed"
    FAILED = "failed"


FINISHED = frozenset({State.PROCESSED, State.FAILED})

TIMES = ("created_at", "delivered_at", "processed_at", "rolled_back_at")

ROLLED_BACK = "The session was rolled back to a time before this prompt had ended."

ROLLED_BACK_KEPT = 1_000
"""Prompts of a session that are remembered as rolled back, the newest: as many as an agent knows of those it undid.
They take up to 70 KB of Redis, as long as the session lives."""

DURATIONS = {"times": keys.PROMPT_TIMES, "bounds": json.dumps(PROMPT_BUCKETS)}
"""What the scripts' part `durations` takes."""

TIMED = 200
"""Answered prompts of a session whose times are read."""

MARKED_AT_ONCE = 500
"""Prompts that one call reads and marks."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt as Redis holds it (hash `message:{uuid}:{id}`). Times are seconds since the epoch, 0 for not yet.

    `text` is kept until the prompt is finished, then only in the agent's history. `response` is the agent's: `text`,
    `steps`, `tool_calls`, `usage`; of a failed prompt what there was by then. `rolled_back_at` is when a rollback undid
    what the prompt did.
    """

    id: str
    state: State
    text: str = ""
    response: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    created_at: float = 0.0
    delivered_at: float = 0.0
    processed_at: float = 0.0
    rolled_back_at: float = 0.0
    request_id: str = ""
    traceparent: str = ""

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @classmethod
    def from_hash(cls, message_id: str, hashed: Mapping[str, str]) -> Prompt:
        times = {name: float(hashed.get(name) or 0) for name in TIMES}
        return cls(
            id=message_id,
            state=State(hashed["state"]),
            text=hashed.get("text", ""),
            response=json.loads(hashed.get("response") or "{}"),
            reason=hashed.get("reason", ""),
            request_id=hashed.get("request_id", ""),
            traceparent=hashed.get("traceparent", ""),
            **times,
        )


@dataclass(frozen=True)
class Taken:
    """A prompt that was taken. `record` is its session's, None when the prompt was known and waits no more. `woken`
    says whether the session was woken for it, `deliver` whether an agent is registered."""

    prompt: Prompt
    record: Record | None = None
    woken: bool = False
    deliver: bool = False


class Inbox:
    """The prompts of all sessions, and where their agents are. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._settings = settings
        self._scripts = {name: Script(client, name) for name in ON_PROMPTS}

    def take(self, uuid: str, text: str, message_id: str = "", *, now: float, request_id: str = "") -> Taken:
        """Store a prompt, and wake its session if it sleeps. The same id and text again is the same prompt. One that
        was rolled back has failed, also where it has expired.

        Raises `InvalidRequest`, `PromptTooLarge`, `PromptIdReused`, `InboxFull`, `UserInboxFull`, `StoreFull`,
        `SessionNotFound`, and `IllegalState` for a session that is deleted or being deleted.
        """
        data = self._checked(text, message_id)
        message_id = message_id or secrets.token_hex(8)
        due = now + self._settings.stale_after
        wake, restore = (
            Change.intent(Status.WAKING, task=task, noop=UP, due=due, request_id=request_id, touch=True).to_json(
                uuid, now
            )
            for task in (task_queue.WAKE, task_queue.RESTORE)
        )
        code, detail, record, prompt, agent = self._run(
            "take",
            uuid,
            message_id,
            now,
            digest=hashlib.sha256(data).hexdigest(),
            text=text,
            request_id=request_id,
            traceparent=tracing.traceparent(),
            limit=self._settings.inbox_limit,
            most=self._settings.inbox_limit * UNFINISHED_PER_WAITING,
            rolled_back=ROLLED_BACK,
            wake=wake,
            restore=restore,
            **change_keys(uuid),
            **self._budget(uuid),
        )
        if code == "reused":
            raise PromptIdReused("This message id was already used with another text; choose a new id.")
        if code == "no_room":
            raise StoreFull
        if code == "full":
            raise self._full(detail)
        if code == "known":
            return Taken(Prompt.from_hash(message_id, pairs(prompt)))
        changed = Changed.from_answer(uuid, Status.WAKING, (code, detail, record))
        return Taken(
            Prompt.from_hash(message_id, pairs(prompt)), changed.record, woken=changed.applied, deliver=bool(agent)
        )

    @redis_errors
    def head(self, uuid: str) -> Prompt | None:
        """The prompt to deliver next, None when none waits. Ids of expired prompts are dropped."""
        while True:
            first = [name for name in self._redis.lrange(keys.INBOX.format(uuid=uuid), 0, 1) if name != MARKER]
            if not first:
                return None
            prompt = self._find(uuid, first[0])
            if prompt is not None and prompt.state is State.QUEUED:
                return prompt
            self.delivered(uuid, first[0], 0.0)

    def delivered(self, uuid: str, message_id: str, now: float) -> bool:
        """Note that the agent has this prompt; False when it was noted before."""
        return bool(self._run("delivered", uuid, message_id, now))

    def finish(
        self,
        uuid: str,
        message_id: str,
        *,
        response: Mapping[str, Any] | None = None,
        reason: str = "",
        code: Failure = Failure.OTHER,
        now: float,
    ) -> bool:
        """Note that a prompt is finished: processed, or failed where a `reason` is given, by which `code` it is
        counted; both with their response. The first result stands; False for a later one, or an unknown prompt. One
        that failed because it was rolled back is marked so, whatever its result was before."""
        finished = self._run(
            "finish",
            uuid,
            message_id,
            now,
            state=State.FAILED if reason else State.PROCESSED,
            response=json.dumps(dict(response)) if response else "",
            reason=reason[:REASON_LENGTH],
            code=code,
            **DURATIONS,
            **self._budget(uuid),
        )
        # An agent can name any id. Of those that are no prompts, none is remembered.
        if code is Failure.ROLLED_BACK and self.states(uuid, [message_id]) != [None]:
            self._mark(uuid, [message_id], now)
        return bool(finished)

    def answer_begins(self, uuid: str, message_id: str, now: float) -> bool:
        """Note that the first token of the answer has come; False when it was noted before, or the prompt is
        unknown."""
        return bool(self._run("first_token", uuid, message_id, now, **DURATIONS))

    def get(self, uuid: str, message_id: str) -> Prompt:
        """The prompt; raises `PromptNotFound`, also once `PROMPT_TTL` has passed since it was finished."""
        prompt = self._find(uuid, message_id)
        if prompt is None:
            raise PromptNotFound(message_id)
        return prompt

    @redis_errors
    def progress(self, uuid: str, message_id: str) -> tuple[Prompt, bool]:
        """The prompt, and whether it is held back because its session was put to sleep: then nothing happens to it
        until the session wakes. Both are read at one moment; raises as `get`."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(keys.PROMPT.format(uuid=uuid, id=message_id))
        pipe.lpos(keys.HELD.format(uuid=uuid), message_id)
        pipe.hmget(keys.SESSION.format(uuid=uuid), ["status", "generation", "settled"])
        hashed, place, (status, generation, settled) = pipe.execute()
        if not hashed:
            raise PromptNotFound(message_id)
        prompt = Prompt.from_hash(message_id, hashed)
        with_agent = prompt.state is State.DELIVERED and generation == settled
        return prompt, status == Status.SLEEPING and (place is not None or with_agent)

    @redis_errors
    def last_ended(self, uuid: str) -> str:
        """The id of the prompt that ended last, "" for none that is remembered."""
        newest = self._redis.zrevrange(keys.ANSWERED.format(uuid=uuid), 0, 0)
        return newest[0].partition(" ")[2] if newest else ""

    @redis_errors
    def answer_times(self, uuid: str) -> list[float]:
        """How long (s) each of the last answered prompts took, a wake included, newest first: `TIMED` at the most."""
        members = self._redis.zrevrange(keys.ANSWERED.format(uuid=uuid), 0, TIMED - 1)
        pipe = self._redis.pipeline(transaction=False)
        for member in members:
            name = keys.PROMPT.format(uuid=uuid, id=member.partition(" ")[2])
            pipe.hmget(name, ["state", "created_at", "processed_at"])
        found = pipe.execute()
        return [
            max(0.0, float(ended) - float(created))
            for state, created, ended in found
            if state == State.PROCESSED and created and ended
        ]

    @redis_errors
    def roll_back(self, uuid: str, since: float, asked_at: float, now: float, removed: Sequence[str] = ()) -> int:
        """Mark the prompts that ended after `since` as rolled back, and end those that have not; answers how many. None
        of them is delivered again, nor of those that are `removed` from the conversation, oldest first: most of them
        have expired. Those that came after `asked_at` and have not ended are left: they are for the files as they are
        then. Called while no agent runs."""
        ended = sum(
            self.finish(uuid, prompt.id, reason=ROLLED_BACK, code=Failure.ROLLED_BACK, now=now)
            for prompt in self.unfinished(uuid)
            if prompt.created_at <= asked_at
        )
        answered = self._redis.zrange(keys.ANSWERED.format(uuid=uuid), 0, -1)
        ids = [member.partition(" ")[2] for member in answered]
        undone = [each for each in removed if ID_PATTERN.fullmatch(each)][-ROLLED_BACK_KEPT:]
        for first in range(0, len(ids), MARKED_AT_ONCE):
            some = ids[first : first + MARKED_AT_ONCE]
            undone += [
                message_id for message_id, ended in zip(some, self._ends(uuid, some), strict=True) if ended > since
            ]
        return ended + self._mark(uuid, undone, now)

    def end_as_rolled_back(self, uuid: str, ids: Sequence[str], now: float) -> None:
        """Mark these prompts as rolled back, and end those that have not ended. Ids that are none are ignored."""
        known = [each for each in ids if ID_PATTERN.fullmatch(each)]
        for prompt in self.unfinished(uuid):
            if prompt.id in known:
                self.finish(uuid, prompt.id, reason=ROLLED_BACK, code=Failure.ROLLED_BACK, now=now)
        self._mark(uuid, known, now)

    @redis_errors
    def was_rolled_back(self, uuid: str, message_id: str) -> bool:
        """Whether a prompt with this id was rolled back, also where that prompt has expired."""
        return self._redis.lpos(keys.UNDONE.format(uuid=uuid), message_id) is not None

    def _mark(self, uuid: str, ids: Sequence[str], now: float) -> int:
        """Mark prompts that have ended as rolled back, and remember them; answers how many were not marked before."""
        return sum(
            self._run("rolled_back", uuid, "-", now, ids=ids[first : first + MARKED_AT_ONCE], most=ROLLED_BACK_KEPT)
            for first in range(0, len(ids), MARKED_AT_ONCE)
        )

    @redis_errors
    def _ends(self, uuid: str, ids: Sequence[str]) -> list[float]:
        """When each of these prompts ended; 0 for an expired one."""
        pipe = self._redis.pipeline(transaction=False)
        for message_id in ids:
            pipe.hget(keys.PROMPT.format(uuid=uuid, id=message_id), "processed_at")
        return [float(ended or 0) for ended in pipe.execute()]

    @redis_errors
    def delivery_due(self, uuid: str) -> bool:
        """Whether prompts wait for the agent, without those held back, or an agent whose stop was broken off has to be
        resumed."""
        return self._redis.zscore(keys.INBOX_PENDING, uuid) is not None

    @redis_errors
    def unfinished(self, uuid: str) -> list[Prompt]:
        """All prompts that wait or are with the agent, in the order they came."""
        ids = self._redis.lrange(keys.PROMPTS.format(uuid=uuid), 0, -1)
        pipe = self._redis.pipeline(transaction=False)
        for message_id in ids:
            pipe.hgetall(keys.PROMPT.format(uuid=uuid, id=message_id))
        found = zip(ids, pipe.execute(), strict=True)
        prompts = [Prompt.from_hash(message_id, hashed) for message_id, hashed in found if hashed]
        return [prompt for prompt in prompts if not prompt.finished]

    @redis_errors
    def states(self, uuid: str, ids: Sequence[str]) -> list[State | None]:
        """The state of each of these prompts, None for an unknown or expired one."""
        pipe = self._redis.pipeline(transaction=False)
        for message_id in ids:
            pipe.hget(keys.PROMPT.format(uuid=uuid, id=message_id), "state")
        return [State(state) if state else None for state in pipe.execute()]

    def hold(self, uuid: str, generation: int, now: float) -> bool:
        """Stop deliveries to the session's agent and hold its prompts back, before the intent `generation` stops it.
        Does nothing and answers False when a newer intent exists: a prompt came in the meantime."""
        return bool(self._run("hold", uuid, "", now, generation=generation))

    def release(self, uuid: str, now: float) -> None:
        """Make the held prompts deliverable, before the session starts. An agent that was being stopped and still runs
        has to be resumed: a delivery stays due until it has been."""
        self._run("release", uuid, "", now)

    def close(self, uuid: str, reason: str, now: float) -> None:
        """Fail all prompts of a session that is being deleted, and forget its agent. Results stay for `PROMPT_TTL`."""
        for prompt in self.unfinished(uuid):
            self.finish(uuid, prompt.id, reason=reason, code=Failure.DELETE, now=now)
        self._run("close", uuid, "", now, answered=_answered(uuid), counts=COUNTS)

    def agent(self, uuid: str) -> Agent | None:
        """The session's agent, None while it has not registered or once it is being stopped."""
        hashed, epoch = self._agent_hash(uuid)
        return Agent.from_hash(uuid, hashed, epoch) if hashed and "leaving" not in hashed else None

    def leaving_agent(self, uuid: str) -> Agent | None:
        """The session's agent if it is being stopped, or a stop of it was broken off: it may refuse prompts."""
        hashed, epoch = self._agent_hash(uuid)
        return Agent.from_hash(uuid, hashed, epoch) if "leaving" in hashed else None

    @redis_errors
    def has_agent(self, uuid: str) -> bool:
        """Whether an agent is registered, being stopped or not."""
        return bool(self._redis.exists(keys.AGENT.format(uuid=uuid)))

    def agent_leaves(self, uuid: str) -> None:
        """Note that the session's agent is being stopped."""
        self._run("agent_leaves", uuid, "", 0.0)

    def agent_stays(self, uuid: str, generation: int, now: float) -> None:
        """Note that the intent `generation` broke the stop off, and that the agent takes prompts again. Does nothing
        when a newer intent exists."""
        self._run("agent_stays", uuid, "", now, generation=generation)

    def agent_here(self, uuid: str, address: str, name: str, boot: str, now: float) -> bool:
        """Register the session's agent at `address`. One with another `boot` than before gets all unfinished prompts
        again. False when it is being stopped or its session is deleted. Raises `InvalidRequest` for a bad address."""
        agent = Agent.at_address(uuid, address, self._settings, name=name, boot=boot)
        given = {"address": agent.address, "pod": agent.name, "boot": agent.boot}
        return bool(self._run("agent_here", uuid, "", now, **given))

    @redis_errors
    def agent_gone(self, uuid: str) -> None:
        """Forget the session's agent."""
        self._redis.delete(keys.AGENT.format(uuid=uuid))

    def agent_failed(self, agent: Agent, now: float) -> None:
        """Note that a delivery failed: the sweep retries after a pause that doubles each time. An agent that registers
        again is retried at once."""
        self._run("agent_failed", agent.uuid, "", now, boot=agent.boot, first=FIRST_RETRY, longest=LONGEST_RETRY)

    @redis_errors
    def _agent_hash(self, uuid: str) -> tuple[dict[str, str], int]:
        """The agent's hash, and the epoch of its session."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(keys.AGENT.format(uuid=uuid))
        pipe.hget(keys.SESSION.format(uuid=uuid), "epoch")
        hashed, epoch = pipe.execute()
        return dict(hashed), int(epoch or 0)

    def _checked(self, text: str, message_id: str) -> bytes:
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("`message` must be valid Unicode: it contains a lone surrogate.") from error
        if not text.strip():
            raise InvalidRequest("`message` must not be empty.")
        if len(data) > self._settings.prompt_max_bytes:
            raise PromptTooLarge(
                f"`message` has {len(data)} bytes; the limit is {self._settings.prompt_max_bytes}. "
                "Put longer texts into a file of the workspace."
            )
        if message_id and not ID_PATTERN.fullmatch(message_id):
            raise InvalidRequest("`id` must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
        return data

    def _budget(self, uuid: str) -> dict[str, Any]:
        """What the scripts' part `budget` takes."""
        return {
            "answered": _answered(uuid),
            "overhead": PROMPT_OVERHEAD,
            "session_bytes": self._settings.session_prompt_bytes,
            "user_bytes": self._settings.user_prompt_bytes,
            "counts": COUNTS,
            "reserve": RESERVE,
            "kept": max(1, int(self._settings.prompt_ttl)),
        }

    def _full(self, what: str) -> InboxFull:
        settings = self._settings
        if what == "user":
            return UserInboxFull(Owner.USER, most=settings.user_prompt_bytes)
        if what == "session":
            return SessionPromptBytesFull(Owner.SESSION, most=settings.session_prompt_bytes)
        return InboxFull(Owner.SESSION, most=settings.inbox_limit)

    @redis_errors
    def _find(self, uuid: str, message_id: str) -> Prompt | None:
        if not ID_PATTERN.fullmatch(message_id):
            return None
        hashed = self._redis.hgetall(keys.PROMPT.format(uuid=uuid, id=message_id))
        return Prompt.from_hash(message_id, hashed) if hashed else None

    @redis_errors
    def _run(self, script: str, uuid: str, message_id: str, now: float, **given: Any) -> Any:
        """Run a script with what all on prompts take, and what it takes besides."""
        common = {
            **_keys(uuid, message_id),
            "uuid": uuid,
            "id": message_id,
            "now": number(now),
            "marker": MARKER,
            "due": now + self._settings.stale_after,
            "events_kept": EVENTS_KEPT,
            "events_bytes": EVENTS_BYTES,
        }
        return self._scripts[script](**(common | given))


def _keys(uuid: str, message_id: str) -> dict[str, str]:
    return {
        "session": keys.SESSION.format(uuid=uuid),
        "events": keys.EVENTS.format(uuid=uuid),
        "inbox": keys.INBOX.format(uuid=uuid),
        "held": keys.HELD.format(uuid=uuid),
        "prompts": keys.PROMPTS.format(uuid=uuid),
        "pending": keys.INBOX_PENDING,
        "agent": keys.AGENT.format(uuid=uuid),
        "prompt": keys.PROMPT.format(uuid=uuid, id=message_id),
    }


def _answered(uuid: str) -> str:
    return keys.ANSWERED.format(uuid=uuid)
