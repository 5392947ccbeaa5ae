"""The files of a session's workspace: look, read, upload, download, move, delete."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from flask import Response, render_template, request

from app.core.files.model import shown
from app.http.query import queried
from app.web.api import ApiError, api
from app.web.session import streams
from app.web.session.blueprint import session_blueprint
from app.web.session.download import download
from app.web.session.file_look import listed, quoted, there
from app.web.session.page import show
from app.web.session.workspace import look
from app.web.session_actions import DONE
from app.web.sse import STILL_HERE, events, written

blp = session_blueprint("files")

PAUSE = 1.0
"""s between two times that a page asks for what is there."""

FOLLOWED = 900
"""s that a page follows changes: what it asks for then is use of the workspace, and it may be left open."""


@blp.get("/files")
def index(uuid: str) -> str:
    """What is at a path: a folder's content, or a file, as at the end of a link."""
    return _page(uuid, queried("path"))


@blp.get("/files/view")
def view(uuid: str) -> str:
    """The same of what was a file, so that nothing is uploaded there while the session sleeps."""
    return _page(uuid, queried("path"), of_file=True)


@blp.get("/files/here")
def here(uuid: str) -> str:
    """What changes of the page."""
    path = queried("path")
    found = look(uuid, partial(there, uuid, path))
    return render_template("session/_files.html", uuid=uuid, at=quoted(path), **found)


@blp.get("/files/follow")
def follow(uuid: str) -> str:
    """What follows the changes of a page that has been looked at for a moment: a stream that its browser has closed
    holds its place until the next time that something is sent."""
    return render_template("session/_follow.html", uuid=uuid, at=quoted(queried("path")), opened=int(time.time()))


@blp.get("/files/stream")
def stream(uuid: str) -> Response:
    """Says when a page that was `opened` then is to ask for what changed. Where there is nothing to follow it ends for
    good: a browser would ask again and again."""
    ends = request.args.get("opened", 0, type=int) + FOLLOWED
    if time.time() > ends:
        return streams.ended()
    return streams.follow(f"/session/{uuid}/changes", partial(changes, ends=ends), path=queried("path") or None)


@blp.get("/files/more")
def more(uuid: str) -> str:
    """The next page of a folder's content."""
    path = queried("path")
    page = listed(uuid, path, queried("cursor"))
    return render_template("session/_file_rows.html", uuid=uuid, at=quoted(path), **page)


@blp.get("/files/download")
def keep(uuid: str) -> Response:
    """A file."""
    path = queried("path")
    return download(f"/session/{uuid}/files/{path}", shown(path.rpartition("/")[2]))


@blp.get("/files/zip")
def keep_folder(uuid: str) -> Response:
    """A folder, as a zip."""
    path = queried("path")
    name = shown(path.rpartition("/")[2]) or uuid
    return download(f"/session/{uuid}/tree", f"{name}.zip", path=path or None, format="zip")


@blp.put("/files")
def write(uuid: str) -> Response:
    """Pass an upload on, unread. It replaces a file only with `replace=true`."""
    only_new = {} if request.args.get("replace") == "true" else {"If-None-Match": "*"}
    api().call("PUT", f"/session/{uuid}/files/{queried('path')}", headers=only_new, pass_body=True)
    return Response(status=204)


@blp.get("/files/folder")
def ask_for_folder(uuid: str) -> str:
    """The dialog for a new folder."""
    return render_template("session/_new_folder.html", uuid=uuid, at=quoted(queried("path")), given="")


@blp.post("/files/folder")
def make_folder(uuid: str) -> Response:
    """Make a folder in the one that is shown; answers that, or the dialog with what is wrong."""
    path, name = queried("path"), request.form.get("name", "")
    try:
        api().post(f"/session/{uuid}/files/{f'{path}/' if path else ''}{name}", {"make": "folder"})
    except ApiError as error:
        return _again("session/_new_folder.html", uuid=uuid, at=quoted(path), given=name, refused=error)
    return _changed(uuid, path)


@blp.get("/files/move")
def ask_to_move(uuid: str) -> str:
    """The dialog for a new name or place."""
    path = queried("path")
    return render_template("session/_rename.html", uuid=uuid, at=quoted(path), path=shown(path), given=shown(path))


@blp.post("/files/move")
def move(uuid: str) -> Response:
    """Move or rename what is at a path; answers the folder where it was, or the dialog with what is wrong."""
    path, target = queried("path"), request.form.get("move_to", "")
    try:
        api().post(f"/session/{uuid}/files/{path}", {"move_to": target})
    except ApiError as error:
        values = {"at": quoted(path), "path": shown(path), "given": target, "refused": error}
        return _again("session/_rename.html", uuid=uuid, **values)
    return _changed(uuid, path.rpartition("/")[0])


@blp.post("/files/delete")
def delete(uuid: str) -> Response:
    """Delete what is at a path; answers the folder where it was."""
    path = queried("path")
    api().delete(f"/session/{uuid}/files/{path}")
    return _changed(uuid, path.rpartition("/")[0])


def changes(pieces: Iterable[bytes], ends: float) -> Iterator[bytes]:
    """The events for the page, of a stream of the API, and at the time `ends` that there are no more. What changes
    within `PAUSE` after one comes together."""
    for event in events(pieces):
        if time.time() > ends:
            yield written("", streams.END)
            return
        if event is None or event.type == "asleep":
            yield STILL_HERE
        else:
            yield written(event.id, "changed")
            time.sleep(PAUSE)


def _page(uuid: str, path: str, *, of_file: bool = False) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    crumbs = [(shown(part), quoted("/".join(parts[:count]))) for count, part in enumerate(parts, 1)]
    values = {"at": quoted(path), "crumbs": crumbs, "of_file": of_file}
    return show(uuid, "files", lambda uuid: look(uuid, partial(there, uuid, path)), **values)


def _changed(uuid: str, folder: str) -> Response:
    """The page of a folder in which something was changed, in the place of the page where that was asked for."""
    address = f"/sessions/{uuid}/files" + (f"?path={quoted(folder)}" if folder else "")
    return Response(_page(uuid, folder), headers={"HX-Replace-Url": address, "HX-Trigger": DONE})


def _again(template: str, **values: Any) -> Response:
    """The dialog again."""
    headers = {"HX-Retarget": "#dialog", "HX-Reswap": "innerHTML"}
    return Response(render_template(template, **values), headers=headers)
