"""Where a session's files are, in the API's answers and on the page that a visit gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from app.api.reasons import ASLEEP, Files, told
from app.core.composition import Core
from app.core.restore_points.names import reference
from app.core.sessions.model import Record, Status, iso
from app.core.sessions.reason_codes import ReasonCode
from tests.unit.api.helpers import TEXT, Client, new_session, put_point, samples
from tests.unit.api.visitors import NAVIGATION, POLL, Visitor

NOW = 1_763_625_600.0
DAY = 86_400.0


def asleep(core: Core, uuid: str, **fields: object) -> None:
    core.store.change(uuid, NOW, to=Status.SLEEPING, settle=True, last_activity=NOW, **fields)


def shown(client: Client, uuid: str) -> Any:
    return client.get(f"/session/{uuid}").json["session"]


def test_a_session_says_when_it_is_archived_and_when_it_ends(client: Client, core: Core, uuid: str) -> None:
    asleep(core, uuid, provisioned=True)
    expected = {
        "tier": "hot",
        "archives_at": iso(NOW + core.settings.session_ttl),
        "expires_at": iso(NOW + core.settings.archive_retention),
    }
    [row] = client.get("/sessions").json["sessions"]
    for each in (shown(client, uuid), row):
        assert {name: each[name] for name in expected} == expected


def test_an_archived_one_says_so_and_sleeps(client: Client, core: Core, uuid: str) -> None:
    asleep(core, uuid, archived_at=NOW)
    session = shown(client, uuid)
    assert (session["status"], session["tier"], session["archives_at"]) == ("sleeping", "archived", None)
    assert session["expires_at"] == iso(NOW + core.settings.archive_retention)
    assert session["archived_at"] == iso(NOW)
    hot = new_session(client)
    for tier, found in (("archived", uuid), ("hot", hot)):
        rows = client.get(f"/sessions?tier={tier}").json["sessions"]
        assert [(row["uuid"], row["tier"]) for row in rows] == [(found, tier)]
    assert client.get("/sessions?tier=cold").status_code == 400
    assert client.get("/metrics").json["archived_sessions"] == 1
    assert samples(client.get("/metrics", headers=TEXT).text)["sessions_tier", "archived"] == 1.0


def test_without_a_ttl_there_is_neither(client: Client, core: Core) -> None:
    uuid = new_session(client, ttl=0)
    asleep(core, uuid)
    [row] = client.get("/sessions").json["sessions"]
    assert (row["archives_at"], shown(client, uuid)["expires_at"]) == (None, None)


def test_an_end_comes_no_earlier_than_the_ttl() -> None:
    record = Record(uuid="abcd1234", user_id="ada", created_at=NOW, status=Status.SLEEPING, last_activity=NOW)
    assert replace(record, ttl=200 * DAY).expires_at(90 * DAY) == NOW + 200 * DAY
    assert replace(record, ttl=1 * DAY).expires_at(90 * DAY) == NOW + 90 * DAY
    assert replace(record, ttl=1 * DAY).expires_at(0.0) == 0.0


def test_a_visitor_reads_that_the_archive_takes_longer() -> None:
    for status in (Status.SLEEPING, Status.WAKING):
        words = told(status, {}, "", "", Files.ARCHIVED)
        assert "archive" in words.text
        assert words.text != told(status, {}, "", "").text
    assert told(Status.SLEEPING, {}, "", "") == ASLEEP


BRINGS = {"files": 10_000, "bytes": 304_000_000, "of": "2026-05-03T14:02:11.000Z"}
IN_WORDS = "Restoring 10,000 files, 304 MB, of 3 May 2026, 14:02 UTC."


def restoring(core: Core, uuid: str) -> None:
    """As a worker leaves it while it restores the files of an archived session."""
    point = put_point(core, uuid, created_at=NOW, trigger="archive", files=10_000, size=304_000_000)
    asleep(core, uuid, archived_at=NOW, restore_from=reference(uuid, point.id))
    core.sessions.wake(uuid)
    core.store.change(uuid, NOW, restoring=BRINGS)


def test_a_session_says_what_is_being_restored_until_that_is_done(client: Client, core: Core, uuid: str) -> None:
    restoring(core, uuid)
    session = shown(client, uuid)
    assert (session["status"], session["restoring"]) == ("waking", BRINGS)
    core.store.change(uuid, NOW, to=Status.ACTIVE, settle=True, restore_from="", restoring={})
    assert shown(client, uuid)["restoring"] is None


@pytest.mark.parametrize("files", Files)
def test_a_visitor_reads_what_is_being_restored(files: Files) -> None:
    for code in ("", ReasonCode.FILES_LOST):
        assert told(Status.WAKING, {}, code, "", files, BRINGS).text.endswith(IN_WORDS)
    assert "Restoring 1" not in told(Status.SLEEPING, {}, "", "", files, BRINGS).text


def test_only_who_may_enter_reads_what_is_being_restored(app: Flask, core: Core, uuid: str, entered: Visitor) -> None:
    restoring(core, uuid)
    assert IN_WORDS in entered.navigate().text
    assert IN_WORDS in entered.visit(**POLL).json["for_people"]["text"]
    other = Visitor(app, uuid)
    pages = [other.navigate(), other.visit(**POLL), other.client.get("/auth/waking", headers=NAVIGATION)]
    assert not [page.text for page in pages if "10,000" in page.text or "May" in page.text]


def test_a_wake_from_the_archive_is_not_said_to_take_as_long_as_others(core: Core, uuid: str, entered: Visitor) -> None:
    asleep(core, uuid)
    core.counters.started("wake", {"ready": 512})
    assert 'data-estimate="512"' in entered.navigate().text
    restoring(core, uuid)
    assert 'data-estimate="0"' in entered.navigate().text
