"""Announces in the editor that the session is about to sleep."""

from __future__ import annotations

import logging

from app.core.composition import Core
from app.core.errors import SessionError
from app.core.sessions.idle_policy import idle_verdict

log = logging.getLogger(__name__)


def warn(core: Core, uuid: str, now: float) -> None:
    """Make the session's agent announce the sleep, unless the session was used meanwhile. A failure is only logged, as
    the event stream has the notice too."""
    try:
        verdict = idle_verdict(core.store.get(uuid), core.policy, now)
        agent = core.inbox.agent(uuid)
        if agent is not None and verdict.next_check == verdict.sleeps_at > now:
            core.agents.notice(agent, verdict.sleeps_at - now)
    except SessionError as error:
        log.info("the idle notice was not delivered: %s", error, extra={"uuid": uuid})
