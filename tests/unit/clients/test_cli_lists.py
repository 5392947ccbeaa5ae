"""The lists of sessionctl: how many rows they show, and that they say so if there are more."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.unit.clients.api import TIME, UUID, Api, answer
from tests.unit.clients.conftest import Sessionctl
from workspaces.cli.output import MORE

DOLLARS = dict.fromkeys(("compute", "disk", "backups", "points", "tokens", "total"), 0.5)
USED = {
    "compute_seconds": {"small": 60.0},
    "point_gib_hours": 0.5,
    "tokens": {},
    "dollars": DOLLARS,
    "saved_dollars": 0.1,
}
COSTS = {"from": "2026-11-01", "to": "2026-11-20", "group_by": "user", "prices": {}}

LISTS: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "list": (("list",), "sessions", {"uuid": UUID, "user_id": "ada", "status": "active", "created_at": TIME}),
    "backups": (
        ("backups",),
        "backups",
        {"name": "a.zip", "uuid": UUID, "user_id": "ada", "size": 1, "files": 1, "content_bytes": 1, "sha256": ""}
        | {"created_at": TIME, "verified": True, "complete": True},
    ),
    "restore-points": (
        ("restore-points", UUID),
        "restore_points",
        {"id": "p1", "created_at": TIME, "trigger": "api", "files": 1, "size": 1, "stored": 1, "unreadable": 0}
        | {"broken": False, "restore_from": f"point-{UUID}-p1"},
    ),
    "dead-letters": (("dead-letters", "list"), "dead_letters", {"id": "d1", "task": "wake"}),
    "costs": (("costs",), "rows", {"user_id": "ada", "storage_gib_hours": 1.0, "backup_gib_hours": 0.0, **USED}),
    "audit": (
        ("audit",),
        "entries",
        {"id": "1", "at": TIME, "action": "create", "by": "admin", "role": "admin", "count": 1},
    ),
}


def page(name: str, rows: int, following: str | None) -> httpx.Response:
    """A page of one of the lists."""
    _, field, row = LISTS[name]
    body: dict[str, Any] = {"total": 9, field: [row] * rows, "next_cursor": following}
    prices = {"vcpu_hour": 0.0, "gib_hour": 0.0, "disk_gib_month": 0.0, "backup_gib_month": 0.0}
    return answer(body | (COSTS | {"prices": prices} if name == "costs" else {}))


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_list_that_is_cut_says_so(sessionctl: Sessionctl, name: str, options: tuple[str, ...]) -> None:
    api = Api(page(name, 3, "next"))
    ended = sessionctl(api, *LISTS[name][0], "--limit", "2", *options)
    assert (ended.code, MORE in ended.err, MORE in ended.out) == (0, True, False)
    assert api.requests[0].url.params["limit"] == "3"
    if options:
        assert len(json.loads(ended.out)) == 2


@pytest.mark.parametrize("name", LISTS)
def test_a_whole_list_says_nothing(sessionctl: Sessionctl, name: str) -> None:
    """Also where a page after the last row has none."""
    ended = sessionctl(Api(page(name, 2, "next"), page(name, 0, None)), *LISTS[name][0], "--limit", "2", "--json")
    assert (ended.code, MORE in ended.err, len(json.loads(ended.out))) == (0, False, 2)


def test_a_page_has_no_more_rows_than_the_service_allows(sessionctl: Sessionctl) -> None:
    api = Api(page("list", 2, None))
    sessionctl(api, "list", "--limit", "5000")
    assert api.requests[0].url.params["limit"] == "1000"


def table(*lines: str, following: str = "") -> httpx.Response:
    headers = {"Content-Type": "text/csv; charset=utf-8"} | ({"Next-Cursor": following} if following else {})
    return httpx.Response(200, headers=headers, text="".join(f"{line}\r\n" for line in lines))


@pytest.mark.parametrize(("limit", "rows", "more"), [("2", 2, True), ("3", 3, False), ("9", 3, False)])
def test_costs_in_csv_are_all_pages_under_one_header(sessionctl: Sessionctl, limit: str, rows: int, more: bool) -> None:
    """Without the header of a page that has no rows, which lacks columns."""
    lines = ["user_id,total_dollars", 'ada,"1,5"', "ben,2", '"c\nd",3']
    api = Api(table("total_dollars", following="a"), table(*lines[:3], following="b"), table(lines[0], lines[3]))
    ended = sessionctl(api, "costs", "--csv", "--limit", limit)
    assert ended.out == "".join(f"{line}\r\n" for line in lines[: rows + 1])
    assert (MORE in ended.err) is more
    assert [each.url.params.get("cursor") for each in api.requests] == [None, "a", "b"]


def test_what_is_stored_is_the_backups_and_the_restore_points(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(page("costs", 1, None)), "costs", "--by", "user")
    heads, row = ended.out.splitlines()[:2]
    assert heads.split() == ["USER", "AWAKE", "DISK", "STORED", "TOKENS", "COST", "SAVED"]
    assert row.split()[:7] == ["ada", "0.0", "h", "1.0", "GiB", "h", "0.5"]


def test_costs_of_nothing_in_csv_are_a_header(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(table("total_dollars")), "costs", "--csv")
    assert (ended.out, ended.err) == ("total_dollars\r\n", "")
