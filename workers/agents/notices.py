"""Tells people in their editor what happens to the session: it is about to sleep, or its files are older ones."""

from __future__ import annotations

import logging

from app.core.composition import Core
from app.core.errors import SessionError
from app.core.sessions.idle_policy import idle_verdict

log = logging.getLogger(__name__)


def warn_of_sleep(core: Core, uuid: str, now: float) -> None:
    """Make the session's agent announce the sleep, unless the session was used meanwhile. A failure is only logged, as
    the event stream has the notice too."""
    try:
        verdict = idle_verdict(core.store.get(uuid), core.policy, now)
        agent = core.inbox.agent(uuid)
        if agent is not None and verdict.next_check == verdict.sleeps_at > now:
            core.agents.notice(agent, verdict.sleeps_at - now)
    except SessionError as error:
        log.info("the idle notice was not delivered: %s", error, extra={"uuid": uuid})


def tell_files(core: Core, uuid: str) -> None:
    """Have the session's agent tell of when the files are that replaced those of a lost volume. A failure is only
    logged, as status and events have it too."""
    try:
        record, agent = core.store.get(uuid), core.inbox.agent(uuid)
        if agent is not None and record.files_of:
            core.agents.tell_files(agent, record.files_of)
    except SessionError as error:
        log.info("the notice of the restored files was not delivered: %s", error, extra={"uuid": uuid})
