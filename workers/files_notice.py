"""Tells in the editor of when the files are that replaced those of a lost volume."""

from __future__ import annotations

import logging

from app.core.composition import Core
from app.core.errors import SessionError

log = logging.getLogger(__name__)


def tell(core: Core, uuid: str) -> None:
    """Have the session's agent tell it. A failure is only logged, as status and events have it too."""
    try:
        record, agent = core.store.get(uuid), core.inbox.agent(uuid)
        if agent is not None and record.files_of:
            core.agents.tell_files(agent, record.files_of)
    except SessionError as error:
        log.info("the notice of the restored files was not delivered: %s", error, extra={"uuid": uuid})
