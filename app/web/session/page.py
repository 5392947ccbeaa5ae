"""What all tabs of a session's page share: the header, the tabs, the session's actions, and the page's one stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, g, render_template, request

from app.core.sessions.model import Status
from app.look.words import restored_files
from app.web.api import api
from app.web.guard import while_signed_in
from app.web.relay import relayed
from app.web.session.blueprint import session_blueprint
from app.web.session.phases import steps_of
from app.web.sse import events

STATES = {
    "created": "It starts for the first time.",
    "waking": "Its editor and its agent start.",
    "active": "Its editor and its agent run.",
    "sleeping": "Nothing runs, and its files are kept. Opening it or a prompt wakes it.",
    "terminating": "It is being deleted.",
    "terminated": "It was deleted. What is kept of it is listed under Backups.",
    "failed": "It stays as it is until it is woken or deleted.",
}

ARCHIVED = (
    "Nothing runs, and its files are in the archive. Opening it or a prompt restores them first, which takes longer."
)


@dataclass(frozen=True)
class Tab:
    """A tab: the last part of its address, its label, and whether only who sees all sessions may see it."""

    path: str
    label: str
    of_all: bool = False


TABS = (
    Tab("", "Overview"),
    Tab("chat", "Chat"),
    Tab("files", "Files"),
    Tab("run", "Run"),
    Tab("services", "Services and ports"),
    Tab("backups", "Backups"),
    Tab("restore-points", "Restore points"),
    Tab("cost", "Cost"),
    Tab("activity", "Activity"),
    Tab("events", "Events"),
    Tab("audit", "Audit", of_all=True),
)

blp = session_blueprint("page")

ENDED = b"event: ended\ndata: 1\n\n"
"""Closes the page's stream: after the last event of a deleted session a browser would connect again and again."""


def show(uuid: str, tab: str, read: Callable[[str], dict[str, Any]], **values: Any) -> str:
    """A tab with what `read` finds: alone where the page has asked for it, else within the page."""
    template = f"session/{tab or 'overview'}.html"
    values |= {"uuid": uuid, "tab": tab, "tabs": visible_tabs()}
    if request.headers.get("HX-Target") == "tab" and not request.headers.get("HX-History-Restore-Request"):
        return render_template(template, layout="session/_tab.html", **values | read(uuid))
    # Before anything is read, so that the stream brings what happens while the page is put together.
    after = newest_event(uuid)
    values |= head_of(uuid)
    return render_template(template, layout="session/page.html", after=after, **values | read(uuid))


def visible_tabs() -> list[Tab]:
    """The tabs that the person may see."""
    sees_all = g.person.principal.lists_everything
    return [tab for tab in TABS if sees_all or not tab.of_all]


def newest_event(uuid: str) -> str:
    """The id of the session's newest event."""
    events = api().get(f"/session/{uuid}/events/past", limit=1)["events"]
    return events[0]["id"] if events else "0-0"


def head_of(uuid: str) -> dict[str, Any]:
    """What the header shows."""
    found = api().get(f"/session/{uuid}")
    return {"found": found, "state": state_in_words(found), "steps": steps_of(found["phases"])}


@blp.get("/head")
def head(uuid: str) -> str:
    """The header, which changes with the session's state."""
    return render_template("session/_head.html", uuid=uuid, **head_of(uuid))


@blp.post("/<any(wake, sleep):action>")
def act(uuid: str, action: str) -> str:
    """Wake the session, or put it to sleep; answers the header."""
    api().post(f"/session/{uuid}/{action}")
    return head(uuid)


@blp.post("/open")
def open_workspace(uuid: str) -> str:
    """A page that leads to the workspace by a one-time link. A redirect would be refused: the policy of the page with
    the form lets forms lead to the dashboard only."""
    return render_template("opening.html", uuid=uuid, url=api().post(f"/session/{uuid}/open")["url"])


@blp.get("/stream")
def stream(uuid: str) -> Response:
    """The session's events after `after`; a browser that lost the connection says itself after which."""
    after = request.headers.get("Last-Event-ID") or request.args.get("after", "0-0")
    over = api().get(f"/session/{uuid}")["session"]["status"] == Status.TERMINATED
    streamed = api().open("GET", f"/session/{uuid}/events", headers={"Last-Event-ID": after})
    pieces = _until_over(streamed.pieces, over=over) if streamed.status == 200 else streamed.pieces
    return relayed(streamed, while_signed_in(pieces))


def _until_over(pieces: Iterable[bytes], *, over: bool) -> Iterator[bytes]:
    """The pieces, each with whole events, and `ENDED` once the session is deleted; `over`: it was before."""
    for piece in pieces:
        yield piece
        over = over or any(event is not None and _is_last(event.type, event.data) for event in events([piece]))
    if over:
        yield ENDED


def _is_last(kind: str, data: Mapping[str, Any]) -> bool:
    return kind == "state" and data.get("status") == Status.TERMINATED


def state_in_words(found: Mapping[str, Any]) -> str:
    """One sentence for the answer of `GET /session/{uuid}`; a reason, where there is one, comes besides."""
    status = found["session"]["status"]
    if status == "sleeping" and found["replicas"]:
        return "Its processes are about to end."
    if status == "sleeping" and found["session"].get("tier") == "archived":
        return ARCHIVED
    if brings := found["session"].get("restoring"):
        return f"Restoring {restored_files(brings)}."
    return STATES.get(status, "")
