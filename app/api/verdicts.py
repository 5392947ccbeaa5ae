"""What becomes of a visit: the one place that decides who gets into a workspace, and what wakes it. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.api.visits import Frame, Visit
from app.sessions.model import GONE, PHASES, Record, Status
from app.sessions.passes import BY_BROWSER, Kind, Pass

RETRY_PATH = "/.session/retry"
"""Where the waking page's button leads; the door answers it, the workspace never sees it."""

RENEWALS = 12
"""Into so many parts a cookie's life is cut: one from an earlier part than the present is renewed when it is used."""

SETTLING = 1.0
"""s after a start is done in which a Service's address may lead nowhere yet: kube-proxy acts once a second at most
(its `minSyncPeriod`). Measured: up to 0.25 s, in one wake of four."""

MOST_SENT = 5
"""How often within a minute a browser is sent to sign in: it gives up by itself after some 20 redirects, and says
less."""


class Outcome(StrEnum):
    """What the visitor is told."""

    PASS = "pass"
    ENTER = "enter"
    """A good link: a cookie, and the same address without the link."""
    TIDY = "tidy"
    """A link that is no good, of somebody who needs none: the same address without it."""
    RETRY = "retry"
    """Woken by the button; back to the workspace."""
    NOT_UP = "not_up"
    GONE = "gone"
    NO_PASS = "no_pass"
    SIGN_IN = "sign_in"
    """No pass, and the product asks who it is (LOGIN_URL)."""
    SIGN_IN_LOOP = "sign_in_loop"
    """It was sent there again and again, and comes back without a link."""
    NO_COOKIE = "no_cookie"
    """It followed a good link, and its browser kept no cookie."""
    USED_LINK = "used_link"
    FOREIGN = "foreign"
    FRAMED = "framed"
    """Another page wants to show it in a frame, and may not."""


@dataclass(frozen=True)
class Verdict:
    """`wake` the session first; `use`: somebody is there; `renew` the cookie, which is one for a frame (`in_frame`) or
    not."""

    outcome: Outcome
    wake: bool = False
    use: bool = False
    renew: bool = False
    in_frame: bool = False


def judge(
    visit: Visit,
    record: Record | None,
    shown: Sequence[Pass],
    own_origin: str,
    linked: bool,
    now: float,
    *,
    sign_in: bool = False,
) -> Verdict:
    """The verdict on a visit of the workspace itself. `shown` are the passes it brings, which may be of another session
    or door; `linked` says that its link is good, `sign_in` that the product asks strangers who they are."""
    # Before anything else: what it is told depends on nothing that is anybody's, so any page may show it.
    if visit.frame is Frame.FOREIGN and all(each.kind in BY_BROWSER for each in shown):
        return Verdict(Outcome.FRAMED)
    if record is None or record.status in GONE:
        # Others are told what they are told of a workspace that is there: it is no stranger's affair which ones are.
        known = linked or any(each.uuid == visit.uuid for each in shown)
        return Verdict(Outcome.GONE) if known else turned_away(visit, sign_in)
    if linked:
        return Verdict(Outcome.ENTER, in_frame=visit.frame is Frame.NAMED)
    held = next((each for each in shown if holds(each, record) and fits(each, visit)), None)
    if held is None:
        return turned_away(visit, sign_in)
    if visit.link or visit.entered:
        return Verdict(Outcome.TIDY)
    if held.kind is Kind.PROBE:
        return Verdict(Outcome.PASS)
    # A browser adds its cookie to whatever page asks, and says which one that is; a token is shown on purpose.
    by_browser = held.kind in BY_BROWSER
    strangers = visit.origin != own_origin and (visit.origin or by_browser)
    if (visit.acts and strangers) or (visit.embedded and by_browser):
        return Verdict(Outcome.FOREIGN)
    if visit.path == RETRY_PATH and visit.method == "POST":
        return Verdict(Outcome.RETRY, wake=True)
    by_person = visit.person and by_browser
    if record.status is not Status.ACTIVE:
        return Verdict(Outcome.NOT_UP, wake=by_person and record.status is Status.SLEEPING)
    if visit.by_service and visit.page and now < came_up(record) + SETTLING:
        return Verdict(Outcome.NOT_UP)
    # What comes back with a handshake's answer is lost.
    aging = (now - held.issued_at) * RENEWALS > held.expires_at - held.issued_at
    renew = by_browser and aging and not visit.socket
    return Verdict(Outcome.PASS, use=visit.person, renew=renew, in_frame=held.kind is Kind.FRAME)


def turned_away(visit: Visit, sign_in: bool) -> Verdict:
    """The verdict on a visitor without a pass, which depends on nothing but the visit: of a workspace that never was it
    is the same."""
    if visit.link:
        return Verdict(Outcome.USED_LINK)
    if visit.entered:
        return Verdict(Outcome.NO_COOKIE)
    if sign_in and visit.person and visit.page and visit.frame is Frame.NONE:
        return Verdict(Outcome.SIGN_IN_LOOP if visit.sent >= MOST_SENT else Outcome.SIGN_IN)
    return Verdict(Outcome.NO_PASS)


def judge_agent(record: Record | None, held: Pass | None, keyed: bool) -> Verdict:
    """The verdict on a visit of the agent, by a program: with a session token, or (`keyed`) an API key that may see
    the session."""
    allowed = keyed or (record is not None and held is not None and holds(held, record))
    if record is None or record.status in GONE:
        return Verdict(Outcome.GONE if allowed or held or keyed else Outcome.NO_PASS)
    if not allowed:
        return Verdict(Outcome.NO_PASS)
    return Verdict(Outcome.PASS if record.status is Status.ACTIVE else Outcome.NOT_UP)


def came_up(record: Record) -> float:
    """When the latest start was done, in s since the epoch; 0 for not known."""
    ready = record.phases.get(PHASES[-1])
    return 0.0 if ready is None else record.requested_at + ready / 1000


def holds(held: Pass, record: Record) -> bool:
    """Whether a pass is for this session, and was not taken back. The manager's own is for any door: it knows none."""
    return held.uuid == record.uuid and (held.door == record.door or held.kind is Kind.PROBE)


def fits(held: Pass, visit: Visit) -> bool:
    """Whether a pass counts for such a visit: that of a frame within frames only, as browsers that don't know
    `Partitioned` send it from everywhere. What acts is judged by its Origin."""
    return held.kind is not Kind.FRAME or visit.frame is Frame.NAMED or visit.same_origin or visit.acts
