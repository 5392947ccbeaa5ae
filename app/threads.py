"""A thread that dies takes its process along.

The threads beside a loop renew leases, read the cluster's changes, report that the watcher sees. One that ended by an
unexpected error would leave a process that looks well and does half of its work. Started anew it does all of it.
"""

from __future__ import annotations

import logging
import os
import threading

log = logging.getLogger(__name__)

STATUS = 70
"""The exit status: an internal error (sysexits.h)."""


def end_process_when_one_dies() -> None:
    """From now on an exception that ends any thread but the main one ends this process, and those forked from it. At
    once: what runs beside it is made to be killed at any line."""
    threading.excepthook = _end


def _end(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit:
        return
    name = ended.thread.name if ended.thread is not None else "of unknown name"
    error = (ended.exc_type, ended.exc_value or ended.exc_type(), ended.exc_traceback)
    log.critical("the thread %s died; this process ends to be started anew", name, exc_info=error)
    os._exit(STATUS)
