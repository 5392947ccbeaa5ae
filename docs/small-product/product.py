"""A small product on the API: it signs its users in, lists their workspaces, and shows each with an editor and a chat.

    API_URL=http://127.0.0.1:8000 API_KEY=... flask --app docs/small-product/product.py run --port 5000

The service is told of it: LOGIN_URL=http://localhost:5000/sign-in EMBED_ORIGINS=http://localhost:5000
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from typing import Any
from urllib.parse import urlencode

import requests
from flask import Flask, abort, redirect, render_template_string, request, session
from werkzeug import Response

API, KEY = os.environ["API_URL"], os.environ["API_KEY"]
ANSWER_LIMIT = 120.0  # s that a prompt is waited for; it goes on without us

app = Flask(__name__)
app.secret_key = os.environ.get("PRODUCT_SECRET") or secrets.token_hex(32)
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"  # so that no other page posts the forms below

LAYOUT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Small product</title>
<body style="font-family: sans-serif">"""
SIGN_IN = """<form method="post"><label>Your name <input name="name" required></label><button>Sign in</button></form>"""
LIST = """<h1>Your workspaces</h1><ul>{% for each in workspaces %}
<li><a href="/workspaces/{{ each.uuid }}">{{ each.uuid }}</a> {{ each.status }},
<a href="{{ each.workspace_url }}">VS Code alone</a></li>
{% else %}<li>You have no workspace.</li>{% endfor %}</ul>
<form method="post" action="/workspaces"><button>New workspace</button></form>"""
WORKSPACE = """<a href="/">Your workspaces</a>
<form method="post" action="{{ base }}/chat" target="answer">
<label>Prompt <input name="message" required size="60"></label><button>Send</button></form>
<iframe name="answer" title="Answer" width="1200" height="120"></iframe>
<form method="post"><button formaction="{{ base }}/sleep">Sleep</button>
<button formaction="{{ base }}/delete">Delete</button></form>
<iframe title="VS Code" src="{{ link }}" width="1200" height="700"></iframe>"""


def ask(method: str, path: str, body: Any = None, **headers: str) -> Any:
    """The API's answer. What it refuses is shown as a page that says so, without the words that are for developers."""
    sent = {"X-API-Key": KEY, **{name.replace("_", "-"): text for name, text in headers.items()}}
    answer = requests.request(method, API + path, json=body, headers=sent, timeout=90)
    if not answer.ok:
        app.logger.warning("%s %s: %s", method, path, answer.text)
        abort(404 if answer.status_code == 404 else 503, "That did not work. Try again in a moment.")
    return answer.json()


def page(template: str, **values: Any) -> str:
    return render_template_string(LAYOUT + template, **values)


def user() -> str:
    """Whoever is signed in; everybody else is asked to, and comes back."""
    if "user" not in session:
        abort(redirect(f"/sign-in?{urlencode({'next': request.full_path})}"))
    return str(session["user"])


def own(uuid: str) -> str:
    """The user's workspace of that uuid: anybody can write another's into an address."""
    record = ask("GET", f"/session/{uuid}")["session"]
    if record["user_id"] != user() or record["status"] == "terminated":
        abort(404, "There is no such workspace of yours.")
    return f"/session/{uuid}"


@app.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> str | Response:
    """Ours, where your product's own sign-in stands; and LOGIN_URL, to which browsers without a cookie are sent."""
    if request.method == "POST":
        session["user"] = "user-" + hashlib.sha256(request.form["name"].encode()).hexdigest()[:16]
    elif "user" not in session:
        return page(SIGN_IN)
    if uuid := request.args.get("workspace"):
        return redirect(ask("POST", f"{own(uuid)}/open", {"path": request.args.get("return_to", "/")})["url"])
    target = request.args.get("next", "/")
    return redirect(target if target.startswith("/") and not target.startswith("//") else "/")


@app.get("/")
def workspaces() -> str:
    return page(LIST, workspaces=ask("GET", f"/sessions?{urlencode({'user_id': user()})}")["sessions"])


@app.post("/workspaces")
def create() -> Response:
    """At once to the new workspace: its address shows how far it is, and then the editor."""
    return redirect(ask("POST", "/session/create", {"user_id": user(), "open": True})["open_url"], 303)


@app.get("/workspaces/<uuid>")
def workspace(uuid: str) -> str:
    return page(WORKSPACE, base=f"/workspaces/{uuid}", link=ask("POST", f"{own(uuid)}/open")["url"])


@app.post("/workspaces/<uuid>/chat")
def chat(uuid: str) -> str:
    """A prompt wakes a workspace that sleeps. What is not answered in the call's time is asked for until it is."""
    path, prompt = own(uuid), {"message": request.form["message"], "id": secrets.token_hex(16)}
    sent, deadline = ask("POST", f"{path}/chat", prompt), time.monotonic() + ANSWER_LIMIT
    said = {"state": sent["status"], "response": sent.get("pod_response")}
    while said["state"] in ("queued", "delivered") and time.monotonic() < deadline:
        time.sleep(0.5)
        said = ask("GET", f"{path}/messages/{prompt['id']}")
    return page("<pre>{{ text }}</pre>", text=(said["response"] or {"text": "There is no answer."})["text"])


@app.post("/workspaces/<uuid>/sleep")
def sleep(uuid: str) -> Response:
    ask("POST", f"{own(uuid)}/sleep", Prefer="wait=60")
    return redirect("/", 303)


@app.post("/workspaces/<uuid>/delete")
def delete(uuid: str) -> Response:
    """Its files stay in a backup: POST /backups/{name}/restore makes a new workspace of it."""
    ask("DELETE", own(uuid), Prefer="wait=60")
    return redirect("/", 303)


@app.errorhandler(404)
@app.errorhandler(503)
def refused(error: Any) -> tuple[str, int]:
    return page("<p>{{ words }}</p>", words=error.description), error.code
