"""Filters of the list in its address, and back."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from werkzeug.datastructures import MultiDict

from app.core.sessions.model import Status
from app.web.session_filters import TABS, TRAIL, Filters, joined


def read(url: str) -> Filters:
    return Filters.of(MultiDict(parse_qsl(urlsplit(url).query)))


def test_an_address_says_all_filters_and_nothing_else() -> None:
    wanted = Filters(tab="failed", search="a&b=ü", user_id="ada+x@example.com", labels=("course=a", "team=b c"))
    assert read(wanted.url()) == wanted
    assert read(wanted.older("next", 50)) == Filters(**(vars(wanted) | {"cursor": "next", "first": 50}))
    assert Filters().url() == "/"
    assert wanted.url(tab="all", search="", user_id="", labels=()) == "/"


def test_another_filter_begins_at_the_first_page() -> None:
    deep = Filters(search="x", cursor="c", trail=("b",), first=100)
    assert deep.url(tab="active") == "/?status=active&q=x"
    assert deep.with_label("course=a") == "/?q=x&label=course%3Da"
    assert read(deep.here) == deep


def test_a_label_stands_once_and_can_be_taken_away() -> None:
    wanted = read(read("/?label=a%3D1&label=b%3D2&label=a%3D1").with_label("a=1"))
    assert wanted.labels == ("b=2", "a=1")
    assert read(wanted.without_label("b=2")).labels == ("a=1",)


def test_pages_lead_on_and_back() -> None:
    first = Filters(tab="active")
    second = read(first.older("c1", 50))
    third = read(second.older("c2", 50))
    assert (second.cursor, second.trail, third.cursor, third.trail, third.first) == ("c1", (), "c2", ("c1",), 100)
    assert read(third.newer(50)) == second
    assert read(second.newer(50)) == first


def test_the_way_back_is_bounded_and_ends_at_the_first_page() -> None:
    page = Filters()
    for number in range(TRAIL + 10):
        page = read(page.older(f"c{number}", 50))
    assert len(page.trail) == TRAIL
    assert len(page.here) < 4_000 - TRAIL * 50
    for _ in range(TRAIL + 1):
        page = read(page.newer(50))
    assert page == Filters()


@pytest.mark.parametrize(
    "query", ["status=none", "first=-1", "first=9999999999", "first=x", "label=", "q=%20", "unknown=1"]
)
def test_what_is_not_understood_is_left_out(query: str) -> None:
    assert read(f"/?{query}") == Filters()


def test_a_tab_of_two_states_has_a_cursor_for_each() -> None:
    starting = Filters(tab="starting")
    assert starting.cursors == ["", ""]
    assert Filters(tab="starting", cursor=joined(["a", None])).cursors == ["a", None]
    assert Filters(tab="starting", cursor="of-another-tab").cursors == ["", ""]
    assert joined([None, None]) == ""
    assert {state for states in TABS.values() for state in states} == {None, *Status}, "every state has a tab"
