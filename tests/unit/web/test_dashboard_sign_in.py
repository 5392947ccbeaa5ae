"""Signing in and out, and what the guard refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from flask import Flask

from app.core.access.keyring import Keyring, Principal
from app.core.redis import keys
from app.web import guard
from app.web.people import AT_ONCE, People
from tests.dashboard import ORIGIN, Visitor
from tests.unit.api.helpers import ADMIN_KEY, AppMaker, core_of, digest, keyed
from tests.unit.web.conftest import HTMX, ONLOOKER, READING_KEY, signed_in

COOKIE, HOST = "__Host-dashboard", "dashboard.localhost"
SLOW_KEY = "the-key-of-a-course"
ADA, BOB = (Principal(name=name, digest=name * 21, role="read") for name in ("ada", "bob"))


@pytest.fixture
def limited(make_app: AppMaker) -> Flask:
    """A service that allows three sign-ins in a minute, and one key a single one."""
    slow = {"name": "course", "sha256": digest(SLOW_KEY), "role": "service", "limits": {"default": "1/minute"}}
    return make_app(api_keys=json.dumps([ONLOOKER, slow]), rate_limit_default="3/minute")


@pytest.fixture
def people(redis_client: redis.Redis) -> People:
    return People(redis_client, Keyring([ADA, BOB]), 60)


def signs_in(app: Flask, key: str, address: str) -> int:
    """The status of a sign-in with this key from this address, in a browser of its own."""
    answer = Visitor(app).post("/sign-in", {"key": key}, environ_base={"REMOTE_ADDR": address})
    return int(answer.status_code)


def cookie_of(visitor: Visitor) -> Any:
    return visitor.client.get_cookie(COOKIE, domain=HOST)


def give(visitor: Visitor, cookie: str) -> None:
    visitor.client.set_cookie(COOKIE, cookie, domain=HOST, secure=True)


def resumed(app: Flask, before: Visitor) -> Visitor:
    """The same browser, with its cookie and its page, at another app."""
    after = Visitor(app)
    give(after, cookie_of(before).value)
    after.csrf = before.csrf
    return after


@contextmanager
def asking(people: People, secret: str) -> Iterator[None]:
    """A request with the cookie of a sign-in, which is checked at each piece of a stream."""
    app = Flask("dashboard")
    app.extensions[guard.PEOPLE] = people
    with pytest.MonkeyPatch.context() as patch, app.test_request_context(headers={"Cookie": f"{COOKIE}={secret}"}):
        patch.setattr(guard, "CHECKED_EVERY", 0.0)
        yield


def test_who_is_not_signed_in_is_asked_to_and_comes_back(stranger: Visitor) -> None:
    answer = stranger.get("/?status=failed")
    assert (answer.status_code, answer.location) == (302, "/sign-in?next=%2F%3Fstatus%3Dfailed")
    back = stranger.post("/sign-in", {"key": ADMIN_KEY, "next": "/?status=failed"})
    assert back.location == "/?status=failed"
    assert stranger.get("/?status=failed").status_code == 200


def test_a_wrong_key_is_refused_in_words(stranger: Visitor) -> None:
    answer = stranger.post("/sign-in", {"key": "wrong"})
    assert answer.status_code == 401
    assert "not valid" in answer.text
    assert "Set-Cookie" not in answer.headers


def test_the_way_back_is_never_another_host(stranger: Visitor) -> None:
    for path in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        assert stranger.post("/sign-in", {"key": ADMIN_KEY, "next": path}).location == "/"


def test_a_cookie_from_before_the_sign_in_opens_nothing(stranger: Visitor) -> None:
    give(stranger, "planted")
    stranger.post("/sign-in", {"key": ADMIN_KEY})
    cookie = cookie_of(stranger)
    assert cookie is not None
    assert cookie.value != "planted"
    assert (cookie.secure, cookie.http_only, cookie.path, cookie.same_site) == (True, True, "/", "Lax")


def test_after_the_sign_out_the_cookie_opens_nothing(visitor: Visitor) -> None:
    stolen = cookie_of(visitor).value
    assert visitor.post("/sign-out").location == "/sign-in"
    give(visitor, stolen)
    assert visitor.get("/").location == "/sign-in"


def test_a_change_from_another_origin_or_without_the_token_is_refused(visitor: Visitor) -> None:
    for origin in ("http://vs-code-abcdefgh.localhost:8080", "null", ""):
        assert visitor.post("/sign-out", origin=origin).status_code == 403
    visitor.csrf = "wrong"
    assert visitor.post("/sign-out").status_code == 403
    assert visitor.get("/").status_code == 200


def test_a_change_that_names_no_origin_is_refused(visitor: Visitor) -> None:
    """Also where nobody need be signed in: a page beside must not sign anybody in with a key of its own."""
    for path in ("/sign-in", "/sign-out"):
        sent = visitor.client.post(path, data={"key": ADMIN_KEY, "csrf": visitor.csrf}, base_url=ORIGIN)
        assert (sent.status_code, "Set-Cookie" in sent.headers) == (403, False)


def test_no_page_may_be_framed_and_no_script_stands_in_one(visitor: Visitor) -> None:
    policy = visitor.get("/").headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_the_api_is_not_served_at_the_dashboards_name(visitor: Visitor) -> None:
    assert visitor.get("/openapi.json").status_code == 404


def test_sign_ins_are_audited_without_the_key(app: Flask, stranger: Visitor) -> None:
    stranger.post("/sign-in", {"key": "a-wrong-key-of-somebody"})
    stranger.sign_in()
    stranger.post("/sign-out")
    found = core_of(app).audit.page(limit=10, cursor=None).entries
    acts = [(entry.act.action, entry.act.by, entry.act.status) for entry in reversed(found)]
    assert acts == [("sign_in", "anonymous", 401), ("sign_in", "api_key", 302), ("sign_out", "api_key", 302)]
    assert "wrong" not in str(found)


def test_sign_ins_over_and_over_push_nothing_out_of_the_audit(app: Flask, redis_client: redis.Redis) -> None:
    """Any key may sign in without end, also one that may do nothing else."""
    for _ in range(5):
        signed_in(app, READING_KEY).post("/sign-out")
    entries = core_of(app).audit.page().entries
    noted = sorted((entry.act.action, entry.act.by, entry.count) for entry in entries)
    assert noted == [("sign_in", "onlooker", 5), ("sign_out", "onlooker", 5)]
    assert redis_client.xlen(keys.AUDIT) == 0


def test_sign_ins_are_limited_by_address(limited: Flask) -> None:
    statuses = [signs_in(limited, each, "10.0.0.1") for each in ("wrong", ADMIN_KEY, READING_KEY, ADMIN_KEY)]
    assert statuses == [401, 302, 302, 429]
    assert signs_in(limited, ADMIN_KEY, "10.0.0.2") == 302, "nobody else"


def test_sign_ins_are_limited_by_key(limited: Flask) -> None:
    assert [signs_in(limited, ADMIN_KEY, f"10.0.0.{number}") for number in range(5)] == [302, 302, 302, 429, 429]


def test_a_keys_own_rate_is_that_of_its_sign_ins(limited: Flask) -> None:
    assert [signs_in(limited, SLOW_KEY, f"10.0.0.{number}") for number in range(3)] == [302, 429, 429]


def test_calls_of_the_api_keep_nobody_from_signing_in(limited: Flask) -> None:
    program = keyed(limited, ADMIN_KEY)
    assert [program.get("/sessions").status_code for _ in range(4)][-1] == 429
    assert signs_in(limited, ADMIN_KEY, "127.0.0.1") == 302


def test_who_signs_in_too_often_is_told_until_when_and_audited(limited: Flask) -> None:
    for _ in range(4):
        answer = Visitor(limited).post("/sign-in", {"key": ADMIN_KEY})
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (429, False)
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert f"Try again in {answer.headers['Retry-After']} s" in answer.text
    assert 429 in {entry.act.status for entry in core_of(limited).audit.page().entries}


def test_a_form_that_can_not_be_read_leaves_the_limits_as_they_are(limited: Flask) -> None:
    """An error while a request is counted would have all requests counted in memory."""
    sent = Visitor(limited).post("/sign-in", {"key": "x" * 300_000})
    assert sent.status_code == 413
    assert [signs_in(limited, ADMIN_KEY, "10.0.0.1") for _ in range(4)][-1] == 429
    assert core_of(limited).redis.keys("LIMITER/*sign_in*")


def test_the_newest_sign_ins_of_a_key_stay(people: People, redis_client: redis.Redis) -> None:
    other = people.sign_in(BOB, by_key=True)
    secrets = [people.sign_in(ADA, by_key=True) for _ in range(AT_ONCE + 3)]
    assert [people.find(secret) is not None for secret in secrets] == [False] * 3 + [True] * AT_ONCE
    assert people.find(other) is not None
    assert len(redis_client.keys("dashboard:*")) == AT_ONCE + 1 + 2


def test_sign_ins_that_ended_take_no_place(people: People) -> None:
    first = people.sign_in(ADA, by_key=True)
    for _ in range(AT_ONCE + 3):
        people.sign_out(people.sign_in(ADA, by_key=True))
    assert people.find(first) is not None


def test_people_of_the_provider_have_places_of_their_own(redis_client: redis.Redis) -> None:
    people = People(redis_client, Keyring([]), 60)
    ada, bob = (Principal(name=f"oidc:{name}", digest=name * 21, role="admin") for name in ("ada", "bob"))
    first = people.sign_in(ada, by_key=False)
    secrets = [people.sign_in(bob, by_key=False) for _ in range(AT_ONCE + 1)]
    assert [people.find(secret) is not None for secret in (first, secrets[0], secrets[1])] == [True, False, True]


def test_the_list_of_sign_ins_lives_as_long_as_they_do(people: People, redis_client: redis.Redis) -> None:
    """Else a sign-in that is used would be forgotten, and more than so many could be had. An open page alone keeps
    nobody signed in."""
    secret = people.sign_in(ADA, by_key=True)
    names = sorted(redis_client.keys("dashboard:*"))
    assert len(names) == 2
    for name in names:
        redis_client.expire(name, 30)
    assert people.find(secret, active=False) is not None
    assert all(redis_client.ttl(name) <= 30 for name in names)
    assert people.find(secret) is not None
    assert all(redis_client.ttl(name) > 30 for name in names)


def test_a_key_that_is_withdrawn_ends_its_sign_ins(onlooker: Visitor, visitor: Visitor, make_app: AppMaker) -> None:
    """From the restart on that takes the key out of API_KEYS: its pages lead to the sign-in, whatever asks."""
    after = make_app(api_keys="[]")
    other, withdrawn = (resumed(after, each) for each in (visitor, onlooker))
    assert other.get("/").status_code == 200, "nobody else's"
    assert withdrawn.get("/").location == "/sign-in"
    part = withdrawn.get("/operations/processes", headers=HTMX)
    assert (part.status_code, part.headers["HX-Redirect"]) == (401, "/sign-in")
    assert withdrawn.get("/sessions/stream", headers={"Accept": "text/event-stream"}).status_code == 401
    assert withdrawn.post("/sessions/sleep", {"uuid": "k3v9x0qa"}).location == "/sign-in"
    assert withdrawn.post("/sign-in", {"key": READING_KEY}).status_code == 401


def test_an_open_stream_ends_with_its_key(people: People, redis_client: redis.Redis) -> None:
    with asking(People(redis_client, Keyring([]), 60), people.sign_in(ADA, by_key=True)):
        assert list(guard.while_signed_in(iter("abc"))) == []


def test_an_open_stream_ends_with_the_sign_in(people: People) -> None:
    secret = people.sign_in(ADA, by_key=True)
    with asking(people, secret):
        pieces = guard.while_signed_in(iter("abc"))
        assert next(pieces) == "a"
        people.sign_out(secret)
        assert list(pieces) == []
