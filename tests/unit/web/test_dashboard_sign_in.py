"""Signing in and out, and what the guard refuses."""

from __future__ import annotations

import pytest
import redis
from flask import Flask

from app.core.access.keyring import Keyring, Principal
from app.web import guard
from app.web.people import People
from tests.dashboard import ORIGIN, Visitor
from tests.unit.api.helpers import ADMIN_KEY, core_of

COOKIE = "__Host-dashboard"


def test_who_is_not_signed_in_is_asked_to_and_comes_back(stranger: Visitor) -> None:
    answer = stranger.get("/?status=failed")
    assert (answer.status_code, answer.location) == (302, "/sign-in?next=%2F%3Fstatus%3Dfailed")
    assert (
        stranger.post("/sign-in", {"key": "the-key-of-an-admin", "next": "/?status=failed"}).location
        == "/?status=failed"
    )
    assert stranger.get("/?status=failed").status_code == 200


def test_a_wrong_key_is_refused_in_words(stranger: Visitor) -> None:
    answer = stranger.post("/sign-in", {"key": "wrong"})
    assert answer.status_code == 401
    assert "not valid" in answer.get_data(as_text=True)
    assert "Set-Cookie" not in answer.headers


def test_the_way_back_is_never_another_host(stranger: Visitor) -> None:
    for path in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"):
        assert stranger.post("/sign-in", {"key": "the-key-of-an-admin", "next": path}).location == "/"


def test_a_cookie_from_before_the_sign_in_opens_nothing(stranger: Visitor) -> None:
    stranger.client.set_cookie(COOKIE, "planted", domain="dashboard.localhost", secure=True)
    stranger.post("/sign-in", {"key": "the-key-of-an-admin"})
    cookie = stranger.client.get_cookie(COOKIE, domain="dashboard.localhost")
    assert cookie is not None
    assert cookie.value != "planted"
    assert (cookie.secure, cookie.http_only, cookie.path, cookie.same_site) == (True, True, "/", "Lax")


def test_after_the_sign_out_the_cookie_opens_nothing(visitor: Visitor) -> None:
    stolen = visitor.client.get_cookie(COOKIE, domain="dashboard.localhost").value
    assert visitor.post("/sign-out").location == "/sign-in"
    visitor.client.set_cookie(COOKIE, stolen, domain="dashboard.localhost", secure=True)
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


def test_an_open_stream_ends_with_the_sign_in(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CHECKED_EVERY", 0.0)
    owner = Principal(name="ada", digest="d" * 64, role="admin")
    people = People(redis_client, Keyring([owner]), 60)
    secret = people.sign_in(owner, by_key=True)
    app = Flask("dashboard")
    app.extensions[guard.PEOPLE] = people
    with app.test_request_context(headers={"Cookie": f"{COOKIE}={secret}"}):
        pieces = guard.while_signed_in(iter("abc"))
        assert next(pieces) == "a"
        people.sign_out(secret)
        assert list(pieces) == []


def test_an_open_page_alone_keeps_nobody_signed_in(redis_client: redis.Redis) -> None:
    owner = Principal(name="ada", digest="d" * 64, role="admin")
    people = People(redis_client, Keyring([owner]), 60)
    secret = people.sign_in(owner, by_key=True)
    [name] = redis_client.scan_iter("dashboard:session:*")
    redis_client.expire(name, 30)
    assert people.find(secret, active=False) is not None
    assert redis_client.ttl(name) <= 30
    assert people.find(secret) is not None
    assert redis_client.ttl(name) > 30
