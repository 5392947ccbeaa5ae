"""Copies of the conversation at the manager's: loaded when the volume has none, saved while something changes."""

from __future__ import annotations

import json
import logging
import threading

from app.agent.documents import Documents, Unreadable, documents_from
from app.agent.gateway import Gateway, GatewayDown, waits
from app.agent.standing import NotKnown
from app.agent.state import State

log = logging.getLogger(__name__)

PATH = "/agent/v1/checkpoint"
NONE_KEPT = "checkpoint_not_found"
"""The code by which the manager says that it has none."""

TIMEOUT = 30.0
"""Seconds for a whole conversation."""


def load(gateway: Gateway, stopping: threading.Event) -> Documents | None:
    """The manager's checkpoint, None if it has none. Asks until it knows: beginning anew would overwrite it."""
    next_wait = waits()
    while not stopping.is_set():
        try:
            answer = gateway.call("GET", PATH, timeout=TIMEOUT)
        except GatewayDown:
            answer = None
        if answer is not None and answer.status == 404 and _says_none(answer.body):
            return None
        if answer is not None and answer.ok:
            try:
                return documents_from(json.loads(answer.body))
            except (ValueError, AttributeError, Unreadable):
                log.error("The checkpoint can't be read; the conversation begins anew")
                return None
        stopping.wait(next_wait())
    raise NotKnown


def _says_none(body: bytes) -> bool:
    """Whether this 404 is the manager's, and not that of something in front of it which knows no such path."""
    try:
        problem = json.loads(body)
    except ValueError:
        return False
    return isinstance(problem, dict) and problem.get("error") == NONE_KEPT


class Keeper:
    """Saves checkpoints: every `interval` seconds if something has changed, and when asked to."""

    def __init__(self, gateway: Gateway, state: State, interval: float) -> None:
        self._gateway = gateway
        self._state = state
        self._interval = interval
        self._lock = threading.Lock()
        self._saved = -1

    def run(self, stopping: threading.Event) -> None:
        """Save until `stopping`."""
        while not stopping.wait(self._interval):
            self.save()

    def save(self, timeout: float = TIMEOUT) -> bool:
        """Save if something has changed since the last time; whether the manager has all of it now."""
        with self._lock:
            changes = self._state.changes
            if changes == self._saved:
                return True
            documents = self._state.documents()
            if not documents.history and not documents.metadata["queue"]:
                return True
            try:
                answer = self._gateway.call("PUT", PATH, documents.as_json(), timeout=timeout)
            except GatewayDown as e:
                log.warning("No checkpoint could be saved: %s", e)
                return False
            if answer.ok:
                self._saved = changes
            else:
                log.warning("The gateway refused a checkpoint (status %d)", answer.status)
            return answer.ok
