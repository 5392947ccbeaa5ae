"""What a person may ask for in a minute: as much as by HTTP, but for what pages read by themselves."""

from __future__ import annotations

import json

import pytest

from tests.dashboard import Visitor
from tests.unit.api.helpers import AppMaker, core_of, digest, keyed

OWN_RATES_KEY = "the-key-of-a-course"
RATES = {"create": "1/minute", "default": "8/minute"}


@pytest.fixture
def person(make_app: AppMaker) -> Visitor:
    """A browser at a dashboard whose settings allow two creates and three of the rest in a minute."""
    entry = {"name": "course", "sha256": digest(OWN_RATES_KEY), "role": "service", "limits": RATES}
    limits = {"rate_limit_create": "2/minute", "rate_limit_default": "3/minute"}
    return Visitor(make_app(api_keys=json.dumps([entry]), **limits))


def created(person: Visitor, times: int) -> int:
    """How many sessions there are after so many tries to create one."""
    for _ in range(times):
        person.post("/sessions/create", {"user_id": "ada"})
    return len(core_of(person.client.application).redis.zrange("sessions:all", 0, -1))


def test_a_keys_own_rate_holds_here_too(person: Visitor) -> None:
    person.sign_in(OWN_RATES_KEY)
    assert created(person, 3) == 1
    by_http = keyed(person.client.application, OWN_RATES_KEY).post("/session/create", json={"user_id": "ada"})
    assert by_http.status_code == 429, "it is one count"


def test_without_one_changes_have_the_settings_rates_also_those_of_no_category(person: Visitor) -> None:
    person.sign_in()
    assert created(person, 4) == 2
    answers = [person.post("/sessions/sleep", {"uuid": "zzzzzzzz"}).text for _ in range(4)]
    assert ["RATE_LIMIT_DEFAULT" in answer for answer in answers] == [False, False, False, True]


def test_pages_may_read_more_but_not_beyond_the_keys_own_rate(person: Visitor) -> None:
    person.sign_in()
    assert {person.get("/").status_code for _ in range(6)} == {200}
    person.post("/sign-out")
    person.sign_in(OWN_RATES_KEY)
    assert 429 in {person.get("/?user_id=ada").status_code for _ in range(9)}
