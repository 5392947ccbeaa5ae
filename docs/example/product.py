"""A small product on the service. Its users sign up, and each of their workspaces is a page: a chat beside the editor,
the preview of what runs there, files in and out, and commands such as the tests.

    pip install flask ./clients/python
    API_URL=http://127.0.0.1:8000 API_KEY=... flask --app docs/example/product.py run --port 5000

The service is told of it: LOGIN_URL=http://localhost:5000/sign-up EMBED_ORIGINS=http://localhost:5000
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import PurePath
from typing import Any

from flask import Flask, abort, redirect, render_template, request, session, url_for
from werkzeug import Response

from workspaces import Asleep, Client, Stream, WorkspacesError, events

client = Client()  # by API_URL and API_KEY
MOST_SHOWN = 100  # files of a workspace's folder

app = Flask(__name__, template_folder=".")
app.secret_key = os.environ.get("PRODUCT_SECRET") or secrets.token_hex(32)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"


@app.before_request
def only_from_our_pages() -> None:
    """A page in a workspace may be of the same site as we are, and then it could post with our user's cookie."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        abort(403, "Only our own page does that.")


def user() -> str:
    """Whoever is signed in; everybody else is asked to sign up, and comes back."""
    if "user" not in session:
        abort(redirect(url_for("sign_up", next=request.full_path)))
    return str(session["user"])


def own(uuid: str) -> str:
    """The uuid, of a workspace of the user's: anybody can write another's into an address."""
    name = user()
    found = client.sessions.get(uuid)
    if found.user_id != name or found.status == "terminated":
        abort(404, "There is no such workspace of yours.")
    return uuid


@app.route("/sign-up", methods=["GET", "POST"])
def sign_up() -> str | Response:
    """Ours, where your product has its own; also LOGIN_URL, to which browsers without a workspace's cookie are sent."""
    if request.method == "POST":
        session["user"] = "user-" + hashlib.sha256(request.form["name"].encode()).hexdigest()[:16]
    elif "user" not in session:
        return render_template("page.html")
    if uuid := request.args.get("workspace"):
        return redirect(client.sessions.open(own(uuid), path=request.args.get("return_to", "/")).url, 303)
    target = request.args.get("next", "/")
    return redirect(target if target.startswith("/") and target[1:2] not in ("/", "\\") else "/", 303)


@app.get("/")
def workspaces() -> str:
    return render_template("page.html", workspaces=list(client.sessions.list(user_id=user())))


@app.post("/workspaces")
def create() -> Response:
    return redirect(url_for("workspace", uuid=client.sessions.create(user()).uuid), 303)


@app.get("/workspaces/<uuid>")
def workspace(uuid: str) -> str:
    """The editor's frame shows how far the workspace is, and wakes it."""
    said = [each for each in client.messages.list(own(uuid)) if each.role in ("user", "assistant") and each.content]
    return render_template("page.html", uuid=uuid, editor=client.sessions.open(uuid).url, said=said)


@app.get("/workspaces/<uuid>/look")
def look(uuid: str) -> dict[str, Any]:
    """What is in the workspace and runs there, for the page. It wakes nothing."""
    try:
        ports = client.ports.list(own(uuid), wake=False).ports
        entries = list(islice(client.files.list(uuid, wake=False), MOST_SHOWN))
    except Asleep:
        return {"awake": False, "files": [], "ports": []}
    return {
        "awake": True,
        "files": [each.path for each in entries if each.type == "file"],
        "ports": [{"port": each.port, "state": each.state} for each in ports],
    }


@app.post("/workspaces/<uuid>/chat")
def chat(uuid: str) -> Response:
    """A prompt wakes a workspace that sleeps."""
    return Response(words(client.messages.stream(own(uuid), request.form["message"])), mimetype="text/plain")


@app.post("/workspaces/<uuid>/run")
def run(uuid: str) -> Response:
    return Response(words(client.execs.stream(own(uuid), request.form["command"])), mimetype="text/plain")


@app.post("/workspaces/<uuid>/preview")
def preview(uuid: str) -> Response:
    """The port has an origin of its own, and keeps its address when the workspace sleeps."""
    return redirect(client.ports.open(own(uuid), request.form.get("port", 0, type=int)).url, 303)


@app.post("/workspaces/<uuid>/files")
def upload(uuid: str) -> Response:
    to = own(uuid)
    for each in request.files.getlist("file"):
        client.files.write(to, PurePath(each.filename or "upload").name, each.stream)
    return Response("uploaded", mimetype="text/plain")


@app.get("/workspaces/<uuid>/files/<path:path>")
def download(uuid: str, path: str) -> Response:
    pieces = client.files.stream(own(uuid), path)
    # The first piece is read before the answer begins, so that a refusal is one.
    answer = Response(chain([next(pieces, b"")], pieces), mimetype="application/octet-stream")
    answer.call_on_close(pieces.close)
    answer.headers.set("Content-Disposition", "attachment", filename=PurePath(path).name)
    return answer


@app.post("/workspaces/<uuid>/sleep")
def sleep(uuid: str) -> Response:
    client.sessions.sleep(own(uuid), wait=60)
    return redirect("/", 303)


@app.post("/workspaces/<uuid>/delete")
def delete(uuid: str) -> Response:
    """Its files stay in a backup, of which a new workspace can be made."""
    client.sessions.delete(own(uuid), wait=60)
    return redirect("/", 303)


def words(stream: Stream[events.Event]) -> Iterator[str]:
    """What a prompt or a command says, as it comes."""
    try:
        with stream:
            for event in stream:
                match event:
                    case events.TokenEvent(again=True):
                        yield f"\n[again]\n{event.text}"
                    case events.TokenEvent() | events.OutputEvent():
                        yield event.text
                    case events.ToolCallEvent():
                        yield f"\n[{event.name}]\n"
                    case events.ExitEvent(exit_code=None):
                        yield f"\n[ended: {event.reason or event.signal}]\n"
                    case events.ExitEvent():
                        yield f"\n[exit code {event.exit_code}]\n"
                    case events.MessageEvent() if event.reason:
                        yield f"\n[{event.reason}]\n"
    except WorkspacesError as error:
        yield refused(error)[0]


@app.errorhandler(WorkspacesError)
def refused(error: WorkspacesError) -> tuple[str, int]:
    """The words for developers are for the log."""
    app.logger.warning("The service refused: %s", error)
    return "That did not work. Try again in a moment.", 404 if error.status == 404 else 503
