"""The ports of a session's workspace: open one to a browser or to everybody, close it. They are shown with the
services."""

from __future__ import annotations

import time

from flask import render_template, request

from app.web.api import api
from app.web.session.blueprint import session_blueprint
from app.web.session.services_tab import live

blp = session_blueprint("ports")


@blp.post("/services/ports/<int:port>/open")
def open_one(uuid: str, port: int) -> str:
    """A page that leads to what is at the port by a one-time link, as for the workspace itself. One that was public is
    so no more."""
    return render_template("opening.html", uuid=uuid, url=api().post(f"/session/{uuid}/ports/{port}/open")["url"])


@blp.post("/services/ports/open")
def open_another(uuid: str) -> str:
    """The same, of any port: a program may begin to listen there later."""
    return open_one(uuid, request.form.get("port", 0, type=int))


@blp.post("/services/ports/<int:port>/publish")
def publish(uuid: str, port: int) -> str:
    """Show the port to everybody for so many `seconds`."""
    until = time.time() + request.form.get("seconds", 0, type=int)
    api().post(f"/session/{uuid}/ports/{port}/open", {"public_until": until})
    return live(uuid)


@blp.post("/services/ports/<int:port>/close")
def close(uuid: str, port: int) -> str:
    """Close the port."""
    api().delete(f"/session/{uuid}/ports/{port}")
    return live(uuid)
