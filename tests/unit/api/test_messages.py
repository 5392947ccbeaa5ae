"""The calls on a conversation: prompts in, answers by waiting, polling and streaming, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import Thread
from typing import Any

import pytest
from flask import Flask

from app.api import event_streams
from app.core.composition import Core
from app.core.prompts.history_store import Checkpoint
from app.core.prompts.inbox import ROLLED_BACK, Inbox, Prompt, State
from app.core.redis import keys, task_queue
from app.core.sessions.model import Status
from tests.fake_agent import FakeAgent
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    AppMaker,
    Client,
    add_backup,
    check_problem,
    core_of,
    keyed,
    move,
    new_session,
)

CONFIGURED = {"llm_base_url": "http://127.0.0.1:1/v1", "secret_key": "k" * 32}
LONG_WAIT = {"Prefer": "wait=30"}
HISTORY: list[dict[str, Any]] = [
    {"id": "m1", "role": "user", "content": "remember 7", "at": "2026-11-20T08:00:00.000Z"},
    {
        "id": "m1",
        "role": "assistant",
        "content": "7 noted",
        "at": "2026-11-20T08:00:02.000Z",
        "outcome": {"status": "processed", "response": {"text": "7 noted"}},
    },
    {"id": "m2", "role": "user", "content": "and 8", "at": "2026-11-20T08:00:03.000Z"},
    {
        "id": "m2",
        "role": "assistant",
        "content": "",
        "at": "2026-11-20T08:00:04.000Z",
        "outcome": {"status": "failed", "reason": "It was cancelled.", "code": "cancelled"},
    },
    {"id": "m3", "role": "user", "content": "and 9", "at": "2026-11-20T08:00:05.000Z"},
]


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    limits = {f"rate_limit_{name}": "10000/minute" for name in ("default", "create", "chat")}
    return make_app(**CONFIGURED, **limits)


def awake(client: Client, core: Core, agent: FakeAgent | None = None) -> str:
    """An active session, whose agent has called when there is one."""
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE)
    if agent is not None:
        assert core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    return uuid


def asleep(client: Client, core: Core) -> str:
    uuid = awake(client, core)
    move(core, uuid, Status.SLEEPING)
    return uuid


def chat(client: Client, uuid: str, message: str = "hi", headers: Any = None, **body: Any) -> Any:
    return client.post(f"/session/{uuid}/chat", json={"message": message, **body}, headers=headers or {})


def when_taken(core: Core, uuid: str, act: Callable[[str], object], state: State = State.QUEUED) -> Thread:
    """Do `act` with the first prompt's id as soon as it is taken, or in another state, in a thread of its own."""

    def wait() -> None:
        for event in core.events.follow(uuid, "0-0", 30):
            if event is not None and event.type == "message" and event.data["state"] == state:
                act(event.data["message_id"])
                return

    thread = Thread(target=wait, daemon=True)
    thread.start()
    return thread


# Sending


def test_an_awake_session_answers_with_what_its_agent_said(client: Client, core: Core) -> None:
    uuid = awake(client, core)
    response = {"text": "hi yourself", "steps": 1, "tool_calls": [], "usage": {"prompt": 3}}
    when_taken(core, uuid, lambda each: core.inbox.finish(uuid, each, response=response, now=time.time()))
    answer = chat(client, uuid, headers=LONG_WAIT)
    assert answer.status_code == 200
    assert answer.json.pop("message_id")
    expected = {"uuid": uuid, "status": "processed", "state": "processed", "pod_response": response}
    assert {name: answer.json[name] for name in expected} == expected
    assert answer.headers["Preference-Applied"] == "wait=30"


def test_a_sleeping_session_answers_queued_at_once_and_wakes(client: Client, core: Core) -> None:
    uuid = asleep(client, core)
    answer = chat(client, uuid)
    assert answer.status_code == 202
    message_id = answer.json["message_id"]
    assert answer.json == {
        "uuid": uuid,
        "status": "queued",
        "message_id": message_id,
        "state": "queued",
        "message": "Pod is waking up, message queued",
    }
    session = client.get(f"/session/{uuid}").json
    assert (session["session"]["status"], session["queue_length"]) == ("waking", 1)


def test_a_sleeping_session_is_waited_for_when_the_caller_asks(client: Client, core: Core) -> None:
    uuid = asleep(client, core)
    when_taken(core, uuid, lambda each: core.inbox.finish(uuid, each, response={"text": "hi"}, now=time.time()))
    assert chat(client, uuid, headers=LONG_WAIT).json["status"] == "processed"


@pytest.mark.slow
def test_an_agent_that_takes_longer_than_the_wait_answers_queued(client: Client, core: Core) -> None:
    """`status` has the contract's value; `state` says that the agent has it."""
    uuid = awake(client, core)
    chat(client, uuid, headers={"Prefer": "respond-async"}, id="m1")
    core.inbox.delivered(uuid, "m1", time.time())
    answer = chat(client, uuid, id="m1")
    assert (answer.status_code, answer.json["status"], answer.json["state"]) == (202, "queued", "delivered")


def test_a_prompt_that_failed_is_answered_with_its_reason(client: Client, core: Core) -> None:
    """It is no error of the call: the prompt was taken, and worked on."""
    uuid = awake(client, core)
    when_taken(core, uuid, lambda each: core.inbox.finish(uuid, each, reason="It was cancelled.", now=time.time()))
    answer = chat(client, uuid, headers=LONG_WAIT)
    assert (answer.status_code, answer.json["status"], answer.json["reason"]) == (200, "failed", "It was cancelled.")
    assert answer.json["pod_response"] == {}


def test_a_prompt_that_was_cancelled_is_answered_with_what_there_was(client: Client, core: Core) -> None:
    uuid, said = awake(client, core), {"text": "half an", "usage": {"total_tokens": 9}}
    when_taken(
        core, uuid, lambda each: core.inbox.finish(uuid, each, reason="Cancelled.", response=said, now=time.time())
    )
    answer = chat(client, uuid, headers=LONG_WAIT)
    assert (answer.json["status"], answer.json["pod_response"]) == ("failed", said)


def test_the_delivery_is_set_going_when_an_agent_is_there(client: Client, core: Core, agent: FakeAgent) -> None:
    uuid = awake(client, core)
    backlog = core.counters.backlog(task_queue.QUEUES)
    chat(client, uuid, headers={"Prefer": "respond-async"})
    assert core.counters.backlog(task_queue.QUEUES)["deliver"] == backlog["deliver"]
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    chat(client, uuid, headers={"Prefer": "respond-async"})
    assert core.counters.backlog(task_queue.QUEUES)["deliver"] == backlog["deliver"] + 1


@pytest.mark.parametrize("headers", [LONG_WAIT, {"Accept": "text/event-stream"}])
def test_a_caller_who_waits_hands_the_prompt_to_an_awake_agent(
    client: Client, core: Core, agent: FakeAgent, headers: Mapping[str, str]
) -> None:
    """No queue stands between them."""
    uuid = awake(client, core, agent)
    backlog = core.counters.backlog(task_queue.QUEUES)
    end = partial(core.inbox.finish, uuid, response={"text": "hi"}, now=time.time())
    when_taken(core, uuid, end, State.DELIVERED)
    answer = chat(client, uuid, headers=headers, id="m1")
    assert "processed" in answer.text
    assert agent.accepted == ["m1"]
    assert core.counters.backlog(task_queue.QUEUES) == backlog


@pytest.fixture
def at_once(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's wait for the end of a prompt is over as soon as it begins."""

    def as_it_is(uuid: str, prompt: Prompt, _: float) -> tuple[Prompt, bool]:
        return core.inbox.get(uuid, prompt.id), False

    monkeypatch.setattr(core.sessions, "wait_for_prompt", as_it_is)


@pytest.mark.usefixtures("at_once")
def test_a_caller_who_waits_hands_over_the_prompt_that_came_first(client: Client, core: Core, agent: FakeAgent) -> None:
    """The rest is the delivery worker's."""
    uuid = awake(client, core)
    chat(client, uuid, id="m1")
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    backlog = core.counters.backlog(task_queue.QUEUES)["deliver"]
    assert chat(client, uuid, id="m2", headers=LONG_WAIT).json["state"] == "queued"
    assert agent.accepted == ["m1"]
    assert core.counters.backlog(task_queue.QUEUES)["deliver"] == backlog + 1


@pytest.mark.usefixtures("at_once")
def test_a_prompt_whose_agent_fails_waits_for_the_delivery_worker(client: Client, core: Core, agent: FakeAgent) -> None:
    uuid = awake(client, core, agent)
    agent.statuses = [500] * 20  # However often it is tried while the caller waits.
    answer = chat(client, uuid, id="m1", headers=LONG_WAIT)
    assert len(agent.statuses) == 19
    assert (answer.status_code, answer.json["state"]) == (202, "queued")
    assert core.store.get(uuid).waiting == 1
    agent.statuses.clear()
    core.delivery._clock = lambda: time.time() + 60  # past the pause after a failure
    core.delivery.deliver(uuid)
    assert agent.accepted == ["m1"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "message"),
        ({"message": ""}, "message"),
        ({"message": " \n\t"}, "message"),
        ({"message": 7}, "message"),
        ({"message": "\ud800"}, "message"),
        ({"message": "x", "id": ""}, "id"),
        ({"message": "x", "id": "a b"}, "id"),
        ({"message": "x", "id": "*up*"}, "id"),
        ({"message": "x", "id": "a" * 65}, "id"),
        ({"message": "x", "nope": 1}, "nope"),
    ],
)
def test_what_is_no_prompt_is_refused(client: Client, core: Core, body: object, field: str) -> None:
    answer = client.post(f"/session/{awake(client, core)}/chat", json=body)
    assert field in check_problem(answer, 400, "invalid_request")["errors"]  # type: ignore[operator]


def test_a_prompt_that_is_too_long_is_413(client: Client, core: Core) -> None:
    uuid = awake(client, core)
    problem = check_problem(chat(client, uuid, "ß" * 50_001), 413, "message_too_large")
    assert "100002 bytes" in str(problem["detail"])


def test_a_full_inbox_is_429_with_a_time_to_come_back(make_app: AppMaker) -> None:
    app = make_app(**CONFIGURED, inbox_limit=2, wait_default=0.0)
    client, core = keyed(app, ADMIN_KEY), core_of(app)
    uuid = awake(client, core)
    for _ in range(2):
        assert chat(client, uuid).status_code == 202
    answer = chat(client, uuid)
    check_problem(answer, 429, "inbox_full")
    assert int(answer.headers["Retry-After"]) >= 1


def test_prompts_have_a_rate_limit_of_their_own(make_app: AppMaker) -> None:
    app = make_app(**CONFIGURED, rate_limit_chat="1/minute", wait_default=0.0)
    client, core = keyed(app, ADMIN_KEY), core_of(app)
    uuid = awake(client, core)
    assert chat(client, uuid).status_code == 202
    check_problem(chat(client, uuid), 429, "rate_limited")
    assert client.get(f"/session/{uuid}/messages").status_code == 200


@pytest.mark.parametrize("status", [Status.TERMINATING, Status.TERMINATED])
def test_a_deleted_session_takes_no_prompt(client: Client, core: Core, status: Status) -> None:
    uuid = new_session(client)
    move(core, uuid, Status.TERMINATING)
    if status is Status.TERMINATED:
        move(core, uuid, Status.TERMINATED)
    check_problem(chat(client, uuid), 409, "illegal_state")


@pytest.mark.parametrize(
    ("missing", "code", "said"),
    [("llm_base_url", "llm_not_configured", "LLM_BASE_URL"), ("secret_key", "agent_not_configured", "SECRET_KEY")],
)
def test_without_a_model_chat_says_how_to_get_one_and_the_rest_works(
    make_app: AppMaker, missing: str, code: str, said: str
) -> None:
    app = make_app(**CONFIGURED | {missing: ""})
    client, core = keyed(app, ADMIN_KEY), core_of(app)
    uuid = awake(client, core)
    problem = check_problem(chat(client, uuid), 503, code)
    assert said in str(problem["detail"])
    assert client.get(f"/session/{uuid}/messages").json["messages"] == []
    check_problem(chat(client, "zzzzzzzz"), 404, "session_not_found")


@pytest.mark.parametrize(("method", "path"), [("POST", "chat"), ("GET", "messages"), ("GET", "messages/m1")])
def test_someone_elses_conversation_is_404(app: Flask, client: Client, core: Core, method: str, path: str) -> None:
    uuid = awake(client, core)
    body = {"message": "x"} if method == "POST" else None
    bound = keyed(app, BOUND_KEY)
    check_problem(bound.open(f"/session/{uuid}/{path}", method=method, json=body), 404, "session_not_found")
    check_problem(client.open(f"/session/zzzzzzzz/{path}", method=method, json=body), 404, "session_not_found")


# Again


def test_the_same_id_again_is_the_same_prompt(client: Client, core: Core) -> None:
    uuid = asleep(client, core)
    first, again = chat(client, uuid, id="m1"), chat(client, uuid, id="m1")
    assert first.json == again.json
    assert core.store.get(uuid).waiting == 1
    core.inbox.finish(uuid, "m1", response={"text": "hi"}, now=time.time())
    assert chat(client, uuid, id="m1").json["pod_response"] == {"text": "hi"}
    check_problem(chat(client, uuid, "another", id="m1"), 422, "message_id_reused")


def test_a_prompt_that_was_rolled_back_is_answered_as_failed_and_the_session_sleeps_on(
    client: Client, core: Core
) -> None:
    uuid = asleep(client, core)
    core.inbox.end_as_rolled_back(uuid, ["m1"], time.time())
    answer = chat(client, uuid, id="m1", headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json["status"], answer.json["reason"]) == (200, "failed", ROLLED_BACK)
    assert chat(client, uuid, id="m1", headers={"Idempotency-Key": "k1"}).json == answer.json
    message = client.get(f"/session/{uuid}/messages/m1").json
    assert (message["state"], message["rolled_back_at"] is not None) == ("failed", True)
    streamed = chat(client, uuid, id="m1", headers={"Accept": "text/event-stream"})
    assert [name for name, _ in events_of(streamed.text)] == ["message"]
    assert (core.store.get(uuid).status, core.store.get(uuid).waiting) == (Status.SLEEPING, 0)


def test_an_idempotency_key_names_its_prompt(client: Client, core: Core) -> None:
    """A web process that died between taking the prompt and keeping its answer makes no second one."""
    uuid = asleep(client, core)
    key = {"Idempotency-Key": "k1"}
    first = chat(client, uuid, headers=key)
    replayed = chat(client, uuid, headers=key)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    for name in core.redis.scan_iter(keys.IDEMPOTENCY.format(digest="*")):
        core.redis.delete(name)
    lost = chat(client, uuid, headers=key)
    assert "Idempotency-Replayed" not in lost.headers
    assert first.json["message_id"] == replayed.json["message_id"] == lost.json["message_id"]
    assert core.store.get(uuid).waiting == 1
    other = asleep(client, core)
    assert chat(client, other, headers=key).json["message_id"] != first.json["message_id"]


# Streaming


def events_of(text: str) -> list[tuple[str, Any]]:
    """The events of a stream: type and data."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_a_stream_shows_the_work_and_ends_with_the_message(client: Client, core: Core) -> None:
    uuid = asleep(client, core)

    def work(message_id: str) -> None:
        core.inbox.delivered(uuid, message_id, time.time())
        core.events.append(uuid, "token", {"message_id": message_id, "text": "hello"})
        core.events.append(uuid, "token", {"message_id": "another", "text": "not this"})
        core.events.append(uuid, "tool_call", {"message_id": message_id, "name": "run", "call_id": "c"})
        core.inbox.finish(uuid, message_id, response={"text": "hello"}, now=time.time())

    when_taken(core, uuid, work)
    answer = chat(client, uuid, headers={"Accept": "text/event-stream"}, id="m1")
    assert answer.content_type.startswith("text/event-stream")
    events = events_of(answer.text)
    assert [(kind, data.get("state") or data.get("status")) for kind, data in events] == [
        ("state", "waking"),
        ("message", "queued"),
        ("message", "delivered"),
        ("token", None),
        ("tool_call", None),
        ("message", "processed"),
    ]
    assert events[3][1]["text"] == "hello"
    assert events[-1][1]["response"] == {"text": "hello"}


def test_a_stream_about_a_finished_message_is_its_end(client: Client, core: Core) -> None:
    uuid = awake(client, core)
    chat(client, uuid, headers={"Prefer": "respond-async"}, id="m1")
    core.inbox.finish(uuid, "m1", reason="It was cancelled.", now=time.time())
    answer = chat(client, uuid, headers={"Accept": "text/event-stream"}, id="m1")
    assert [(kind, data["state"], data["reason"]) for kind, data in events_of(answer.text)] == [
        ("message", "failed", "It was cancelled.")
    ]


def test_a_stream_with_an_idempotency_key_is_not_replayed_but_about_the_same_prompt(client: Client, core: Core) -> None:
    uuid = awake(client, core)
    headers = {"Accept": "text/event-stream", "Idempotency-Key": "k1"}
    when_taken(core, uuid, lambda each: core.inbox.finish(uuid, each, response={"text": "hi"}, now=time.time()))
    first, again = chat(client, uuid, headers=headers), chat(client, uuid, headers=headers)
    assert events_of(first.text)[-1] == events_of(again.text)[-1]
    assert "Idempotency-Replayed" not in again.headers


def test_a_stream_that_finds_no_place_takes_no_prompt(make_app: AppMaker) -> None:
    app = make_app(**CONFIGURED, max_streams=1)
    client, core = keyed(app, ADMIN_KEY), core_of(app)
    uuid = asleep(client, core)
    held = client.get(f"/session/{uuid}/events", buffered=False)
    check_problem(chat(client, uuid, headers={"Accept": "text/event-stream"}), 503, "too_many_streams")
    assert core.store.get(uuid).waiting == 0
    held.close()


def test_a_refused_prompt_gives_its_place_among_the_streams_back(make_app: AppMaker) -> None:
    app = make_app(**CONFIGURED, max_streams=1)
    client, core = keyed(app, ADMIN_KEY), core_of(app)
    uuid = awake(client, core)
    for _ in range(2):
        answer = chat(client, uuid, "x" * 100_001, headers={"Accept": "text/event-stream"})
        check_problem(answer, 413, "message_too_large")


# Held back by a sleep


def put_down(core: Core, uuid: str) -> None:
    """What `POST /sleep` and then the worker do."""
    record = core.sessions.sleep(uuid)
    assert core.inbox.hold(uuid, record.generation, time.time())
    core.store.change(uuid, time.time(), settle=True, event=("phase", {"phase": "stopped", "ms": 9}))


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who follows a session looks at it twice a second, also without news."""
    monkeypatch.setattr(event_streams, "QUIET", 0.5)


@pytest.mark.usefixtures("looking_often")
@pytest.mark.parametrize("state", [State.QUEUED, State.DELIVERED])
@pytest.mark.slow
def test_a_stream_ends_when_a_sleep_holds_its_prompt_back(client: Client, core: Core, state: State) -> None:
    """It says so, and what to do; until now it stayed open until somebody woke the session."""
    uuid = awake(client, core)

    def act(message_id: str) -> None:
        if state is State.DELIVERED:
            core.inbox.delivered(uuid, message_id, time.time())
        put_down(core, uuid)

    when_taken(core, uuid, act)
    began = time.monotonic()
    answer = chat(client, uuid, headers={"Accept": "text/event-stream"}, id="m1")
    assert time.monotonic() - began < 10, "it does not wait for its next sign of life"
    kind, data = events_of(answer.text)[-1]
    assert (kind, data["message_id"], data["state"], data["session"]) == ("held", "m1", state, "sleeping")
    assert "wake" in data["detail"].lower()
    assert core.store.get(uuid).status is Status.SLEEPING, "asking wakes nothing"


@pytest.mark.usefixtures("looking_often")
@pytest.mark.slow
def test_a_stream_ends_before_the_workspace_has_stopped(
    client: Client, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may take a minute: the prompt rests as soon as a worker has held it back, of which no event tells."""
    uuid = awake(client, core)
    when_taken(core, uuid, lambda _: core.sessions.sleep(uuid))
    look, seen = type(core.inbox).progress, []

    def and_hold(self: Inbox, *what: str) -> tuple[Prompt, bool]:
        seen.append(look(self, *what))
        record = core.store.get(uuid)
        if record.status is Status.SLEEPING and len(seen) > 1:
            self.hold(uuid, record.generation, time.time())
        return seen[-1]

    monkeypatch.setattr(type(core.inbox), "progress", and_hold)
    answer = chat(client, uuid, headers={"Accept": "text/event-stream"})
    assert events_of(answer.text)[-1][0] == "held"
    assert len(seen) < 10


def test_a_stream_about_a_prompt_that_is_held_back_already_ends_at_once(client: Client, core: Core) -> None:
    """The same prompt sent again: its agent has it, so nothing is done, and its session sleeps."""
    uuid = awake(client, core)
    chat(client, uuid, headers={"Prefer": "respond-async"}, id="m1")
    core.inbox.delivered(uuid, "m1", time.time())
    put_down(core, uuid)
    answer = chat(client, uuid, headers={"Accept": "text/event-stream"}, id="m1")
    assert [kind for kind, _ in events_of(answer.text)] == ["held"]


@pytest.mark.parametrize("state", [State.QUEUED, State.DELIVERED])
def test_a_wait_ends_when_a_sleep_holds_its_prompt_back(client: Client, core: Core, state: State) -> None:
    uuid = awake(client, core)

    def act(message_id: str) -> None:
        if state is State.DELIVERED:
            core.inbox.delivered(uuid, message_id, time.time())
        put_down(core, uuid)

    when_taken(core, uuid, act)
    began = time.monotonic()
    answer = chat(client, uuid, headers=LONG_WAIT)
    assert time.monotonic() - began < 10
    assert (answer.status_code, answer.json["status"], answer.json["state"]) == (202, "queued", state)
    assert "sleep" in answer.json["message"] and "wake it" in answer.json["message"]


def test_a_prompt_whose_sleep_was_broken_off_is_waited_for(client: Client, core: Core) -> None:
    uuid = awake(client, core)

    def act(message_id: str) -> None:
        core.sessions.sleep(uuid)
        core.sessions.wake(uuid)
        core.inbox.finish(uuid, message_id, response={"text": "hi"}, now=time.time())

    when_taken(core, uuid, act)
    answer = chat(client, uuid, headers={"Accept": "text/event-stream"})
    kind, data = events_of(answer.text)[-1]
    assert (kind, data["state"]) == ("message", "processed")


def test_a_prompt_of_a_workspace_that_someone_else_stopped_is_not_held_back(client: Client, core: Core) -> None:
    """It outweighs that: the sweep wakes the session for it."""
    uuid = awake(client, core)
    core.inbox.take(uuid, "hi", "m1", now=time.time())
    core.store.change(uuid, time.time(), to=Status.SLEEPING, settle=True)
    assert core.inbox.progress(uuid, "m1")[1] is False


# Reading


def test_the_conversation_comes_from_the_agent_while_it_runs(client: Client, core: Core, agent: FakeAgent) -> None:
    uuid = awake(client, core, agent)
    agent.history = HISTORY
    core.history_store.write(uuid, Checkpoint(HISTORY[:2]))
    answer = client.get(f"/session/{uuid}/messages")
    assert answer.json == {"uuid": uuid, "total": len(HISTORY), "messages": HISTORY, "next_cursor": None}
    assert agent.tokens == [f"Bearer {core.credentials.agent_secrets(uuid, 1)[0]}"]


def test_the_conversation_comes_from_the_archive_otherwise(client: Client, core: Core, agent: FakeAgent) -> None:
    """Asleep, deleted, or with an agent that does not answer."""
    uuid = awake(client, core, agent)
    core.history_store.write(uuid, Checkpoint(HISTORY))
    agent.raw_answer = b"no JSON"
    seen = [client.get(f"/session/{uuid}/messages").json["messages"]]
    for status in (Status.SLEEPING, Status.TERMINATING, Status.TERMINATED):
        move(core, uuid, status)
        seen.append(client.get(f"/session/{uuid}/messages").json["messages"])
    assert seen == [HISTORY] * 4
    assert len(agent.requests) == 1, "an agent is asked only while its session is up"


def test_a_conversation_whose_ids_and_times_are_none_is_shown_without_them(
    client: Client, core: Core, agent: FakeAgent
) -> None:
    """An agent may write anything, as times in no year of UTC."""
    uuid = awake(client, core, agent)
    for at in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.9999Z", 7):
        agent.history = [{"id": ["m1"]}, {"id": {}}, {"id": "m1", "role": "user", "content": "hi", "at": at}]
        shown = client.get(f"/session/{uuid}/messages").json["messages"]
        assert shown == [{}, {}, {"id": "m1", "role": "user", "content": "hi", "at": None}]
        found = client.get(f"/session/{uuid}/messages/m1").json
        assert (found["message"], found["created_at"]) == ("hi", None)


def test_a_conversation_outlives_its_sessions_record_as_its_backup_does(app: Flask, client: Client, core: Core) -> None:
    """For who may see that backup; without one nobody knows whose it was."""
    uuid, other = asleep(client, core), asleep(client, core)
    add_backup(core, uuid=uuid)
    for each in (uuid, other):
        core.history_store.write(each, Checkpoint(HISTORY))
        core.redis.delete(keys.SESSION.format(uuid=each))
    assert client.get(f"/session/{uuid}/messages").json["messages"] == HISTORY
    assert client.get(f"/session/{uuid}/messages/m1").json["state"] == "processed"
    for who, name in ((keyed(app, BOUND_KEY), uuid), (client, other)):
        check_problem(who.get(f"/session/{name}/messages"), 404, "session_not_found")


def test_prompts_that_are_not_begun_stand_at_the_end(client: Client, core: Core) -> None:
    """The one the agent works on is in the history already."""
    uuid = asleep(client, core)
    core.history_store.write(uuid, Checkpoint(HISTORY))
    for name, text in (("m3", "and 9"), ("m4", "and 10"), ("m5", "and 11")):
        chat(client, uuid, text, id=name)
    for name in ("m3", "m4"):
        core.inbox.delivered(uuid, name, time.time())
    messages = client.get(f"/session/{uuid}/messages").json["messages"]
    assert messages[: len(HISTORY)] == HISTORY
    shown = [(each["id"], each["role"], each["content"], each["state"]) for each in messages[len(HISTORY) :]]
    assert shown == [("m4", "user", "and 10", "delivered"), ("m5", "user", "and 11", "queued")]


@pytest.mark.parametrize("running", [True, False])
def test_a_conversation_is_paged_oldest_first(client: Client, core: Core, agent: FakeAgent, running: bool) -> None:
    uuid = awake(client, core, agent if running else None)
    agent.history = HISTORY
    core.history_store.write(uuid, Checkpoint(HISTORY))
    chat(client, uuid, "and 10", headers={"Prefer": "respond-async"}, id="m4")
    read, cursor = [], ""
    for _ in range(3):
        page = client.get(f"/session/{uuid}/messages?limit=2{cursor}").json
        read += [each["content"] for each in page["messages"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert read == [*(each["content"] for each in HISTORY), "and 10"]


def test_a_long_conversation_is_paged_by_its_size_too(
    client: Client, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer takes a whole conversation into memory, whatever is asked for."""
    for module in ("history_index", "history_store"):
        monkeypatch.setattr(f"app.core.prompts.{module}.CHUNK_BYTES", 5_000)
    monkeypatch.setattr("app.core.prompts.history.PAGE_BYTES", 10_000)
    uuid = asleep(client, core)
    long = [{"id": f"m{n}", "role": "user", "content": "x" * 1_000} for n in range(50)]
    core.history_store.write(uuid, Checkpoint(long))
    read, cursor, sizes = [], "", []
    while "None" not in cursor:
        page = client.get(f"/session/{uuid}/messages?limit=1000{cursor}").json
        read += page["messages"]
        sizes.append(len(page["messages"]))
        cursor = f"&cursor={page['next_cursor']}"
    assert read == long
    assert max(sizes) <= 10


@pytest.mark.parametrize("query", ["cursor=x", "cursor=-1", "cursor=1234567890", "limit=0", "a=b"])
def test_a_query_that_is_not_understood_is_refused(client: Client, core: Core, query: str) -> None:
    answer = client.get(f"/session/{awake(client, core)}/messages?{query}")
    check_problem(answer, 400, "invalid_request")


def test_a_session_without_a_conversation_has_an_empty_one(client: Client, core: Core) -> None:
    uuid = asleep(client, core)
    empty: dict[str, Any] = {"uuid": uuid, "total": 0, "messages": [], "next_cursor": None}
    assert client.get(f"/session/{uuid}/messages").json == empty
    assert client.get(f"/session/{uuid}/messages?cursor=99").json == empty


def test_a_messages_state_can_be_followed(client: Client, core: Core) -> None:
    uuid = asleep(client, core)
    chat(client, uuid, "do it", id="m1")
    path = f"/session/{uuid}/messages/m1"
    queued = client.get(path).json
    core.inbox.delivered(uuid, "m1", time.time())
    delivered = client.get(path).json
    core.inbox.finish(uuid, "m1", response={"text": "done"}, now=time.time())
    processed = client.get(path).json
    assert [each["state"] for each in (queued, delivered, processed)] == ["queued", "delivered", "processed"]
    assert (queued["message"], queued["response"], queued["delivered_at"]) == ("do it", None, None)
    assert delivered["delivered_at"]
    assert not delivered["processed_at"]
    assert (processed["message_id"], processed["response"], processed["reason"]) == ("m1", {"text": "done"}, None)
    assert processed["created_at"] <= processed["delivered_at"] <= processed["processed_at"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m1", (State.PROCESSED, "remember 7", {"text": "7 noted"}, None)),
        ("m2", (State.FAILED, "and 8", None, "It was cancelled.")),
        ("m3", (State.DELIVERED, "and 9", None, None)),
    ],
)
def test_a_message_redis_has_forgotten_is_told_from_the_history(
    client: Client, core: Core, name: str, expected: tuple[Any, ...]
) -> None:
    uuid = asleep(client, core)
    core.history_store.write(uuid, Checkpoint(HISTORY))
    body = client.get(f"/session/{uuid}/messages/{name}").json
    assert (body["state"], body["message"], body["response"], body["reason"]) == expected
    assert body["created_at"].startswith("2026-11-20T08:00:0")


def test_an_old_message_is_found_wherever_it_is(client: Client, core: Core, agent: FakeAgent) -> None:
    """An agent gives its history in pieces; a turn may lie in two of them."""
    uuid = awake(client, core, agent)
    agent.history = [*({"id": f"old{n}", "role": "user", "content": "x"} for n in range(10)), *HISTORY]
    agent.history_limit = 3
    body = client.get(f"/session/{uuid}/messages/m1").json
    assert (body["state"], body["response"]) == ("processed", {"text": "7 noted"})
    assert len(agent.requests) == 5
    read, cursor = [], ""
    for _ in range(5):
        page = client.get(f"/session/{uuid}/messages?limit=1000{cursor}").json
        read += page["messages"]
        cursor = f"&cursor={page['next_cursor']}"
    assert (read, page["next_cursor"]) == (agent.history, None)


def test_of_two_messages_with_one_id_the_last_is_told(client: Client, core: Core) -> None:
    """The first came with the backup that the session was restored from."""
    uuid = asleep(client, core)
    again = [{**HISTORY[0], "content": "another"}, {"id": "m1", "role": "assistant", "content": "half"}]
    core.history_store.write(uuid, Checkpoint([*HISTORY, *again]))
    body = client.get(f"/session/{uuid}/messages/m1").json
    assert (body["state"], body["message"], body["response"]) == ("delivered", "another", None)


@pytest.mark.parametrize("name", ["nobody", "a%20b", "%00", "a" * 300, "*up*", "m1:text"])
def test_a_message_that_does_not_exist_is_404(client: Client, core: Core, name: str) -> None:
    uuid = asleep(client, core)
    check_problem(client.get(f"/session/{uuid}/messages/{name}"), 404, "message_not_found")


def test_what_a_workspace_put_into_its_history_breaks_no_answer(client: Client, core: Core) -> None:
    """Its user may write anything there. What is not as the document says is left out."""
    uuid = asleep(client, core)
    odd: list[Any] = [
        {"id": "m1", "at": "soon", "outcome": "none"},
        {"id": 7, "at": "2026-11-20", "mood": "odd"},
        {},
        {"tool_calls": [{"call_id": "c1", "name": "run"}, {"name": "run"}, 7], "ok": "yes", "usage": []},
        {"id": "m1", "outcome": {"response": "x"}},
    ]
    core.history_store.write(uuid, Checkpoint(odd))
    assert client.get(f"/session/{uuid}/messages").json["messages"] == [
        {"id": "m1", "at": None},
        {"at": "2026-11-20T00:00:00.000Z", "mood": "odd"},
        {},
        {"tool_calls": [{"call_id": "c1", "name": "run", "arguments": {}}]},
        {"id": "m1"},
    ]
    assert client.get(f"/session/{uuid}/messages/m1").json["state"] == "processed"


def test_no_prompt_reaches_a_log(client: Client, core: Core, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    uuid = asleep(client, core)
    chat(client, uuid, "a-very-private-thought", id="m1")
    chat(client, uuid, "a-very-private-thought-again", id="m1")
    core.inbox.finish(uuid, "m1", response={"text": "a-very-private-answer"}, now=time.time())
    client.get(f"/session/{uuid}/messages/m1")
    assert "a-very-private" not in caplog.text
    assert all("a-very-private" not in str(vars(record)) for record in caplog.records)


def test_a_wait_ends_when_the_session_is_deleted(client: Client, core: Core) -> None:
    uuid = awake(client, core)
    reason = "The session was deleted before this prompt ran."
    when_taken(core, uuid, lambda _: core.inbox.close(uuid, reason, time.time()))
    answer = chat(client, uuid, headers=LONG_WAIT)
    assert (answer.json["status"], answer.json["reason"]) == ("failed", reason)
