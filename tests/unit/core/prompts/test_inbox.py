"""The inbox: prompts are kept in order, counted, woken for, and ended once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from app.agent.protocol import Failure
from app.core.errors import (
    IllegalState,
    InvalidRequest,
    PromptIdReused,
    PromptNotFound,
    PromptTooLarge,
    SessionNotFound,
    Superseded,
)
from app.core.limit_errors import InboxFull
from app.core.prompts.inbox import MARKER, PROMPT_OVERHEAD, REASON_LENGTH, ROLLED_BACK, Inbox, State
from app.core.redis import keys, task_queue
from app.core.redis.counters import ANSWERED
from app.core.service import NewSession
from app.core.sessions.model import Record, Signal, Status
from app.process.settings import Settings
from tests.world import World
from workers.runtime.kubernetes.scalers import Keda


def taken(world: World, uuid: str, text: str = "do it", message_id: str = "") -> str:
    """The id of a prompt just taken."""
    return world.core.inbox.take(uuid, text, message_id, now=world.now).prompt.id


def kept(world: World, name: str, uuid: str) -> list[str]:
    """What the list of this name holds."""
    return list(world.core.redis.lrange(name.format(uuid=uuid), 0, -1))


def ids(world: World, uuid: str) -> list[str]:
    return [message.id for message in world.core.inbox.unfinished(uuid)]


def states(world: World, uuid: str) -> tuple[int, int]:
    """How many prompts the record says to wait, and to be unfinished."""
    record = world.get(uuid)
    return record.waiting, record.unfinished


# Taking


def test_a_prompt_is_stored_as_it_came(world: World, uuid: str) -> None:
    text = "färbe 🦊\n\x00 'quoted' \\ \"twice\""
    message = world.core.inbox.take(uuid, text, "m1", now=world.now, request_id="r1").prompt
    assert message == world.core.inbox.get(uuid, "m1")
    assert (message.text, message.state, message.request_id) == (text, State.QUEUED, "r1")
    assert message.created_at == world.now
    assert world.core.inbox.head(uuid) == message


def test_a_prompt_to_a_sleeping_session_wakes_it_in_the_same_step(world: World) -> None:
    uuid = world.asleep()
    before = world.get(uuid)
    result = world.core.inbox.take(uuid, "wake up", now=world.now + 5)
    assert result.woken
    after = world.get(uuid)
    assert (after.status, after.generation, after.task) == (Status.WAKING, before.generation + 1, task_queue.WAKE)
    assert (after.last_activity, after.waiting) == (world.now + 5, 1)
    assert world.core.redis.zscore(keys.INTENTS, uuid) is not None


def test_a_prompt_to_an_awake_session_is_use_and_wakes_nothing(world: World, uuid: str) -> None:
    before = world.get(uuid)
    world.now += 50
    assert not world.core.inbox.take(uuid, "hi", now=world.now).woken
    used = replace(before, last_activity=world.now, waiting=1, signals={"prompt": Signal(world.now)})
    assert world.get(uuid) == used


def test_a_prompt_turns_a_session_around_that_goes_to_sleep_and_its_stop_holds_nothing_back(
    world: World, uuid: str
) -> None:
    """The worker has looked at its intent; then the prompt comes; then it would hold the prompts back."""
    asked = world.sessions.sleep(uuid)
    message_id = world.sessions.prompt(uuid, "not yet").prompt.id
    assert not world.core.inbox.hold(uuid, asked.generation, world.now)
    assert kept(world, keys.INBOX, uuid) == [message_id]
    assert world.get(uuid).generation == asked.generation + 1
    world.work()
    assert world.get(uuid).status is Status.WAKING
    assert world.runtime.workspaces[uuid].running


def test_a_prompt_brings_a_failed_session_up_again(world: World, uuid: str) -> None:
    world.runtime.crash(uuid, "out of memory")
    world.look(uuid)
    world.sessions.prompt(uuid, "again")
    assert world.work() == [task_queue.WAKE]
    assert world.runtime.workspaces[uuid].running


def test_a_prompt_to_a_session_still_to_be_restored_restores_it(world: World) -> None:
    """After a failed restore the prompt's wake is a restore, which may take an hour."""
    source = world.active()
    world.sessions.delete(source)
    world.work()
    backup = world.core.backups.newest_of(source)
    assert backup is not None
    uuid = world.sessions.create(NewSession(user_id="ada", restore_from=backup.name)).uuid
    world.lifecycle.fail(world.get(uuid), "the disk was full")
    assert world.core.inbox.take(uuid, "hi", now=world.now).woken
    assert world.get(uuid).task == task_queue.RESTORE


@pytest.mark.parametrize("done", [False, True])
def test_a_deleted_and_an_unknown_session_take_no_prompt(world: World, uuid: str, done: bool) -> None:
    world.sessions.delete(uuid)
    if done:
        world.work()
    with pytest.raises(IllegalState):
        taken(world, uuid)
    assert kept(world, keys.INBOX, uuid) == []
    with pytest.raises(SessionNotFound):
        taken(world, "zzzzzzzz")
    assert list(world.core.redis.scan_iter("*zzzzzzzz*")) == []


@pytest.mark.parametrize(
    ("text", "message_id", "error"),
    [
        ("", "m", InvalidRequest),
        (" \n", "m", InvalidRequest),
        ("\ud800", "m", InvalidRequest),
        ("x", "a b", InvalidRequest),
        ("x", "a\n", InvalidRequest),
        ("x", "a" * 65, InvalidRequest),
        ("x", MARKER, InvalidRequest),
        ("x" * 100_001, "m", PromptTooLarge),
        ("ß" * 50_001, "m", PromptTooLarge),
    ],
)
def test_what_can_t_be_a_prompt_is_refused(
    world: World, uuid: str, text: str, message_id: str, error: type[Exception]
) -> None:
    """One may be as long as the setting says."""
    with pytest.raises(error):
        taken(world, uuid, text, message_id)
    assert world.get(uuid).waiting == 0
    assert taken(world, uuid, "x" * world.settings.prompt_max_bytes)


@pytest.mark.parametrize(
    ("act", "state", "response"),
    [
        (lambda inbox, uuid, now: None, State.QUEUED, {}),
        (lambda inbox, uuid, now: inbox.delivered(uuid, "m", now), State.DELIVERED, {}),
        (lambda inbox, uuid, now: inbox.finish(uuid, "m", response={"n": 1}, now=now), State.PROCESSED, {"n": 1}),
        (lambda inbox, uuid, now: inbox.finish(uuid, "m", reason="broken", now=now), State.FAILED, {}),
    ],
)
def test_the_same_id_and_text_again_is_the_same_message_and_with_another_text_is_refused(
    world: World, uuid: str, act: Callable[[Inbox, str, float], Any], state: State, response: dict[str, int]
) -> None:
    taken(world, uuid, "once", "m")
    act(world.core.inbox, uuid, world.now)
    before = (kept(world, keys.INBOX, uuid), kept(world, keys.PROMPTS, uuid), world.get(uuid).waiting)
    again = world.core.inbox.take(uuid, "once", "m", now=world.now).prompt
    assert (again.state, again.response) == (state, response)
    assert (kept(world, keys.INBOX, uuid), kept(world, keys.PROMPTS, uuid), world.get(uuid).waiting) == before
    with pytest.raises(PromptIdReused):
        taken(world, uuid, "twice", "m")


def test_a_prompt_that_was_rolled_back_wakes_nothing_when_it_is_sent_again(world: World) -> None:
    """Also where it has expired. Its end is kept anew, for as long and counted as any other."""
    uuid = world.asleep()
    world.core.inbox.end_as_rolled_back(uuid, ["m"], world.now)
    before, world.now = world.get(uuid), world.now + 60
    for _ in range(2):
        result = world.sessions.prompt(uuid, "do it", "m")
        assert (result.record, result.woken, result.deliver) == (None, False, False)
        assert result.prompt == world.core.inbox.get(uuid, "m")
        assert (result.prompt.state, result.prompt.reason, result.prompt.text) == (State.FAILED, ROLLED_BACK, "")
        assert result.prompt.processed_at == result.prompt.rolled_back_at == world.now
    assert (world.get(uuid), world.work(), ids(world, uuid)) == (before, [], [])
    assert 0 < world.core.redis.ttl(keys.PROMPT.format(uuid=uuid, id="m")) <= world.settings.prompt_ttl
    counted = world.core.redis.hget(keys.PROMPT_BYTES.format(user_id="ada"), uuid)
    assert counted == str(len(ROLLED_BACK) + PROMPT_OVERHEAD)
    with pytest.raises(PromptIdReused):
        taken(world, uuid, "another", "m")


def test_one_id_sent_by_many_at_once_is_one_message(world: World) -> None:
    uuid = world.asleep()
    barrier = Barrier(8)

    def send(_: int) -> bool:
        barrier.wait()
        return world.core.inbox.take(uuid, "once", "m", now=world.now).woken

    with ThreadPoolExecutor(8) as pool:
        woken = list(pool.map(send, range(8)))
    assert sum(woken) == 1
    assert ids(world, uuid) == ["m"]
    assert world.get(uuid).waiting == 1


def test_as_many_prompts_wait_as_may_and_what_the_agent_does_not_finish_is_bounded_too(
    make_world: Callable[..., World],
) -> None:
    """A repetition of one that waits is no new one."""
    world = make_world(inbox_limit=3)
    uuid, inbox = world.active(), world.core.inbox
    for number in range(3):
        taken(world, uuid, "x", f"m{number}")
    with pytest.raises(InboxFull):
        taken(world, uuid, "x", "m3")
    assert taken(world, uuid, "x", "m1") == "m1"
    for number in range(3):
        inbox.delivered(uuid, f"m{number}", world.now)
        inbox.delivered(uuid, taken(world, uuid, "x", f"m{number + 3}"), world.now)
    with pytest.raises(InboxFull):
        taken(world, uuid, "x", "m6")
    inbox.finish(uuid, "m0", response={}, now=world.now)
    assert taken(world, uuid, "x", "m6") == "m6"


# Order, counts, ends


def test_the_record_counts_what_waits_and_what_is_unfinished(world: World, uuid: str) -> None:
    """An end before the delivery was noted stands: the agent can be faster than the worker that handed it over."""
    first, second = taken(world, uuid), taken(world, uuid)
    inbox, counts = world.core.inbox, [states(world, uuid)]
    steps: list[tuple[Callable[[], bool], bool]] = [
        (lambda: inbox.delivered(uuid, first, world.now), True),
        (lambda: inbox.delivered(uuid, first, world.now), False),
        (lambda: inbox.finish(uuid, first, response={}, now=world.now), True),
        (lambda: inbox.finish(uuid, second, response={"text": "hi"}, now=world.now), True),
        (lambda: inbox.delivered(uuid, second, world.now), False),
    ]
    for step, done in steps:
        assert step() is done
        counts.append(states(world, uuid))
    assert counts == [(2, 0), (1, 1), (1, 1), (1, 0), (0, 0), (0, 0)]
    assert inbox.get(uuid, second).state is State.PROCESSED
    assert inbox.head(uuid) is None
    world.core.store.change(uuid, world.now)
    assert not world.core.redis.hexists(keys.SESSION.format(uuid=uuid), "waiting")
    assert world.core.redis.zscore(keys.INBOX_PENDING, uuid) is None


def test_the_first_end_stands_and_only_it_is_told(world: World, uuid: str) -> None:
    message_id = taken(world, uuid)
    inbox = world.core.inbox
    assert inbox.finish(uuid, message_id, reason="It was cancelled.", now=world.now)
    told = world.events_of(uuid)
    assert not inbox.finish(uuid, message_id, response={"text": "late"}, now=world.now + 1)
    message = inbox.get(uuid, message_id)
    assert (message.state, message.reason) == (State.FAILED, "It was cancelled.")
    assert world.events_of(uuid) == told
    said = {"message_id": message_id, "state": "failed", "reason": "It was cancelled."}
    assert (told[-1].type, told[-1].data) == ("message", said)


def test_a_failed_prompt_is_counted_once_by_why(world: World) -> None:
    uuid, inbox = world.active(), world.core.inbox
    ids = [taken(world, uuid) for _ in range(4)]
    for message_id, code in zip(ids, (Failure.DISK, Failure.DISK, Failure.USER), strict=False):
        inbox.finish(uuid, message_id, reason="It failed.", code=code, now=world.now)
        inbox.finish(uuid, message_id, reason="It failed again.", code=Failure.INTERNAL, now=world.now)
    inbox.finish(uuid, ids[3], response={"text": "done"}, now=world.now)
    durations, failed = world.core.counters.prompts()
    assert failed == {"disk": 2, "user": 1}
    assert sum(durations[ANSWERED].counts) == 1


def test_an_end_of_an_unknown_message_changes_nothing(world: World, uuid: str) -> None:
    assert not world.core.inbox.finish(uuid, "nobody", response={}, now=world.now)
    assert not world.core.inbox.delivered("zzzzzzzz", "nobody", world.now)
    assert not world.core.redis.exists(keys.SESSION.format(uuid="zzzzzzzz"))
    with pytest.raises(PromptNotFound):
        world.core.inbox.get(uuid, "nobody")


def test_a_finished_message_is_kept_for_a_while_without_its_text(world: World, uuid: str) -> None:
    message_id = taken(world, uuid)
    key = keys.PROMPT.format(uuid=uuid, id=message_id)
    assert world.core.redis.ttl(key) == -1, "one that is not finished stays"
    world.core.inbox.delivered(uuid, message_id, world.now)
    assert world.core.redis.ttl(key) == -1
    world.core.inbox.finish(uuid, message_id, reason="x" * 10_000, now=world.now)
    assert 0 < world.core.redis.ttl(key) <= world.settings.prompt_ttl
    message = world.core.inbox.get(uuid, message_id)
    assert (message.text, len(message.reason)) == ("", REASON_LENGTH)


def test_an_id_without_its_message_is_dropped(world: World, uuid: str) -> None:
    """Someone deleted it by hand; the prompts behind it must not wait for ever."""
    first, second = taken(world, uuid), taken(world, uuid)
    world.core.redis.delete(keys.PROMPT.format(uuid=uuid, id=first))
    head = world.core.inbox.head(uuid)
    assert head is not None
    assert head.id == second
    assert kept(world, keys.INBOX, uuid) == [second]


# The marker of whoever scales


@pytest.fixture
def keda(world: World) -> Keda:
    return Keda(Settings(), world.core.redis)


def test_the_marker_is_no_prompt_and_removing_it_loses_none(world: World, uuid: str, keda: Keda) -> None:
    keda.before_start(uuid)
    assert world.core.inbox.head(uuid) is None
    assert not world.core.inbox.delivery_due(uuid)
    message_id = taken(world, uuid)
    assert (world.core.inbox.delivery_due(uuid), world.get(uuid).waiting) == (True, 1)
    assert kept(world, keys.INBOX, uuid) == [MARKER, message_id]
    world.core.inbox.delivered(uuid, message_id, world.now)
    assert kept(world, keys.INBOX, uuid) == [MARKER]
    assert world.get(uuid).waiting == 0
    sent = [taken(world, uuid) for _ in range(3)]
    keda.before_stop(uuid)
    assert kept(world, keys.INBOX, uuid) == sent
    keda.before_start(uuid)
    assert kept(world, keys.INBOX, uuid) == [MARKER, *sent]


# Sleep on demand, idle sweeps, deletion


@pytest.mark.slow
def test_a_sleep_on_demand_holds_prompts_back_until_the_session_is_woken(world: World, uuid: str, keda: Keda) -> None:
    """Neither KEDA's trigger nor the sweep wakes it for them; the order stays. Of those that are delivered all the same
    none is held back any more."""
    keda.before_start(uuid)
    sent = [taken(world, uuid) for _ in range(4)]
    world.sessions.sleep(uuid)
    world.work()
    keda.before_stop(uuid)
    assert kept(world, keys.INBOX, uuid) == []
    assert (world.get(uuid).waiting, ids(world, uuid)) == (4, sent)
    world.now += 1_000
    world.sweeps.stale()
    world.work()
    assert world.get(uuid).status is Status.SLEEPING
    world.core.inbox.delivered(uuid, sent[0], world.now)
    assert (kept(world, keys.HELD, uuid), states(world, uuid)) == (sent[1:], (3, 1))
    world.sessions.wake(uuid)
    world.work()
    assert kept(world, keys.INBOX, uuid) == sent[1:]
    assert world.core.redis.zscore(keys.INBOX_PENDING, uuid) is not None


@pytest.mark.parametrize(("message_id", "order"), [("m2", ["m0", "m1", "m2"]), ("m1", ["m0", "m1"])])
def test_a_new_prompt_goes_behind_those_held_back_and_the_same_again_wakes_its_session_too(
    world: World, uuid: str, message_id: str, order: list[str]
) -> None:
    for number in range(2):
        taken(world, uuid, "x", f"m{number}")
    world.sessions.sleep(uuid)
    world.work()
    assert world.core.inbox.take(uuid, "x", message_id, now=world.now).woken
    assert kept(world, keys.INBOX, uuid) == order
    assert world.get(uuid).status is Status.WAKING


def test_a_session_stopped_by_someone_else_is_woken_for_its_prompts(world: World, uuid: str) -> None:
    """As KEDA would; without KEDA the observer does it."""
    taken(world, uuid)
    world.runtime.stop(uuid, world.get(uuid).generation)
    world.look(uuid)
    assert world.get(uuid).status is Status.WAKING


def test_a_failed_session_is_not_woken_again_and_again(world: World, uuid: str) -> None:
    taken(world, uuid)
    world.runtime.crash(uuid, "out of memory")
    world.look(uuid)
    world.now += 1_000
    world.sweeps.stale()
    world.work()
    assert world.get(uuid).status is Status.FAILED


def test_the_idle_sweep_leaves_a_session_with_prompts_alone(world: World) -> None:
    uuid = world.active(idle_timeout=60)
    taken(world, uuid)
    world.now += 1_000
    world.sweeps.idle()
    assert world.get(uuid).status is Status.ACTIVE
    world.core.inbox.finish(uuid, ids(world, uuid)[0], reason="gone", now=world.now)
    world.now += 61
    world.sweeps.idle()
    assert world.get(uuid).status is Status.SLEEPING


@pytest.mark.slow
def test_500_races_of_a_prompt_with_the_idle_sweep_leave_no_session_asleep(world: World) -> None:
    """On a session whose time has come: either the sweep is refused or the prompt wakes it. Half of them at once,
    the others one just before the other."""
    uuid = world.active(idle_timeout=60)
    inbox, swept = world.core.inbox, 0

    def sweep(seen: Record) -> bool:
        try:
            return world.sessions.sleep(uuid, seen=seen).status is Status.SLEEPING
        except Superseded:
            return False

    with ThreadPoolExecutor(2) as pool:
        for number in range(500):
            world.now += 100
            seen = world.get(uuid)
            assert world.verdict(uuid).due
            prompt = partial(inbox.take, uuid, "x", f"m{number}", now=world.now)
            if number % 4 == 0:
                swept += sweep(seen)
                prompt()
            elif number % 4 == 1:
                prompt()
                assert not sweep(seen)
            else:
                results = pool.submit(sweep, seen), pool.submit(prompt)
                swept += bool(results[0].result())
                results[1].result()
            assert world.get(uuid).status in (Status.ACTIVE, Status.WAKING)
            inbox.finish(uuid, f"m{number}", response={}, now=world.now)
            if world.get(uuid).status is Status.WAKING:
                world.tasks.lose_all()
                world.core.store.change(uuid, world.now, to=Status.ACTIVE, settle=True, idle_at=world.now + 60)
    assert swept >= 125
    assert world.get(uuid).generation == 1 + 2 * swept


def test_a_deleted_session_ends_its_prompts_and_leaves_nothing_else(world: World, uuid: str) -> None:
    """Their ends are kept for a while, and count no more."""
    redis, answered, waiting = world.core.redis, taken(world, uuid), taken(world, uuid)
    world.core.inbox.finish(uuid, answered, response={"text": "done"}, now=world.now)
    world.sessions.delete(uuid)
    world.work()
    assert world.get(uuid).status is Status.TERMINATED
    message = world.core.inbox.get(uuid, waiting)
    assert (message.state, message.reason) == (State.FAILED, "The session was deleted before this prompt ran.")
    assert world.core.inbox.get(uuid, answered).finished
    ends = [redis.ttl(keys.PROMPT.format(uuid=uuid, id=each)) for each in (answered, waiting)]
    assert all(0 < seconds <= world.settings.prompt_ttl for seconds in ends)
    assert redis.keys("user:*:prompt_bytes") == []
    left = {key for key in redis.scan_iter(f"*{uuid}*") if redis.ttl(key) == -1}
    left = {key for key in left if not key.startswith(("backup:", "deliveries:"))}
    assert left <= {keys.SESSION_BACKUPS.format(uuid=uuid)}
    assert redis.zscore(keys.INBOX_PENDING, uuid) is None


# Where the agent is


def test_an_agent_that_called_is_known_until_it_is_gone_or_its_session_asleep(world: World, uuid: str) -> None:
    inbox = world.core.inbox
    for end in (lambda: inbox.agent_gone(uuid), lambda: (world.sessions.sleep(uuid), world.work())):
        assert inbox.agent(uuid) is None
        assert inbox.agent_here(uuid, "http://127.0.0.1:4711", "pod", "boot", world.now)
        agent = inbox.agent(uuid)
        assert agent is not None
        assert (agent.address, agent.name, agent.boot, agent.at) == ("http://127.0.0.1:4711", "pod", "boot", world.now)
        end()
    assert inbox.agent(uuid) is None


def test_an_agent_that_is_being_stopped_is_not_taken_up(world: World, uuid: str) -> None:
    """Its call was late. One of a session that sleeps for good was started by someone else, and is."""

    def calls(uuid: str, boot: str) -> bool:
        return world.core.inbox.agent_here(uuid, "http://127.0.0.1:4711", "pod", boot, world.now)

    world.sessions.sleep(uuid)
    assert not calls(uuid, "boot-1")
    world.work()
    assert calls(uuid, "boot-2")
    world.sessions.delete(uuid)
    assert not calls(uuid, "boot-2")
    assert not calls("zzzzzzzz", "boot-2")


def test_what_redis_holds_of_prompts_is_gone_with_their_end(world: World, uuid: str) -> None:
    """Only the message itself is left, and its bytes, for a while; after the session only the message."""
    before = set(world.core.redis.scan_iter())
    message_id = taken(world, uuid)
    world.core.inbox.delivered(uuid, message_id, world.now)
    world.core.inbox.finish(uuid, message_id, response={}, now=world.now)
    left = {keys.PROMPT.format(uuid=uuid, id=message_id), keys.ANSWERED.format(uuid=uuid)}
    used = {keys.PROMPT_BYTES.format(user_id="ada"), keys.USE.format(uuid=uuid)}
    assert set(world.core.redis.scan_iter()) - before == left | used | {keys.PROMPT_TIMES}
    assert all(0 < world.core.redis.ttl(name) <= world.settings.prompt_ttl for name in left)
    world.core.inbox.close(uuid, "The session was deleted.", world.now)
    world.core.store.change(uuid, world.now)
    message = keys.PROMPT.format(uuid=uuid, id=message_id)
    assert set(world.core.redis.scan_iter()) - before == {message, keys.PROMPT_TIMES}
