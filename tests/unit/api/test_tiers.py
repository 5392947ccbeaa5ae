"""Where a session's files are, in the API's answers and on the page that a visit gets."""

from __future__ import annotations

from dataclasses import replace

from app.api.reasons import ASLEEP, Files, told
from app.api.sessions import status_of, summary
from app.core.composition import Core
from app.core.sessions.model import Record, Status, iso
from tests.unit.api.helpers import Client, new_session

NOW = 1_763_625_600.0
DAY = 86_400.0


def asleep(core: Core, uuid: str, **fields: object) -> Record:
    core.store.change(uuid, NOW, to=Status.SLEEPING, settle=True, last_activity=NOW, **fields)
    return core.store.get(uuid)


def test_a_session_says_when_it_is_archived_and_when_it_ends(client: Client, core: Core) -> None:
    uuid = new_session(client)
    asleep(core, uuid, provisioned=True)
    session = client.get(f"/session/{uuid}").json["session"]
    assert (session["tier"], session["archives_at"]) == ("hot", iso(NOW + core.settings.session_ttl))
    assert session["expires_at"] == iso(NOW + core.settings.archive_retention)
    [row] = client.get("/sessions").json["sessions"]
    assert {name: row[name] for name in ("tier", "archives_at", "expires_at")} == {
        name: session[name] for name in ("tier", "archives_at", "expires_at")
    }


def test_an_archived_one_says_so_and_sleeps(client: Client, core: Core) -> None:
    uuid = new_session(client)
    asleep(core, uuid, archived_at=NOW)
    session = client.get(f"/session/{uuid}").json["session"]
    assert (session["status"], session["tier"], session["archives_at"]) == ("sleeping", "archived", None)
    assert session["expires_at"] == iso(NOW + core.settings.archive_retention)
    assert client.get("/sessions").json["sessions"][0]["tier"] == "archived"
    assert client.get("/metrics").json["archived_sessions"] == 1
    text = client.get("/metrics", headers={"Accept": "text/plain"}).text
    assert 'sessions_tier{tier="archived"} 1.0' in text


def test_without_a_ttl_there_is_neither(client: Client, core: Core) -> None:
    uuid = new_session(client, ttl=0)
    record = asleep(core, uuid)
    with client.application.test_request_context():
        assert (summary(record)["archives_at"], status_of(record, NOW)["session"]["expires_at"]) == (None, None)


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
