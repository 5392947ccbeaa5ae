"""The commands on backups."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from workspaces import encrypted_backup
from workspaces.cli.context import FAILED, Json, Limit, Timeout, Uuid, Wait, client
from workspaces.cli.output import ago, print_facts, print_json, print_rows, say, size, yes_or_no
from workspaces.cli.progress import steps
from workspaces.cli.sessions import shown, wait_up
from workspaces.encrypted_backup import CannotDecrypt
from workspaces.errors import WaitTimedOut
from workspaces.events import BackupEvent

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="The backup.", show_default=False)]


@app.command()
def backups(
    context: typer.Context,
    uuid: Annotated[str | None, typer.Argument(help="Only this session's.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List backups, newest first; they outlive their sessions.

    Example: sessionctl backups k3v9x2ab
    """
    calls = client(context).backups
    rows = min(limit, 1_000)
    pages = calls.list_of_session(uuid, limit=rows) if uuid else calls.list(user_id=user, limit=rows)
    found = [backup for backup, _ in zip(pages, range(limit), strict=False)]
    if json:
        return print_json(found)
    print_rows(
        (
            (
                each.name,
                each.user_id,
                size(each.size),
                str(each.files),
                yes_or_no(each.verified),
                ago(each.created_at),
            )
            for each in found
        ),
        *("BACKUP", "USER", "SIZE", "FILES", "VERIFIED", "AGE"),
        empty="There is no backup yet. Make one with: sessionctl backup SESSION",
    )


@app.command()
def backup(context: typer.Context, uuid: Uuid, wait: Wait = True, timeout: Timeout = 600.0, json: Json = False) -> None:
    """Back a session up while it goes on.

    Example: sessionctl backup k3v9x2ab
    """
    calls = client(context)
    with calls.sessions.events(uuid) as stream:
        first = next(iter(stream))
        asked = calls.backups.create(uuid)
    if not wait:
        return print_json(asked) if json else say("The backup was asked for.")
    deadline = time.monotonic() + timeout
    with steps(f"backing up {uuid}"), calls.sessions.events(uuid, after=first.id) as stream:
        for event in stream:
            if isinstance(event, BackupEvent):
                break
            if time.monotonic() > deadline:
                raise WaitTimedOut(f"The backup has not ended after {timeout:.0f} s; it goes on by itself.")
        else:
            raise WaitTimedOut(f"Session {uuid} ended before its backup.")
    if json:
        print_json({"status": event.status, "name": event.name, "reason": event.reason})
    else:
        print_facts({"backup": event.name or "", "status": event.status, "reason": event.reason or ""})
    if event.status != "done":
        raise typer.Exit(FAILED)


@app.command()
def restore(
    context: typer.Context,
    name: Name,
    user: Annotated[str | None, typer.Option(help="For this user; by default whose it was.")] = None,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    json: Json = False,
) -> None:
    """Create a session with the files of a backup.

    Example: sessionctl restore app-k3v9x2ab-20260601-120000.zip
    """
    calls = client(context)
    made = calls.backups.restore(name, user_id=user)
    if wait:
        wait_up(calls, made.uuid, timeout)
    shown(calls.sessions.get(made.uuid), as_json=json)


@app.command()
def download(
    context: typer.Context,
    name: Name,
    to: Annotated[Path, typer.Option("--to", "-o", help="A file or a folder.")] = Path(),
) -> None:
    """Download a backup's zip, and check it.

    Example: sessionctl download app-k3v9x2ab-20260601-120000.zip -o work.zip
    """
    with steps(f"downloading {name}"):
        path = client(context).backups.download(name, to)
    print(path)


@app.command()
def decrypt(
    file: Annotated[Path, typer.Argument(help="The zip in a copy of the backup store.", show_default=False)],
    key_file: Annotated[Path | None, typer.Option(help="A file with ARCHIVE_KEY; by default the variable.")] = None,
    to: Annotated[Path | None, typer.Option("--to", "-o", help="The plain zip.", show_default=False)] = None,
    name: Annotated[str, typer.Option(help="The name it had in the store, if it has another now.")] = "",
) -> None:
    """Decrypt a stored backup, without the service.

    Example: sessionctl decrypt store/k3v9x2ab/app-k3v9x2ab-20260601-120000.zip --key-file archive-key -o work.zip
    """
    try:
        key = key_file.read_text() if key_file else os.environ.get("ARCHIVE_KEY", "")
        if not key.strip():
            raise CannotDecrypt("There is no key: set ARCHIVE_KEY, or name a file with it by --key-file.")
        target = to or Path(name or file.name)
        if target.resolve() == file.resolve():
            raise CannotDecrypt("The plain zip would replace the stored one: name another file by --to.")
        print(encrypted_backup.decrypt(file, target, key, name))
    except OSError as error:
        raise CannotDecrypt(f"{error.filename or file}: {error.strerror}.") from error
