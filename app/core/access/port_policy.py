"""The access decision for a port of a workspace, which has an address, and a cookie, of its own. No I/O.

A port that is not opened is shown to nobody. One that is public is shown to everybody, without a token: no page can do
anything there in the name of a visitor that it could not do in its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.core.access.access_policy import (
    AccessDecision,
    Outcome,
    decide_known,
    fits,
    is_current,
    is_foreign,
    leads_nowhere,
)
from app.core.access.forwarded_request import ForwardedRequest, Frame
from app.core.access.tokens import BY_BROWSER, AccessToken
from app.core.sessions.model import GONE, Record, Status
from app.core.sessions.opened_ports import OpenedPort, find


def decide_port(
    forwarded: ForwardedRequest,
    record: Record | None,
    tokens: Sequence[AccessToken],
    own_origin: str,
    link_valid: bool,
    now: float,
) -> AccessDecision:
    """The decision on a request for a port of the workspace; the arguments are those of `decide`."""
    there = record is not None and record.status not in GONE
    opened = find(record.opened_ports, forwarded.port) if record and there else None
    public = opened is not None and opened.is_public(now)
    if forwarded.frame is Frame.FOREIGN and not public and all(each.kind in BY_BROWSER for each in tokens):
        return AccessDecision(Outcome.FRAMED)
    if record is None or not there:
        # As for the workspace itself, strangers must not learn which ones exist.
        known = link_valid or any(each.uuid == forwarded.uuid for each in tokens)
        return AccessDecision(Outcome.GONE) if known else decide_without_token(forwarded, None, now)
    if link_valid and opened:
        return AccessDecision(Outcome.ENTER, in_frame=forwarded.frame is Frame.NAMED)
    token = next((each for each in tokens if counts(each, record, opened) and fits(each, forwarded)), None)
    if token is None and not public:
        return decide_without_token(forwarded, opened, now)
    if forwarded.link or forwarded.entered:
        return AccessDecision(Outcome.DROP_LINK)
    if token is None:
        return decide_public(forwarded, record, now)
    if not public and is_foreign(forwarded, token, own_origin):
        return AccessDecision(Outcome.FOREIGN)
    return decide_known(forwarded, record, token, now)


def counts(token: AccessToken, record: Record, opened: OpenedPort | None) -> bool:
    """Whether a token is one for the session, and its port is opened; a cookie must have been set since then."""
    since = opened is not None and (token.kind not in BY_BROWSER or token.issued_at >= opened.opened_at)
    return since and is_current(token, record)


def decide_public(forwarded: ForwardedRequest, record: Record, now: float) -> AccessDecision:
    """The decision on a request for a public port by anybody. A page that a person opens wakes the workspace, where the
    browser says so; nothing is a use of it."""
    if record.status is Status.SLEEPING and forwarded.by_person and forwarded.says_why:
        return AccessDecision(Outcome.NOT_UP, wake=True, public=True)
    if record.status in (Status.SLEEPING, Status.FAILED):
        return AccessDecision(Outcome.ASLEEP)
    up = record.status is Status.ACTIVE and not leads_nowhere(forwarded, record, now)
    return AccessDecision(Outcome.ALLOW if up else Outcome.NOT_UP)


def decide_without_token(forwarded: ForwardedRequest, opened: OpenedPort | None, now: float) -> AccessDecision:
    """The decision on a request without a valid token; the same for a workspace that never existed as for a port that
    was never public."""
    if forwarded.link:
        return AccessDecision(Outcome.USED_LINK)
    if forwarded.entered:
        return AccessDecision(Outcome.NO_COOKIE)
    if opened and opened.was_public(now):
        return AccessDecision(Outcome.PUBLIC_ENDED)
    if forwarded.by_person and forwarded.wants_page and forwarded.frame is Frame.NONE:
        return AccessDecision(Outcome.BY_WORKSPACE)
    return AccessDecision(Outcome.NO_TOKEN)
