"""The list of sessions."""

from __future__ import annotations

import time
from urllib.parse import parse_qsl, urlsplit

from flask import Blueprint, Response, g, make_response, render_template, request
from werkzeug.datastructures import MultiDict

from app.web.api import ApiError
from app.web.session_filters import TABS, Filters
from app.web.session_rows import PAGE, Found, counts, find, row_of

blp = Blueprint("web_sessions", __name__)

FILTERS_FORM = "filters"
"""The id of the form with the search, whose requests replace the address instead of adding one to the history."""

AHEAD = 5.0
"""s by which the clocks of Redis and of this process may differ: a page's stream begins that long before the page."""


@blp.get("/")
def index() -> Response:
    """The sessions, newest first."""
    wanted = Filters.of(request.args)
    response = make_response(
        render_template(
            "sessions.html",
            wanted=wanted,
            tabs=TABS,
            page_size=PAGE,
            after=f"{int((time.time() - AHEAD) * 1000)}-0",
            **_found(wanted),
        )
    )
    if request.headers.get("HX-Trigger") == FILTERS_FORM:
        response.headers["HX-Replace-Url"] = wanted.here
    return response


@blp.get("/sessions/counts")
def tabs() -> str:
    """The tabs with their counts."""
    wanted = Filters.of(request.args)
    return render_template("_session_tabs.html", wanted=wanted, tabs=TABS, counts=counts(wanted.user_id))


@blp.get("/sessions/new-ones")
def new_ones() -> str:
    """How many sessions were created since the page was made, whose newest row was `since`."""
    wanted, since = Filters.of(request.args), request.args.get("since", "")
    found = find(wanted)
    newer = [row["uuid"] for row in found.rows]
    count = newer.index(since) if since in newer else len(newer)
    return render_template("_new_sessions.html", wanted=wanted, count=count, many=count >= PAGE)


@blp.get("/sessions/<uuid>/row")
def row(uuid: str) -> str:
    """One row, empty once the session is gone."""
    try:
        return render_template("_session_row.html", row=row_of(uuid), wanted=Filters.of(shown_at()))
    except ApiError as error:
        if error.status != 404:
            raise
        return ""


def shown_at() -> MultiDict[str, str]:
    """The query of the page that a request of htmx came from."""
    query = urlsplit(request.headers.get("HX-Current-URL", "")).query
    return MultiDict(parse_qsl(query))


def _found(wanted: Filters) -> dict[str, object]:
    """What a page shows. A key that lists one user at a time has an empty page until that user is named."""
    if not wanted.user_id and not g.person.principal.lists_everything:
        return {"found": Found([], "", 0), "counts": None, "unnamed": True}
    try:
        return {"found": find(wanted), "counts": counts(wanted.user_id), "unnamed": False}
    except ApiError as error:
        if error.status != 400:
            raise
        return {"found": Found([], "", 0), "counts": None, "unnamed": False, "refused": error}
