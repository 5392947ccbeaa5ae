"""What opens a workspace: passes that can't be made up, bent or kept, and links that work once."""

from __future__ import annotations

import time

import jwt
import pytest
import redis

from app.core.access import tokens
from app.core.access.login_links import LoginLinks
from app.core.access.tokens import AccessTokens, Kind
from app.core.sessions.model import Record, Status
from app.core.sessions.store import SessionStore
from app.process.settings import SettingsError

OLD, NEW = "an-old-key-of-32-characters-or-more", "a-new-key-of-32-characters-or-more"
NOW = 1_763_625_600.0
A, B = "aaaa0001", "bbbb0002"


def passes(*keys: str) -> AccessTokens:
    return AccessTokens(keys, cookie_ttl=100.0)


@pytest.mark.parametrize("now", [NOW, time.time()], ids=["once", "by the clock of everything else"])
def test_a_pass_says_whose_it_is_and_until_when(now: float) -> None:
    text, issued = passes(NEW).issue(Kind.COOKIE, A, 3, now)
    assert [passes(NEW).read(Kind.COOKIE, text, at) for at in (now, now + 99)] == [issued] * 2
    assert (issued.uuid, issued.access_epoch, issued.expires_at) == (A, 3, int(now + 100))


def test_an_expired_pass_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "TOKEN_TTL", 10.0)
    text, _ = passes(NEW).issue(Kind.TOKEN, A, 0, NOW)
    assert passes(NEW).read(Kind.TOKEN, text, NOW + 10) is None


@pytest.mark.parametrize("kind", list(Kind))
def test_no_kind_passes_for_another(kind: Kind) -> None:
    text, _ = passes(NEW).issue(kind, A, 0, NOW)
    assert [other for other in Kind if passes(NEW).read(other, text, NOW)] == [kind]


def test_a_key_is_rotated_without_locking_anybody_out() -> None:
    before, _ = passes(OLD).issue(Kind.COOKIE, A, 0, NOW)
    after, _ = passes(NEW, OLD).issue(Kind.COOKIE, A, 0, NOW)
    assert passes(NEW, OLD).read(Kind.COOKIE, before, NOW)
    assert passes(NEW).read(Kind.COOKIE, after, NOW)
    assert passes(NEW).read(Kind.COOKIE, before, NOW) is None


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é", "." * 2001, "e30.e30.", "\udce9"])
def test_what_is_no_pass_is_none(text: str) -> None:
    assert passes(NEW).read(Kind.COOKIE, text, NOW) is None


def test_an_unsigned_or_bent_pass_is_none() -> None:
    text, _ = passes(NEW).issue(Kind.COOKIE, A, 0, NOW)
    claims = {"aud": "workspace", "sub": B, "access_epoch": 0, "iat": NOW, "exp": NOW + 100}
    head, _, mac = text.split(".")
    body = jwt.encode(claims, OLD, algorithm="HS256").split(".")[1]
    for bent in (jwt.encode(claims, "", algorithm="none"), jwt.encode(claims, NEW), f"{head}.{body}.{mac}"):
        assert passes(NEW).read(Kind.COOKIE, bent, NOW) is None


def test_without_a_key_nothing_is_signed_and_nothing_opens() -> None:
    text, _ = passes(NEW).issue(Kind.COOKIE, A, 0, NOW)
    assert passes().read(Kind.COOKIE, text, NOW) is None
    with pytest.raises(SettingsError):
        passes().issue(Kind.COOKIE, A, 0, NOW)


def test_the_keys_are_not_shown() -> None:
    assert NEW not in repr(passes(NEW))


def session(client: redis.Redis, uuid: str, access_epoch: int = 0) -> Record:
    record = Record(uuid=uuid, user_id="ada", created_at=NOW, status=Status.ACTIVE, access_epoch=access_epoch)
    assert SessionStore(client).create(record, quota=None)
    return record


def test_a_link_opens_its_session_once(redis_client: redis.Redis) -> None:
    links, record = LoginLinks(redis_client), session(redis_client, A)
    secret = links.make(A, record.access_epoch)
    assert [links.lookup(A, secret).linked for _ in range(2)] == [True, False]
    assert links.lookup(A).record == record


def test_a_link_opens_no_other_session_and_no_later_access_epoch(redis_client: redis.Redis) -> None:
    links = LoginLinks(redis_client)
    session(redis_client, A)
    session(redis_client, B, access_epoch=1)
    assert not links.lookup(B, links.make(A, 0)).linked
    assert not links.lookup(B, links.make(B, 0)).linked
    assert links.lookup("cccc0003", links.make("cccc0003", 0)).record is None


def test_a_link_ends_by_itself_and_is_kept_as_a_digest(redis_client: redis.Redis) -> None:
    secret = LoginLinks(redis_client).make(A, 0)
    (key,) = redis_client.scan_iter("link:*")
    assert secret not in key
    assert 29_000 < redis_client.pttl(key) <= 30_000
