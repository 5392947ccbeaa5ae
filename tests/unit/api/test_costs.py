"""The calls on costs: who may see what, the rows, and CSV that a spreadsheet runs nothing of."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import pytest

from app.api.costs import harmless
from app.core.composition import Core
from app.core.costs.usage import day_number
from app.core.prompts.token_usage import Tokens, TokenUsage
from app.core.redis import keys
from app.core.sessions.change import Intervals
from tests.unit.api.helpers import (
    ASYNC,
    Client,
    add_backup,
    check_problem,
    create,
    new_session,
)

MONTH = "from=2026-01-01&to=2026-01-31"
NEW_YEAR = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""
HOUR = 3_600.0


def book(core: Core, uuid: str, hours: float, since: float = NEW_YEAR) -> None:
    """Its processes ran, and its volume existed twice as long."""
    begun = Intervals(runs_from=since, kept_from=since, mib=5_120)
    core.store.change(uuid, since, ledger=begun)
    until = since + hours * HOUR
    core.store.change(uuid, until, ledger=Intervals(ran_until=until, kept_until=since + 2 * hours * HOUR))


@pytest.fixture
def booked(client: Client, core: Core) -> dict[str, str]:
    """Sessions of January: by name, their uuids."""
    made = {
        "ada": new_session(client, "ada", labels={"course": "b"}),
        "ada2": new_session(client, "ada", size="large"),
        "eve": new_session(client, "course-eve", labels={"course": "=1+1"}),
    }
    for number, uuid in enumerate(made.values(), 1):
        book(core, uuid, number)
    counts = TokenUsage(core.redis)
    counts.add(made["ada"], "ada", Tokens(1_000_000, 500_000), NEW_YEAR, "gpt-5-mini")
    return made


def rows(client: Client, query: str) -> list[dict[str, Any]]:
    answer = client.get(f"/costs?{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json["rows"])


def test_a_session_shows_what_it_used_on_each_day_and_what_that_costs(
    client: Client, core: Core, booked: dict[str, str]
) -> None:
    """Also when it is gone."""
    answer = client.get(f"/session/{booked['ada']}/cost?{MONTH}").json
    assert answer["compute_seconds"] == {"standard": 3_600.0}
    assert answer["storage_gib_hours"] == 10.0
    assert answer["tokens"] == {"gpt-5-mini": {"prompt": 1_000_000, "completion": 500_000}}
    hour = round(0.27 * 0.0445 + 0.3125 * 0.0049225, 6)
    disk = round(10 * 0.1 / 730, 6)
    assert answer["dollars"] == {
        "compute": hour,
        "disk": disk,
        "backups": 0.0,
        "points": 0.0,
        "tokens": 1.25,
        "total": pytest.approx(hour + disk + 1.25, abs=2e-6),
    }
    assert answer["saved_dollars"] == hour
    assert (answer["from"], answer["to"], answer["user_id"]) == ("2026-01-01", "2026-01-31", "ada")
    assert answer["prices"]["million_tokens"]["gpt-5-mini"] == {"prompt": 0.25, "completion": 2.0}
    days = [each["day"] for each in answer["days"]]
    assert days == sorted(set(days))
    assert sum(each["compute_seconds"].get("standard", 0.0) for each in answer["days"]) == 3_600.0
    total = sum(each["dollars"]["total"] for each in answer["days"])
    assert total == pytest.approx(answer["dollars"]["total"], abs=1e-5)
    core.redis.delete(keys.SESSION.format(uuid=booked["ada"]))
    gone = client.get(f"/session/{booked['ada']}/cost?{MONTH}").json
    assert gone["compute_seconds"] == {"standard": 3_600.0}
    assert client.get(f"/session/{booked['ada']}").status_code == 404


def test_what_runs_counts_until_now(client: Client, core: Core) -> None:
    uuid = new_session(client)
    core.store.change(uuid, time.time(), ledger=Intervals(runs_from=time.time() - 60))
    days = f"from={time.strftime('%Y-%m-%d', time.gmtime(time.time() - 60))}"
    assert client.get(f"/session/{uuid}/cost?{days}").json["compute_seconds"]["standard"] >= 60


def test_keys_see_their_users_only(service: Client, bound: Client, booked: dict[str, str]) -> None:
    for query in ("", "&user_id=ada"):
        check_problem(bound.get(f"/costs?{MONTH}{query}"), 403, "forbidden")
    check_problem(service.get(f"/costs?{MONTH}"), 403, "forbidden")
    assert [row["uuid"] for row in rows(bound, f"{MONTH}&user_id=course-eve")] == [booked["eve"]]
    assert len(rows(service, f"{MONTH}&user_id=ada")) == 2
    assert bound.get(f"/session/{booked['eve']}/cost").status_code == 200


@pytest.mark.parametrize(
    ("by", "column", "hours"),
    [
        ("user", "user_id", {"ada": 3.0, "course-eve": 3.0}),
        ("size", "size", {"standard": 4.0, "large": 2.0}),
        ("label:course", "label", {"b": 1.0, "=1+1": 3.0, None: 2.0}),
        ("day", "day", {"2026-01-01": 6.0}),
    ],
)
def test_costs_are_summed_up_by_group(
    client: Client, booked: dict[str, str], by: str, column: str, hours: dict[str, float]
) -> None:
    found = rows(client, f"{MONTH}&group_by={by}")
    assert {row[column]: sum(row["compute_seconds"].values()) / HOUR for row in found} == hours
    assert sum(row["sessions"] for row in found) == 3


def test_an_empty_value_of_a_label_is_not_a_missing_label(client: Client, core: Core) -> None:
    for labels in ({"course": ""}, {}):
        book(core, new_session(client, labels=labels), 1)
    assert {row["label"] for row in rows(client, f"{MONTH}&group_by=label:course")} == {"", None}


def test_a_label_chooses_sessions(client: Client, booked: dict[str, str]) -> None:
    assert [row["uuid"] for row in rows(client, f"{MONTH}&label=course=b")] == [booked["ada"]]
    assert [row["uuid"] for row in rows(client, f"{MONTH}&label=course%3D%3D1%2B1")] == [booked["eve"]]


def test_an_interval_over_months_is_in_each_of_its_days(client: Client, core: Core) -> None:
    uuid = new_session(client)
    book(core, uuid, 48, NEW_YEAR - 24 * HOUR)
    days = [row["day"] for row in rows(client, "from=2025-12-01&to=2026-01-31&group_by=day")]
    assert days == ["2026-01-03", "2026-01-02", "2026-01-01", "2025-12-31"]
    one_day = client.get(f"/session/{uuid}/cost?from=2025-12-31&to=2025-12-31").json
    assert one_day["compute_seconds"] == {"standard": 24 * HOUR}


@pytest.mark.parametrize("by", ["session", "user", "day"])
def test_pages_hold_every_row_once(client: Client, core: Core, booked: dict[str, str], by: str) -> None:
    for user in ("x", "y", "z"):
        book(core, new_session(client, user), 1, NEW_YEAR + 26 * HOUR)
    whole = rows(client, f"{MONTH}&group_by={by}")
    seen: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(10):
        page = client.get(f"/costs?{MONTH}&group_by={by}&limit=1{cursor}").json
        seen += page["rows"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == whole != []


def csv_of(client: Client, query: str) -> list[dict[str, str]]:
    answer = client.get(f"/costs?{query}", headers={"Accept": "text/csv"})
    assert answer.content_type == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


@pytest.mark.usefixtures("booked")
def test_csv_has_the_same_rows(client: Client) -> None:
    query = f"{MONTH}&limit=2"
    assert client.get(f"/costs?{query}", headers={"Accept": "text/csv"}).headers["Next-Cursor"]
    lines, shown = csv_of(client, query), rows(client, query)
    assert [line["uuid"] for line in lines] == [row["uuid"] for row in shown]
    assert [float(line["total_dollars"]) for line in lines] == [row["dollars"]["total"] for row in shown]
    prompts = [sum(each["prompt"] for each in row["tokens"].values()) for row in shown]
    assert [int(line["prompt_tokens"]) for line in lines] == prompts


def test_csv_without_rows_has_its_columns(client: Client) -> None:
    answer = client.get("/costs?from=2020-01-01&to=2020-01-02", headers={"Accept": "text/csv"})
    assert answer.text.strip().startswith("compute_seconds,")


@pytest.mark.usefixtures("booked")
def test_no_cell_of_a_csv_is_a_formula(client: Client) -> None:
    """A label's value, and a user's name, are what a tenant chose."""
    assert {line["label"] for line in csv_of(client, f"{MONTH}&group_by=label:course")} == {"b", "'=1+1", ""}


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        *((cell, f"'{cell}") for cell in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1")),
        *((cell, cell) for cell in ("ada", 1.5, 0, None, '{"a": "=1"}')),
    ],
)
def test_what_begins_like_a_formula_is_marked_as_text_and_all_else_stays(cell: object, shown: object) -> None:
    assert harmless(cell) == shown


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-13-01", "from"),
        ("from=yesterday", "from"),
        ("to=2026-02-30", "to"),
        ("from=2026-02-02&to=2026-02-01", "from"),
        ("from=2024-01-01&to=2026-01-01", "from"),
        ("group_by=label:", "group_by"),
        ("group_by=colour", "group_by"),
        ("label=course", "label"),
        ("limit=0", "limit"),
        ("month=1", "month"),
    ],
)
def test_a_malformed_query_names_its_field(client: Client, query: str, field: str) -> None:
    assert field in check_problem(client.get(f"/costs?{query}"), 400, "invalid_request")["errors"]  # type: ignore[operator]


@pytest.mark.parametrize("by", ["session", "user"])
def test_a_foreign_cursor_is_refused(client: Client, by: str) -> None:
    check_problem(client.get(f"/costs?cursor=!!&group_by={by}"), 400, "invalid_request")


def test_backups_of_a_session_that_is_long_gone_cost(client: Client, core: Core) -> None:
    backup = add_backup(core, uuid="k3v9x0qa", content=b"x" * 1_048_576)
    today = day_number(time.time())
    found = core.ledger.sessions(today, today)
    assert found == [backup.uuid]
    answer = client.get(f"/session/{backup.uuid}/cost").json
    assert answer["user_id"] == "ada"
    assert answer["backup_gib_hours"] > 0


def test_restore_points_are_shown_with_their_cost(client: Client, core: Core) -> None:
    """In JSON, and in the columns of CSV."""
    uuid = new_session(client)
    core.store.change(uuid, NEW_YEAR, ledger=Intervals.of_points(NEW_YEAR, 1024**3))
    core.store.change(uuid, NEW_YEAR, ledger=Intervals(points_until=NEW_YEAR + 73 * HOUR))
    answer = client.get(f"/session/{uuid}/cost?{MONTH}").json
    assert (answer["point_gib_hours"], answer["dollars"]["points"]) == (73.0, 0.002)
    [cells] = csv_of(client, MONTH)
    assert (cells["point_gib_hours"], cells["points_dollars"]) == ("73.0", "0.002")


def test_metrics_show_costs_without_a_user_or_session(client: Client, booked: dict[str, str]) -> None:
    text = client.get("/metrics", headers={"Accept": "text/plain"}).text
    assert 'sessions_cost_dollars_total{kind="tokens"} 1.25' in text
    for name in ("sessions_saved_dollars_total", "sessions_budget_refusals_total", 'kind="compute"', 'kind="disk"'):
        assert name in text
    assert not any(each in text for each in (*booked.values(), "ada"))


@pytest.mark.settings(budget_per_user=1.0)
def test_over_budget_calls_are_403_and_sleep_and_delete_work(client: Client, core: Core, uuid: str) -> None:
    TokenUsage(core.redis).add(uuid, "ada", Tokens(0, 1_000_000), time.time(), "gpt-5")
    body = check_problem(create(client), 403, "budget_exceeded")
    assert "first of the next month" in str(body["detail"])
    backup = add_backup(core, uuid)
    for path in (f"/session/{uuid}/wake", f"/session/{uuid}/scale-up", f"/backups/{backup.name}/restore"):
        check_problem(client.post(path), 403, "budget_exceeded")
    check_problem(client.post(f"/session/{uuid}/chat", json={"message": "go on"}), 403, "budget_exceeded")
    assert create(client, user_id="bob").status_code == 201
    assert client.post(f"/session/{uuid}/sleep").status_code == 200
    assert client.delete(f"/session/{uuid}", headers=ASYNC).status_code == 202


def test_a_session_notes_which_key_created_it(service: Client, core: Core) -> None:
    assert core.store.get(new_session(service)).made_by == "backend"
