"""Dead letters: tasks that were given up."""

from __future__ import annotations

from workspaces.models import DeadLetter, DeadLetterList, Retried
from workspaces.pages import Pages
from workspaces.resources.base import Resource, operation, path


class DeadLetters(Resource):
    """The calls on dead letters, for admin keys that are bound to no users."""

    @operation("listDeadLetters")
    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Pages[DeadLetterList, DeadLetter]:
        """The tasks that were given up, newest first. `limit` is of one page."""

        def fetch(cursor: str | None) -> DeadLetterList:
            return self._get(DeadLetterList, "/dead-letters", query={"limit": limit, "cursor": cursor})

        return Pages(fetch, lambda page: page.dead_letters, cursor)

    @operation("retryDeadLetter")
    def retry(self, letter_id: str, *, idempotency_key: str | None = None) -> Retried:
        """Try the task again, and drop the dead letter; raises `StateConflict` if its session was changed since."""
        return self._post(Retried, path("dead-letters", letter_id, "retry"), idempotency_key=idempotency_key)

    @operation("deleteDeadLetter", "")
    def drop(self, letter_id: str) -> None:
        """Drop a dead letter; its session stays as it is."""
        self._http.text("DELETE", path("dead-letters", letter_id))
