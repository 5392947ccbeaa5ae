"""Who did what."""

from __future__ import annotations

from workspaces.models import Audit, AuditEntry
from workspaces.pages import Pages
from workspaces.resources.base import Resource, operation


class AuditCalls(Resource):
    """The audit; it needs an admin key that is bound to no users."""

    @operation("listAudit")
    def list(
        self,
        *,
        uuid: str | None = None,
        key: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Pages[Audit, AuditEntry]:
        """Who did what to which session, newest first; `key` is the name of one. `limit` is of one page."""

        def fetch(cursor: str | None) -> Audit:
            return self._get(Audit, "/audit", query={"uuid": uuid, "key": key, "limit": limit, "cursor": cursor})

        return Pages(fetch, lambda page: page.entries, cursor)
