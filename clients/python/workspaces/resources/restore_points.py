"""Restore points: list, make, go back to one, fork from one. They end with their session."""

from __future__ import annotations

from workspaces.models import Action, ForkedSession, RestorePoint, RestorePointList, Session
from workspaces.pages import Pages
from workspaces.resources.base import Resource, given, operation, path
from workspaces.resources.sessions import session_of


class RestorePoints(Resource):
    """The calls on restore points."""

    @operation("listRestorePoints")
    def list(
        self, uuid: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Pages[RestorePointList, RestorePoint]:
        """A session's restore points, newest first. `limit` is of one page."""

        def fetch(cursor: str | None) -> RestorePointList:
            query = {"limit": limit, "cursor": cursor}
            return self._get(RestorePointList, path("session", uuid, "restore-points"), query=query)

        return Pages(fetch, lambda page: page.restore_points, cursor)

    @operation("makeRestorePoint")
    def create(self, uuid: str, *, wait: float | None = None, idempotency_key: str | None = None) -> Action:
        """Make a restore point while the session goes on; a `RestorePointEvent` reports the end. Its `status` is `done`
        if it was made within `wait`. Raises `RestorePointsOff` where the service makes none."""
        where = path("session", uuid, "restore-points")
        return self._post(Action, where, wait=wait, idempotency_key=idempotency_key)

    @operation("rollBackSession")
    def roll_back(
        self,
        uuid: str,
        *,
        restore_point: str | None = None,
        message_id: str | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Roll a session back in place, to a restore point or to before a message; `rollback_to` is None in the answer
        if that is done. Its present state is saved first. Raises `RestorePointNotFound`, and `RestorePointLate` where a
        message was not undone, as that takes longer than `wait`: the next call uses what is saved by then."""
        body = given(restore_point=restore_point, message_id=message_id)
        where = path("session", uuid, "rollback")
        return session_of(self._http.json("POST", where, body=body, wait=wait, idempotency_key=idempotency_key))

    @operation("forkSession")
    def fork(
        self,
        uuid: str,
        *,
        user_id: str | None = None,
        restore_point: str | None = None,
        message_id: str | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> ForkedSession:
        """Create a session with the files of a restore point, by default one of now; with HOME and the conversation if
        it is for the same user. Raises `RestorePointNotFound`, and as `Sessions.create`."""
        body = given(user_id=user_id, restore_point=restore_point, message_id=message_id)
        where = path("session", uuid, "fork")
        return self._post(ForkedSession, where, body=body, wait=wait, idempotency_key=idempotency_key)
