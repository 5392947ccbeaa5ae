"""The access decision: who gets into a workspace or to its agent, and what wakes it. No I/O. For the ports of a
workspace port_policy.py decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.core.access.forwarded_request import ForwardedRequest, Frame
from app.core.access.tokens import BY_BROWSER, AccessToken, Kind
from app.core.sessions.model import GONE, PHASES, Record, Status

RETRY_PATH = "/.session/retry"
"""Where the waking page's button posts to. Forward auth answers it; the request never reaches the workspace."""

PORT_PATH = "/.session/port"
"""Where the visitor of a port is led on from, at the workspace's own address. Forward auth answers it."""

RENEWALS = 12
"""A cookie's life is cut into this many parts. A cookie from an earlier part than the present is renewed on use."""

SETTLING = 1.0
"""s after a start during which a Service's address may lead nowhere yet: kube-proxy acts once a second at most
(its `minSyncPeriod`). Measured: up to 0.25 s, in one wake of four."""

MOST_SENT = 5
"""How often within a minute a browser is sent to sign in. Browsers give up after some 20 redirects, with a less
helpful page."""


class Outcome(StrEnum):
    """How a forwarded request is answered."""

    ALLOW = "allow"
    ENTER = "enter"
    """The login link is good: set a cookie, and redirect to the same address without the link."""
    DROP_LINK = "drop_link"
    """The visitor has a good token already: redirect to the same address without the link."""
    RETRY = "retry"
    """The button woke the session: redirect to the workspace."""
    NOT_UP = "not_up"
    GONE = "gone"
    NO_TOKEN = "no_token"
    SIGN_IN = "sign_in"
    """No valid token, and LOGIN_URL is set: redirect to the product's sign-in."""
    SIGN_IN_LOOP = "sign_in_loop"
    """The product's sign-in led back without a link, again and again."""
    NO_COOKIE = "no_cookie"
    """The browser followed a good link and did not keep the cookie."""
    USED_LINK = "used_link"
    FOREIGN = "foreign"
    OVER_BUDGET = "over_budget"
    """The session is not woken: its user's budget, or its key's, is used up."""
    TO_PORT = "to_port"
    """A visitor of a port comes by the workspace's own address: make a link to the port, and redirect to it."""
    BY_WORKSPACE = "by_workspace"
    """A visitor of a port without a token may have one for the workspace: redirect to its address, which leads back."""
    PUBLIC_ENDED = "public_ended"
    """The port was open to everybody, until a moment that has passed."""
    PORTS_FULL = "ports_full"
    """The port is not opened for its visitor: as many are public as may be."""
    ASLEEP = "asleep"
    """Everybody may visit the port, but the workspace does not run, and this request does not wake it."""
    FRAMED = "framed"
    """A page that EMBED_ORIGINS does not name shows the workspace in a frame."""


@dataclass(frozen=True)
class AccessDecision:
    """`wake` the session first, which for a visitor as one of the `public` is done a few times an hour; `use`: the
    request counts as activity of a person; `renew` the cookie, which is a frame's (`in_frame`) or a tab's."""

    outcome: Outcome
    wake: bool = False
    public: bool = False
    use: bool = False
    renew: bool = False
    in_frame: bool = False


def decide(
    forwarded: ForwardedRequest,
    record: Record | None,
    tokens: Sequence[AccessToken],
    own_origin: str,
    link_valid: bool,
    now: float,
    *,
    sign_in: bool = False,
) -> AccessDecision:
    """The decision on a request for the workspace itself. `tokens` are the signed ones the request carries, which may
    be for another session or access epoch; `sign_in`: people without a token are sent to the product's sign-in."""
    # First of all: this answer is the same for every workspace and visitor, so any page may show it.
    if forwarded.frame is Frame.FOREIGN and all(each.kind in BY_BROWSER for each in tokens):
        return AccessDecision(Outcome.FRAMED)
    if record is None or record.status in GONE:
        # Strangers get the same answer as for an existing workspace: they must not learn which ones exist.
        known = link_valid or any(each.uuid == forwarded.uuid for each in tokens)
        return AccessDecision(Outcome.GONE) if known else decide_without_token(forwarded, sign_in)
    if link_valid:
        return AccessDecision(Outcome.ENTER, in_frame=forwarded.frame is Frame.NAMED)
    token = next((each for each in tokens if is_current(each, record) and fits(each, forwarded)), None)
    if token is None:
        return decide_without_token(forwarded, sign_in)
    if forwarded.link or forwarded.entered:
        return AccessDecision(Outcome.DROP_LINK)
    if token.kind is Kind.PROBE:
        return AccessDecision(Outcome.ALLOW)
    if is_foreign(forwarded, token, own_origin):
        return AccessDecision(Outcome.FOREIGN)
    if forwarded.path == PORT_PATH and forwarded.by_person:
        return AccessDecision(Outcome.TO_PORT)
    return decide_known(forwarded, record, token, now)


def is_foreign(forwarded: ForwardedRequest, token: AccessToken, own_origin: str) -> bool:
    """Whether another page sends a request that could use the token. A browser adds its cookie to requests of any page,
    and names the page's origin; a token is sent on purpose."""
    by_browser = token.kind in BY_BROWSER
    other_origin = forwarded.origin != own_origin and (forwarded.origin or by_browser)
    return bool(forwarded.has_effects and other_origin) or (forwarded.embedded and by_browser)


def decide_known(forwarded: ForwardedRequest, record: Record, token: AccessToken, now: float) -> AccessDecision:
    """The decision on a request by somebody with a token that counts: whether there is anything to lead it to."""
    by_browser = token.kind in BY_BROWSER
    if forwarded.path == RETRY_PATH and forwarded.method == "POST":
        return AccessDecision(Outcome.RETRY, wake=True)
    if record.status is not Status.ACTIVE:
        wakes = forwarded.by_person and by_browser and record.status is Status.SLEEPING
        return AccessDecision(Outcome.NOT_UP, wake=wakes)
    if leads_nowhere(forwarded, record, now):
        return AccessDecision(Outcome.NOT_UP)
    aging = (now - token.issued_at) * RENEWALS > token.expires_at - token.issued_at
    # A cookie set by the answer to a handshake is lost.
    renew = by_browser and aging and not forwarded.websocket
    return AccessDecision(Outcome.ALLOW, use=forwarded.by_person, renew=renew, in_frame=token.kind is Kind.FRAME)


def leads_nowhere(forwarded: ForwardedRequest, record: Record, now: float) -> bool:
    """Whether the ingress may not have a way to the workspace, though it runs."""
    settling = forwarded.by_service and forwarded.wants_page and now < started_at(record) + SETTLING
    return settling or forwarded.nowhere


def decide_without_token(forwarded: ForwardedRequest, sign_in: bool) -> AccessDecision:
    """The decision on a request without a valid token. It depends on the request alone, so it is the same for a
    workspace that never existed."""
    if forwarded.link:
        return AccessDecision(Outcome.USED_LINK)
    if forwarded.entered:
        return AccessDecision(Outcome.NO_COOKIE)
    if sign_in and forwarded.by_person and forwarded.wants_page and forwarded.frame is Frame.NONE:
        return AccessDecision(Outcome.SIGN_IN_LOOP if forwarded.sign_ins >= MOST_SENT else Outcome.SIGN_IN)
    return AccessDecision(Outcome.NO_TOKEN)


def decide_agent(
    record: Record | None, token: AccessToken | None, *, keyed: bool, nowhere: bool = False
) -> AccessDecision:
    """The decision on a program's request for the agent, with a session token or (`keyed`) an API key that may see the
    session. `nowhere` as in `ForwardedRequest`."""
    allowed = keyed or (record is not None and token is not None and is_current(token, record))
    if record is None or record.status in GONE:
        return AccessDecision(Outcome.GONE if token or keyed else Outcome.NO_TOKEN)
    if not allowed:
        return AccessDecision(Outcome.NO_TOKEN)
    return AccessDecision(Outcome.ALLOW if record.status is Status.ACTIVE and not nowhere else Outcome.NOT_UP)


def started_at(record: Record) -> float:
    """When the latest start was done, in s since the epoch; 0 for not known."""
    ready = record.phases.get(PHASES[-1])
    return 0.0 if ready is None else record.requested_at + ready / 1000


def is_current(token: AccessToken, record: Record) -> bool:
    """Whether a token is for this session and has not been revoked. The observer's probe token is good for every access
    epoch: the observer does not know the epoch."""
    return token.uuid == record.uuid and (token.access_epoch == record.access_epoch or token.kind is Kind.PROBE)


def fits(token: AccessToken, forwarded: ForwardedRequest) -> bool:
    """Whether a token counts for this request. A cookie counts at the port that it was set for. A frame's cookie counts
    within frames only, as browsers that don't know `Partitioned` send it from everywhere. A request with effects is
    judged by its Origin."""
    in_frame = forwarded.frame is Frame.NAMED or forwarded.same_origin or forwarded.has_effects
    at_its_port = token.port == forwarded.port or token.kind not in BY_BROWSER
    return at_its_port and (token.kind is not Kind.FRAME or in_frame)
