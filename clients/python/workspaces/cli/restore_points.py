"""The commands on restore points, and those that go back to one."""

from __future__ import annotations

from typing import Annotated

import typer

from workspaces.cli.context import FAILED, Json, Limit, Timeout, Uuid, Wait, client, late
from workspaces.cli.output import ago, page_size, print_facts, print_json, print_list, size
from workspaces.cli.progress import steps
from workspaces.errors import RestorePointLate, WaitTimedOut
from workspaces.models import Session
from workspaces.resources.base import MOST_WAIT

app = typer.Typer()


@app.command("restore-points")
def restore_points(context: typer.Context, uuid: Uuid, limit: Limit = 100, json: Json = False) -> None:
    """List a session's restore points, newest first.

    Example: sessionctl restore-points k3v9x2ab
    """
    print_list(
        client(context).restore_points.list(uuid, limit=page_size(limit)),
        limit,
        lambda each: (
            each.restore_from,
            each.trigger,
            size(each.size),
            size(each.stored),
            f"{each.files}, lacks {each.unreadable}" if each.unreadable else str(each.files),
            "broken" if each.broken else ago(each.verified_at),
            ago(each.proven_at),
            ago(each.created_at),
        ),
        *("RESTORE POINT", "MADE BY", "SIZE", "STORED", "FILES", "VERIFIED", "PROVEN", "AGE"),
        empty="There is no restore point yet. Make one with: sessionctl restore-point SESSION",
        as_json=json,
    )


@app.command("restore-point")
def restore_point(
    context: typer.Context,
    uuid: Uuid,
    wait: Annotated[bool, typer.Option(help="Wait until it is made, for up to a minute.")] = True,
    json: Json = False,
) -> None:
    """Make a restore point of a session while it goes on.

    Example: sessionctl restore-point k3v9x2ab
    """
    with steps(f"saving {uuid}"):
        made = client(context).restore_points.create(uuid, wait=MOST_WAIT if wait else 0)
    if json:
        print_json(made)
    else:
        print_facts({"restore point": made.status, "reason": made.message or ""})
    if made.message and wait:
        raise typer.Exit(FAILED)
    if made.status != "done" and wait:
        raise late(f"The restore point is not made after {MOST_WAIT:.0f} s.", f"restore-points {uuid}")


Point = Annotated[str | None, typer.Option(help="A restore point's id, as `restore-points` lists it.")]
Message = Annotated[str | None, typer.Option(help="The message before which the state is wanted.")]


@app.command("rollback")
def rollback(
    context: typer.Context,
    uuid: Uuid,
    point: Point = None,
    message: Message = None,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    json: Json = False,
) -> None:
    """Roll a session back in place; its present state is saved in a restore point first.

    Example: sessionctl rollback k3v9x2ab --point p0123456789abcde
    """
    if (point is None) == (message is None):
        raise typer.BadParameter("Give either --point or --message.")
    calls = client(context)
    with steps(f"rolling {uuid} back") as shown:
        # A message is undone within the call.
        within = MOST_WAIT if wait and message else 0
        try:
            session = calls.restore_points.roll_back(uuid, restore_point=_id(point), message_id=message, wait=within)
        except RestorePointLate as error:
            raise WaitTimedOut(str(error)) from error
        if wait and session.rolling_back:
            try:
                session = calls.sessions.wait_until_rolled_back(uuid, timeout=timeout, on_event=shown.show)
            except WaitTimedOut:
                session = calls.sessions.get(uuid)
    if json:
        print_json(session)
    else:
        _print_rollback(session)
    if session.rolling_back and wait:
        raise late(f"The rollback is not done after {timeout:.0f} s.", f"status {uuid}")


def _print_rollback(session: Session) -> None:
    # What is told of a rollback that is under way is of the one before.
    told = {} if session.rolling_back else session.rolled_back or {}
    print_facts(
        {
            "session": session.status,
            "rollback": "under way" if session.rolling_back else "done",
            "files of": str(told.get("files_of") or ""),
            "state before": str(told.get("saved") or ""),
        }
    )


@app.command("fork")
def fork(
    context: typer.Context,
    uuid: Uuid,
    point: Point = None,
    message: Message = None,
    user: Annotated[str | None, typer.Option(help="Whose session it is to be; without HOME and conversation.")] = None,
    json: Json = False,
) -> None:
    """Create a session with the files of a restore point, by default one of now.

    Example: sessionctl fork k3v9x2ab
    """
    with steps(f"forking {uuid}"):
        try:
            made = client(context).restore_points.fork(uuid, user_id=user, restore_point=_id(point), message_id=message)
        except RestorePointLate as error:
            text = "There is no fork yet: its restore point is still being made. Fork with --point once it is listed."
            raise late(text, f"restore-points {uuid}") from error
    if json:
        print_json(made)
    else:
        print_facts({"session": made.uuid, "url": made.workspace_url, "restore point": made.restore_point})


def _id(point: str | None) -> str | None:
    """The id of a restore point, also from its `restore_from`, which the list shows."""
    return point.rpartition("-")[2] if point else None
