"""What a person does with sessions of the list: create, open, wake, put to sleep, delete; with one or many at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, g, make_response, render_template, request
from werkzeug.datastructures import MultiDict

from app.core.sessions.model import PHASES, SIZES, UUID_PATTERN
from app.web.api import ApiError, api
from app.web.risk import Risk, risk_of
from app.web.session_rows import PAGE

blp = Blueprint("web_session_actions", __name__)

FIRST_USER = "me"
"""The user of the first workspace, which somebody who only looks around creates with one click."""

CHANGED = "list-changed"
"""The event at which the list reloads."""

DONE = "dialog-done"
"""The event at which the dialog closes."""

BACKUPS = ("true", "partial", "false")


@dataclass(frozen=True)
class Outcome:
    """What became of one action on several sessions: how many were `done`, and how many were refused for each reason,
    with the uuid if it is only one."""

    done: int
    refused: dict[str, list[str]]


@blp.get("/sessions/create")
def ask_to_create() -> str:
    """The dialog for a new session."""
    user_id = request.args.get("user_id", "") or g.person.principal.user_prefix
    return render_template("_create_session.html", given={"user_id": user_id, "size": "standard"}, sizes=SIZES)


@blp.post("/sessions/create")
def create() -> Response:
    """Create a session of the dialog's fields; the dialog again, with what is wrong with them."""
    given = request.form.to_dict()
    try:
        body = {"user_id": given.get("user_id", "").strip(), "size": given.get("size", "standard")}
        made = api().post("/session/create", body | labels_of(given.get("labels", "")))
    except ApiError as error:
        return make_response(render_template("_create_session.html", given=given, sizes=SIZES, refused=error))
    return noticed("_created.html", made=made)


@blp.post("/sessions/first")
def create_first() -> str:
    """Create the first workspace of an empty system, and show its start."""
    user_id = g.person.principal.user_prefix + FIRST_USER
    return _first(api().post("/session/create", {"user_id": user_id})["uuid"])


@blp.get("/sessions/<uuid>/first")
def show_first(uuid: str) -> str:
    """The start of the first workspace; asks again until it is over."""
    return _first(uuid)


@blp.post("/sessions/open")
def open_workspace() -> str:
    """Lead the browser into a workspace. It is a page that goes on by itself: after a form, a redirect to another
    origin would be against the page's `form-action`."""
    (uuid,) = chosen(request.form)
    return render_template("opening.html", uuid=uuid, url=api().post(f"/session/{uuid}/open")["url"])


@blp.post("/sessions/wake")
def wake() -> Response:
    """Wake the chosen sessions."""
    outcome = each(chosen(request.form), lambda uuid: api().post(f"/session/{uuid}/wake"))
    return noticed("_outcome.html", outcome=outcome, words=("wakes up", "wake up"))


@blp.post("/sessions/sleep")
def sleep() -> Response:
    """Put the chosen sessions to sleep."""
    outcome = each(chosen(request.form), lambda uuid: api().post(f"/session/{uuid}/sleep"))
    return noticed("_outcome.html", outcome=outcome, words=("goes to sleep", "go to sleep"))


@blp.get("/sessions/delete")
def ask_to_delete() -> str:
    """The dialog that shows what a deletion would put at risk."""
    risks = _risks(chosen(request.args))
    return _ask_to_delete(risks, "partial" if all(each.unreadable for each in risks) else "true")


@blp.post("/sessions/delete")
def delete() -> Response:
    """Delete the chosen sessions. Without a backup, or with all that is kept of them, only if the person has typed what
    is deleted."""
    uuids, backup, erase = chosen(request.form), request.form.get("backup", "true"), "erase" in request.form
    if backup not in BACKUPS:
        raise ApiError(400, "invalid_request", "Choose whether the files are backed up.", {})
    if (erase or backup == "false") and request.form.get("confirm", "").strip() != confirmation(uuids):
        text = f"Type {confirmation(uuids)} to {'erase everything' if erase else 'delete without a backup'}."
        return make_response(_ask_to_delete(_risks(uuids), backup, text, erase=erase))
    how = {"backup": backup} | ({"erase": "true"} if erase else {})
    outcome = each(uuids, lambda uuid: api().delete(f"/session/{uuid}", **how))
    what = "erased" if erase else "deleted" if backup == "false" else "backed up, and then deleted"
    return noticed("_outcome.html", outcome=outcome, words=(f"is being {what}", f"are being {what}"))


def each(uuids: list[str], act: Callable[[str], Any]) -> Outcome:
    """Do something with each of the sessions, whatever becomes of the others."""
    refused: dict[str, list[str]] = {}
    for uuid in uuids:
        try:
            act(uuid)
        except ApiError as error:
            refused.setdefault(error.detail.replace(uuid, "…"), []).append(uuid)
    return Outcome(len(uuids) - sum(map(len, refused.values())), refused)


def chosen(args: MultiDict[str, str]) -> list[str]:
    """The uuids that a form or an address names, at most a page of them; raises `ApiError`."""
    uuids = list(dict.fromkeys(args.getlist("uuid")))
    if not 0 < len(uuids) <= PAGE or not all(UUID_PATTERN.fullmatch(uuid) for uuid in uuids):
        raise ApiError(400, "invalid_request", f"Choose between one and {PAGE} sessions.", {})
    return uuids


def confirmation(uuids: list[str]) -> str:
    """What a person types to delete these without a backup: the uuid, or how many they are."""
    return uuids[0] if len(uuids) == 1 else f"{len(uuids)} sessions"


def labels_of(text: str) -> dict[str, dict[str, str]]:
    """The labels that a person typed as `name=value`, with commas or on lines of their own; raises `ApiError`."""
    pairs = [part.strip() for line in text.splitlines() for part in line.split(",") if part.strip()]
    names = Counter(pair.partition("=")[0].strip() for pair in pairs)
    if any("=" not in pair for pair in pairs) or any(count > 1 for count in names.values()):
        detail = "Some values are invalid."
        raise ApiError(400, "invalid_request", detail, {"labels": ["Write each label once, as course=python-101."]})
    labels = {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in pairs)}
    return {"labels": labels} if labels else {}


def noticed(template: str, **values: Any) -> Response:
    """A notice about what was done; the dialog closes and the list reloads."""
    response = make_response(render_template(template, **values))
    response.headers |= {"HX-Retarget": "#notices", "HX-Reswap": "afterbegin"}
    response.headers["HX-Trigger"] = json.dumps({CHANGED: "", DONE: ""})
    return response


def _risks(uuids: list[str]) -> list[Risk]:
    """Several workspaces are not asked: each may take seconds to say what is unsaved."""
    return [risk_of(uuid, ask=len(uuids) == 1) for uuid in uuids]


def _ask_to_delete(risks: list[Risk], backup: str, error: str = "", *, erase: bool = False) -> str:
    given = {"backup": backup, "error": error, "erase": erase, "typed": confirmation([risk.uuid for risk in risks])}
    return render_template("_delete.html", risks=risks, **given)


def _first(uuid: str) -> str:
    session = api().get(f"/session/{uuid}")
    steps = [(name, session["phases"].get(name)) for name in PHASES]
    return render_template("_first.html", uuid=uuid, session=session["session"], steps=steps)
