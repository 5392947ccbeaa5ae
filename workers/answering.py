"""What the web process asks for and waits for: see `app.sessions.tickets`. Whoever asked may have left; then nothing is
done, so that a task that comes late or twice does no harm."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.sessions.core import Core
from app.sessions.errors import SessionError, StateUnavailable
from app.sessions.stored import Direct

if TYPE_CHECKING:
    from workers.runtime.readers import Readers

log = logging.getLogger(__name__)


def read(core: Core, readers: Readers, name: str, ticket: str) -> None:
    """Start a reader of a backup, and answer where it is and what opens it."""
    if not core.tickets.wanted(ticket):
        return
    try:
        reader = readers.start(name)
    except StateUnavailable:
        raise
    except SessionError as error:
        log.warning("no reader of %s: %s", name, error)
        core.tickets.refuse(ticket, error)
        return
    if not core.tickets.answer(ticket, reader.answer):
        readers.end(reader)


def delete(core: Core, name: str, ticket: str) -> None:
    """Delete a backup and its place in the index, unless a session needs it."""
    if not core.tickets.wanted(ticket):
        return
    try:
        Direct(core.files, core.backups).delete(name)
    except StateUnavailable:
        raise
    except SessionError as error:
        core.tickets.refuse(ticket, error)
        return
    core.tickets.answer(ticket, {})
