"""Ending the connections that were made with passes since taken back."""

from __future__ import annotations

from app.sessions.core import Core
from app.sessions.errors import AgentUnavailable, SessionNotFound
from app.sessions.model import Status


def lock_out(core: Core, uuid: str) -> None:
    """Have the agent of a session that is up end every connection to its workspace. One that isn't has none, and
    without a SECRET_KEY nobody got in. Raises `AgentUnavailable` when that is to be tried again."""
    try:
        up = core.store.get(uuid).status is Status.ACTIVE
    except SessionNotFound:
        return
    if not up or not core.passes.can_sign:
        return
    agent = core.inbox.agent(uuid)
    if agent is None:
        raise AgentUnavailable(f"The agent of {uuid} has not called yet.")
    core.agents.lock_out(agent)
