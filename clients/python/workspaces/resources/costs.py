"""What sessions used and cost."""

from __future__ import annotations

from datetime import date

from workspaces.models import CostRow, Costs, SessionCost
from workspaces.pages import Pages
from workspaces.resources.base import Resource, operation, path

CSV = "text/csv"


class CostCalls(Resource):
    """The calls on costs. `first` and `last` are days in UTC, and both count; by default this month until today."""

    @operation("getSessionCost")
    def of_session(self, uuid: str, *, first: date | None = None, last: date | None = None) -> SessionCost:
        """What one session used and cost, also after its deletion."""
        return self._get(SessionCost, path("session", uuid, "cost"), query=days(first, last))

    @operation("listCosts")
    def list(
        self,
        *,
        group_by: str | None = None,
        user_id: str | None = None,
        label: str | None = None,
        first: date | None = None,
        last: date | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Pages[Costs, CostRow]:
        """What all sessions used and cost, by `session`, `user`, `size`, `day`, or a label as `label:course`; `label`
        chooses sessions, as `course=python-101`. Rows without any use are left out. `limit` is of one page."""

        def fetch(cursor: str | None) -> Costs:
            chosen = {"group_by": group_by, "user_id": user_id, "label": label, "limit": limit, "cursor": cursor}
            return self._get(Costs, "/costs", query=chosen | days(first, last))

        return Pages(fetch, lambda page: page.rows, cursor)

    @operation("listCosts", CSV)
    def csv(
        self,
        *,
        group_by: str | None = None,
        user_id: str | None = None,
        label: str | None = None,
        first: date | None = None,
        last: date | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> tuple[str, str | None]:
        """One page of `list` as CSV, and the cursor of the next."""
        chosen = {"group_by": group_by, "user_id": user_id, "label": label, "limit": limit, "cursor": cursor}
        response = self._http.whole("GET", "/costs", query=chosen | days(first, last), accept=CSV)
        return response.text, response.headers.get("Next-Cursor")


def days(first: date | None, last: date | None) -> dict[str, str | None]:
    """The query for a time."""
    return {"from": first.isoformat() if first else None, "to": last.isoformat() if last else None}
