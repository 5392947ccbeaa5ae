"""Telling whoever has the editor open that the session is about to sleep."""

from __future__ import annotations

import logging

from app.sessions.core import Core
from app.sessions.errors import SessionError
from app.sessions.verdict import idle_verdict

log = logging.getLogger(__name__)


def warn(core: Core, uuid: str, now: float) -> None:
    """Have the session's agent announce its sleep, unless the session was used since that was found to be due. Lost
    on the way, all that is lost is a notice: the event stream has it."""
    try:
        verdict = idle_verdict(core.store.get(uuid), core.policy, now)
        agent = core.inbox.agent(uuid)
        if agent is not None and verdict.next_check == verdict.sleeps_at > now:
            core.agents.notice(agent, verdict.sleeps_at - now)
    except SessionError as error:
        log.info("not warned: %s", error, extra={"uuid": uuid})
