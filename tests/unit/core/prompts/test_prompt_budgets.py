"""What one session, and one user, may hold in Redis: prompts, answers and events, in bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest
import redis

from app.core.errors import PromptNotFound
from app.core.limit_errors import InboxFull, UserInboxFull
from app.core.prompts import inbox
from app.core.prompts.inbox import PROMPT_OVERHEAD
from app.core.redis import events, keys
from app.core.sessions import change
from tests.world import World

# The bytes that Redis takes are measured.
pytestmark = pytest.mark.real_redis

TEXT = "x" * 10_000
ANSWER = {"text": "y" * 10_000}
WITH_TEXT = len(TEXT) + PROMPT_OVERHEAD


@pytest.fixture
def small(make_world: Callable[..., World]) -> World:
    """A world in which a session may hold four prompts of this length, and a user six."""
    return make_world(session_prompt_bytes=4 * WITH_TEXT, user_prompt_bytes=6 * WITH_TEXT)


@pytest.fixture
def uuid(small: World) -> str:
    return small.active()


def take(world: World, uuid: str, message_id: str = "", text: str = TEXT) -> str:
    return world.core.inbox.take(uuid, text, message_id, now=world.now).prompt.id


def finish(world: World, uuid: str, message_id: str) -> bool:
    return world.core.inbox.finish(uuid, message_id, response=ANSWER, now=world.now)


def counted(world: World, uuid: str, user_id: str = "ada") -> int:
    return int(world.core.redis.hget(keys.PROMPT_BYTES.format(user_id=user_id), uuid) or 0)


def held(world: World, uuid: str) -> int:
    """What is really there."""
    messages = [world.core.redis.hgetall(name) for name in world.core.redis.keys(f"message:{uuid}:*")]
    texts = [text for each in messages for name in ("text", "response", "reason") if (text := each.get(name))]
    return sum(len(text.encode()) for text in texts) + PROMPT_OVERHEAD * len(messages)


# Prompts


def test_a_session_holds_prompts_up_to_its_budget_until_one_ends(small: World, uuid: str) -> None:
    """One that is known takes no room."""
    for number in range(4):
        take(small, uuid, f"m{number}")
    with pytest.raises(InboxFull, match="SESSION_PROMPT_BYTES"):
        take(small, uuid)
    assert take(small, uuid, "m3") == "m3"
    assert small.get(uuid).waiting == 4
    assert counted(small, uuid) == held(small, uuid) == 4 * WITH_TEXT
    small.core.inbox.finish(uuid, "m0", reason="it did not work", now=small.now)
    with pytest.raises(InboxFull):
        take(small, uuid, text="x" * (WITH_TEXT + 1))
    take(small, uuid)


def test_bytes_are_counted_not_characters(small: World, uuid: str) -> None:
    take(small, uuid, text="ü" * 20_000)
    assert counted(small, uuid) == held(small, uuid) == 40_000 + PROMPT_OVERHEAD


def test_a_user_holds_prompts_up_to_a_budget_over_all_sessions(small: World) -> None:
    one, two, other = small.active(), small.active(), small.active("bob")
    for _ in range(3):
        take(small, one)
        take(small, two)
    with pytest.raises(UserInboxFull, match="USER_PROMPT_BYTES"):
        take(small, one)
    take(small, other)


# Answers


def test_kept_answers_make_room_for_prompts_oldest_first(small: World, uuid: str) -> None:
    """The agent's history has them; a prompt is nowhere else."""
    for number in range(3):
        take(small, uuid, f"m{number}")
        finish(small, uuid, f"m{number}")
    take(small, uuid)
    take(small, uuid)
    with pytest.raises(PromptNotFound):
        small.core.inbox.get(uuid, "m0")
    assert small.core.inbox.get(uuid, "m2").response == ANSWER
    assert counted(small, uuid) == held(small, uuid) <= 4 * WITH_TEXT


def test_a_prompt_that_finds_no_room_in_any_case_takes_no_answers_along(small: World, uuid: str) -> None:
    take(small, uuid, "m0")
    finish(small, uuid, "m0")
    for _ in range(2):
        take(small, uuid)
    with pytest.raises(InboxFull):
        take(small, uuid, text="x" * 30_000)
    assert small.core.inbox.get(uuid, "m0").response == ANSWER


def test_answers_to_short_prompts_stay_within_the_budget(small: World) -> None:
    """A hostile agent ends many prompts of two letters with the longest answers."""
    uuids = [small.active() for _ in range(3)]
    prompts = [(uuid, take(small, uuid, text="hi")) for uuid in uuids for _ in range(12)]
    for uuid, each in prompts:
        finish(small, uuid, each)
    for uuid in uuids:
        assert counted(small, uuid) == held(small, uuid) <= 4 * WITH_TEXT
    assert sum(held(small, uuid) for uuid in uuids) <= 7 * (WITH_TEXT + 20)
    assert small.core.inbox.get(*prompts[-1]).response == ANSWER, "the last one is always kept"


def test_answers_of_other_sessions_count_no_longer_than_they_are_kept(small: World) -> None:
    uuids = [small.active() for _ in range(3)]
    for uuid in uuids[:2]:
        for _ in range(3):
            finish(small, uuid, take(small, uuid))
    with pytest.raises(UserInboxFull):
        take(small, uuids[2])
    small.now += small.settings.prompt_ttl + 1
    take(small, uuids[2])
    assert [counted(small, uuid) for uuid in uuids] == [0, 0, WITH_TEXT]


# The count is the truth


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.slow
def test_whatever_happens_the_count_is_what_is_there(make_world: Callable[..., World], seed: int) -> None:
    world = make_world(session_prompt_bytes=6 * WITH_TEXT, user_prompt_bytes=9 * WITH_TEXT, prompt_ttl=60.0)
    chance = random.Random(seed)
    uuids = [world.active() for _ in range(3)]
    for _ in range(150):
        uuid = chance.choice(uuids)
        open_ids = [message.id for message in world.core.inbox.unfinished(uuid)]
        match chance.choice(["take", "take", "take", "again", "deliver", "finish", "fail", "boot", "sleep", "time"]):
            case "take":
                with suppress(InboxFull):
                    take(world, uuid, "", "z" * chance.randrange(1, 15_000))
            case "again":
                with suppress(InboxFull):
                    take(world, uuid, f"m{chance.randrange(5)}")
            case "deliver" if open_ids:
                world.core.inbox.delivered(uuid, open_ids[0], world.now)
            case "finish" if open_ids:
                finish(world, uuid, chance.choice(open_ids))
            case "fail" if open_ids:
                world.core.inbox.finish(uuid, open_ids[-1], reason="r" * chance.randrange(1, 3_000), now=world.now)
            case "boot":
                world.core.inbox.agent_here(uuid, "http://127.0.0.1:1", "pod", str(chance.random()), world.now)
            case "sleep":
                world.core.inbox.hold(uuid, world.get(uuid).generation, world.now)
            case "time":
                world.now += chance.randrange(40)
        for each in uuids:
            assert counted(world, each) == held(world, each)
    for uuid in uuids:
        world.core.inbox.close(uuid, "The session was deleted.", world.now)
    assert world.core.redis.keys("user:*:prompt_bytes") == []


def test_a_count_that_is_wrong_or_lost_is_counted_anew_before_anybody_is_refused(small: World, uuid: str) -> None:
    """As a hash leaves it that expired a moment before its time; or as prompts that were never counted do."""
    name = keys.PROMPT_BYTES.format(user_id="ada")
    take(small, uuid)
    small.core.redis.hset(name, mapping={uuid: 1_000_000, "0000gone": 1_000_000})
    take(small, uuid)
    assert small.core.redis.hgetall(name) == {uuid: str(2 * WITH_TEXT)}
    take(small, uuid)
    small.core.redis.delete(name)
    take(small, uuid)
    assert counted(small, uuid) == 4 * WITH_TEXT


def test_a_message_takes_about_what_it_is_counted_with(redis_client: redis.Redis, small: World, uuid: str) -> None:
    message = take(small, uuid, text="x" * 100)
    size = redis_client.memory_usage(keys.PROMPT.format(uuid=uuid, id=message))
    assert PROMPT_OVERHEAD / 4 < size < PROMPT_OVERHEAD + 100


# Events


def size_of_events(world: World, uuid: str) -> int:
    return int(world.core.redis.memory_usage(keys.EVENTS.format(uuid=uuid), samples=0))


def bound_events(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    for module in (events, inbox, change):
        monkeypatch.setattr(module, "EVENTS_BYTES", most)


def test_events_are_bounded_in_bytes_as_well(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bound_events(monkeypatch, 200_000)
    uuid = world.active()
    for number in range(100):
        added = [("tool_call", {"message_id": "m", "arguments": "a" * 8_000, "n": number * 10 + n}) for n in range(10)]
        world.core.events.append_all(uuid, added)
    assert size_of_events(world, uuid) <= 200_000
    told = world.events_of(uuid)
    assert told[-1].data["n"] == 999 and len(told) > 10


@pytest.mark.slow
def test_ends_of_prompts_are_events_within_the_same_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bound_events(monkeypatch, 100_000)
    uuid = world.active()
    for _ in range(200):
        world.core.inbox.finish(uuid, take(world, uuid, text="hi"), reason="\x01" * 2_000, now=world.now)
    assert size_of_events(world, uuid) <= 100_000
