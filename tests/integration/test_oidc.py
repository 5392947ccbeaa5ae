"""Signing in by OpenID Connect, with a provider that runs in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import parse_qs, urlsplit

import pytest
import redis
import requests
from oidc_provider_mock import User, run_server_in_thread
from requests.adapters import HTTPAdapter

from app.main import create_app
from app.process.settings import Settings, SettingsError
from app.web.oidc import name_of, role_of
from tests.dashboard import ORIGIN, Visitor
from tests.unit.api.helpers import ADMIN_KEY, core_of

pytestmark = pytest.mark.slow

PEOPLE = (
    User(sub="1", claims={"email": "ada@example.com", "groups": ["operators", "staff"]}),
    User(sub="2", claims={"email": "bob@example.com", "groups": ["staff"]}),
    User(sub="3", claims={"email": "eve@example.com"}),
    User(sub="4", claims={"email": "api_key", "groups": ["operators"]}),
)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with run_server_in_thread(user_claims=PEOPLE) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture
def stranger(settings: Settings, redis_client: redis.Redis, issuer: str) -> Visitor:
    found = dataclasses.replace(
        settings,
        api_key=ADMIN_KEY,
        secret_key="k" * 32,
        dashboard_url=ORIGIN,
        oidc_issuer=issuer,
        oidc_client_id="dashboard",
        oidc_client_secret="secret-of-the-client",
        oidc_admins="operators",
        oidc_readers="staff, guests",
    )
    return Visitor(create_app(found))


def sent_to_provider(stranger: Visitor, path: str = "/sign-in/oidc") -> str:
    answer = stranger.get(path)
    assert answer.status_code == 302
    return str(answer.location)


def came_back(provider: str, subject: str) -> str:
    """The path at which the provider sends the person back."""
    back = requests.post(provider, data={"sub": subject}, allow_redirects=False, timeout=60).headers["Location"]
    assert back.startswith(f"{ORIGIN}/sign-in/back?")
    return back.removeprefix(ORIGIN)


@pytest.mark.parametrize(
    ("subject", "name", "role"), [("1", "ada@example.com", "admin"), ("2", "bob@example.com", "read")]
)
def test_the_provider_names_the_person_and_the_claim_the_role(
    stranger: Visitor, subject: str, name: str, role: str
) -> None:
    back = came_back(sent_to_provider(stranger, "/sign-in/oidc?next=/%3Fstatus%3Dfailed"), subject)
    assert stranger.get(back).location == "/?status=failed"
    page = stranger.get("/").get_data(as_text=True)
    assert name in page
    assert f">{role}<" in page


def test_nobody_passes_for_an_api_key_by_a_name_of_the_provider(stranger: Visitor) -> None:
    stranger.get(came_back(sent_to_provider(stranger), "4"))
    stranger.get("/")
    stranger.post("/sessions/create", {"user_id": "ada"})
    core = core_of(stranger.client.application)
    assert {entry.act.by for entry in core.audit.page().entries} == {"oidc:api_key"}
    [uuid] = core.redis.zrange("sessions:all", 0, -1)
    assert core.store.get(uuid).made_by == "oidc:api_key"


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"email": "ada@example.com"}, "oidc:ada@example.com"),
        ({"email": "ada@example.com", "email_verified": True}, "oidc:ada@example.com"),
        ({"email": "ada@example.com", "email_verified": False}, "oidc:1"),
        ({"email": "ada@example.com", "email_verified": "false"}, "oidc:1"),
        ({}, "oidc:1"),
        ({"email": "a" * 300}, "oidc:" + "a" * 195),
    ],
)
def test_an_email_that_is_not_verified_is_no_name(settings: Settings, claims: dict[str, object], name: str) -> None:
    assert name_of({"sub": "1", **claims}, settings) == name


def test_another_claim_names_people_whatever_their_email(settings: Settings) -> None:
    by_name = dataclasses.replace(settings, oidc_name_claim="preferred_username")
    assert name_of({"sub": "1", "preferred_username": "ada", "email_verified": False}, by_name) == "oidc:ada"


def test_sign_ins_by_the_provider_are_limited_too(settings: Settings, redis_client: redis.Redis) -> None:
    limited = dataclasses.replace(
        settings,
        api_key=ADMIN_KEY,
        secret_key="k" * 32,
        dashboard_url=ORIGIN,
        oidc_issuer="http://127.0.0.1:9",
        oidc_client_id="dashboard",
        oidc_admins="operators",
        rate_limit_default="2/minute",
    )
    browser = Visitor(create_app(limited))
    assert [browser.get("/sign-in/back?state=x&code=y").status_code for _ in range(3)] == [403, 403, 429]


def test_who_has_no_role_is_told_so(stranger: Visitor) -> None:
    answer = stranger.get(came_back(sent_to_provider(stranger), "3"))
    assert answer.status_code == 403
    assert "no role here" in answer.get_data(as_text=True)
    assert stranger.get("/").status_code == 302


def test_a_code_opens_nothing_in_another_browser_or_a_second_time(stranger: Visitor) -> None:
    back = came_back(sent_to_provider(stranger), "1")
    assert Visitor(stranger.client.application).get(back).status_code == 403
    assert stranger.get(back).status_code == 302
    stranger.post("/sign-out")
    assert stranger.get(back).status_code == 403


def test_the_request_has_a_state_a_nonce_and_a_challenge(stranger: Visitor) -> None:
    asked = parse_qs(urlsplit(sent_to_provider(stranger)).query)
    assert {"state", "nonce", "code_challenge"} <= set(asked)
    assert asked["code_challenge_method"] == ["S256"]


def test_a_provider_that_is_away_is_said_in_words(settings: Settings, redis_client: redis.Redis) -> None:
    away = dataclasses.replace(
        settings,
        api_key=ADMIN_KEY,
        secret_key="k" * 32,
        dashboard_url=ORIGIN,
        oidc_issuer="http://127.0.0.1:9",
        oidc_client_id="dashboard",
        oidc_admins="operators",
    )
    answer = Visitor(create_app(away)).get("/sign-in/oidc")
    assert answer.status_code == 502
    assert "did not succeed" in answer.get_data(as_text=True)


def test_no_call_of_the_provider_waits_for_ever(stranger: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def send(adapter: HTTPAdapter, request: requests.PreparedRequest, **options: object) -> NoReturn:
        given.append(options["timeout"])
        raise requests.ConnectTimeout

    monkeypatch.setattr(HTTPAdapter, "send", send)
    assert stranger.get("/sign-in/oidc").status_code == 502
    assert given and None not in given


def test_an_unverified_email_gives_no_role(settings: Settings) -> None:
    by_email = dataclasses.replace(settings, oidc_role_claim="email", oidc_admins="ada@example.com")
    assert role_of({"email": "ada@example.com"}, by_email) == ""
    assert role_of({"email": "ada@example.com", "email_verified": True}, by_email) == "admin"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"oidc_issuer": "http://idp.example.com"}, "https://"),
        ({"oidc_issuer": "https://idp.example.com"}, "OIDC_CLIENT_ID"),
        ({"oidc_issuer": "https://idp.example.com", "oidc_client_id": "x"}, "OIDC_ADMINS"),
    ],
)
def test_half_a_configuration_is_refused(settings: Settings, changes: dict[str, str], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        dataclasses.replace(settings, **changes).checked()  # type: ignore[arg-type]


def test_without_a_key_to_sign_with_web_does_not_start(settings: Settings, redis_client: redis.Redis) -> None:
    """Other processes do: they have no such key."""
    found = dataclasses.replace(
        settings,
        api_key=ADMIN_KEY,
        secret_key="",
        dashboard_url=ORIGIN,
        oidc_issuer="https://idp.example.com",
        oidc_client_id="dashboard",
        oidc_admins="operators",
    )
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        create_app(found.checked())
