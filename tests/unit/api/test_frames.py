"""A workspace within another page's frame: pages that are named may show it, and nobody else gains by it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from app.core.access.access_policy import RETRY_PATH, AccessDecision, Outcome, decide
from app.core.access.forwarded_request import ForwardedRequest, Frame, from_traefik
from app.core.access.landing_path import ENTERED
from app.core.access.tokens import FRAME_COOKIE, AccessToken, Kind
from app.core.composition import Core
from app.core.sessions.model import Record, Status
from app.main import create_app
from app.process.settings import Settings, SettingsError
from tests.unit.api.helpers import AppMaker, Client, check_problem, move
from tests.unit.api.visitors import BACKGROUND, HANDSHAKE, NAVIGATION, POLL, Visitor, asked, asked_by_nginx, link
from tests.world import SECRET_KEY

NOW = 1_763_625_600.0
UUID = "aaaa0001"
PRODUCT, SECOND, STRANGER = "https://app.example.com", "http://localhost:3000", "https://evil.example.com"
NAMED = f"{PRODUCT}, {SECOND}/"
SETTINGS = Settings(workspace_domain="ws.example.org", workspace_scheme="https", embed_origins=NAMED)
HOST, OWN = f"vs-code-{UUID}.ws.example.org", f"https://vs-code-{UUID}.ws.example.org"
RECORD = Record(uuid=UUID, user_id="ada", created_at=NOW, status=Status.ACTIVE, access_epoch=2)
COOKIE = AccessToken(Kind.COOKIE, UUID, 2, NOW, NOW + 43_200)
EMBEDDED = replace(COOKIE, kind=Kind.FRAME)

pytestmark = pytest.mark.settings(embed_origins=NAMED)

FRAME = NAVIGATION | {"Sec-Fetch-Dest": "iframe"}
"""A navigation of an iframe, but for whose page it is in."""

WITHIN = {
    "fetch": POLL | {"Sec-Fetch-Site": "same-origin"},
    "script": BACKGROUND["script"] | {"Sec-Fetch-Site": "same-origin"},
    "worker": {"Sec-Fetch-Mode": "same-origin", "Sec-Fetch-Dest": "worker", "Sec-Fetch-Site": "same-origin"},
    "frame": FRAME | {"Sec-Fetch-Site": "same-origin", "Referer": f"{OWN}/"},
    "socket": HANDSHAKE | {"Origin": OWN},
}
"""What the workspace's own page asks for, within another page's frame as without: the browser's words are the same."""


def framed(by: str, site: str = "cross-site", **headers: str) -> dict[str, str]:
    """A navigation of a frame by a page of the origin `by`, "" for one that doesn't say it."""
    return FRAME | {"Sec-Fetch-Site": site} | ({"Referer": f"{by}/"} if by else {}) | headers


def visit(
    headers: dict[str, str], *, method: str = "GET", uri: str = "/", settings: Settings = SETTINGS
) -> ForwardedRequest:
    found = from_traefik(asked(HOST, uri, method, **headers), settings)
    assert found is not None
    return found


def decision(
    seen: ForwardedRequest, *shown: AccessToken, linked: bool = False, now: float = NOW, **record: Any
) -> AccessDecision:
    return decide(seen, replace(RECORD, **record), shown, OWN, linked, now, sign_in=True)


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
@pytest.mark.parametrize("by", [PRODUCT, SECOND])
@pytest.mark.parametrize("held", [COOKIE, EMBEDDED], ids=["cookie", "frame's cookie"])
def test_a_named_page_shows_it_and_that_is_a_person_who_opens_it(site: str, by: str, held: AccessToken) -> None:
    seen = visit(framed(by, site))
    in_frame = held is EMBEDDED
    assert seen.frame is Frame.NAMED
    assert decision(seen, held) == AccessDecision(Outcome.ALLOW, use=True, in_frame=in_frame)
    assert decision(seen, held, status=Status.SLEEPING) == AccessDecision(Outcome.NOT_UP, wake=True)
    assert decision(seen) == AccessDecision(Outcome.NO_TOKEN), "within a frame nobody is sent to sign in"
    assert decision(seen, replace(held, access_epoch=1)) == AccessDecision(Outcome.NO_TOKEN)


def test_an_origin_is_the_same_however_it_is_written() -> None:
    settings = replace(SETTINGS, embed_origins="https://App.Example.com:443,http://Localhost:80/").checked()
    for by in (PRODUCT, "http://localhost"):
        assert visit(framed(by), settings=settings).frame is Frame.NAMED
    assert visit(framed("https://localhost"), settings=settings).frame is Frame.FOREIGN


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
@pytest.mark.parametrize(
    "referer",
    [
        "",
        "null",
        f"{STRANGER}/",
        f"{PRODUCT}.evil.example.com/",
        f"{PRODUCT}:8443/",
        f"{PRODUCT}@evil.example.com/",
        "http://app.example.com/",
        f"{STRANGER}/?{PRODUCT}/",
        f"{PRODUCT}evil/",
        "https://vs-code-bbbb0002.ws.example.org/",
    ],
)
def test_no_other_page_shows_it_whatever_it_brings(site: str, referer: str) -> None:
    """Strangers, siblings, pages whose name begins like a named one's, and those that keep their name back."""
    seen = visit(framed("", site, **({"Referer": referer} if referer else {})), uri="/?workspace-link=s3cret")
    assert (seen.frame, seen.link) == (Frame.FOREIGN, ""), "the link is not used up"
    for shown in ((), (COOKIE,), (EMBEDDED,), (COOKIE, EMBEDDED)):
        assert decision(seen, *shown) == AccessDecision(Outcome.FRAMED)


@pytest.mark.parametrize("dest", ["embed", "object", "frame", "fencedframe"])
def test_only_an_iframe_shows_it(dest: str) -> None:
    assert decision(visit(framed(PRODUCT) | {"Sec-Fetch-Dest": dest}), COOKIE) == AccessDecision(Outcome.FRAMED)


def test_where_no_page_is_named_none_shows_it() -> None:
    seen = visit(framed(PRODUCT), settings=replace(SETTINGS, embed_origins=""))
    assert decision(seen, COOKIE) == AccessDecision(Outcome.FRAMED)


def test_what_is_told_depends_on_nothing_that_is_anybodys() -> None:
    """So whoever frames it learns nothing by it, not even whether there is such a workspace."""
    for record in (None, RECORD, replace(RECORD, status=Status.TERMINATED)):
        for shown in ((), (COOKIE,)):
            assert decide(visit(framed(STRANGER)), record, shown, OWN, False, NOW).outcome is Outcome.FRAMED


def test_a_link_followed_within_a_named_page_lets_in_by_a_frames_cookie() -> None:
    seen = visit(framed(PRODUCT), uri="/x?workspace-link=s3cret")
    assert seen.link == "s3cret"
    assert decision(seen, linked=True) == AccessDecision(Outcome.ENTER, in_frame=True)
    assert decision(seen) == AccessDecision(Outcome.USED_LINK)
    assert decision(visit(framed(PRODUCT), uri=f"/x?{ENTERED}")) == AccessDecision(Outcome.NO_COOKIE)
    assert decision(visit(framed(PRODUCT), uri=f"/x?{ENTERED}"), EMBEDDED) == AccessDecision(Outcome.DROP_LINK)
    prefetched = framed(PRODUCT) | {"Sec-Purpose": "prefetch"}
    assert visit(prefetched, uri="/?workspace-link=s3cret").link == ""


@pytest.mark.parametrize("headers", WITHIN.values(), ids=WITHIN)
def test_within_the_frame_the_workspace_works_as_without(headers: dict[str, str]) -> None:
    assert decision(visit(headers), EMBEDDED) == AccessDecision(Outcome.ALLOW, in_frame=True)
    assert decision(visit(headers), COOKIE) == AccessDecision(Outcome.ALLOW)


def test_within_the_frame_what_acts_comes_from_the_workspace_itself() -> None:
    """A page that is named may show it, and may still not act in its place."""
    for origin in (PRODUCT, STRANGER, "null", ""):
        named = {"Origin": origin} if origin else {}
        for headers, method in (
            (HANDSHAKE, "GET"),
            (framed(PRODUCT), "POST"),
            ({"Sec-Fetch-Site": "cross-site"}, "PUT"),
        ):
            seen = visit(headers | named, method=method)
            assert decision(seen, EMBEDDED).outcome in (Outcome.FOREIGN, Outcome.FRAMED), (origin, method)
    pressed = visit({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, method="POST", uri=RETRY_PATH)
    assert decision(pressed, EMBEDDED, status=Status.FAILED) == AccessDecision(Outcome.RETRY, wake=True)


@pytest.mark.parametrize("site", ["", "none", "same-site", "cross-site"])
def test_a_frames_cookie_is_good_in_frames_only(site: str) -> None:
    """A browser that does not know `Partitioned` sends it along from everywhere, and one without Fetch Metadata does
    not say from where: nobody reads by it."""
    named = {"Sec-Fetch-Site": site} if site else {}
    script = {"Accept": "*/*"} | ({"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"} if site else {}) | named
    assert decision(visit(script), EMBEDDED) == AccessDecision(Outcome.NO_TOKEN)
    opened = {"Accept": "text/html"} | ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"} if site else {})
    assert decision(visit(opened | named), EMBEDDED) == AccessDecision(Outcome.SIGN_IN)
    assert decision(visit(opened | named), EMBEDDED, COOKIE).outcome is Outcome.ALLOW
    taken_back = replace(COOKIE, access_epoch=1)
    assert decision(visit(framed(PRODUCT)), taken_back, EMBEDDED).outcome is Outcome.ALLOW


def test_a_frames_cookie_is_renewed_as_one() -> None:
    later = NOW + 43_200 / 12 + 1
    assert decision(visit(WITHIN["fetch"]), EMBEDDED, now=later) == AccessDecision(
        Outcome.ALLOW, renew=True, in_frame=True
    )
    assert not decision(visit(WITHIN["socket"]), EMBEDDED, now=later).renew


def test_a_frame_is_given_a_cookie_of_its_own(client: Client, uuid: str, visitor: Visitor) -> None:
    """Which the browser keeps for the site that shows it, and the workspace never sees."""
    entered = visitor.visit(link(client, uuid), **framed(PRODUCT))
    assert entered.headers["Location"] == f"http://{visitor.host}/?{ENTERED}"
    assert entered.headers["Referrer-Policy"] == "strict-origin", "or the next request would not say whose frame it is"
    (cookie,) = entered.headers.getlist("Set-Cookie")
    assert cookie.startswith(f"{FRAME_COOKIE}=")
    expected = {"Secure", "HttpOnly", "Path=/", "SameSite=None", "Partitioned", "Max-Age=43200"}
    assert expected <= set(cookie.split("; "))
    tidied = visitor.visit(f"/?{ENTERED}", **framed(PRODUCT))
    assert tidied.headers["Location"] == f"http://{visitor.host}/"
    assert visitor.visit(**framed(PRODUCT)).status_code == 200
    answer = visitor.visit(**WITHIN["fetch"])
    assert (answer.status_code, "Cookie" in answer.headers) == (200, False)
    assert visitor.navigate().status_code == 401, "a tab of its own needs a pass of its own"
    client.post(f"/session/{uuid}/revoke")
    assert visitor.visit(**WITHIN["fetch"]).status_code == 401


def test_a_refusal_within_a_frame_says_why_and_which_setting_helps(
    client: Client, uuid: str, visitor: Visitor, make_app: AppMaker
) -> None:
    """Any page may show it: it holds nothing and has nothing to click on. A link that came along is good as before."""
    path = link(client, uuid)
    for app in (client.application, make_app(secret_key=SECRET_KEY)):
        page = Visitor(app, uuid).visit(path, **framed(STRANGER))
        assert (page.status_code, page.mimetype) == (403, "text/html")
        assert "EMBED_ORIGINS" in page.text
        assert re.findall(r"<(?:a|form|button|script|img)\b", page.text) == []
        policy = page.headers["Content-Security-Policy"]
        assert ("frame-ancestors" in policy, "default-src 'none'" in policy) == (False, True)
        assert (uuid in page.text, "Set-Cookie" in page.headers, "X-Frame-Options" in page.headers) == (False,) * 3
    check_problem(visitor.visit(path, **(framed(STRANGER) | {"Accept": "*/*"})), 403, "not_embeddable")
    assert visitor.navigate(path).status_code == 302


def test_forward_auths_own_pages_are_shown_by_named_pages_only(
    client: Client, core: Core, uuid: str, visitor: Visitor, make_app: AppMaker
) -> None:
    visitor.visit(link(client, uuid), **framed(PRODUCT))
    move(core, uuid, Status.SLEEPING)
    for headers in (framed(PRODUCT), NAVIGATION):
        page = visitor.visit(**headers)
        assert page.headers["Content-Security-Policy"].endswith(f"frame-ancestors {PRODUCT} {SECOND}")
    page = Visitor(make_app(secret_key=SECRET_KEY), uuid).navigate()
    assert page.headers["Content-Security-Policy"].endswith("frame-ancestors 'none'")


def test_nginx_leads_a_frame_back_and_to_the_reason(
    app: Flask, client: Client, forward_auth: Client, uuid: str
) -> None:
    """A redirect keeps the page's name that a frame is known by."""
    own, api = f"vs-code-{uuid}.localhost", app.test_client(use_cookies=False)

    def led(uri: str, headers: dict[str, str]) -> Any:
        told = forward_auth.get("/auth/verify", **asked_by_nginx(own, uri, **headers))
        assert told.status_code == 401
        query = {"next": told.headers.get("Workspace-Next", ""), "rd": f"http://{own}{uri}"}
        return api.get("/auth/again", query_string=query, headers=headers)

    path = link(client, uuid)
    refused = led(path, framed(STRANGER))
    assert (refused.status_code, "EMBED_ORIGINS" in refused.text) == (403, True)
    assert "frame-ancestors" not in refused.headers["Content-Security-Policy"]
    back = led(path, framed(PRODUCT))
    assert (back.headers["Location"], back.headers["Referrer-Policy"]) == (f"http://{own}/?{ENTERED}", "strict-origin")


@pytest.mark.parametrize(
    "origins",
    ["*", "app.example.com", f"{PRODUCT}/page", "null", "https://*.example.com"]
    + [f"{PRODUCT}; script-src *", "https://a b", "ftp://a"],
)
def test_what_is_no_origin_stops_the_start(settings: Settings, origins: str) -> None:
    with pytest.raises(SettingsError, match="EMBED_ORIGINS"):
        create_app(replace(settings, embed_origins=origins).checked())
