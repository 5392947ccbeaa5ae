"""Shows what a wait waits for: the session's state and its phases, on standard error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from workspaces.cli.output import err, printable, restored_files, safe
from workspaces.events import Event, PhaseEvent, StateEvent


class Steps:
    """The steps of one wait. On a terminal a line that lives; else a line for each phase."""

    def __init__(self, progress: Progress | None, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None) if progress else None

    def show(self, event: Event) -> None:
        """Show an event of the session."""
        if isinstance(event, PhaseEvent):
            what = " ".join(filter(None, (event.phase, restored_files(event.files, event.bytes, event.of))))
            err.print(f"  [green]✓[/] {safe(what)} [dim]{event.ms} ms[/]")
        elif isinstance(event, StateEvent) and self._progress and self._task is not None:
            reason = f": {event.reason}" if event.reason else ""
            self._progress.update(self._task, description=printable(f"{event.status}{reason}"))


@contextmanager
def steps(title: str) -> Iterator[Steps]:
    """A wait with this title; says at its end how long it took."""
    began = time.monotonic()
    if err.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=err, transient=True) as progress:
            yield Steps(progress, title)
    else:
        yield Steps(None, title)
    err.print(f"[dim]{safe(title)}: {time.monotonic() - began:.1f} s[/]")
