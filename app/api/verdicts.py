"""What becomes of a visit: the one place that decides who gets into a workspace, and what wakes it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.api.visits import Visit
from app.sessions.model import GONE, PHASES, Record, Status
from app.sessions.passes import Kind, Pass

RETRY_PATH = "/.session/retry"
"""Where the waking page's button leads; the door answers it, the workspace never sees it."""

RENEWALS = 12
"""Into so many parts a cookie's life is cut: one from an earlier part than the present is renewed when it is used."""

SETTLING = 1.0
"""s after a start is done in which a Service's address may lead nowhere yet: kube-proxy acts once a second at most
(its `minSyncPeriod`). Measured: up to 0.25 s, in one wake of four."""


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
    USED_LINK = "used_link"
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Verdict:
    """`wake` the session first; `use`: somebody is there; `renew` the cookie."""

    outcome: Outcome
    wake: bool = False
    use: bool = False
    renew: bool = False


def judge(visit: Visit, record: Record | None, held: Pass | None, own_origin: str, linked: bool, now: float) -> Verdict:
    """The verdict on a visit of the workspace itself. `held` is the pass it brings, which may be of another session
    or door; `linked` says that its link is good."""
    if record is None or record.status in GONE:
        return Verdict(Outcome.GONE)
    held = held if held is not None and holds(held, record) else None
    if linked:
        return Verdict(Outcome.ENTER)
    if visit.link:
        return Verdict(Outcome.TIDY if held else Outcome.USED_LINK)
    if held is None:
        return Verdict(Outcome.NO_PASS)
    if held.kind is Kind.PROBE:
        return Verdict(Outcome.PASS)
    # A browser adds its cookie to whatever page asks, and says which one that is; a token is shown on purpose.
    strangers = visit.origin != own_origin and (visit.origin or held.kind is Kind.COOKIE)
    if (visit.acts and strangers) or (visit.embedded and held.kind is Kind.COOKIE):
        return Verdict(Outcome.FOREIGN)
    if visit.path == RETRY_PATH and visit.method == "POST":
        return Verdict(Outcome.RETRY, wake=True)
    by_person = visit.person and held.kind is Kind.COOKIE
    if record.status is not Status.ACTIVE:
        return Verdict(Outcome.NOT_UP, wake=by_person and record.status is Status.SLEEPING)
    if visit.by_service and visit.page and now < came_up(record) + SETTLING:
        return Verdict(Outcome.NOT_UP)
    # What comes back with a handshake's answer is lost.
    aging = (now - held.issued_at) * RENEWALS > held.expires_at - held.issued_at
    return Verdict(Outcome.PASS, use=visit.person, renew=held.kind is Kind.COOKIE and aging and not visit.socket)


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
