"""The commands for those who run the service."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from workspaces.cli.context import FAILED, Json, Limit, Timeout, client, late
from workspaces.cli.doctor import examine
from workspaces.cli.output import ago, out, page_size, print_csv, print_facts, print_json, print_list, safe, say, when
from workspaces.cli.progress import steps
from workspaces.errors import WaitTimedOut
from workspaces.models import Recovery

app = typer.Typer()
letters = typer.Typer(help="Tasks that were given up: list, retry, drop.", no_args_is_help=True)
app.add_typer(letters, name="dead-letters")

Letter = Annotated[str, typer.Argument(help="The dead letter.", show_default=False)]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day in UTC, which counts.")]

OUT_OF_SIGHT = (
    "Sessions without a volume come back with the files of their newest restore point. "
    "Are their volumes lost, and not only out of sight?"
)

MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]", "unknown": "[dim]?[/]"}


@letters.command("list")
def list_letters(context: typer.Context, limit: Limit = 100, json: Json = False) -> None:
    """List the tasks that were given up, newest first.

    Example: sessionctl dead-letters list
    """
    print_list(
        client(context).dead_letters.list(limit=page_size(limit)),
        limit,
        lambda each: (each.id, each.task, each.uuid or "", str(each.tries or ""), each.reason or "", ago(each.at)),
        *("DEAD LETTER", "TASK", "SESSION", "TRIES", "WHY", "AGE"),
        empty="There is none: no task was given up.",
        as_json=json,
    )


@letters.command("retry")
def retry(context: typer.Context, letter: Letter, json: Json = False) -> None:
    """Try a task again, and drop its dead letter.

    Example: sessionctl dead-letters retry 0123456789abcdef
    """
    retried = client(context).dead_letters.retry(letter)
    if json:
        return print_json(retried)
    say(f"{retried.task} of session {retried.uuid} is tried again.")


@letters.command("drop")
def drop(context: typer.Context, letter: Letter, json: Json = False) -> None:
    """Drop a dead letter; its session stays as it is.

    Example: sessionctl dead-letters drop 0123456789abcdef
    """
    client(context).dead_letters.drop(letter)
    if json:
        return print_json({"id": letter, "status": "dropped"})
    say("Dropped.")


@app.command()
def recover(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would come back.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the end.")] = True,
    timeout: Timeout = 3_600.0,
    json: Json = False,
) -> None:
    """Bring back all sessions of which only restore points are left: Redis and their volumes were lost.

    Example: sessionctl recover --dry-run
    """
    calls = client(context).recovery
    if not (dry_run or yes):
        typer.confirm(OUT_OF_SIGHT, abort=True, err=True)
    shown = calls.start(dry_run=dry_run)
    if wait:
        with steps("looking through the store"), suppress(WaitTimedOut):
            shown = calls.wait(timeout=timeout)
    _print_recovery(shown, json)
    if wait and shown.status != "done":
        raise late(f"The recovery is not done after {timeout:.0f} s.", "recovery")


@app.command()
def recovery(context: typer.Context, json: Json = False) -> None:
    """Show the last recovery, and how far it is.

    Example: sessionctl recovery
    """
    _print_recovery(client(context).recovery.show(), json)


def _print_recovery(shown: Recovery, json: bool) -> None:
    if json:
        return print_json(shown)
    told = {"dry run": "yes" if shown.dry_run else "", "asked for": ago(shown.requested_at), "error": shown.error or ""}
    counts = {name: getattr(shown, name) for name in ("found", "recovered", "damaged")}
    counted = {name: "" if count is None else str(count) for name, count in counts.items()}
    print_facts({"recovery": shown.status, **told, **counted})


@app.command()
def costs(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="session, user, size, day, or a label as label:course.")] = "user",
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    label: Annotated[str | None, typer.Option(help="Only sessions with NAME=VALUE.")] = None,
    first: Day = None,
    last: Day = None,
    limit: Limit = 100,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json: Json = False,
) -> None:
    """Show what sessions used and cost, this month unless told otherwise.

    Example: sessionctl costs --by label:course --first 2026-01-01 --last 2026-01-31
    """
    calls = client(context).costs
    begin, end = first.date() if first else None, last.date() if last else None
    chosen: dict[str, Any] = {"group_by": by, "user_id": user, "label": label, "first": begin, "last": end}
    chosen["limit"] = page_size(limit)
    if csv:
        return print_csv(lambda cursor: calls.csv(**chosen, cursor=cursor), limit)
    print_list(
        calls.list(**chosen),
        limit,
        lambda each: (
            str(each.day or each.label or each.uuid or each.user_id or each.size or ""),
            f"{sum(each.compute_seconds.values()) / 3600:.1f} h",
            f"{each.storage_gib_hours:.1f} GiB h",
            f"{each.backup_gib_hours + each.point_gib_hours:.1f} GiB h",
            str(sum(count.prompt + count.completion for count in each.tokens.values())),
            f"${each.dollars.total:.4f}",
            f"${each.saved_dollars:.4f}",
        ),
        *(by.partition(":")[2].upper() or by.upper(), "AWAKE", "DISK", "STORED", "TOKENS", "COST", "SAVED"),
        empty="Nothing was used in this time.",
        as_json=json,
    )


@app.command()
def audit(
    context: typer.Context,
    session: Annotated[str | None, typer.Option(help="Only about this session.")] = None,
    key: Annotated[str | None, typer.Option(help="Only by the key of this name.")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Show who did what to which session, from where, newest first.

    Example: sessionctl audit --session k3v9x2ab
    """
    print_list(
        client(context).audit.list(uuid=session, key=key, limit=page_size(limit)),
        limit,
        lambda each: (
            when(each.at),
            each.action,
            each.uuid or "",
            each.by,
            each.address or "",
            str(each.status or ""),
            each.reason or "",
        ),
        *("WHEN", "ACTION", "SESSION", "BY", "FROM", "ANSWER", "WHY"),
        empty="No entry matches.",
        as_json=json,
    )


@app.command()
def doctor(context: typer.Context, json: Json = False) -> None:
    """Check the service from here to the model: what is wrong, and what to do.

    Example: sessionctl doctor
    """
    checks = examine(context.obj.client)
    if json:
        print_json([asdict(each) for each in checks])
    else:
        for each in checks:
            out.print(f"{MARKS.get(each.status, MARKS['unknown'])} [bold]{safe(each.check)}[/]  {safe(each.found)}")
            if each.remedy and each.status != "ok":
                out.print(f"    {safe(each.remedy)}")
    if any(each.status == "failed" for each in checks):
        raise typer.Exit(FAILED)
