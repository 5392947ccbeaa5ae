"""The calls on costs: of one session, and of all by session, user, size, day or label, as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

from flask import Response, request

from app.api.blueprint import Blueprint
from app.api.cost_schemas import CostsQuerySchema, CostsSchema, DaysQuerySchema, SessionCostSchema
from app.api.current import core
from app.api.openapi import PLAIN
from app.api.security import caller, check_listing, check_uuid
from app.core.costs.ledger import Payer, SessionUsage, shown_usage
from app.core.costs.usage import KINDS, day_number, day_of_number, number_of
from app.core.errors import SessionNotFound
from app.core.redis.paging import Page, page_of
from app.http.problems import Problem

blp = Blueprint("costs", __name__, description="What sessions cost: compute, disk, backups, restore points and tokens.")

MOST_DAYS = 400
"""Days of one answer: the ledger is kept for 13 months."""

CSV = "text/csv"
NEXT_CURSOR = "Next-Cursor"
"""The header of a CSV answer with the cursor of the next page."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet may take for a formula (OWASP, "CSV Injection")."""

Row = tuple[str, dict[str, Any], Counter[str]]
"""A row's place in the order, what it is about, and its amounts."""


@blp.route("/session/<session:uuid>/cost", methods=["GET"])
@blp.arguments(DaysQuerySchema, location="query")
@blp.response(200, SessionCostSchema)
@blp.operation("getSessionCost", 400, 404)
def of_session(query: dict[str, date], uuid: str) -> dict[str, Any]:
    """Show what a session used and cost, day by day summed up, also after its deletion, for 13 months. What runs on
    counts until now."""
    check_uuid(uuid)
    days = asked_days(query)
    found = next(core().ledger.read([uuid], *days, time.time()), None)
    if found is None or not caller().may_see(found.payer.user_id):
        raise SessionNotFound(uuid)
    by_day = [{"day": day_of_number(day)} | shown(amounts) for day, amounts in found.days.between(*days)]
    whole = shown(found.days.total(*days)) | {"days": by_day, "prices": core().prices.to_json()}
    return about(found.payer) | span(days) | whole


@blp.route("/costs", methods=["GET"])
@blp.arguments(CostsQuerySchema, location="query")
@blp.response(200, CostsSchema)
@blp.alt_response(200, schema=PLAIN, content_type=CSV, description="The rows; Next-Cursor has the next page's cursor.")
@blp.operation("listCosts", 400)
def list_all(query: dict[str, Any]) -> Response | dict[str, Any]:
    """Show what sessions used and cost, by session, user, size, day or a label's value; as CSV if the Accept header
    asks for it. Rows without any use are left out, so a page may have fewer than `limit`."""
    user_id = query.get("user_id")
    check_listing(user_id)
    days, by, now = asked_days(query), query["group_by"], time.time()
    uuids = core().ledger.sessions(*days, user_id)
    page_query = {"limit": query["limit"], "cursor": query.get("cursor")}
    if by == "session":
        page = page_of(uuids, lambda uuid: (0.0, uuid), **page_query).map(
            lambda some: [*rows_of(chosen(some, days, now, query), by, days)]
        )
    else:
        page = page_of(rows_of(chosen(uuids, days, now, query), by, days), lambda row: (0.0, row[0]), **page_query)
    rows = [names | shown(amounts) for _, names, amounts in page.items]
    if CSV in request.headers.get("Accept", ""):
        return csv_answer(rows, page)
    body = {"group_by": by, "total": page.total, "rows": rows, "next_cursor": page.next_cursor}
    return span(days) | body | {"prices": core().prices.to_json()}


def asked_days(query: dict[str, Any]) -> tuple[int, int]:
    """The first and the last day of a query."""
    today = day_of_number(day_number(time.time()))
    last: date = query.get("last", today)
    first: date = query.get("first", last.replace(day=1))
    days = number_of(first), number_of(last)
    if not 0 <= days[1] - days[0] < MOST_DAYS:
        text = f"`from` must not be after `to`, and at most {MOST_DAYS} days may be asked for."
        raise Problem(400, "invalid_request", text, errors={"from": [text]})
    return days


def chosen(uuids: Sequence[str], days: tuple[int, int], now: float, query: dict[str, Any]) -> Iterator[SessionUsage]:
    """What those of these sessions used that the query and the caller's key choose."""
    user_id = query.get("user_id")
    name, _, value = query.get("label", "").partition("=")
    for found in core().ledger.read(uuids, *days, now):
        own = user_id in (None, found.payer.user_id) and caller().may_see(found.payer.user_id)
        if own and (not name or (found.payer.labels or {}).get(name) == value):
            yield found


def rows_of(found: Iterable[SessionUsage], by: str, days: tuple[int, int]) -> Iterator[Row]:
    """One row for each group that used anything."""
    groups: dict[str, tuple[dict[str, Any], Counter[str]]] = {}
    for each in found:
        for place, names, amounts in parts_of(each, by, days):
            known, sums = groups.setdefault(place, (names, Counter()))
            if by != "session":
                known["sessions"] = known.get("sessions", 0) + 1
            sums.update(amounts)
    return ((place, names, amounts) for place, (names, amounts) in groups.items() if any(amounts.values()))


def parts_of(found: SessionUsage, by: str, days: tuple[int, int]) -> Iterator[Row]:
    """What a session adds to the groups."""
    payer = found.payer
    if by == "day":
        for day, amounts in found.days.between(*days):
            name = day_of_number(day).isoformat()
            yield name, {"day": name}, amounts
        return
    amounts = found.days.total(*days)
    if not amounts:
        return
    kind, _, label = by.partition(":")
    value = (payer.labels or {}).get(label)
    match kind:
        case "user":
            yield payer.user_id, {"user_id": payer.user_id}, amounts
        case "size":
            yield payer.size, {"size": payer.size}, amounts
        case "label":
            yield "" if value is None else f"={value}", {"label": value}, amounts
        case _:
            yield payer.uuid, about(payer), amounts


def about(payer: Payer) -> dict[str, Any]:
    """A session in a row."""
    return {
        "uuid": payer.uuid,
        "user_id": payer.user_id,
        "size": payer.size,
        "labels": dict(payer.labels or {}),
    }


def shown(amounts: Counter[str]) -> dict[str, Any]:
    """Amounts in a row, with what they cost."""
    return shown_usage(amounts, core().prices)


def span(days: tuple[int, int]) -> dict[str, date]:
    """The days of an answer."""
    first, last = map(day_of_number, days)
    return {"first": first, "last": last}


def csv_answer(rows: Sequence[dict[str, Any]], page: Page[Any]) -> Response:
    """The rows as CSV (RFC 4180), with a header line."""
    out = io.StringIO()
    lines = [flat(row) for row in rows]
    writer = csv.DictWriter(out, fieldnames=[*(lines[0] if lines else flat_amounts(shown(Counter())))])
    writer.writeheader()
    writer.writerows({name: harmless(cell) for name, cell in line.items()} for line in lines)
    headers = {"Content-Disposition": 'attachment; filename="costs.csv"'}
    if page.next_cursor:
        headers[NEXT_CURSOR] = page.next_cursor
    return Response(out.getvalue(), 200, headers, content_type=f"{CSV}; charset=utf-8")


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row's cells by column."""
    names = {name: row[name] for name in ("uuid", "user_id", "size", "day", "label", "sessions") if name in row}
    labels = {"labels": json.dumps(row["labels"], sort_keys=True)} if "labels" in row else {}
    return names | labels | flat_amounts(row)


def flat_amounts(row: dict[str, Any]) -> dict[str, Any]:
    """The cells of the amounts: compute of all sizes and tokens of all models are summed up."""
    counts = row["tokens"].values()
    return {
        "compute_seconds": round(sum(row["compute_seconds"].values()), 3),
        "storage_gib_hours": row["storage_gib_hours"],
        "backup_gib_hours": row["backup_gib_hours"],
        "point_gib_hours": row["point_gib_hours"],
        "prompt_tokens": sum(each["prompt"] for each in counts),
        "completion_tokens": sum(each["completion"] for each in counts),
        **{f"{kind}_dollars": row["dollars"][kind] for kind in (*KINDS, "total")},
        "saved_dollars": row["saved_dollars"],
    }


def harmless(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: a text that begins like one gets an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
