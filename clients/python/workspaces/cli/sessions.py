"""The commands on sessions."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, cast

import typer

from workspaces.cli.context import Json, Limit, Timeout, Uuid, Wait, client, late, named_values
from workspaces.cli.output import (
    ago,
    out,
    page_size,
    print_event,
    print_facts,
    print_json,
    print_list,
    print_rows,
    restored_files,
    say,
    size,
    when,
)
from workspaces.cli.progress import steps
from workspaces.client import Workspaces
from workspaces.errors import Conflict, WaitTimedOut
from workspaces.models import Deleted, OpenedPort, Session, SessionSummary, Status
from workspaces.resources.base import MOST_WAIT

app = typer.Typer()


@app.command()
def create(
    context: typer.Context,
    user_id: Annotated[str, typer.Argument(help="Whose session it is.", show_default=False)],
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated.", show_default=False)] = None,
    size: Annotated[str | None, typer.Option(help="Of the workspace; by default the service's.")] = None,
    restore_from: Annotated[str | None, typer.Option(help="A backup, or a restore point, whose files it gets.")] = None,
    ttl: Annotated[float | None, typer.Option(help="Seconds without use until it is archived.")] = None,
    idle_timeout: Annotated[float | None, typer.Option(help="Seconds without use until it sleeps.")] = None,
    wait: Wait = True,
    timeout: Timeout = 120.0,
    json: Json = False,
) -> None:
    """Create a session, and wait until its workspace is up.

    Example: sessionctl create ada@example.com --label course=python-101
    """
    calls = client(context)
    made = calls.sessions.create(
        user_id,
        size=size,
        restore_from=restore_from,
        ttl=ttl,
        idle_timeout=idle_timeout,
        labels=named_values(label, "--label"),
    )
    show_started(calls, made.uuid, timeout if wait else None, as_json=json)


@app.command("list")
def list_(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    status: Annotated[str | None, typer.Option(help="Only in this state, as sleeping or failed.")] = None,
    tier: Annotated[str | None, typer.Option(help="Only with the files there: hot or archived.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only with NAME=VALUE; may be repeated.")] = None,
    search: Annotated[str | None, typer.Option(help="Only with this in uuid, user or a label.")] = None,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List sessions, newest first.

    Example: sessionctl list --status failed
    """
    calls = client(context).sessions
    print_list(
        calls.list(user_id=user, status=status, tier=tier, label=label, q=search, limit=page_size(limit)),
        limit,
        lambda each: (each.uuid, _state(each), each.user_id, ago(each.created_at), ago(each.last_activity)),
        *("SESSION", "STATUS", "USER", "AGE", "LAST USE"),
        empty="No session matches. Create one with: sessionctl create USER",
        as_json=json,
    )


@app.command()
def status(context: typer.Context, uuid: Uuid, json: Json = False) -> None:
    """Show a session, and why it is awake or when it sleeps.

    Example: sessionctl status k3v9x2ab
    """
    calls = client(context)
    session = calls.sessions.get(uuid)
    if json:
        return print_json(session)
    shown(session)
    if session.status == Status.ACTIVE:
        activity = calls.sessions.activity(uuid)
        print_facts({"awake because": activity.verdict.why, "sleeps at": when(activity.sleeps_at)})


@app.command()
def metrics(context: typer.Context, uuid: Uuid, json: Json = False) -> None:
    """Show what a workspace uses, and the most that it used in the last hour.

    Example: sessionctl metrics k3v9x2ab
    """
    found = client(context).sessions.metrics(uuid)
    if json:
        return print_json(found)
    now, hour = found.now, found.hour
    most_cpu = max(each.cpu for each in (now, *hour))
    most_memory = max(each.memory_bytes for each in (now, *hour))
    half, slow = found.chat_ms.p50, found.chat_ms.p95
    print_facts(
        {
            "cpu": f"{now.cpu:.2f} cores, in the last hour {most_cpu:.2f} at the most",
            "memory": f"{size(now.memory_bytes)}, in the last hour {size(most_memory)} at the most",
            "disk": size(now.disk_bytes),
            "answers": "" if half is None or slow is None else f"half within {half} ms, 95 % within {slow} ms",
            "tokens": f"{found.tokens.prompt:,} read, {found.tokens.completion:,} written",
        }
    )


@app.command("open")
def open_(
    context: typer.Context,
    uuid: Uuid,
    path: Annotated[str | None, typer.Option(help="Where to land in the workspace.")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser; else only print the link.")] = True,
    json: Json = False,
) -> None:
    """Open a workspace in the browser, by a link that works once, within seconds.

    Example: sessionctl open k3v9x2ab
    """
    link = client(context).sessions.open(uuid, path=path)
    if json:
        return print_json(link)
    if not (browser and out.is_terminal and webbrowser.open(link.url)):
        print(link.url)


@app.command()
def wake(context: typer.Context, uuid: Uuid, wait: Wait = True, timeout: Timeout = 120.0, json: Json = False) -> None:
    """Wake a session, and wait until its workspace is up.

    Example: sessionctl wake k3v9x2ab
    """
    calls = client(context)
    calls.sessions.wake(uuid, wait=0)
    show_started(calls, uuid, timeout if wait else None, as_json=json)


@app.command("sleep")
def sleep_(context: typer.Context, uuid: Uuid, wait: Wait = True, timeout: Timeout = 120.0, json: Json = False) -> None:
    """Put a session to sleep, and wait until its processes have ended; its files and its conversation are kept.

    Example: sessionctl sleep k3v9x2ab
    """
    calls = client(context)
    if not wait:
        calls.sessions.sleep(uuid, wait=0)
        return shown(calls.sessions.get(uuid), as_json=json)
    # The status is `sleeping` from the first moment on; another call tells whether processes still run.
    running = late(f"Processes of session {uuid} still run after {timeout:.0f} s.", f"sleep {uuid}")
    with shown_after(calls, uuid, running, as_json=json), steps(f"putting {uuid} to sleep"):
        calls.sessions.put_to_sleep(uuid, timeout=timeout)


@app.command()
def revoke(
    context: typer.Context,
    uuid: Uuid,
    restart: Annotated[
        bool, typer.Option("--restart", help="End all programs in the workspace too, and start it again.")
    ] = False,
    json: Json = False,
) -> None:
    """Revoke every cookie, link and token of a session, and end the connections opened with them.

    Example: sessionctl revoke k3v9x2ab --restart
    """
    revoked = client(context).sessions.revoke(uuid, restart=restart)
    if json:
        return print_json(revoked)
    say(f"Access to {uuid} is revoked; open connections end within seconds.")


@app.command()
def delete(
    context: typer.Context,
    uuid: Uuid,
    backup: Annotated[
        str, typer.Option(help="true: a verified one first; false: none; partial: without unreadable files.")
    ] = "true",
    erase: Annotated[
        bool, typer.Option("--erase", help="Its backups, restore points and conversation too: nothing is left.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    json: Json = False,
) -> None:
    """Delete a session, after a verified backup.

    Example: sessionctl delete k3v9x2ab
    """
    calls = client(context)
    if backup not in ("true", "false", "partial"):
        raise typer.BadParameter("it is one of: true, false, partial.", param_hint="--backup")
    if not yes:
        # What is left of a session that was deleted may have no record to show.
        whose = "" if erase else f" of {calls.sessions.get(uuid).user_id}"
        kept = "without a backup" if backup == "false" else "after a backup"
        kept = "and all that is kept of it: backups, restore points, conversation" if erase else kept
        typer.confirm(f"{'Erase' if erase else 'Delete'} session {uuid}{whose}, {kept}?", abort=True, err=True)
    with steps(f"{'erasing' if erase else 'deleting'} {uuid}"):
        how = cast(Literal["true", "false", "partial"], backup)
        deleted = calls.sessions.delete(uuid, backup=how, erase=erase, wait=MOST_WAIT)
    _print_deleted(deleted, as_json=json)
    if deleted.status != Status.TERMINATED:
        # Of what is being erased there may be no record to show, but to erase it again tells whether it is gone.
        look = f"delete {uuid} --erase" if erase else f"status {uuid}"
        raise late(f"Session {uuid} is not {'erased' if erase else 'deleted'} after {MOST_WAIT:.0f} s.", look)


def _print_deleted(deleted: Deleted, *, as_json: bool) -> None:
    if as_json:
        return print_json(deleted)
    print_facts({"session": deleted.uuid, "status": deleted.status, "backup": deleted.backup or ""})
    if deleted.backup:
        say(f"Its files: sessionctl restore {deleted.backup}")


@app.command()
def events(
    context: typer.Context,
    uuid: Uuid,
    after: Annotated[str | None, typer.Option(help="All since the event with this id.")] = None,
    json: Json = False,
) -> None:
    """Follow what happens in a session, until it ends or Ctrl-C.

    Example: sessionctl events k3v9x2ab --json
    """
    with client(context).sessions.events(uuid, after=after) as stream:
        for event in stream:
            if json:
                print_event(event)
            else:
                values = " ".join(f"{name}={value}" for name, value in event.raw.items() if value is not None)
                print_rows([(event.type, values)], empty="")


def show_started(calls: Workspaces, uuid: str, timeout: float | None, *, as_json: bool) -> None:
    """Print a session that was told to start: once its workspace is up, with its steps until then, or at once if
    `timeout` is None."""
    if timeout is None:
        return shown(calls.sessions.get(uuid), as_json=as_json)
    starting = late(f"Session {uuid} is not up after {timeout:.0f} s.", f"status {uuid}")
    with shown_after(calls, uuid, starting, as_json=as_json), steps(f"starting {uuid}") as wait:
        calls.sessions.wait_until_active(uuid, timeout=timeout, on_event=wait.show)


@contextmanager
def shown_after(calls: Workspaces, uuid: str, ran_out: WaitTimedOut, *, as_json: bool) -> Iterator[None]:
    """Print the session after the wait in the block, also after one that failed or ran out. Raises `ran_out` then."""
    try:
        yield
    except (WaitTimedOut, Conflict) as error:
        shown(calls.sessions.get(uuid), as_json=as_json)
        if isinstance(error, WaitTimedOut):
            raise ran_out from error
        raise
    shown(calls.sessions.get(uuid), as_json=as_json)


def _saved(session: Session) -> str:
    """How old the newest restore point is, and why it is."""
    point = session.restore_point
    if point is None or not (point.saved_at or point.error):
        return ""
    age = f"{ago(point.saved_at)} ago" if point.saved_at else "never"
    return f"{age}; the last attempt failed: {point.error}" if point.error else age


def _state(session: Session | SessionSummary) -> str:
    """The status, and the tier of a session without a volume."""
    return session.status if session.tier in (None, "hot") else f"{session.status}, {session.tier}"


def _opened(port: OpenedPort) -> str:
    """An opened port, and until when it is public."""
    return f"{port.port} public until {when(port.public_until)}" if port.public_until else str(port.port)


def shown(session: Session, *, as_json: bool = False) -> None:
    """Print a session."""
    if as_json:
        return print_json(session)
    brings = session.restoring
    print_facts(
        {
            "session": session.uuid,
            "status": _state(session),
            "reason": session.reason or "",
            "rolling back to": session.rollback_to or "",
            "restoring": restored_files(brings.files, brings.bytes, brings.of) if brings else "",
            "user": session.user_id,
            "url": session.workspace_url,
            "labels": " ".join(f"{name}={value}" for name, value in session.labels.items()),
            "created": when(session.created_at),
            "last use": when(session.last_activity),
            "archived": when(session.archived_at),
            "archived from": when(session.archives_at),
            "expires": when(session.expires_at),
            "files saved": _saved(session),
            "last proven": when(session.last_proven),
            "files are of": when(session.files_of),
            "services": ", ".join(f"{each.name} {each.state}" for each in session.services),
            "opened ports": ", ".join(map(_opened, session.opened_ports)),
            "waiting prompts": str(session.queue_length or ""),
            "steps of its start": ", ".join(f"{name} {ms} ms" for name, ms in session.phases.items()),
        }
    )
