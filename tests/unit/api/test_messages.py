"""The calls on a conversation: prompts in, answers by waiting, polling and streaming, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import Thread
from typing import Any

import pytest

from app.api import event_streams
from app.core.composition import Core
from app.core.prompts.history_store import Checkpoint
from app.core.prompts.inbox import ROLLED_BACK, Inbox, Prompt, State
from app.core.redis import keys, task_queue
from app.core.sessions.model import Status
from tests.events import Events
from tests.fake_agent import FakeAgent
from tests.unit.api.helpers import ASYNC, LONG_WAIT, ONCE, Client, add_backup, check_problem, move

STREAM = {"Accept": "text/event-stream"}
REASON = "It was cancelled."
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
        "outcome": {"status": "failed", "reason": REASON, "code": "cancelled"},
    },
    {"id": "m3", "role": "user", "content": "and 9", "at": "2026-11-20T08:00:05.000Z"},
]


@pytest.fixture
def hosted(core: Core, uuid: str, agent: FakeAgent) -> str:
    """An active session whose agent has called."""
    assert core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    return uuid


@pytest.fixture
def sleeping(core: Core, uuid: str) -> str:
    move(core, uuid, Status.SLEEPING)
    return uuid


def chat(client: Client, uuid: str, message: str = "hi", headers: Any = None, **body: Any) -> Any:
    return client.post(f"/session/{uuid}/chat", json={"message": message, **body}, headers=headers or {})


def streamed(client: Client, uuid: str, **body: Any) -> list[tuple[str, Any]]:
    """The events of the stream that answers a prompt: type and data."""
    answer = chat(client, uuid, headers=STREAM, **body)
    assert answer.content_type.startswith("text/event-stream")
    return list(Events(answer.text.split("\n")))


def messages(client: Client, uuid: str, query: str = "") -> Any:
    return client.get(f"/session/{uuid}/messages{query}").json


def message(client: Client, uuid: str, name: str = "m1") -> Any:
    return client.get(f"/session/{uuid}/messages/{name}").json


def read_all(client: Client, uuid: str, limit: int) -> tuple[list[Any], list[int]]:
    """A conversation page by page, and how many messages each had."""
    pages, cursor = [], ""
    while "None" not in cursor:
        page = messages(client, uuid, f"?limit={limit}{cursor}")
        pages.append(page["messages"])
        cursor = f"&cursor={page['next_cursor']}"
    return sum(pages, []), [len(each) for each in pages]


def when_taken(core: Core, uuid: str, act: Callable[[str], object], state: State = State.QUEUED) -> None:
    """Do `act` with the first prompt's id as soon as it is taken, or in another state, in a thread of its own."""

    def wait() -> None:
        for event in core.events.follow(uuid, "0-0", 30):
            if event is not None and event.type == "message" and event.data["state"] == state:
                act(event.data["message_id"])
                return

    Thread(target=wait, daemon=True).start()


def finish_when_taken(core: Core, uuid: str, state: State = State.QUEUED, **outcome: Any) -> None:
    when_taken(core, uuid, partial(core.inbox.finish, uuid, now=time.time(), **outcome), state)


def waiting_deliveries(core: Core) -> int:
    return core.counters.backlog(task_queue.QUEUES)["deliver"]


# Sending


def test_an_awake_session_answers_with_what_its_agent_said(client: Client, core: Core, uuid: str) -> None:
    response = {"text": "hi yourself", "steps": 1, "tool_calls": [], "usage": {"prompt": 3}}
    finish_when_taken(core, uuid, response=response)
    answer = chat(client, uuid, headers=LONG_WAIT)
    assert answer.status_code == 200
    assert answer.json.pop("message_id")
    expected = {"uuid": uuid, "status": "processed", "state": "processed", "pod_response": response}
    assert {name: answer.json[name] for name in expected} == expected
    assert answer.headers["Preference-Applied"] == "wait=30"


def test_a_sleeping_session_answers_queued_at_once_and_wakes(client: Client, sleeping: str) -> None:
    answer = chat(client, sleeping)
    assert answer.status_code == 202
    assert answer.json == {
        "uuid": sleeping,
        "status": "queued",
        "message_id": answer.json["message_id"],
        "state": "queued",
        "message": "Pod is waking up, message queued",
    }
    session = client.get(f"/session/{sleeping}").json
    assert (session["session"]["status"], session["queue_length"]) == ("waking", 1)


def test_a_sleeping_session_is_waited_for_when_the_caller_asks(client: Client, core: Core, sleeping: str) -> None:
    finish_when_taken(core, sleeping, response={"text": "hi"})
    assert chat(client, sleeping, headers=LONG_WAIT).json["status"] == "processed"


@pytest.mark.slow
def test_an_agent_that_takes_longer_than_the_wait_answers_queued(client: Client, core: Core, uuid: str) -> None:
    """`status` has the contract's value; `state` says that the agent has it, and so does the text."""
    queued = chat(client, uuid, headers=ASYNC, id="m1")
    core.inbox.delivered(uuid, "m1", time.time())
    delivered = chat(client, uuid, id="m1")
    for answer, state, text in (
        (queued, "queued", "Message queued for the agent"),
        (delivered, "delivered", "The agent has the message and has not answered yet"),
    ):
        assert (answer.status_code, answer.json["status"], answer.json["state"]) == (202, "queued", state)
        assert answer.json["message"] == text


@pytest.mark.parametrize("said", [{}, {"text": "half an", "usage": {"total_tokens": 9}}])
def test_a_prompt_that_failed_is_answered_with_its_reason_and_what_there_was(
    client: Client, core: Core, uuid: str, said: Mapping[str, Any]
) -> None:
    """It is no error of the call: the prompt was taken, and worked on."""
    finish_when_taken(core, uuid, reason=REASON, response=said or None)
    answer = chat(client, uuid, headers=LONG_WAIT)
    assert (answer.status_code, answer.json["status"], answer.json["reason"]) == (200, "failed", REASON)
    assert answer.json["pod_response"] == said


def test_a_wait_ends_when_the_session_is_deleted(client: Client, core: Core, uuid: str) -> None:
    reason = "The session was deleted before this prompt ran."
    when_taken(core, uuid, lambda _: core.inbox.close(uuid, reason, time.time()))
    answer = chat(client, uuid, headers=LONG_WAIT)
    assert (answer.json["status"], answer.json["reason"]) == ("failed", reason)


def test_the_delivery_is_set_going_when_an_agent_is_there(
    client: Client, core: Core, agent: FakeAgent, uuid: str
) -> None:
    before = waiting_deliveries(core)
    chat(client, uuid, headers=ASYNC)
    assert waiting_deliveries(core) == before
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    chat(client, uuid, headers=ASYNC)
    assert waiting_deliveries(core) == before + 1


@pytest.mark.parametrize("headers", [LONG_WAIT, STREAM])
def test_a_caller_who_waits_hands_the_prompt_to_an_awake_agent(
    client: Client, core: Core, agent: FakeAgent, hosted: str, headers: Mapping[str, str]
) -> None:
    """No queue stands between them."""
    backlog = core.counters.backlog(task_queue.QUEUES)
    finish_when_taken(core, hosted, State.DELIVERED, response={"text": "hi"})
    answer = chat(client, hosted, headers=headers, id="m1")
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
def test_a_caller_who_waits_hands_over_the_prompt_that_came_first(
    client: Client, core: Core, agent: FakeAgent, uuid: str
) -> None:
    """The rest is the delivery worker's."""
    chat(client, uuid, id="m1")
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    before = waiting_deliveries(core)
    assert chat(client, uuid, id="m2", headers=LONG_WAIT).json["state"] == "queued"
    assert agent.accepted == ["m1"]
    assert waiting_deliveries(core) == before + 1


@pytest.mark.usefixtures("at_once")
def test_a_prompt_whose_agent_fails_waits_for_the_delivery_worker(
    client: Client, core: Core, agent: FakeAgent, hosted: str
) -> None:
    agent.statuses = [500] * 20  # However often it is tried while the caller waits.
    answer = chat(client, hosted, id="m1", headers=LONG_WAIT)
    assert len(agent.statuses) == 19
    assert (answer.status_code, answer.json["state"]) == (202, "queued")
    assert core.store.get(hosted).waiting == 1
    agent.statuses.clear()
    core.delivery._clock = lambda: time.time() + 60  # past the pause after a failure
    core.delivery.deliver(hosted)
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
def test_what_is_no_prompt_is_refused(client: Client, uuid: str, body: object, field: str) -> None:
    answer = client.post(f"/session/{uuid}/chat", json=body)
    assert field in check_problem(answer, 400, "invalid_request")["errors"]  # type: ignore[operator]


@pytest.mark.settings(max_streams=1)
def test_a_prompt_that_is_too_long_is_413_and_holds_no_place_among_the_streams(client: Client, uuid: str) -> None:
    for headers in ({}, STREAM, STREAM):
        problem = check_problem(chat(client, uuid, "ß" * 50_001, headers), 413, "message_too_large")
        assert "100002 bytes" in str(problem["detail"])


@pytest.mark.settings(inbox_limit=2, wait_default=0.0)
def test_a_full_inbox_is_429_with_a_time_to_come_back(client: Client, uuid: str) -> None:
    for _ in range(2):
        assert chat(client, uuid).status_code == 202
    answer = chat(client, uuid)
    check_problem(answer, 429, "inbox_full")
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.settings(rate_limit_chat="1/minute", wait_default=0.0)
def test_prompts_have_a_rate_limit_of_their_own(client: Client, uuid: str) -> None:
    assert chat(client, uuid).status_code == 202
    check_problem(chat(client, uuid), 429, "rate_limited")
    assert client.get(f"/session/{uuid}/messages").status_code == 200


def test_a_deleted_session_takes_no_prompt(client: Client, core: Core, uuid: str) -> None:
    move(core, uuid, Status.TERMINATING)
    check_problem(chat(client, uuid), 409, "illegal_state")
    move(core, uuid, Status.TERMINATED)
    check_problem(chat(client, uuid), 409, "illegal_state")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param("llm_not_configured", "LLM_BASE_URL", marks=pytest.mark.settings(llm_base_url="")),
        pytest.param("agent_not_configured", "SECRET_KEY", marks=pytest.mark.settings(secret_key="")),
    ],
)
def test_without_a_model_chat_says_how_to_get_one_and_the_rest_works(
    client: Client, uuid: str, code: str, said: str
) -> None:
    assert said in str(check_problem(chat(client, uuid), 503, code)["detail"])
    assert messages(client, uuid)["messages"] == []
    check_problem(chat(client, "zzzzzzzz"), 404, "session_not_found")


# Again


def test_the_same_id_again_is_the_same_prompt(client: Client, core: Core, sleeping: str) -> None:
    first, again = chat(client, sleeping, id="m1"), chat(client, sleeping, id="m1")
    assert first.json == again.json
    assert core.store.get(sleeping).waiting == 1
    core.inbox.finish(sleeping, "m1", response={"text": "hi"}, now=time.time())
    assert chat(client, sleeping, id="m1").json["pod_response"] == {"text": "hi"}
    check_problem(chat(client, sleeping, "another", id="m1"), 422, "message_id_reused")


def test_a_prompt_that_was_rolled_back_is_answered_as_failed_and_the_session_sleeps_on(
    client: Client, core: Core, sleeping: str
) -> None:
    core.inbox.end_as_rolled_back(sleeping, ["m1"], time.time())
    answer = chat(client, sleeping, id="m1", headers=ONCE)
    assert (answer.status_code, answer.json["status"], answer.json["reason"]) == (200, "failed", ROLLED_BACK)
    assert chat(client, sleeping, id="m1", headers=ONCE).json == answer.json
    shown = message(client, sleeping)
    assert (shown["state"], shown["rolled_back_at"] is not None) == ("failed", True)
    assert [name for name, _ in streamed(client, sleeping, id="m1")] == ["message"]
    assert (core.store.get(sleeping).status, core.store.get(sleeping).waiting) == (Status.SLEEPING, 0)


def test_an_idempotency_key_names_its_prompt(client: Client, core: Core, uuid: str, sleeping: str) -> None:
    """A web process that died between taking the prompt and keeping its answer makes no second one."""
    first = chat(client, sleeping, headers=ONCE)
    replayed = chat(client, sleeping, headers=ONCE)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    for name in core.redis.scan_iter(keys.IDEMPOTENCY.format(digest="*")):
        core.redis.delete(name)
    lost = chat(client, sleeping, headers=ONCE)
    assert "Idempotency-Replayed" not in lost.headers
    assert first.json["message_id"] == replayed.json["message_id"] == lost.json["message_id"]
    assert core.store.get(sleeping).waiting == 1
    other = client.post("/session/create", json={"user_id": "ada"}).json["uuid"]
    assert chat(client, other, headers=ONCE).json["message_id"] != first.json["message_id"]


# Streaming


def test_a_stream_shows_the_work_and_ends_with_the_message(client: Client, core: Core, sleeping: str) -> None:
    def work(message_id: str) -> None:
        core.inbox.delivered(sleeping, message_id, time.time())
        core.events.append(sleeping, "token", {"message_id": message_id, "text": "hello"})
        core.events.append(sleeping, "token", {"message_id": "another", "text": "not this"})
        core.events.append(sleeping, "tool_call", {"message_id": message_id, "name": "run", "call_id": "c"})
        core.inbox.finish(sleeping, message_id, response={"text": "hello"}, now=time.time())

    when_taken(core, sleeping, work)
    events = streamed(client, sleeping, id="m1")
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


def test_a_stream_about_a_finished_message_is_its_end(client: Client, core: Core, uuid: str) -> None:
    chat(client, uuid, headers=ASYNC, id="m1")
    core.inbox.finish(uuid, "m1", reason=REASON, now=time.time())
    told = [(kind, data["state"], data["reason"]) for kind, data in streamed(client, uuid, id="m1")]
    assert told == [("message", "failed", REASON)]


def test_a_stream_with_an_idempotency_key_is_not_replayed_but_about_the_same_prompt(
    client: Client, core: Core, uuid: str
) -> None:
    finish_when_taken(core, uuid, response={"text": "hi"})
    first, again = (chat(client, uuid, headers=STREAM | ONCE) for _ in range(2))
    ends = [list(Events(answer.text.split("\n")))[-1] for answer in (first, again)]
    assert ends[0] == ends[1]
    assert "Idempotency-Replayed" not in again.headers


@pytest.mark.settings(max_streams=1)
def test_a_stream_that_finds_no_place_takes_no_prompt(client: Client, core: Core, sleeping: str) -> None:
    held = client.get(f"/session/{sleeping}/events", buffered=False)
    check_problem(chat(client, sleeping, headers=STREAM), 503, "too_many_streams")
    assert core.store.get(sleeping).waiting == 0
    held.close()


# Held back by a sleep


def put_down(core: Core, uuid: str) -> None:
    """What `POST /sleep` and then the worker do."""
    record = core.sessions.sleep(uuid)
    assert core.inbox.hold(uuid, record.generation, time.time())
    core.store.change(uuid, time.time(), settle=True, event=("phase", {"phase": "stopped", "ms": 9}))


def put_down_when_taken(core: Core, uuid: str, state: State) -> None:
    """Once the first prompt is in this state."""

    def act(message_id: str) -> None:
        if state is State.DELIVERED:
            core.inbox.delivered(uuid, message_id, time.time())
        put_down(core, uuid)

    when_taken(core, uuid, act)


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who follows a session looks at it twice a second, also without news."""
    monkeypatch.setattr(event_streams, "QUIET", 0.5)


@pytest.mark.usefixtures("looking_often")
@pytest.mark.parametrize("state", [State.QUEUED, State.DELIVERED])
@pytest.mark.slow
def test_a_stream_ends_when_a_sleep_holds_its_prompt_back(client: Client, core: Core, uuid: str, state: State) -> None:
    """It says so, and what to do; until now it stayed open until somebody woke the session."""
    put_down_when_taken(core, uuid, state)
    began = time.monotonic()
    kind, data = streamed(client, uuid, id="m1")[-1]
    assert time.monotonic() - began < 10, "it does not wait for its next sign of life"
    assert (kind, data["message_id"], data["state"], data["session"]) == ("held", "m1", state, "sleeping")
    assert "wake" in data["detail"].lower()
    assert core.store.get(uuid).status is Status.SLEEPING, "asking wakes nothing"


@pytest.mark.parametrize("state", [State.QUEUED, State.DELIVERED])
def test_a_wait_ends_when_a_sleep_holds_its_prompt_back(client: Client, core: Core, uuid: str, state: State) -> None:
    put_down_when_taken(core, uuid, state)
    began = time.monotonic()
    answer = chat(client, uuid, headers=LONG_WAIT)
    assert time.monotonic() - began < 10
    assert (answer.status_code, answer.json["status"], answer.json["state"]) == (202, "queued", state)
    assert "sleep" in answer.json["message"] and "wake it" in answer.json["message"]


@pytest.mark.usefixtures("looking_often")
@pytest.mark.slow
def test_a_stream_ends_before_the_workspace_has_stopped(
    client: Client, core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may take a minute: the prompt rests as soon as a worker has held it back, of which no event tells."""
    when_taken(core, uuid, lambda _: core.sessions.sleep(uuid))
    look, seen = type(core.inbox).progress, []

    def and_hold(self: Inbox, *what: str) -> tuple[Prompt, bool]:
        seen.append(look(self, *what))
        record = core.store.get(uuid)
        if record.status is Status.SLEEPING and len(seen) > 1:
            self.hold(uuid, record.generation, time.time())
        return seen[-1]

    monkeypatch.setattr(type(core.inbox), "progress", and_hold)
    assert streamed(client, uuid)[-1][0] == "held"
    assert len(seen) < 10


def test_a_stream_about_a_prompt_that_is_held_back_already_ends_at_once(client: Client, core: Core, uuid: str) -> None:
    """The same prompt sent again: its agent has it, so nothing is done, and its session sleeps."""
    chat(client, uuid, headers=ASYNC, id="m1")
    core.inbox.delivered(uuid, "m1", time.time())
    put_down(core, uuid)
    assert [kind for kind, _ in streamed(client, uuid, id="m1")] == ["held"]


def test_a_prompt_whose_sleep_was_broken_off_is_waited_for(client: Client, core: Core, uuid: str) -> None:
    def act(message_id: str) -> None:
        core.sessions.sleep(uuid)
        core.sessions.wake(uuid)
        core.inbox.finish(uuid, message_id, response={"text": "hi"}, now=time.time())

    when_taken(core, uuid, act)
    kind, data = streamed(client, uuid)[-1]
    assert (kind, data["state"]) == ("message", "processed")


def test_a_prompt_of_a_workspace_that_someone_else_stopped_is_not_held_back(core: Core, uuid: str) -> None:
    """It outweighs that: the sweep wakes the session for it."""
    core.inbox.take(uuid, "hi", "m1", now=time.time())
    move(core, uuid, Status.SLEEPING)
    assert core.inbox.progress(uuid, "m1")[1] is False


# Reading


def test_the_conversation_comes_from_the_agent_while_it_runs(
    client: Client, core: Core, agent: FakeAgent, hosted: str
) -> None:
    agent.history = HISTORY
    core.history_store.write(hosted, Checkpoint(HISTORY[:2]))
    assert messages(client, hosted) == {
        "uuid": hosted,
        "total": len(HISTORY),
        "messages": HISTORY,
        "next_cursor": None,
    }
    assert agent.tokens == [f"Bearer {core.credentials.agent_secrets(hosted, 1)[0]}"]


def test_the_conversation_comes_from_the_archive_otherwise(
    client: Client, core: Core, agent: FakeAgent, hosted: str
) -> None:
    """Asleep, deleted, or with an agent that does not answer."""
    core.history_store.write(hosted, Checkpoint(HISTORY))
    agent.raw_answer = b"no JSON"
    seen = [messages(client, hosted)["messages"]]
    for status in (Status.SLEEPING, Status.TERMINATING, Status.TERMINATED):
        move(core, hosted, status)
        seen.append(messages(client, hosted)["messages"])
    assert seen == [HISTORY] * 4
    assert len(agent.requests) == 1, "an agent is asked only while its session is up"


def test_a_conversation_whose_ids_and_times_are_none_is_shown_without_them(
    client: Client, agent: FakeAgent, hosted: str
) -> None:
    """An agent may write anything, as times in no year of UTC."""
    for at in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.9999Z", 7):
        agent.history = [{"id": ["m1"]}, {"id": {}}, {"id": "m1", "role": "user", "content": "hi", "at": at}]
        shown = messages(client, hosted)["messages"]
        assert shown == [{}, {}, {"id": "m1", "role": "user", "content": "hi", "at": None}]
        found = message(client, hosted)
        assert (found["message"], found["created_at"]) == ("hi", None)


def test_a_conversation_outlives_its_sessions_record_as_its_backup_does(
    client: Client, bound: Client, core: Core, sleeping: str
) -> None:
    """For who may see that backup; without one nobody knows whose it was."""
    other = "zzzzzzzz"
    add_backup(core, uuid=sleeping)
    for each in (sleeping, other):
        core.history_store.write(each, Checkpoint(HISTORY))
        core.redis.delete(keys.SESSION.format(uuid=each))
    assert messages(client, sleeping)["messages"] == HISTORY
    assert message(client, sleeping)["state"] == "processed"
    for who, name in ((bound, sleeping), (client, other)):
        check_problem(who.get(f"/session/{name}/messages"), 404, "session_not_found")


def test_prompts_that_are_not_begun_stand_at_the_end(client: Client, core: Core, sleeping: str) -> None:
    """The one the agent works on is in the history already."""
    core.history_store.write(sleeping, Checkpoint(HISTORY))
    for name, text in (("m3", "and 9"), ("m4", "and 10"), ("m5", "and 11")):
        chat(client, sleeping, text, id=name)
    for name in ("m3", "m4"):
        core.inbox.delivered(sleeping, name, time.time())
    found = messages(client, sleeping)["messages"]
    assert found[: len(HISTORY)] == HISTORY
    shown = [(each["id"], each["role"], each["content"], each["state"]) for each in found[len(HISTORY) :]]
    assert shown == [("m4", "user", "and 10", "delivered"), ("m5", "user", "and 11", "queued")]


@pytest.mark.parametrize("session", ["hosted", "uuid"])
def test_a_conversation_is_paged_oldest_first(
    request: pytest.FixtureRequest, client: Client, core: Core, agent: FakeAgent, session: str
) -> None:
    """Of an agent that runs, and of the archive."""
    uuid = request.getfixturevalue(session)
    agent.history = HISTORY
    core.history_store.write(uuid, Checkpoint(HISTORY))
    chat(client, uuid, "and 10", headers=ASYNC, id="m4")
    read, sizes = read_all(client, uuid, 2)
    assert [each["content"] for each in read] == [*(each["content"] for each in HISTORY), "and 10"]
    assert sizes == [2, 2, 2]


def test_a_long_conversation_is_paged_by_its_size_too(
    client: Client, core: Core, sleeping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer takes a whole conversation into memory, whatever is asked for."""
    for module in ("history_index", "history_store"):
        monkeypatch.setattr(f"app.core.prompts.{module}.CHUNK_BYTES", 5_000)
    monkeypatch.setattr("app.core.prompts.history.PAGE_BYTES", 10_000)
    long = [{"id": f"m{n}", "role": "user", "content": "x" * 1_000} for n in range(50)]
    core.history_store.write(sleeping, Checkpoint(long))
    read, sizes = read_all(client, sleeping, 1_000)
    assert read == long
    assert max(sizes) <= 10


@pytest.mark.parametrize("query", ["cursor=x", "cursor=-1", "cursor=1234567890", "limit=0", "a=b"])
def test_a_query_that_is_not_understood_is_refused(client: Client, uuid: str, query: str) -> None:
    check_problem(client.get(f"/session/{uuid}/messages?{query}"), 400, "invalid_request")


def test_a_session_without_a_conversation_has_an_empty_one(client: Client, sleeping: str) -> None:
    empty: dict[str, Any] = {"uuid": sleeping, "total": 0, "messages": [], "next_cursor": None}
    assert messages(client, sleeping) == messages(client, sleeping, "?cursor=99") == empty


def test_a_messages_state_can_be_followed(client: Client, core: Core, sleeping: str) -> None:
    chat(client, sleeping, "do it", id="m1")
    queued = message(client, sleeping)
    core.inbox.delivered(sleeping, "m1", time.time())
    delivered = message(client, sleeping)
    core.inbox.finish(sleeping, "m1", response={"text": "done"}, now=time.time())
    processed = message(client, sleeping)
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
        ("m2", (State.FAILED, "and 8", None, REASON)),
        ("m3", (State.DELIVERED, "and 9", None, None)),
    ],
)
def test_a_message_redis_has_forgotten_is_told_from_the_history(
    client: Client, core: Core, sleeping: str, name: str, expected: tuple[Any, ...]
) -> None:
    core.history_store.write(sleeping, Checkpoint(HISTORY))
    body = message(client, sleeping, name)
    assert (body["state"], body["message"], body["response"], body["reason"]) == expected
    assert body["created_at"].startswith("2026-11-20T08:00:0")


def test_an_old_message_is_found_wherever_it_is(client: Client, agent: FakeAgent, hosted: str) -> None:
    """An agent gives its history in pieces; a turn may lie in two of them."""
    agent.history = [*({"id": f"old{n}", "role": "user", "content": "x"} for n in range(10)), *HISTORY]
    agent.history_limit = 3
    body = message(client, hosted)
    assert (body["state"], body["response"]) == ("processed", {"text": "7 noted"})
    assert len(agent.requests) == 5
    assert read_all(client, hosted, 1_000) == (agent.history, [3] * 5)


def test_of_two_messages_with_one_id_the_last_is_told(client: Client, core: Core, sleeping: str) -> None:
    """The first came with the backup that the session was restored from."""
    again = [{**HISTORY[0], "content": "another"}, {"id": "m1", "role": "assistant", "content": "half"}]
    core.history_store.write(sleeping, Checkpoint([*HISTORY, *again]))
    body = message(client, sleeping)
    assert (body["state"], body["message"], body["response"]) == ("delivered", "another", None)


@pytest.mark.parametrize("name", ["nobody", "a%20b", "%00", "a" * 300, "*up*", "m1:text"])
def test_a_message_that_does_not_exist_is_404(client: Client, sleeping: str, name: str) -> None:
    check_problem(client.get(f"/session/{sleeping}/messages/{name}"), 404, "message_not_found")


def test_what_a_workspace_put_into_its_history_breaks_no_answer(client: Client, core: Core, sleeping: str) -> None:
    """Its user may write anything there. What is not as the document says is left out."""
    odd: list[Any] = [
        {"id": "m1", "at": "soon", "outcome": "none"},
        {"id": 7, "at": "2026-11-20", "mood": "odd"},
        {},
        {"tool_calls": [{"call_id": "c1", "name": "run"}, {"name": "run"}, 7], "ok": "yes", "usage": []},
        {"id": "m1", "outcome": {"response": "x"}},
    ]
    core.history_store.write(sleeping, Checkpoint(odd))
    assert messages(client, sleeping)["messages"] == [
        {"id": "m1", "at": None},
        {"at": "2026-11-20T00:00:00.000Z", "mood": "odd"},
        {},
        {"tool_calls": [{"call_id": "c1", "name": "run", "arguments": {}}]},
        {"id": "m1"},
    ]
    assert message(client, sleeping)["state"] == "processed"


def test_arguments_of_tools_are_objects_in_the_conversation_too(client: Client, core: Core, sleeping: str) -> None:
    written = ['{"path": "a"}', "", "{", "[1]", "[" * 9_999, '{"a": "\\ud800"}']
    calls = [{"call_id": f"c{n}", "name": "run", "arguments": text} for n, text in enumerate(written)]
    told = {"id": "m1", "role": "assistant", "content": "", "tool_calls": calls}
    core.history_store.write(sleeping, Checkpoint([told]))
    [entry] = messages(client, sleeping)["messages"]
    shown = [call["arguments"] for call in entry["tool_calls"]]
    assert shown == [{"path": "a"}, {}, "{", "[1]", "[" * 9_999, {"a": "\ud800"}]


def test_no_prompt_reaches_a_log(client: Client, core: Core, sleeping: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    chat(client, sleeping, "a-very-private-thought", id="m1")
    chat(client, sleeping, "a-very-private-thought-again", id="m1")
    core.inbox.finish(sleeping, "m1", response={"text": "a-very-private-answer"}, now=time.time())
    message(client, sleeping)
    assert "a-very-private" not in caplog.text
    assert all("a-very-private" not in str(vars(record)) for record in caplog.records)
