"""The commands on files in a workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from workspaces.cli.context import Json, Limit, Uuid, client
from workspaces.cli.copying import STANDARD, Copier, place_of
from workspaces.cli.execs import Wake
from workspaces.cli.output import ago, one_line, page_size, print_event, print_json, print_list, say, size
from workspaces.cli.progress import steps
from workspaces.events import FilesAsleepEvent, FilesChangedEvent, FilesResetEvent
from workspaces.models import FileEntry, FileType

app = typer.Typer()

DEEPEST = 100
"""Folders in one path at most."""


@app.command()
def ls(
    context: typer.Context,
    uuid: Uuid,
    path: Annotated[str, typer.Argument(help="A folder or a file, relative to the workspace's folder.")] = ".",
    depth: Annotated[int | None, typer.Option(min=0, help="How deep; 0 is PATH itself.", show_default=False)] = None,
    glob: Annotated[str | None, typer.Option(help="Only those whose path below PATH, or name, is like this.")] = None,
    wake: Wake = True,
    limit: Limit = 1_000,
    json: Json = False,
) -> None:
    """List the files in a workspace.

    Example: sessionctl ls k3v9x2ab src --depth 3 --glob "*.py"
    """
    print_list(
        client(context).files.list(uuid, path, depth=depth, glob=glob, wake=wake, limit=page_size(limit)),
        limit,
        lambda each: (
            each.mode,
            "" if each.size is None else size(each.size),
            ago(each.modified_at),
            _name(each),
        ),
        *("MODE", "SIZE", "AGE", "PATH"),
        empty="There is no such file. Copy one there with: sessionctl cp FILE SESSION:PATH",
        as_json=json,
    )


@app.command()
def watch(
    context: typer.Context,
    uuid: Uuid,
    path: Annotated[str, typer.Argument(help="A folder or a file, relative to the workspace's folder.")] = ".",
    depth: Annotated[int, typer.Option(min=0, help="How deep; 0 is PATH itself.")] = DEEPEST,
    glob: Annotated[str | None, typer.Option(help="Only those whose path below PATH, or name, is like this.")] = None,
    json: Json = False,
) -> None:
    """Print what changes in a workspace, as it happens. It wakes nothing and keeps nothing awake.

    Example: sessionctl watch k3v9x2ab src --glob "*.py"
    """
    with client(context).files.watch(uuid, path, depth=depth, glob=glob) as events:
        for event in events:
            if json:
                print_event(event)
            elif isinstance(event, FilesChangedEvent):
                for gone in event.gone:
                    print(f"gone     {one_line(gone.path)}", flush=True)
                for entry in event.entries:
                    print(f"changed  {_name(entry)}", flush=True)
            elif isinstance(event, FilesAsleepEvent):
                say("The workspace does not run, so nothing changes; this goes on once it does.")
            elif isinstance(event, FilesResetEvent):
                say(f"Watching {one_line(event.path)}{'' if event.complete else ', but not its deepest folders'}.")


@app.command()
def cp(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="SESSION:PATH, a local file or folder, or - for standard input.")],
    target: Annotated[str, typer.Argument(help="SESSION:PATH, a local file or folder, or - for standard output.")],
    wake: Wake = True,
    json: Json = False,
) -> None:
    """Copy a file or a folder into a workspace, out of one, or from one to another, with modes.

    A folder goes into TARGET if that is a folder or ends with a slash, else TARGET becomes the folder. SESSION: is all
    that is in the workspace, DIR/. all that is in DIR. To standard output a folder goes as tar.gz.

    Example: sessionctl cp hello.py k3v9x2ab:src/

    Example: sessionctl cp k3v9x2ab:src .
    """
    begin, end = place_of(source), place_of(target)
    if not (begin.uuid or end.uuid):
        raise typer.BadParameter("one of both is in a workspace: SESSION:PATH.", param_hint="SOURCE TARGET")
    copier = Copier(client(context).files, wake=wake)
    if end == STANDARD:
        if json:
            raise typer.BadParameter("standard output is the file's.", param_hint="--json")
        return copier.print_out(begin)
    with steps(f"copying {one_line(source)}"):
        if not end.uuid:
            made: object = {"path": str(copier.download(begin, target))}
        elif begin.uuid:
            made = copier.between(begin, end)
        else:
            made = copier.upload(begin, end)
    if json:
        print_json(made)
    return None


def _name(entry: FileEntry) -> str:
    path = f"{entry.path}/" if entry.type == FileType.FOLDER else entry.path
    return one_line(path if entry.target is None else f"{path} -> {entry.target}")
