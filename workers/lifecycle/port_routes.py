"""Has the ingress lead to the opened ports of a session."""

from __future__ import annotations

import logging

from app.core.composition import Core
from app.core.errors import PermanentError, SessionNotFound
from app.core.redis import keys
from app.core.sessions.model import GONE
from workers.runtime.base import Runtime

log = logging.getLogger(__name__)


def lead(core: Core, runtime: Runtime, uuid: str) -> None:
    """Have the ingress lead to the opened ports of the record, and to none of a session that is deleted. It stays due
    until that is done; raises `RetryableError` when it can't be now. What a cluster refuses is logged."""
    try:
        record = core.store.get(uuid)
        runtime.lead_ports(uuid, [] if record.status in GONE else [each.port for each in record.opened_ports])
        core.openings.led(record)
    except SessionNotFound:
        core.store.defer(keys.OPENINGS, uuid, 0.0)
    except PermanentError as error:
        log.warning("the ingress does not lead to the opened ports: %s", error, extra={"uuid": uuid})
