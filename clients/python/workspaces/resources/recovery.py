"""The recovery of sessions of which only the store is left."""

from __future__ import annotations

import time

from workspaces.errors import WaitTimedOut
from workspaces.models import Recovery as Shown
from workspaces.resources.base import Resource, operation

POLL = 1.0
"""s between two looks at a recovery that goes on."""


class Recovery(Resource):
    """Brings sessions back when Redis and their volumes are lost. For admin keys that are bound to no users."""

    @operation("recoverSessions")
    def start(self, *, dry_run: bool = False, idempotency_key: str | None = None) -> Shown:
        """Bring back every session that has restore points and neither record nor workspace; with `dry_run` only count
        them. Never while volumes are only out of sight: their files are newer."""
        return self._post(Shown, "/recovery", body={"dry_run": dry_run}, idempotency_key=idempotency_key)

    @operation("showRecovery")
    def show(self) -> Shown:
        """The last recovery, and how far it is."""
        return self._get(Shown, "/recovery")

    def wait(self, *, timeout: float = 3_600.0) -> Shown:
        """The last recovery, once it is done; raises `WaitTimedOut` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (shown := self.show()).status == "running":
            if time.monotonic() >= deadline:
                raise WaitTimedOut(f"The recovery is not done after {timeout:.0f} s. It goes on by itself.")
            self._http.sleep(POLL)
        return shown
