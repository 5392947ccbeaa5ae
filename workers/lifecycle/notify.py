"""Tells of the end of an action on a session: the one place that log, traces and metrics hang on, and what else is to
know of it.

The caller is the one attempt whose change of the record ended the action, and calls after that change; of a backup, a
restore point or a drill it is the one that held the lease. So a repeated task tells nothing, and an end is told once,
or, if its worker dies right then, not at all.

**To add a listener**, write it in a module of its own and add it to `LISTENERS`. It is called by the attempt, which may
hold the session's lease, or by the observer's loop: what may take longer than a request to Redis it hands on.

Two things that go with an end are not told from here (docs/adr/0048-one-notify-tells-the-end-of-an-action.md). The
events of the session's feed are written by the change of the record itself, in the same script, so that nobody sees one
without the other. The entries of the audit are written where the service decides to act: they say why, and an action
may end much later, elsewhere, or never.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from celery.exceptions import SoftTimeLimitExceeded

from app.core.composition import Core
from app.core.errors import SessionError
from workers.lifecycle import action_counters, action_log
from workers.lifecycle.ended import Ended

log = logging.getLogger(__name__)

Listener = Callable[[Core, Ended], None]
"""Raises what it likes: that is logged, and neither the action nor another listener notices."""

LISTENERS: tuple[Listener, ...] = (
    action_log.write_line,
    action_log.add_span,
    action_counters.count,
    action_counters.count_duration,
    action_counters.count_cause,
)
"""Told in this order."""


def notify(core: Core, ended: Ended) -> None:
    """Tell each listener. Raises nothing but the end of the task's time."""
    for listener in LISTENERS:
        try:
            listener(core, ended)
        except SoftTimeLimitExceeded:
            raise
        except SessionError as error:
            log.warning("%s not told to %s: %s", ended.action or "failure", listener.__name__, error, extra=_of(ended))
        except Exception:
            log.exception("%s not told to %s", ended.action or "failure", listener.__name__, extra=_of(ended))


def _of(ended: Ended) -> dict[str, str]:
    return {"uuid": ended.record.uuid}
