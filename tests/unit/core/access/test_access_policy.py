"""Who gets into a workspace, and what wakes it: a table of requests and what becomes of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from werkzeug.datastructures import Headers

from app.core.access.access_policy import RETRY_PATH, AccessDecision, Outcome, decide, decide_agent
from app.core.access.forwarded_request import ForwardedRequest, Target, from_nginx, from_traefik, target
from app.core.access.tokens import COOKIE, AccessToken, Kind
from app.core.sessions.model import Record, Status
from app.process.settings import Settings
from tests.unit.api.visitors import BACKGROUND, HANDSHAKE, NAVIGATION, OLD_BROWSER, POLL, asked

NOW = 1_763_625_600.0
A, B = "aaaa0001", "bbbb0002"
SETTINGS = Settings(workspace_domain="ws.example.org", workspace_port=8443, workspace_scheme="https")
HOST, OWN = f"vs-code-{A}.ws.example.org", f"https://vs-code-{A}.ws.example.org:8443"
API = "api.ws.example.org"
SIBLING, STRANGER = f"https://vs-code-{B}.ws.example.org:8443", "https://example.com"
RECORD = Record(uuid=A, user_id="ada", created_at=NOW, status=Status.ACTIVE, access_epoch=2)
HELD = AccessToken(Kind.COOKIE, A, 2, NOW, NOW + 43_200)
TOKEN = replace(HELD, kind=Kind.TOKEN)


def visit(headers: dict[str, str] | None = None, *, method: str = "GET", uri: str = "/") -> ForwardedRequest:
    found = from_traefik(asked(f"{HOST}:8443", uri, method, **(headers or {})), SETTINGS)
    assert found is not None
    return found


def through_nginx(headers: dict[str, str], service: str = "", url: str = f"{OWN}/") -> ForwardedRequest:
    found = from_nginx(Headers({"X-Original-URL": url, "X-Original-Method": "GET"} | headers), SETTINGS, HOST, service)
    assert found is not None
    return found


def decision(
    seen: ForwardedRequest, held: AccessToken | None = HELD, *, linked: bool = False, now: float = NOW, **record: Any
) -> AccessDecision:
    return decide(seen, replace(RECORD, **record), [held] if held else [], OWN, linked, now)


def outcome(*args: Any, **more: Any) -> Outcome:
    return decision(*args, **more).outcome


LINKED = "/?a=b&workspace-link=s3cret&c"
NO_TOKENS = {
    "none": None,
    "another session's": replace(HELD, uuid=B),
    "one taken back": replace(HELD, access_epoch=1),
    "one of an access epoch to come": replace(HELD, access_epoch=3),
    "another session's token": replace(TOKEN, uuid=B),
}


@pytest.mark.parametrize("held", NO_TOKENS.values(), ids=NO_TOKENS)
@pytest.mark.parametrize("status", [Status.ACTIVE, Status.SLEEPING, Status.FAILED])
def test_without_a_pass_of_this_session_and_access_epoch_nobody_gets_in_and_nothing_wakes(
    held: AccessToken | None, status: Status
) -> None:
    assert decision(visit(NAVIGATION), held, status=status) == AccessDecision(Outcome.NO_TOKEN)
    assert decision(visit(method="POST", uri=RETRY_PATH), held, status=status) == AccessDecision(Outcome.NO_TOKEN)


@pytest.mark.parametrize("status", [Status.TERMINATING, Status.TERMINATED])
def test_a_session_that_is_over_is_gone_for_whoever_was_let_in(status: Status) -> None:
    """With a pass that was taken back, too. Others are told what they are told of any: it is not theirs to know."""
    for held in (HELD, TOKEN, NO_TOKENS["one taken back"]):
        assert outcome(visit(NAVIGATION), held, status=status) is Outcome.GONE
    assert outcome(visit(NAVIGATION), None, linked=True, status=status) is Outcome.GONE
    assert decide(visit(), None, [HELD], OWN, False, NOW).outcome is Outcome.GONE
    for stranger in (None, NO_TOKENS["another session's"]):
        assert outcome(visit(NAVIGATION), stranger, status=status) is Outcome.NO_TOKEN
        assert outcome(visit(NAVIGATION, uri=LINKED), stranger, status=status) is Outcome.USED_LINK


ACTS = [
    pytest.param(HANDSHAKE, "GET", id="socket"),
    pytest.param({"Upgrade": "websocket"}, "GET", id="upgrade"),
    *[pytest.param({}, method, id=method) for method in ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "BREW")],
]


@pytest.mark.parametrize(("headers", "method"), ACTS)
@pytest.mark.parametrize("origin", [SIBLING, STRANGER, "null", f"{OWN}.example.com", OWN.replace("https", "http"), ""])
def test_what_acts_must_come_from_the_workspace_itself(headers: dict[str, str], method: str, origin: str) -> None:
    """Sibling, foreign, made up or missing: refused, with the right cookie and all."""
    seen = visit(headers | ({"Origin": origin} if origin else {}), method=method)
    assert decision(seen) == AccessDecision(Outcome.FOREIGN)
    assert outcome(replace(seen, origin=OWN)) is Outcome.ALLOW


@pytest.mark.parametrize(("headers", "method"), ACTS)
def test_a_program_with_a_token_needs_no_origin_but_a_page_may_not_lie(headers: dict[str, str], method: str) -> None:
    assert outcome(visit(headers, method=method), TOKEN) is Outcome.ALLOW
    assert outcome(visit(headers | {"Origin": STRANGER}, method=method), TOKEN) is Outcome.FOREIGN


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
@pytest.mark.parametrize("dest", ["script", "style", "image", "empty", "worker"])
def test_no_other_origin_uses_a_workspaces_files_within_its_pages(site: str, dest: str) -> None:
    """As a script it could read them; its own pages may, and so may a link that leads here."""
    headers = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": dest, "Accept": "*/*"}
    assert decision(visit(headers | {"Sec-Fetch-Site": site})) == AccessDecision(Outcome.FOREIGN)
    assert outcome(visit(headers | {"Sec-Fetch-Site": "same-origin"})) is Outcome.ALLOW
    assert outcome(visit(NAVIGATION | {"Sec-Fetch-Site": site})) is Outcome.ALLOW


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_only_reads_needs_no_origin(method: str) -> None:
    assert outcome(visit(method=method)) is Outcome.ALLOW


@pytest.mark.parametrize("headers", [NAVIGATION, OLD_BROWSER], ids=["browser", "old browser"])
def test_a_person_who_opens_it_wakes_it_and_counts_as_use(headers: dict[str, str]) -> None:
    assert decision(visit(headers), status=Status.SLEEPING) == AccessDecision(Outcome.NOT_UP, wake=True)
    assert decision(visit(headers)) == AccessDecision(Outcome.ALLOW, use=True)


@pytest.mark.parametrize("headers", [*BACKGROUND.values(), HANDSHAKE | {"Origin": OWN}], ids=[*BACKGROUND, "socket"])
def test_nobody_else_wakes_it_or_counts_as_use(headers: dict[str, str]) -> None:
    """However good their cookie is."""
    assert decision(visit(headers), status=Status.SLEEPING) == AccessDecision(Outcome.NOT_UP)
    assert decision(visit(headers)) == AccessDecision(Outcome.ALLOW)


@pytest.mark.parametrize(
    ("headers", "line", "held", "status"),
    [
        (NAVIGATION, {"method": "HEAD"}, HELD, Status.SLEEPING),
        (OLD_BROWSER, {"uri": "/favicon.ico"}, HELD, Status.SLEEPING),
        (NAVIGATION, {}, TOKEN, Status.SLEEPING),
        *[(NAVIGATION, {}, HELD, status) for status in (Status.CREATED, Status.WAKING, Status.FAILED)],
        (NAVIGATION, {"uri": RETRY_PATH}, HELD, Status.FAILED),
    ],
    ids=["HEAD", "favicon", "program with a token", "created", "waking", "failed", "address of the button"],
)
def test_one_that_is_not_up_is_only_shown(
    headers: dict[str, str], line: dict[str, str], held: AccessToken, status: Status
) -> None:
    assert decision(visit(headers, **line), held, status=status) == AccessDecision(Outcome.NOT_UP)


def test_the_button_wakes_it_from_its_own_page_only() -> None:
    pressed = visit({"Origin": OWN}, method="POST", uri=RETRY_PATH)
    assert decision(pressed, status=Status.FAILED) == AccessDecision(Outcome.RETRY, wake=True)
    assert decision(replace(pressed, origin=SIBLING), status=Status.FAILED) == AccessDecision(Outcome.FOREIGN)


def test_a_good_link_lets_in_and_is_taken_out_of_the_address() -> None:
    seen = visit(NAVIGATION, uri=LINKED)
    assert (seen.link, seen.without_link) == ("s3cret", "/?a=b&c")
    assert visit(NAVIGATION, uri="/p?workspace-link=s").without_link == "/p"
    assert decision(seen, None, linked=True) == AccessDecision(Outcome.ENTER)
    assert decision(seen, None, linked=True, status=Status.SLEEPING) == AccessDecision(Outcome.ENTER)


def test_a_used_link_is_told_as_one_unless_it_is_not_needed() -> None:
    assert decision(visit(NAVIGATION, uri=LINKED), None) == AccessDecision(Outcome.USED_LINK)
    assert decision(visit(NAVIGATION, uri=LINKED)) == AccessDecision(Outcome.DROP_LINK)


@pytest.mark.parametrize("headers", BACKGROUND.values(), ids=BACKGROUND)
def test_only_a_person_follows_a_link(headers: dict[str, str]) -> None:
    """Else a preview of a chat would use it up."""
    assert visit(headers, uri=LINKED).link == ""


def test_a_cookie_is_renewed_while_it_is_used() -> None:
    """Not on handshakes: what their answer sets is lost on its way."""
    later = NOW + 43_200 / 12 + 1
    assert not decision(visit(POLL), now=NOW + 3_000).renew
    assert decision(visit(POLL), now=later).renew
    assert not decision(visit(HANDSHAKE | {"Origin": OWN}), now=later).renew
    assert not decision(visit(), TOKEN, now=later).renew


def test_the_managers_own_probe_gets_through_while_it_starts() -> None:
    probe = replace(HELD, kind=Kind.PROBE)
    assert decision(visit(), probe, status=Status.WAKING) == AccessDecision(Outcome.ALLOW)
    assert outcome(visit(), replace(probe, uuid=B), status=Status.WAKING) is Outcome.NO_TOKEN


def test_an_agent_is_opened_by_a_token_or_a_key_while_it_is_up() -> None:
    asleep = replace(RECORD, status=Status.SLEEPING)
    assert decide_agent(RECORD, TOKEN, keyed=False).outcome is Outcome.ALLOW
    assert decide_agent(RECORD, None, keyed=True).outcome is Outcome.ALLOW
    assert decide_agent(asleep, TOKEN, keyed=False) == AccessDecision(Outcome.NOT_UP)
    for held in (None, replace(TOKEN, uuid=B), replace(TOKEN, access_epoch=1)):
        assert decide_agent(RECORD, held, keyed=False).outcome is Outcome.NO_TOKEN
    assert decide_agent(None, None, keyed=False).outcome is Outcome.NO_TOKEN
    assert decide_agent(None, TOKEN, keyed=False).outcome is Outcome.GONE


@pytest.mark.parametrize(
    ("host", "uri", "whose"),
    [
        # The same in capitals and with any port: ports are the ingress' affair.
        *[(host, "/", (A, False)) for host in (HOST, HOST.upper(), f"{HOST}:8443")],
        *[(host, "/", None) for host in ("example.com", "ws.example.org", f"vs-code-{A}", f"vs-code-{A}.example.com")],
        *[(f"{name}.ws.example.org", "/", None) for name in (f"vs-code-{A}1", A, "vs-code-../../x1")],
        *[(host, "/", None) for host in (f"{HOST}.example.com", f"x.{HOST}", "")],
        # An agent is at the API's host only.
        (API, f"/chat/{A}/health", (A, True)),
        (f"{API}:8443", f"/chat/{A}", (A, True)),
        (API, f"/chat/{A}x/health", None),
        (API, f"/chat/{A}/../{B}/health", None),
        (API, f"/chat/{A}/%2e%2E%2f{B}/health", None),
        (API, "/", None),
        (f"vs-code-{B}.ws.example.org", f"/chat/{A}/health", (B, False)),
    ],
)
def test_a_host_is_one_workspaces_or_the_agents_or_none_of_ours(
    host: str, uri: str, whose: tuple[str, bool] | None
) -> None:
    found = from_traefik(asked(host, uri), SETTINGS)
    assert (found and (found.uuid, found.agent)) == whose


def test_in_a_cluster_the_apis_host_leads_to_no_agent() -> None:
    in_cluster = replace(SETTINGS, runtime="kubernetes", workspace_image="image")
    assert from_traefik(asked(API, f"/chat/{A}/"), in_cluster) is None


@pytest.mark.parametrize(
    ("cookies", "own", "others"),
    [
        ("", [], ""),
        ("a=1; b=2", [], "a=1; b=2"),
        (f"{COOKIE}=x.y.z", ["x.y.z"], ""),
        (f"a=1; {COOKIE}=x; b=2", ["x"], "a=1; b=2"),
        (f"{COOKIE}=x; a=1", ["x"], "a=1"),
        (f"a=1;\t{COOKIE} = x ", ["x"], "a=1"),
        (f"a=1,{COOKIE}=x; b=2", [], "a=1, b=2"),
        (f"a=1,{COOKIE}=x; {COOKIE}=y", ["y"], "a=1"),
        (f"{COOKIE}=x; {COOKIE}=y; a=1", ["x", "y"], "a=1"),
        (f"{COOKIE}2=x; not{COOKIE}=y", [], f"{COOKIE}2=x; not{COOKIE}=y"),
        (f"\xa0{COOKIE}=x; {COOKIE}=y", ["y"], ""),
        (f"\x1f{COOKIE}=x; {COOKIE}=y", ["y"], ""),
    ],
)
def test_our_cookie_is_taken_out_of_the_others(cookies: str, own: list[str], others: str) -> None:
    """It ends at semicolons only: what stands behind a comma may be part of a sibling's. So may one whose name begins
    with a blank that is none in HTTP."""
    seen = visit({"Cookie": cookies})
    assert ([*seen.cookies], seen.other_cookies) == (own, others)


def test_a_workspace_gets_no_more_cookies_than_its_editor_takes() -> None:
    """None rather than some: which ones are its own, nothing tells."""
    assert visit({"Cookie": "a=" + 8_190 * "x"}).other_cookies == "a=" + 8_190 * "x"
    seen = visit({"Cookie": f"a={8_191 * 'x'}; {COOKIE}=y"})
    assert (seen.cookies, seen.other_cookies) == (("y",), "")


def test_each_ingress_is_believed_in_its_own_headers_alone() -> None:
    """A visitor may send the other's, which pass through."""
    seen = visit({"X-Original-URL": f"{SIBLING}/", "X-Original-Method": "GET"}, method="POST", uri="/x")
    assert (seen.uuid, seen.path, seen.method) == (A, "/x", "POST")
    lie = dict(asked(f"vs-code-{B}.x")) | {"X-Original-Method": "POST"}
    seen = through_nginx(lie, url=f"{OWN}//x?y=z")
    assert (seen.uuid, seen.path, seen.query, seen.method) == (A, "//x", "y=z", "POST")
    assert from_nginx(asked(HOST), SETTINGS, HOST) is None


@pytest.mark.parametrize("headers", [NAVIGATION, POLL, HANDSHAKE | {"Origin": OWN}], ids=["page", "program", "socket"])
@pytest.mark.parametrize(("service", "expected"), [("asleep", Outcome.NOT_UP), (f"user-{A}", Outcome.ALLOW)])
def test_what_nginx_would_lead_to_no_pod_waits_for_its_route(
    headers: dict[str, str], service: str, expected: Outcome
) -> None:
    """Its own route comes a moment after the session is up, and until then that of all others leads to it."""
    seen = through_nginx(headers, service)
    assert outcome(seen) is expected
    assert decide_agent(RECORD, TOKEN, keyed=False, nowhere=seen.nowhere).outcome is expected
    assert outcome(seen, None) is Outcome.NO_TOKEN


def test_behind_a_service_a_page_waits_until_it_leads_to_the_new_pod() -> None:
    """Programs and sockets don't: they try again by themselves. Behind an ingress that knows the pod nobody does."""
    started: dict[str, Any] = {"requested_at": NOW - 3.0, "phases": {"ready": 2_500}}
    page, program = through_nginx(NAVIGATION), through_nginx(POLL)
    assert decision(page, **started) == AccessDecision(Outcome.NOT_UP)
    assert outcome(page, now=NOW + 0.5, **started) is Outcome.ALLOW
    assert [outcome(seen, **started) for seen in (program, visit(NAVIGATION))] == [Outcome.ALLOW] * 2


@pytest.mark.parametrize("server", [f"vs-code-{B}.ws.example.org", API, ""])
def test_what_nginx_tells_is_believed_of_the_server_that_it_chose(server: str) -> None:
    """`GET http://vs-code-B/` with `Host: vs-code-A` goes to B, and is told as one for A."""
    assert from_nginx(Headers({"X-Original-URL": f"{OWN}/", "X-Original-Method": "GET"}), SETTINGS, server) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"{OWN}/", Target(A, False, "/", "")),
        (f"http://{HOST.upper()}:80//x?a=b?c", Target(A, False, "//x", "a=b?c")),
        (f"https://api.ws.example.org/chat/{A}/history", Target(A, True, f"/chat/{A}/history", "")),
        (OWN, None),
        (f"{OWN}?x=/", None),
        (f"{OWN}/\r\nSet-Cookie: a=b", None),
        (f"{OWN}.example.com/", None),
        (f"http://{HOST}@example.com/", None),
        ("https://api.ws.example.org/docs", None),
        ("javascript:alert(1)", None),
        ("", None),
    ],
)
def test_nginx_leads_back_to_nothing_but_ours(url: str, expected: Target | None) -> None:
    assert target(url, SETTINGS) == expected
