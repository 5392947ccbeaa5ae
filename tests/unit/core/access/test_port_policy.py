"""Who sees a port of a workspace: a table of requests and what becomes of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core.access.access_policy import PORT_PATH, RETRY_PATH, AccessDecision, Outcome, decide
from app.core.access.forwarded_request import ForwardedRequest, from_traefik, port_of, target
from app.core.access.landing_path import ENTERED
from app.core.access.port_policy import decide_port
from app.core.access.tokens import AccessToken, Kind
from app.core.sessions.model import Record, Status
from app.core.sessions.opened_ports import OpenedPort
from app.process.settings import Settings
from tests.unit.api.visitors import BACKGROUND, HANDSHAKE, NAVIGATION, OLD_BROWSER, POLL, asked

NOW = 1_763_625_600
A, B, PORT = "aaaa0001", "bbbb0002", 3000
SETTINGS = Settings(workspace_domain="ws.example.org", workspace_scheme="https", workspace_port=0)
WORKSPACE, OWN = f"https://vs-code-{A}.ws.example.org", f"https://{PORT}--vs-code-{A}.ws.example.org"
STRANGERS = (
    WORKSPACE,
    f"https://8000--vs-code-{A}.ws.example.org",
    f"https://vs-code-{B}.ws.example.org",
    "https://x.org",
)
RECORD = Record(
    uuid=A,
    user_id="ada",
    created_at=NOW,
    status=Status.ACTIVE,
    access_epoch=2,
    opened_ports=(OpenedPort(8000, NOW), OpenedPort(PORT, NOW)),
)
PUBLIC = (OpenedPort(PORT, NOW, NOW + 60),)
HELD = AccessToken(Kind.COOKIE, A, 2, NOW, NOW + 43_200, PORT)
TOKEN = AccessToken(Kind.TOKEN, A, 2, NOW - 60, NOW + 600)
LINKED = "/deep?a=b&workspace-link=s3cret"
NO_TOKENS = {
    "none": None,
    "another session's": replace(HELD, uuid=B),
    "one taken back": replace(HELD, access_epoch=1),
    "another port's": replace(HELD, port=8000),
    "the workspace's": replace(HELD, port=0),
    "one from before it was closed": replace(HELD, issued_at=NOW - 1),
    "a frame's": replace(HELD, kind=Kind.FRAME),
}


def visit(
    headers: dict[str, str] | None = None, *, method: str = "GET", uri: str = "/", port: int = PORT
) -> ForwardedRequest:
    found = from_traefik(asked(f"{port}--vs-code-{A}.ws.example.org", uri, method, **(headers or {})), SETTINGS)
    assert found is not None
    return found


def decision(
    seen: ForwardedRequest, held: AccessToken | None = HELD, *, linked: bool = False, now: float = NOW, **record: Any
) -> AccessDecision:
    return decide_port(seen, replace(RECORD, **record), [held] if held else [], OWN, linked, now)


def outcome(*args: Any, **more: Any) -> Outcome:
    return decision(*args, **more).outcome


@pytest.mark.parametrize("name", NO_TOKENS)
def test_a_person_without_a_cookie_for_it_is_sent_by_the_workspace_and_no_program_is(name: str) -> None:
    held = NO_TOKENS[name]
    assert decision(visit(NAVIGATION), held) == AccessDecision(Outcome.BY_WORKSPACE)
    assert decide_port(visit(NAVIGATION), None, [], OWN, False, NOW) == AccessDecision(Outcome.BY_WORKSPACE)
    for each in ("poll", "script", "crawler", "program"):
        assert decision(visit(BACKGROUND[each]), held) == AccessDecision(Outcome.NO_TOKEN), each
    if name != "a frame's":  # The browser does not say where a socket is opened.
        assert outcome(visit(HANDSHAKE | {"Origin": OWN}), held) is Outcome.NO_TOKEN
    assert outcome(visit(NAVIGATION, uri=LINKED), held) is Outcome.USED_LINK
    assert outcome(visit(NAVIGATION, uri=f"/?{ENTERED}"), held) is Outcome.NO_COOKIE, (
        "or it would be sent round for ever"
    )
    assert outcome(visit(NAVIGATION | {"Sec-Fetch-Dest": "iframe"}), held) is Outcome.NO_TOKEN


def test_a_link_opens_it_once_it_is_opened() -> None:
    assert decision(visit(NAVIGATION, uri=LINKED), None, linked=True) == AccessDecision(Outcome.ENTER)
    assert outcome(visit(NAVIGATION, uri=LINKED), None, linked=True, opened_ports=()) is Outcome.USED_LINK
    assert outcome(visit(NAVIGATION, uri=LINKED)) is Outcome.DROP_LINK


def test_who_has_a_cookie_is_let_in_and_a_person_wakes_it() -> None:
    assert decision(visit(NAVIGATION)) == AccessDecision(Outcome.ALLOW, use=True)
    assert decision(visit(POLL | {"Sec-Fetch-Site": "same-origin"})) == AccessDecision(Outcome.ALLOW)
    assert decision(visit(HANDSHAKE | {"Origin": OWN})) == AccessDecision(Outcome.ALLOW)
    assert decision(visit(NAVIGATION), status=Status.SLEEPING) == AccessDecision(Outcome.NOT_UP, wake=True)
    pressed = visit({"Origin": OWN}, method="POST", uri=RETRY_PATH)
    assert decision(pressed, status=Status.FAILED) == AccessDecision(Outcome.RETRY, wake=True)
    for name, headers in BACKGROUND.items():
        assert not decision(visit(headers), status=Status.SLEEPING).wake, name
    assert not decision(visit(HANDSHAKE | {"Origin": OWN}), status=Status.SLEEPING).wake
    assert decision(visit(NAVIGATION), now=NOW + 4_000).renew


def test_a_session_token_opens_what_is_opened() -> None:
    assert decision(visit(BACKGROUND["program"]), TOKEN) == AccessDecision(Outcome.ALLOW)
    assert outcome(visit(BACKGROUND["program"]), TOKEN, opened_ports=()) is Outcome.NO_TOKEN
    assert not decision(visit(NAVIGATION), TOKEN, status=Status.SLEEPING).wake


@pytest.mark.parametrize("origin", STRANGERS)
def test_no_other_page_acts_there_not_even_one_of_the_workspace(origin: str) -> None:
    assert outcome(visit(HANDSHAKE | {"Origin": origin})) is Outcome.FOREIGN
    assert outcome(visit(POLL | {"Origin": origin}, method="POST")) is Outcome.FOREIGN
    for dest in ("empty", "script", "image"):
        read = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": dest, "Sec-Fetch-Site": "same-site", "Origin": origin}
        assert outcome(visit(read)) is Outcome.FOREIGN
    framed = NAVIGATION | {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "same-site", "Referer": f"{origin}/"}
    assert outcome(visit(framed)) is Outcome.FRAMED


def test_a_page_of_the_product_shows_it_in_a_frame() -> None:
    """By a link, with a cookie that counts within the frame alone."""
    product = "https://app.example.org"
    named = Settings(**vars(SETTINGS) | {"embed_origins": product})
    framed = NAVIGATION | {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site", "Referer": f"{product}/"}

    def seen(uri: str) -> ForwardedRequest:
        found = from_traefik(asked(f"{PORT}--vs-code-{A}.ws.example.org", uri, "GET", **framed), named)
        assert found is not None
        return found

    assert decision(seen(LINKED), None, linked=True) == AccessDecision(Outcome.ENTER, in_frame=True)
    inside = replace(HELD, kind=Kind.FRAME)
    assert decision(seen("/"), inside) == AccessDecision(Outcome.ALLOW, use=True, in_frame=True)
    assert outcome(seen("/"), replace(inside, port=0)) is Outcome.NO_TOKEN
    assert outcome(seen("/"), None) is Outcome.NO_TOKEN, "a frame is not sent round"


def test_a_public_one_is_everybodys() -> None:
    framed = NAVIGATION | {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site"}
    for headers in (NAVIGATION, framed, *BACKGROUND.values(), HANDSHAKE | {"Origin": "https://x.org"}):
        assert decision(visit(headers), None, opened_ports=PUBLIC) == AccessDecision(Outcome.ALLOW)
        waking = decision(visit(headers), None, opened_ports=PUBLIC, status=Status.WAKING)
        assert waking == AccessDecision(Outcome.NOT_UP)
    assert outcome(visit(POLL | {"Origin": "https://x.org"}, method="POST"), opened_ports=PUBLIC) is Outcome.ALLOW
    assert outcome(visit(NAVIGATION, port=8000), None, opened_ports=PUBLIC) is Outcome.BY_WORKSPACE


def test_a_public_one_is_woken_by_a_page_that_somebody_opens_and_by_nothing_else() -> None:
    """A browser must say that it is one: anybody can send all else by a program, again and again."""

    def asleep(headers: dict[str, str], **more: Any) -> AccessDecision:
        return decision(visit(headers, **more), None, opened_ports=PUBLIC, status=Status.SLEEPING)

    assert asleep(NAVIGATION) == AccessDecision(Outcome.NOT_UP, wake=True, public=True)
    pressed = asleep({"Origin": OWN}, method="POST", uri=RETRY_PATH)
    assert pressed == AccessDecision(Outcome.ASLEEP)
    for headers in (*BACKGROUND.values(), OLD_BROWSER, HANDSHAKE | {"Origin": OWN}):
        assert asleep(headers) == AccessDecision(Outcome.ASLEEP)
    failed = decision(visit(NAVIGATION), None, opened_ports=PUBLIC, status=Status.FAILED)
    assert failed == AccessDecision(Outcome.ASLEEP)
    held = decision(visit(NAVIGATION), opened_ports=PUBLIC, status=Status.SLEEPING)
    assert held == AccessDecision(Outcome.NOT_UP, wake=True), "who has a cookie wakes it as often as they like"


def test_one_that_was_public_says_so_and_one_that_never_was_does_not() -> None:
    for headers in (NAVIGATION, POLL):
        assert outcome(visit(headers), None, opened_ports=PUBLIC, now=NOW + 60) is Outcome.PUBLIC_ENDED
    assert outcome(visit(NAVIGATION), opened_ports=PUBLIC, now=NOW + 60) is Outcome.ALLOW
    assert outcome(visit(POLL), None) is Outcome.NO_TOKEN


@pytest.mark.parametrize("status", [Status.TERMINATING, Status.TERMINATED])
def test_a_deleted_session_has_none_not_even_a_public_one(status: Status) -> None:
    assert outcome(visit(NAVIGATION), opened_ports=PUBLIC, status=status) is Outcome.GONE
    assert outcome(visit(NAVIGATION), None, opened_ports=PUBLIC, status=status) is Outcome.BY_WORKSPACE


def test_the_workspaces_own_address_leads_its_visitors_on_and_takes_no_ports_cookie() -> None:
    def at_workspace(headers: dict[str, str], held: AccessToken, **record: Any) -> Outcome:
        seen = from_traefik(asked(f"vs-code-{A}.ws.example.org", f"{PORT_PATH}?port=3000", "GET", **headers), SETTINGS)
        assert seen is not None
        return decide(seen, replace(RECORD, **record), [held], WORKSPACE, False, NOW).outcome

    own = replace(HELD, port=0)
    assert at_workspace(NAVIGATION, own) is Outcome.TO_PORT
    assert at_workspace(NAVIGATION, own, status=Status.SLEEPING) is Outcome.TO_PORT
    assert at_workspace(NAVIGATION, HELD) is Outcome.NO_TOKEN
    assert at_workspace(POLL | {"Sec-Fetch-Site": "same-site"}, own) is Outcome.FOREIGN
    assert at_workspace(POLL | {"Sec-Fetch-Site": "same-origin"}, own) is Outcome.ALLOW


@pytest.mark.parametrize(
    "label", ["0--", "03000--", "65536--", "999999--", "-1--", "3000-", "3000---", "x--", "3000--3000--"]
)
def test_no_other_label_is_a_port(label: str) -> None:
    host = f"{label}vs-code-{A}.ws.example.org"
    assert from_traefik(asked(host), SETTINGS) is None
    assert (port_of(host, SETTINGS), target(f"https://{host}/", SETTINGS)) == (0, None)


def test_an_address_says_which_port_it_is() -> None:
    host = f"65535--VS-code-{A}.ws.example.org:8443"
    assert port_of(host, SETTINGS) == 65_535
    found = target(f"https://{host}/deep?x=1", SETTINGS)
    assert found is not None
    assert (found.uuid, found.port, found.agent, found.path, found.query) == (A, 65_535, False, "/deep", "x=1")
