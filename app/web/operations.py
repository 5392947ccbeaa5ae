"""What operators look at and act on: the diagnosis, the processes, the tasks that were given up, and the recovery
of lost sessions."""

from __future__ import annotations

from flask import Blueprint, render_template, request

from app.web.api import api

blp = Blueprint("web_operations", __name__)

PAGE = 50
"""Dead letters of a page."""


@blp.get("/operations")
def show() -> str:
    """The page; the diagnosis follows by itself, as it may take seconds."""
    letters = api().get("/dead-letters", limit=PAGE, cursor=request.args.get("cursor") or None)
    recovery = api().get("/recovery")
    return render_template("operations.html", letters=letters, recovery=recovery, processes=read_processes())


@blp.get("/operations/diagnosis")
def diagnosis() -> str:
    """Each check of the service."""
    return render_template("_diagnosis.html", diagnosis=api().get("/diagnosis"))


@blp.get("/operations/processes")
def processes() -> str:
    """Each process, as it was heard of last."""
    return render_template("_processes.html", processes=read_processes())


@blp.get("/operations/recovery")
def recovery() -> str:
    """The last recovery, and how far it is."""
    return render_template("_recovery.html", recovery=api().get("/recovery"))


@blp.post("/operations/recovery/count")
def count_lost() -> str:
    """Count the sessions of which only restore points are left."""
    return _recover(dry_run=True)


@blp.post("/operations/recovery/start")
def recover() -> str:
    """Bring them back."""
    return _recover(dry_run=False)


def _recover(*, dry_run: bool) -> str:
    return render_template("_recovery.html", recovery=api().post("/recovery", {"dry_run": dry_run}))


@blp.post("/operations/dead-letters/<letter_id>/retry")
def retry(letter_id: str) -> str:
    """Try a task again."""
    retried = api().post(f"/dead-letters/{letter_id}/retry")
    return _done(f"{retried['task']} of session {retried['uuid']} is tried again.")


@blp.post("/operations/dead-letters/<letter_id>/drop")
def drop(letter_id: str) -> str:
    """Drop a dead letter."""
    api().delete(f"/dead-letters/{letter_id}")
    return _done("The dead letter is dropped.")


def _done(text: str) -> str:
    """The notice, and how many dead letters are left."""
    return render_template("_done.html", text=text, total=api().get("/dead-letters", limit=1)["total"])


def read_processes() -> list[dict[str, str]]:
    """The processes, those that are silent first."""
    found: list[dict[str, str]] = api().get("/processes")["processes"]
    return sorted(found, key=lambda each: (each["status"] == "alive", each["kind"], each["name"]))
