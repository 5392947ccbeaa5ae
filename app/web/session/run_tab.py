"""Commands in a session's workspace: run one and see its output as it comes, see what ran, end it."""

from __future__ import annotations

from typing import Any

from flask import Response, render_template, request

from app.web.api import api
from app.web.session import commands
from app.web.session.blueprint import session_blueprint
from app.web.session.download import download
from app.web.session.output_stream import shown
from app.web.session.page import show
from app.web.session.streams import follow
from app.web.session.workspace import NO_WAKE, look

blp = session_blueprint("run")


@blp.get("/run")
def index(uuid: str) -> str:
    """The field for a command, and what runs and ran."""
    return show(uuid, "run", _listed)


@blp.get("/commands")
def listed(uuid: str) -> str:
    """The list, which changes with the session's state."""
    return render_template("session/_execs.html", uuid=uuid, **_listed(uuid))


@blp.post("/run")
def run(uuid: str) -> str:
    """Run a command, which wakes a sleeping session; answers its entry, which follows it. The same `id` again answers
    the same run."""
    # A browser sends CRLF for a new line, of which a shell would take the CR for a part of the command.
    wanted = {"command": request.form.get("command", "").replace("\r\n", "\n"), "cwd": request.form.get("cwd") or "."}
    wanted |= {"id": request.form["id"]} if request.form.get("id") else {}
    begun = commands.shown(api().post(f"/session/{uuid}/exec", wanted))
    return render_template("session/_exec.html", uuid=uuid, each=begun, whole=True, followed=True)


@blp.get("/run/<exec_id>")
def one(uuid: str, exec_id: str) -> str:
    """One command with its output; one that runs is followed if `follow` asks for it."""
    path = f"/session/{uuid}/exec/{exec_id}"
    found = look(uuid, lambda: {"each": commands.shown(api().get(path, **NO_WAKE))})
    return render_template("session/_exec.html", uuid=uuid, whole=True, followed="follow" in request.args, **found)


@blp.get("/run/<exec_id>/stream")
def stream(uuid: str, exec_id: str) -> Response:
    """The command's output as it comes."""
    return follow(f"/session/{uuid}/exec/{exec_id}", shown, **NO_WAKE)


@blp.get("/run/<exec_id>/output/<any(stdout, stderr):stream_name>")
def output(uuid: str, exec_id: str, stream_name: str) -> Response:
    """All that is kept of one of its streams."""
    return download(f"/session/{uuid}/exec/{exec_id}", f"{exec_id}.{stream_name}", stream=stream_name)


@blp.post("/run/<exec_id>/end")
def end(uuid: str, exec_id: str) -> str:
    """End a command with all it started; answers its entry, which follows one that still runs."""
    found = commands.shown(api().delete(f"/session/{uuid}/exec/{exec_id}"))
    return render_template("session/_exec.html", uuid=uuid, each=found, whole=True, followed=True, ending=True)


def _listed(uuid: str) -> dict[str, Any]:
    path = f"/session/{uuid}/exec"
    return look(uuid, lambda: {"execs": [*map(commands.shown, api().get(path, **NO_WAKE)["execs"])]})
