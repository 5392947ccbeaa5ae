"""A person without a pass is led through the product's sign-in and back to where they were; nobody else is."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

from app.core.access.access_policy import MOST_SENT, RETRY_PATH
from app.core.access.landing_path import ENTERED
from app.core.composition import Core
from app.core.sessions.model import Status
from app.main import create_app
from app.process.settings import Settings, SettingsError
from tests.unit.api.helpers import Client, check_problem, move, new_session
from tests.unit.api.visitors import BACKGROUND, HANDSHAKE, NAVIGATION, OLD_BROWSER, POLL, Visitor, asked_by_nginx, link

LOGIN = "https://app.example.com/sign-in"
STEERED = (
    '{"auth-url": "http://forward-auth/auth/verify?proxy=nginx&host=$host&service=$service_name", '
    '"auth-signin": "https://api.example.com/auth/again?next=$authHeader0", "headers": "Workspace-Next,Cookie"}'
)


pytestmark = pytest.mark.settings(login_url=LOGIN, ingress_forward_auth=STEERED)


def asked_for(answer: Any) -> tuple[str, str]:
    """Which workspace and path the product is asked for by this redirect."""
    assert answer.status_code == 302, answer.text
    location = answer.headers["Location"]
    assert location.startswith(f"{LOGIN}?")
    told = parse_qs(urlsplit(location).query)
    return told["workspace"][0], told["return_to"][0]


@pytest.mark.parametrize("headers", [NAVIGATION, OLD_BROWSER], ids=["browser", "old browser"])
def test_a_person_without_a_cookie_is_asked_by_the_product_who_they_are(
    visitor: Visitor, uuid: str, headers: dict[str, str]
) -> None:
    answer = visitor.visit("/x?folder=%2Fa", **headers)
    assert asked_for(answer) == (uuid, "/x?folder=%2Fa")
    assert (answer.headers["Referrer-Policy"], answer.headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert uuid not in visitor.host.replace(f"vs-code-{uuid}", "") and "Workspace-Next" not in answer.headers


def test_they_come_back_to_the_same_path(client: Client, visitor: Visitor, uuid: str) -> None:
    """By the link that the product was given for it."""
    path = asked_for(visitor.navigate("/x?folder=%2Fa"))[1]
    entered = visitor.navigate(link(client, uuid, path=path))
    assert entered.headers["Location"] == f"http://{visitor.host}{path}&{ENTERED}"
    tidied = visitor.navigate(f"{path}&{ENTERED}")
    assert (tidied.status_code, tidied.headers["Location"]) == (302, f"http://{visitor.host}{path}")
    assert visitor.navigate(path).status_code == 200


def test_whose_browser_keeps_no_cookie_is_told_so_and_not_sent_round(
    client: Client, visitor: Visitor, uuid: str
) -> None:
    entered = visitor.navigate(link(client, uuid, path="/x")).headers["Location"].partition(visitor.host)[2]
    visitor.cookies.clear()
    page = visitor.navigate(entered)
    assert (page.status_code, page.mimetype) == (401, "text/html")
    assert "did not keep" in page.text
    assert re.findall(r'href="([^"]+)"', page.text) == [f"http://{visitor.host}/x"], "which asks the product again"
    assert visitor.navigate(entered).status_code == 401


def test_a_product_that_sends_people_back_without_a_link_leads_to_a_page(visitor: Visitor, uuid: str) -> None:
    for _ in range(MOST_SENT):
        asked_for(visitor.navigate("/x"))
    page = visitor.navigate("/x")
    assert (page.status_code, page.mimetype) == (401, "text/html")
    assert "LOGIN_URL" in page.text
    ((href),) = re.findall(r'href="([^"]+)"', page.text)
    assert href.replace("&amp;", "&") == f"{LOGIN}?workspace={uuid}&return_to=%2Fx"
    assert visitor.visit("/x", **NAVIGATION, X_Forwarded_For="x").headers.get("Set-Cookie") is None


def test_how_often_somebody_was_sent_is_no_affair_of_the_workspace(client: Client, visitor: Visitor, uuid: str) -> None:
    (cookie,) = visitor.navigate().headers.getlist("Set-Cookie")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=60"} <= set(cookie.split("; "))
    visitor.navigate(link(client, uuid))
    assert len(visitor.cookies) == 2
    assert "Cookie" not in visitor.visit().headers


@pytest.mark.parametrize(
    ("uri", "method", "headers"),
    [
        *(("/", "GET", headers) for headers in (*BACKGROUND.values(), HANDSHAKE)),
        *((RETRY_PATH, method, NAVIGATION) for method in ("POST", "HEAD")),
    ],
    ids=[*BACKGROUND, "socket", "POST", "HEAD"],
)
def test_everything_else_stays_401(visitor: Visitor, uri: str, method: str, headers: dict[str, str]) -> None:
    answer = visitor.visit(uri, method, **headers)
    assert (answer.status_code, "Location" in answer.headers) == (401, False)


def test_a_used_link_is_told_as_one_and_not_sent_round(client: Client, app: Flask, uuid: str) -> None:
    """A product whose links are always too old would send its users round for ever."""
    path = link(client, uuid)
    Visitor(app, uuid).navigate(path)
    assert Visitor(app, uuid).navigate(path).status_code == 403


@pytest.mark.parametrize(
    ("headers", "uri"),
    [(NAVIGATION, "/x"), (POLL, "/x"), (NAVIGATION, "/?workspace-link=x"), (NAVIGATION, f"/?{ENTERED}")],
)
def test_a_workspace_that_never_was_is_told_like_one_that_is(
    client: Client, core: Core, app: Flask, uuid: str, headers: dict[str, str], uri: str
) -> None:
    """To navigations, programs, and whoever comes with a link or the mark of one. The product knows its own."""
    gone = new_session(client)
    move(core, gone, Status.TERMINATING)
    told = []
    for each in (uuid, gone, "zzzzzzzz"):
        answer = Visitor(app, each).visit(uri, **headers)
        body = re.sub(r'"request_id": "\w+"', "", answer.text)
        told.append((answer.status_code, body.replace(each, ""), answer.headers.get("Location", "").replace(each, "")))
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("uri", ["//evil.example.com/x", "/\\evil.example.com", "/x?" + "y" * 3_000, "/x?a=b#c"])
def test_where_to_is_never_another_host_and_never_a_secret(visitor: Visitor, uri: str) -> None:
    assert asked_for(visitor.navigate(uri))[1] == "/"


@pytest.mark.parametrize(
    "path", ["//evil.example.com", "/\\evil", "https://evil.example.com/", "x", "/a b", "/?workspace-link=x", 7]
)
def test_a_link_leads_to_no_such_path(client: Client, uuid: str, path: object) -> None:
    problem = check_problem(client.post(f"/session/{uuid}/open", json={"path": path}), 400, "invalid_request")
    assert "path" in dict(problem["errors"])  # type: ignore[call-overload]


@pytest.mark.settings(login_url="", ingress_forward_auth="")
def test_without_a_page_to_sign_in_all_is_as_before(client: Client, visitor: Visitor, uuid: str) -> None:
    page = visitor.navigate("/x")
    assert (page.status_code, page.mimetype) == (401, "text/html")
    assert visitor.cookies == {}
    assert visitor.navigate(link(client, uuid, path="/x")).headers["Location"] == f"http://{visitor.host}/x"


@pytest.mark.parametrize(
    "url",
    ["app.example.com", "ftp://app.example.com/", "https://", "https://a b/", "https://x.example/#y", "https://u@x/"],
)
def test_what_is_no_page_to_sign_in_stops_the_start(settings: Settings, url: str) -> None:
    with pytest.raises(SettingsError, match="LOGIN_URL"):
        create_app(replace(settings, login_url=url).checked())


@pytest.mark.parametrize("part", ["?next=$authHeader0", "Workspace-Next,", "&service=$service_name"])
def test_an_nginx_that_does_not_say_why_it_leads_away_or_where_to_stops_the_start(
    settings: Settings, part: str
) -> None:
    """A stranger would be sent to the page of a workspace that is being woken, for ever."""
    with pytest.raises(SettingsError, match="INGRESS_FORWARD_AUTH"):
        replace(settings, ingress_forward_auth=STEERED.replace(part, "")).checked()
    assert replace(settings, ingress_forward_auth=STEERED).checked()


def test_nginx_leads_to_the_products_sign_in_and_back(
    app: Flask, client: Client, forward_auth: Client, uuid: str
) -> None:
    """By way of the API's own host: forward-auth's answer says in a header why, and nginx's redirect says it on."""
    own = f"vs-code-{uuid}.localhost"
    api: Client = app.test_client(use_cookies=False)

    def visit(uri: str, **headers: str) -> tuple[Any, Any]:
        """What forward auth answers nginx, and what the browser is told in the end."""
        told = forward_auth.get("/auth/verify", **asked_by_nginx(own, uri, **(NAVIGATION | headers)))
        if told.status_code != 401:
            return told, None
        query = {"next": told.headers.get("Workspace-Next", ""), "rd": f"http://{own}{uri}"}
        return told, api.get("/auth/again", query_string=query, headers=NAVIGATION)

    auth_says, sent = visit("/x?a=b")
    assert auth_says.headers["Workspace-Next"] == "sign_in"
    assert asked_for(sent) == (uuid, "/x?a=b")
    assert sent.headers.get("Set-Cookie") is None
    entered, back = visit(link(client, uuid, path="/x?a=b"))
    cookie = entered.headers["Set-Cookie"].partition(";")[0]
    assert back.headers["Location"] == f"http://{own}/x?a=b&{ENTERED}"
    _, blocked = visit(f"/x?a=b&{ENTERED}")
    assert (blocked.status_code, "did not keep" in blocked.text) == (401, True)
    _, tidied = visit(f"/x?a=b&{ENTERED}", Cookie=cookie)
    assert (tidied.status_code, tidied.headers["Location"]) == (302, f"http://{own}/x?a=b")
    assert visit("/x?a=b", Cookie=cookie)[0].status_code == 200
    _, circle = visit("/x", Cookie=f"__Host-workspace-sign-in={MOST_SENT}")
    assert (circle.status_code, "LOGIN_URL" in circle.text) == (401, True)
    poll = forward_auth.get("/auth/verify", **asked_by_nginx(own, "/x", **POLL))
    assert (poll.status_code, "Workspace-Next" in poll.headers) == (403, False)
    for bad, error in (
        ({"next": "elsewhere"}, "invalid_request"),
        ({"next": "sign_in", "rd": "https://evil.example.com/"}, "bad_forwarded_request"),
    ):
        answer = api.get("/auth/again", query_string={"rd": f"http://{own}/"} | bad)
        check_problem(answer, 400, error)
