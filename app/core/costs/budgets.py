"""Budgets: what a user, or the sessions that an API key created, may cost in a calendar month (UTC).

From 80 % on, once a month, the session that is used gets an event and the log a line; from 100 % on, creations, wakes,
prompts and calls of the model are refused. What runs on counts. Sleeps, deletions and the observer never ask here, so
they work whatever a budget says, and whether it can be read or not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import redis

from app.core.costs.ledger import Ledger
from app.core.costs.usage import bill, month_of, rounded
from app.core.errors import StateUnavailable
from app.core.limit_errors import BudgetExceeded, Owner
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.events import EventLog

log = logging.getLogger(__name__)

WARN_AT = Decimal("0.8")
"""The share of a budget from which its owner is warned."""

WARNING_KEPT = 32 * 86_400
"""s a warning is remembered: a month."""


@dataclass(frozen=True)
class Spent:
    """What an owner's sessions cost this month, in dollars, and what they may cost."""

    owner: str
    cost: Decimal
    budget: Decimal

    @property
    def exceeded(self) -> bool:
        return self.cost >= self.budget

    @property
    def warned(self) -> bool:
        return self.cost >= self.budget * WARN_AT


def key_budgets(api_keys: str) -> dict[str, Decimal]:
    """The budgets of the entries of API_KEYS that have one, by the key's name; nothing for a malformed setting, which
    app/api/security.py reports."""
    try:
        entries: Any = json.loads(api_keys)
        return {each["name"]: Decimal(str(each["budget"])) for each in entries if each.get("budget")}
    except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError):
        return {}


class Budgets:
    """Checks budgets: `per_user` is dollars, 0 for none, `per_key` by the key's name. A process that was not given the
    keys (`knows_keys` False, as the gateway) reads their budgets from Redis, where the others note them."""

    def __init__(
        self,
        client: redis.Redis,
        ledger: Ledger,
        events: EventLog,
        *,
        per_user: float,
        per_key: Mapping[str, Decimal],
        knows_keys: bool,
        clock: Callable[[], float],
    ) -> None:
        self._redis = client
        self._ledger = ledger
        self._events = events
        self._per_user = Decimal(str(per_user))
        self._per_key = per_key
        self._knows_keys = knows_keys
        self._clock = clock
        self._noted: dict[str, Decimal] = {}

    @property
    def unlimited(self) -> bool:
        """Whether there can be no budget at all."""
        return not self._per_user and self._knows_keys and not self._per_key

    def limited(self, user_id: str, key: str = "") -> bool:
        """Whether the user, or the `key` which created the session, has a budget. Raises `StateUnavailable`."""
        return bool(self._limits(user_id, key))

    def check(self, user_id: str, key: str = "", uuid: str = "") -> None:
        """Raises `BudgetExceeded` if the user's budget, or that of the `key` which created the session, is used up, and
        warns before that, on the events of the session `uuid` if there is one. Raises `StateUnavailable`."""
        limits = self._limits(user_id, key)
        if not limits:
            return
        now = self._clock()
        totals = self._ledger.running_totals(list(limits), now)
        spent = [
            Spent(owner, bill(amounts, self._ledger.prices).total, budget)
            for (owner, budget), amounts in zip(limits.items(), totals, strict=True)
        ]
        for each in spent:
            if each.warned:
                self._warn(each, uuid, now)
        for each in spent:
            if each.exceeded:
                self._count_refusal()
                raise BudgetExceeded(_kind(each.owner), budget=each.budget, cost=each.cost)

    def _limits(self, user_id: str, key: str) -> dict[str, Decimal]:
        """The owners that have a budget, and how much."""
        found = {keys.USER_COSTS.format(user_id=user_id): self._per_user}
        if key:
            found[keys.KEY_COSTS.format(key=key)] = self._of_key(key)
        return {owner: budget for owner, budget in found.items() if budget > 0}

    def _of_key(self, key: str) -> Decimal:
        if not self._knows_keys:
            with redis_errors:
                return Decimal(self._redis.hget(keys.BUDGETS, key) or "0")
        known = self._per_key.get(key, Decimal(0))
        if self._noted.get(key) != known:
            try:
                with redis_errors:
                    self._redis.hset(keys.BUDGETS, key, str(known))
                self._noted[key] = known
            except StateUnavailable as error:
                log.warning("the budget of a key was not noted: %s", error)
        return known

    def _warn(self, spent: Spent, uuid: str, now: float) -> None:
        """Warn once a month. A full Redis must not keep the call from its answer."""
        name = keys.BUDGET_WARNED.format(month=month_of(now), owner=spent.owner)
        shown = {"cost": rounded(spent.cost), "budget": float(spent.budget), "owner": _kind(spent.owner)}
        try:
            with redis_errors:
                first = self._redis.set(name, "1", nx=True, ex=WARNING_KEPT)
            if not first:
                return
            log.warning("a budget is nearly used up", extra={"uuid": uuid, **shown})
            if uuid:
                self._events.append(uuid, "budget", shown)
        except StateUnavailable as error:
            log.warning("the warning about a budget was not sent: %s", error)

    def _count_refusal(self) -> None:
        try:
            with redis_errors:
                self._redis.incrby(keys.BUDGET_REFUSALS, 1)
        except StateUnavailable as error:
            log.warning("a refusal was not counted: %s", error)


def _kind(owner: str) -> Owner:
    """Whose budget it is, without the name."""
    return Owner.USER if owner.startswith(keys.USER_COSTS.split("{", 1)[0]) else Owner.KEY
