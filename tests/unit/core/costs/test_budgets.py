"""Budgets warn once and then refuse; what must not be refused never asks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
import redis

from app.core.composition import Core
from app.core.costs.budgets import key_budgets
from app.core.errors import StoreFull
from app.core.limit_errors import BudgetExceeded
from app.core.prompts.token_usage import Tokens, TokenUsage
from app.core.redis import keys
from app.core.service import NewSession
from app.core.sessions.change import Intervals
from app.core.sessions.model import Status
from tests.fakes import raising
from tests.world import World

MakeWorld = Callable[..., World]
FREE = {"vcpu_hour": 0, "gib_hour": 0, "disk_gib_month": {"*": 0}}


def priced(**prices: float) -> str:
    """A million tokens are a dollar, and nothing else costs but what is named."""
    return json.dumps({"million_tokens": {"*": [1, 1]}, **FREE, **prices})


PRICES = {"prices": priced()}


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """Each user may cost 10 dollars a month."""
    return make_world(**PRICES, budget_per_user=10.0)


def spend(world: World, uuid: str, dollars: float, user_id: str = "ada") -> None:
    tokens = Tokens(round(dollars * 1_000_000), 0)
    TokenUsage(world.core.redis).add(uuid, user_id, tokens, world.now)


def warnings(world: World, uuid: str) -> list[object]:
    return [event.data for event in world.events_of(uuid) if event.type == "budget"]


def test_without_a_budget_nobody_is_refused(make_world: MakeWorld) -> None:
    world = make_world(**PRICES)
    uuid = world.active()
    spend(world, uuid, 1_000)
    world.core.budgets.check("ada", "", uuid)
    assert world.core.budgets.unlimited


def test_restore_points_count(make_world: MakeWorld) -> None:
    """Also those of an archived session, which costs nothing else."""
    world = make_world(prices=priced(backup_gib_month=730.0), budget_per_user=10.0)
    uuid = world.active()
    world.core.store.change(uuid, world.now, ledger=Intervals.of_points(world.now, 1024**3))
    world.now += 9.9 * 3_600
    world.core.budgets.check("ada", "", uuid)
    world.now += 0.1 * 3_600
    with pytest.raises(BudgetExceeded):
        world.core.budgets.check("ada", "", uuid)


def test_from_80_percent_on_the_session_is_told_once_a_month(world: World, caplog: pytest.LogCaptureFixture) -> None:
    uuid = world.active()
    spend(world, uuid, 7.99)
    world.core.budgets.check("ada", "", uuid)
    assert warnings(world, uuid) == []
    spend(world, uuid, 0.02)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            world.core.budgets.check("ada", "", uuid)
    assert warnings(world, uuid) == [{"cost": 8.01, "budget": 10.0, "owner": "user"}]
    assert [line.message for line in caplog.records].count("a budget is nearly used up") == 1
    world.now += 31 * 86_400
    spend(world, uuid, 9)
    world.core.budgets.check("ada", "", uuid)
    assert len(warnings(world, uuid)) == 2


def test_at_100_percent_what_costs_more_is_refused_and_what_costs_less_works(world: World) -> None:
    awake, asleep = world.active(), world.asleep()
    spend(world, awake, 10)
    for refused in (
        lambda: world.sessions.create(NewSession(user_id="ada")),
        lambda: world.sessions.wake(asleep, asked=True),
        lambda: world.sessions.prompt(awake, "go on"),
    ):
        with pytest.raises(BudgetExceeded, match=r"\$10.00 .*BUDGET_PER_USER"):
            refused()
    assert world.core.ledger.totals(world.now).refusals == 3
    world.sessions.create(NewSession(user_id="bob"))
    world.sessions.sleep(awake)
    world.work()
    world.sessions.delete(asleep, backup=False)
    world.work()
    assert [world.get(uuid).status for uuid in (awake, asleep)] == [Status.SLEEPING, Status.TERMINATED]


def test_a_month_later_the_budget_is_new(world: World) -> None:
    uuid = world.asleep()
    spend(world, uuid, 10)
    with pytest.raises(BudgetExceeded):
        world.sessions.wake(uuid, asked=True)
    world.now += 31 * 86_400
    assert world.sessions.wake(uuid, asked=True).status is Status.WAKING


def test_what_runs_counts(make_world: MakeWorld) -> None:
    """Before it is booked; and what ran in the month before does not."""
    a_dollar_an_hour = priced(vcpu_hour=1 / 0.27)
    world = make_world(prices=a_dollar_an_hour, budget_per_user=10.0)
    uuid = world.active()
    world.now += 9.5 * 3_600
    world.core.budgets.check("ada", "", uuid)
    world.now += 1_801
    with pytest.raises(BudgetExceeded):
        world.core.budgets.check("ada", "", uuid)
    # 20 November, 08:00, and on to 00:30 of 1 December.
    world.now += (16 - 10 + 10 * 24 + 0.5) * 3_600 - 1
    world.core.budgets.check("ada", "", uuid)


def test_the_services_own_wakes_are_not_refused(world: World) -> None:
    """What runs already is adopted, or nobody would stop it."""
    uuid = world.asleep()
    spend(world, uuid, 10)
    assert world.sessions.wake(uuid).status is Status.WAKING


def test_a_key_has_a_budget_for_the_sessions_it_created(make_world: MakeWorld) -> None:
    api_keys = json.dumps([{"name": "backend", "sha256": "0" * 64, "role": "service", "budget": 2.5}, {"name": "x"}])
    world = make_world(**PRICES, api_keys=api_keys)
    mine = world.sessions.create(NewSession(user_id="ada"), made_by="backend").uuid
    others = world.sessions.create(NewSession(user_id="ada"), made_by="other").uuid
    world.work()
    assert world.get(mine).made_by == "backend"
    spend(world, others, 100)
    spend(world, mine, 2.4)
    world.sessions.wake(mine, asked=True)
    spend(world, mine, 0.1)
    with pytest.raises(BudgetExceeded, match="The key that created the session"):
        world.sessions.wake(mine, asked=True)
    with pytest.raises(BudgetExceeded):
        world.sessions.create(NewSession(user_id="bob"), made_by="backend")
    world.sessions.wake(others, asked=True)
    assert warnings(world, mine) == [{"cost": 2.4, "budget": 2.5, "owner": "key"}]


def test_a_process_without_keys_learns_of_their_budgets(make_world: MakeWorld, redis_client: redis.Redis) -> None:
    """As the gateway; and of one that was taken away."""
    api_keys = json.dumps([{"name": "backend", "sha256": "0" * 64, "role": "service", "budget": 2.5}])
    world = make_world(**PRICES, api_keys=api_keys)
    mine = world.sessions.create(NewSession(user_id="ada"), made_by="backend").uuid
    spend(world, mine, 3)
    gateway = Core(world.settings, client=redis_client, clock=world.clock)
    with pytest.raises(BudgetExceeded):
        gateway.budgets.check("ada", "backend", mine)
    freed = Core(replace(world.settings, api_keys="[]"), knows_keys=True, client=redis_client, clock=world.clock)
    freed.budgets.check("ada", "backend", mine)
    gateway.budgets.check("ada", "backend", mine)


@pytest.mark.parametrize(
    ("text", "budgets"),
    [
        ('[{"name": "a", "budget": 0.1}, {"name": "b"}]', {"a": Decimal("0.1")}),
        *[(malformed, {}) for malformed in ("", "{}", "[1]", '[{"name": "x", "budget": "a"}]', "null")],
    ],
)
def test_budgets_of_keys_are_exact_and_malformed_keys_have_none(text: str, budgets: dict[str, Decimal]) -> None:
    """They are reported elsewhere."""
    assert key_budgets(text) == budgets


def test_a_full_redis_delays_no_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the warning nor the count can be written; the refusal stands, and who may go on goes on."""
    uuid = world.active()
    spend(world, uuid, 9)
    for command in ("set", "incrby"):
        monkeypatch.setattr(world.core.redis, command, raising(redis.OutOfMemoryError("OOM command not allowed")))
    world.core.budgets.check("ada", "", uuid)
    spend(world, uuid, 1)
    with pytest.raises(BudgetExceeded):
        world.core.budgets.check("ada", "", uuid)


def test_a_budget_that_can_not_be_read_breaks_no_sleep_and_no_deletion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = world.active()
    monkeypatch.setattr(world.core.ledger, "running_totals", raising(StoreFull()))
    world.sessions.sleep(uuid)
    world.work()
    assert world.get(uuid).status is Status.SLEEPING
    world.sessions.delete(uuid, backup=False)
    world.work()
    assert world.get(uuid).status is Status.TERMINATED
    assert world.core.redis.exists(keys.LEDGER_SESSION.format(uuid=uuid))
