"""The settings as they are in force, and the API keys by name."""

from __future__ import annotations

from flask import Blueprint, render_template, request

from app.web.api import api

blp = Blueprint("web_settings", __name__)


@blp.get("/settings")
def show() -> str:
    """The page: those that were changed first; `q` is a part of a name or reason, `changed` leaves out the others."""
    wanted, changed = request.args.get("q", "").strip().lower(), request.args.get("changed") == "1"
    found = [
        each
        for each in api().get("/settings")["settings"]
        if wanted in f"{each['name']} {each['reason']}".lower() and (each["changed"] or not changed)
    ]
    found.sort(key=lambda each: not each["changed"])
    keys = api().get("/keys")["keys"]
    return render_template("settings.html", settings=found, keys=keys, wanted=wanted, changed=changed)
