"""Ends the process when one of its threads dies.

Background threads renew leases, read the cluster's changes, and report that the observer works. Without one of them a
process would look healthy and do half of its work; restarted, it does all of it.
"""

from __future__ import annotations

import logging
import os
import threading

log = logging.getLogger(__name__)

STATUS = 70
"""The exit status: an internal error (sysexits.h)."""


def end_process_when_one_dies() -> None:
    """From now on, an exception that ends any thread but the main one ends this process, and those forked from it. At
    once, as all other work here may be killed at any line."""
    threading.excepthook = _end


def _end(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit:
        return
    name = ended.thread.name if ended.thread is not None else "(unknown)"
    error = (ended.exc_type, ended.exc_value or ended.exc_type(), ended.exc_traceback)
    log.critical("thread %s died; this process ends, to be restarted", name, exc_info=error)
    os._exit(STATUS)
