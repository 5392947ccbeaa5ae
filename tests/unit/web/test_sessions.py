"""The list of sessions: pages, tabs, rows, and what it shows to whom."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.sessions.model import Record, Status
from app.web import session_rows
from tests.unit.api.helpers import BOUND_KEY, SERVICE_KEY
from tests.unit.web.conftest import ORIGIN, Visitor, signed_in

MARKUP = '"><img src=x onerror=alert(1)>'


def add(core: Core, number: int, status: Status = Status.ACTIVE, **values: Any) -> str:
    """A session that is newer the greater its number; its uuid."""
    given: dict[str, Any] = {"user_id": "ada", "created_at": 1_000.0 + number} | values
    return core.store.create(Record(uuid=f"{number:08d}", status=status, **given), quota=None)


def uuids(page: str) -> list[str]:
    return re.findall(r'data-uuid="(\w+)"', page)


def link(page: str, text: str) -> str:
    """Where the link with this text leads."""
    return html.unescape(re.findall(rf'href="([^"]+)"[^>]*>{text}</a>', page)[-1])


def tabs(page: str) -> dict[str, int]:
    found = re.findall(r'<a id="tab-(\w+)".*?<span class="count">([\d,]+)</span>', page)
    return {name: int(count.replace(",", "")) for name, count in found}


def test_pages_lead_on_and_back(visitor: Visitor, core: Core) -> None:
    for number in range(120):
        add(core, number)
    pages = [visitor.get("/").text]
    for _ in range(2):
        pages.append(visitor.get(link(pages[-1], "Older")).text)
    assert [uuid for page in pages for uuid in uuids(page)] == [f"{number:08d}" for number in reversed(range(120))]
    assert "101–120 of 120" in pages[2] and "Older" not in pages[2]
    assert "Newer" not in pages[0]
    assert uuids(visitor.get(link(pages[2], "Newer")).text) == uuids(pages[1])
    assert uuids(visitor.get(link(pages[2], "Newest")).text) == uuids(pages[0])


def test_tabs_count_and_choose_states(visitor: Visitor, core: Core) -> None:
    for number, status in enumerate(Status):
        add(core, number, status)
    add(core, 10, Status.CREATED, user_id="bob")
    page = visitor.get("/").text
    counts = {"all": 7, "active": 1, "starting": 3, "sleeping": 1, "archived": 0, "failed": 1, "terminated": 2}
    assert tabs(page) == counts
    assert uuids(visitor.get("/?status=starting").text) == ["00000010", "00000003", "00000000"]
    assert uuids(visitor.get("/?status=terminated").text) == ["00000005", "00000004"]
    assert tabs(visitor.get("/?user_id=bob").text) | {} == dict.fromkeys(tabs(page), 0) | {"all": 1, "starting": 1}
    assert tabs(visitor.get("/sessions/counts?user_id=bob").text)["all"] == 1


def test_archived_sessions_have_a_tab_and_say_that_they_sleep_in_the_archive(visitor: Visitor, core: Core) -> None:
    for number in range(3):
        values = {"archived_at": 5_000.0 if number else 0.0, "user_id": "ada" if number < 2 else "bob"}
        add(core, number, Status.SLEEPING, **values)
    page = visitor.get("/?status=archived").text
    assert (uuids(page), tabs(page)["archived"], tabs(page)["sleeping"]) == (["00000002", "00000001"], 2, 3)
    assert page.count('<span class="status calm">sleeping</span> <span class="muted">archived</span>') == 2
    bobs = visitor.get("/?status=archived&user_id=bob").text
    assert (uuids(bobs), tabs(bobs)["archived"]) == (["00000002"], 1)
    assert "Nothing is archived" in visitor.get("/?status=archived&user_id=eve").text
    assert '<a href="/?status=archived">2 archived</a>, of 3 sessions' in visitor.get("/overview").text


def test_a_tab_of_two_states_has_pages(visitor: Visitor, core: Core) -> None:
    for number in range(130):
        add(core, number, Status.WAKING if number % 4 else Status.CREATED)
    address, seen = "/?status=starting", []
    for _ in range(5):
        page = visitor.get(address).text
        seen += uuids(page)
        if "Older" not in page:
            break
        address = link(page, "Older")
    assert sorted(seen) == [f"{number:08d}" for number in range(130)]
    assert "of 130" in page


def test_a_search_goes_on_until_the_page_is_full(visitor: Visitor, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API compares so many sessions a call; what is searched may be behind them."""
    monkeypatch.setattr("app.core.sessions.listing.SCANNED", 10)
    for number in range(50):
        add(core, number, user_id="needle" if number == 3 else "hay")
    assert uuids(visitor.get("/?q=need").text) == ["00000003"]
    monkeypatch.setattr(session_rows, "CALLS", 2)
    page = visitor.get("/?q=need").text
    assert "Nothing found so far" in page
    assert "00000003" in visitor.get(link(visitor.get(link(page, "Search on")).text, "Search on")).text


def test_labels_narrow_and_can_be_taken_away(visitor: Visitor, core: Core) -> None:
    add(core, 1, labels={"course": "a", "team": "x"})
    add(core, 2, labels={"course": "a"})
    page = visitor.get("/?label=course%3Da").text
    assert uuids(page) == ["00000002", "00000001"]
    assert 'href="/?label=course%3Da&amp;label=team%3Dx"' in page
    assert uuids(visitor.get("/?label=course%3Da&label=team%3Dx").text) == ["00000001"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("q=nobody", "“nobody”"),
        ("q=nobody&status=failed", "Search in all states"),
        ("label=a%3Db", "the label a=b"),
        ("status=failed", "Nothing has failed"),
        ("user_id=bob", "bob has no session"),
        (f"q={'a' * 257}", "That search does not work"),
        ("label=novalue", "Must be a label and its value"),
        ("cursor=x", "start again without it"),
    ],
)
def test_an_empty_list_says_what_to_do(visitor: Visitor, core: Core, query: str, said: str) -> None:
    add(core, 1)
    answer = visitor.get(f"/?{query}")
    assert (answer.status_code, uuids(answer.text)) == (200, [])
    assert said in answer.text


def test_a_row_says_why_and_offers_what_its_state_allows(visitor: Visitor, core: Core) -> None:
    add(core, 1, Status.FAILED, reason="The image is missing", waiting=2)
    row = visitor.get("/sessions/00000001/row").text
    assert uuids(row) == ["00000001"]
    assert 'data-can="wake delete"' in row
    assert "The image is missing" in row
    assert "2 prompts wait" in row


def test_a_row_keeps_the_filters_of_its_page_and_goes_with_its_session(visitor: Visitor, core: Core) -> None:
    add(core, 1, labels={"team": "x"})
    row = visitor.get("/sessions/00000001/row", headers={"HX-Current-URL": f"{ORIGIN}/?status=active&q=a"}).text
    assert 'href="/?status=active&amp;q=a&amp;label=team%3Dx"' in row
    answer = visitor.get("/sessions/zzzzzzzz/row")
    assert (answer.status_code, answer.text) == (200, "")


def test_new_sessions_are_counted_until_they_are_shown(visitor: Visitor, core: Core) -> None:
    for number in range(3):
        add(core, number, user_id="bob" if number == 2 else "ada")
    page = visitor.get("/?user_id=ada").text
    assert 'name="since" value="00000001"' in page
    assert page.count('hx-get="/sessions/new-ones?user_id=ada"') == 2
    assert "2 new" in visitor.get("/sessions/new-ones?since=00000000").text
    assert "1 new" in visitor.get("/sessions/new-ones?since=00000000&user_id=ada").text
    assert " new " not in visitor.get("/sessions/new-ones?since=00000002").text


def test_the_search_writes_its_address_over_the_last(visitor: Visitor, core: Core) -> None:
    answer = visitor.get("/?status=active&q=&label=a%3Db", headers={"HX-Request": "true", "HX-Trigger": "filters"})
    assert answer.headers["HX-Replace-Url"] == "/?status=active&label=a%3Db"
    assert "HX-Replace-Url" not in visitor.get("/?status=active").headers


def test_a_key_that_lists_one_user_at_a_time_is_asked_for_the_user(app: Flask, core: Core) -> None:
    add(core, 1)
    add(core, 2, user_id="course-1")
    service, bound = signed_in(app, SERVICE_KEY), signed_in(app, BOUND_KEY)
    page = service.get("/").text
    assert "Whose sessions?" in page
    assert uuids(page) == []
    assert uuids(service.get("/?user_id=ada").text) == ["00000001"]
    assert 'value="course-"' in bound.get("/").text
    assert uuids(bound.get("/?user_id=course-1").text) == ["00000002"]
    refused = bound.get("/?user_id=ada")
    assert (refused.status_code, "00000001" in refused.text) == (403, False)


def test_a_key_that_may_only_look_sees_nothing_to_change(onlooker: Visitor, core: Core) -> None:
    assert "This key may look only" in onlooker.get("/").text
    add(core, 1)
    page = onlooker.get("/").text
    assert uuids(page) == ["00000001"]
    for absent in ("hx-post", "data-menu", 'type="checkbox"', 'id="create"', 'id="bulk"'):
        assert absent not in page
    assert onlooker.post("/sessions/sleep", {"uuid": "00000001"}).status_code == 200
    assert core.store.get("00000001").status is Status.ACTIVE


def test_markup_of_tenants_is_text(visitor: Visitor, core: Core) -> None:
    add(core, 1, Status.FAILED, labels={"note": MARKUP}, reason=MARKUP)
    for path in ("/", "/sessions/00000001/row", "/sessions/delete?uuid=00000001"):
        page = visitor.get(path).text
        assert "<img src=x" not in page, path
    for path in ("/?q=", "/?user_id=", "/?label=a=", "/sessions/new-ones?since=", "/sessions/counts?q="):
        page = visitor.get(path + MARKUP).text
        assert "<img src=x" not in page, path


def test_the_first_visit_offers_one_click(visitor: Visitor) -> None:
    page = visitor.get("/").text
    assert "Create your first workspace" in page
    assert 'hx-post="/sessions/first"' in page
