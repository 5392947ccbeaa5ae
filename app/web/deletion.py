"""Deleting a session: a dialog that shows the work at risk, for every page that offers it."""

from __future__ import annotations

from flask import Blueprint, render_template, request

from app.web.api import ApiError, api

blp = Blueprint("web_deletion", __name__)


@blp.get("/sessions/<uuid>/delete")
def ask(uuid: str) -> str:
    """The dialog, for `#dialogs`."""
    return _dialog(uuid)


@blp.post("/sessions/<uuid>/delete")
def delete(uuid: str) -> str:
    """Begin the deletion; answers the notice that says so, and closes the dialog."""
    backup, erase = request.form.get("backup", "true"), "erase" in request.form
    try:
        answer = api().delete(f"/session/{uuid}", backup=backup, **({"erase": "true"} if erase else {}))
    except ApiError as error:
        # A notice would be behind the dialog.
        return _dialog(uuid, backup=backup, erase=erase, error=error.detail)
    return render_template("_deleting.html", uuid=uuid, answer=answer, backup=backup, erase=erase)


def _dialog(uuid: str, *, backup: str = "", erase: bool = False, error: str = "") -> str:
    found = api().get(f"/session/{uuid}")
    partial = found["session"]["reason_code"] == "backup_incomplete" or bool(found["session"]["backup_lacks"])
    chosen = backup or ("partial" if partial else "true")
    risk = api().get(f"/session/{uuid}/risk")
    given = {"chosen": chosen, "partial": partial, "erase": erase, "error": error}
    return render_template("_delete.html", found=found, risk=risk, **given)
