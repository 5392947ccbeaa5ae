"""Rows of sessions, as the API answers them: pages of the list, single rows, and counts by state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.core.sessions.model import Status, Tier
from app.web.api import api
from app.web.session_filters import TABS, TIERS, Filters, joined

PAGE = 50
"""Rows of a page."""

CALLS = 6
"""Calls of the API for one page of one state at most. A search compares 2,000 sessions a call, so that one among 10,000
takes five; a longer one goes on with the next page."""

ACTIONS: Mapping[str, tuple[Status, ...]] = {
    "open": (Status.CREATED, Status.ACTIVE, Status.SLEEPING, Status.WAKING),
    "wake": (Status.SLEEPING, Status.FAILED),
    "sleep": (Status.CREATED, Status.ACTIVE, Status.WAKING),
    "delete": tuple(status for status in Status if status is not Status.TERMINATED),
}
"""What is offered for sessions in which states. The API decides: a state may have changed since."""


@dataclass(frozen=True)
class Found:
    """A page: its rows, the cursor of the next ("" at the end), and how many the tab has, before any search."""

    rows: list[dict[str, Any]]
    following: str
    total: int


def find(wanted: Filters, most: int = PAGE) -> Found:
    """A page of the list. A tab of two states has both, newest first within the page. Raises `ApiError`."""
    states = TABS[wanted.tab]
    rows: list[dict[str, Any]] = []
    cursors: list[str | None] = []
    total = 0
    for state, cursor in zip(states, wanted.cursors, strict=True):
        found, following, count = _of_state(wanted, state, cursor, most // len(states))
        rows += found
        cursors.append(following)
        total += count
    rows.sort(key=lambda row: (row["created_at"], row["uuid"]), reverse=True)
    return Found([with_actions(row) for row in rows], joined(cursors), total)


def _of_state(
    wanted: Filters, state: Status | None, cursor: str | None, most: int
) -> tuple[list[dict[str, Any]], str | None, int]:
    """The rows of one state, the next cursor, and how many there are."""
    rows: list[dict[str, Any]] = []
    answer: dict[str, Any] = {}
    for _ in range(CALLS):
        # Where the pages of this state have ended, a row only says how many there are.
        limit = most - len(rows) if cursor is not None else 1
        answer = api().get("/sessions", status=state, limit=limit, cursor=cursor or None, **wanted.query)
        if cursor is None:
            return [], None, answer["total"]
        rows += answer["sessions"]
        cursor = answer["next_cursor"]
        if cursor is None or len(rows) >= most:
            break
    return rows, cursor, answer["total"]


def row_of(uuid: str) -> dict[str, Any]:
    """One session as a row of the list. Raises `ApiError`."""
    answer = api().get(f"/session/{uuid}")
    return with_actions({**answer["session"], "uuid": answer["uuid"], "queue_length": answer["queue_length"]})


def with_actions(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the names of what can be done in its state."""
    return row | {"can": [name for name, states in ACTIONS.items() if row["status"] in states]}


def counts(user_id: str) -> dict[str, int]:
    """Sessions by tab: of a user, "" for all. Raises `ApiError`."""
    if user_id:
        by_state = {each: _count(user_id, each) for each in {state for states in TABS.values() for state in states}}
        by_tier = {tier: _count(user_id, None, tier) for tier in TIERS.values()}
    else:
        figures = api().get("/metrics")
        by_state = {None: figures["total_sessions"], **{each: figures[f"{each}_sessions"] for each in Status}}
        by_tier = {tier: figures[f"{tier}_sessions"] for tier in TIERS.values()}
    return {
        tab: by_tier[TIERS[tab]] if tab in TIERS else sum(by_state[state] for state in states)
        for tab, states in TABS.items()
    }


def _count(user_id: str, state: Status | None, tier: Tier | None = None) -> int:
    total: int = api().get("/sessions", user_id=user_id, status=state, tier=tier, limit=1)["total"]
    return total
