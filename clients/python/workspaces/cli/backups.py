"""The commands on backups."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from workspaces import encrypted_backup
from workspaces.cli.context import FAILED, Json, Limit, Timeout, Uuid, Wait, client, late
from workspaces.cli.output import ago, page_size, print_facts, print_json, print_list, say, size, yes_or_no
from workspaces.cli.progress import steps
from workspaces.cli.sessions import show_started
from workspaces.encrypted_backup import CannotDecrypt
from workspaces.errors import WaitTimedOut

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
    rows = page_size(limit)
    print_list(
        calls.list_of_session(uuid, limit=rows) if uuid else calls.list(user_id=user, limit=rows),
        limit,
        lambda each: (
            each.name,
            each.user_id,
            size(each.size),
            str(each.files),
            yes_or_no(each.verified),
            ago(each.created_at),
        ),
        *("BACKUP", "USER", "SIZE", "FILES", "VERIFIED", "AGE"),
        empty="There is no backup yet. Make one with: sessionctl backup SESSION",
        as_json=json,
    )


@app.command()
def backup(context: typer.Context, uuid: Uuid, wait: Wait = True, timeout: Timeout = 600.0, json: Json = False) -> None:
    """Back a session up while it goes on.

    Example: sessionctl backup k3v9x2ab
    """
    calls = client(context).backups
    if not wait:
        asked = calls.create(uuid)
        return print_json(asked) if json else say("The backup was asked for.")
    try:
        with steps(f"backing up {uuid}"):
            ended = calls.make(uuid, timeout=timeout)
    except WaitTimedOut as error:
        _print_backup("queued", None, None, as_json=json)
        raise late(f"The backup has not ended after {timeout:.0f} s.", f"backups {uuid}") from error
    _print_backup(ended.status, ended.name, ended.reason, as_json=json)
    if ended.status != "done":
        raise typer.Exit(FAILED)


def _print_backup(status: str, name: str | None, reason: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"status": status, "name": name, "reason": reason})
    else:
        print_facts({"backup": name or "", "status": status, "reason": reason or ""})


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
    show_started(calls, made.uuid, timeout if wait else None, as_json=json)


@app.command()
def download(
    context: typer.Context,
    name: Name,
    to: Annotated[Path, typer.Option("--to", "-o", help="A file or a folder.")] = Path(),
    json: Json = False,
) -> None:
    """Download a backup's zip, and check it.

    Example: sessionctl download app-k3v9x2ab-20260601-120000.zip -o work.zip
    """
    with steps(f"downloading {name}"):
        path = client(context).backups.download(name, to)
    _print_path(path, as_json=json)


@app.command()
def decrypt(
    file: Annotated[Path, typer.Argument(help="The zip in a copy of the backup store.", show_default=False)],
    key_file: Annotated[Path | None, typer.Option(help="A file with ARCHIVE_KEY; by default the variable.")] = None,
    to: Annotated[Path | None, typer.Option("--to", "-o", help="The plain zip.", show_default=False)] = None,
    name: Annotated[str, typer.Option(help="The name it had in the store, if it has another now.")] = "",
    json: Json = False,
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
        plain = encrypted_backup.decrypt(file, target, key, name)
    except OSError as error:
        raise CannotDecrypt(f"{error.filename or file}: {error.strerror}.") from error
    _print_path(plain, as_json=json)


def _print_path(path: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(path)})
    else:
        print(path)
