"""All measurements, printed as tables.

    scripts/bench/run [api] [wake] [backup] [restore_points] [sleeps] [archive] [chat] [execs] [terminals] [files]
        [trees] [forward_auth] [streams] [dashboard] [model_streams] [undo_points] [cluster] [keda] [--rounds N]
        [--sessions N]

Every target is a ratio of figures taken in the same run, in rounds that alternate, because the
machine is noisy; single figures only tell the size of things. `cluster` and `keda` need one with the whole
product on it, so they are only measured when they are asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from scripts.bench import (
    api,
    archive,
    backup,
    chat,
    cluster,
    dashboard,
    execs,
    files,
    forward_auth,
    keda,
    many,
    model_streams,
    restore_points,
    sleeps,
    streams,
    terminals,
    trees,
    undo_points,
    wake,
)
from scripts.bench.table import Row, print_table

Table = tuple[str, Callable[[], list[Row]]]

ON_THIS_MACHINE: dict[str, Table] = {
    "api": ("The API", api.run),
    "wake": ("Waking a workspace", wake.run),
    "backup": ("Backing up 300 MB in 10,000 files", backup.run),
    "restore_points": ("Restore points of 300 MB in 10,000 files", restore_points.run),
    "sleeps": ("Sleeps of 300 MB in 10,000 files, with a restore point and without", sleeps.run),
    "archive": ("An archived session of 300 MB", archive.run),
    "chat": ("Prompts, with a model that takes no time", chat.run),
    "execs": ("Commands of the API", execs.run),
    "terminals": ("Keys typed into a terminal of a workspace", terminals.run),
    "files": ("Files of the API", files.run),
    "trees": ("Folders as archives", trees.run),
    "forward_auth": ("Forward auth, asked for every request of a workspace", forward_auth.run),
    "streams": ("Event streams and waiting calls on two web processes", streams.run),
    "dashboard": ("The dashboard's list with 10,000 sessions, in Chromium", dashboard.run),
    "model_streams": ("Streams of the model through one gateway process", model_streams.run),
    "undo_points": ("Undo points of 50,000 files", undo_points.run),
}
ON_A_CLUSTER = ("cluster", "keda")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench/run")
    parser.add_argument(
        "measurement",
        nargs="*",
        help=f"{', '.join(ON_THIS_MACHINE)} (all by default), {', '.join(ON_A_CLUSTER)}",
    )
    parser.add_argument("--rounds", type=int, default=cluster.ROUNDS, help="of starts on the cluster")
    parser.add_argument("--sessions", type=int, default=many.SESSIONS, help="asleep on the cluster; 0 for none")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.measurement) - set(ON_THIS_MACHINE) - set(ON_A_CLUSTER):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in chosen.measurement or ON_THIS_MACHINE:
        for title, run in tables(name, chosen):
            print_table(title, run())
    return 0


def tables(name: str, chosen: argparse.Namespace) -> Iterator[Table]:
    """What is measured under that name, as much of it as was asked for."""
    if name in ON_THIS_MACHINE:
        yield ON_THIS_MACHINE[name]
    if name == "cluster" and chosen.rounds:
        yield "Starting a workspace on a cluster", lambda: cluster.run(chosen.rounds)
    if name == "cluster" and chosen.sessions:
        yield f"{chosen.sessions:,} sessions asleep on a cluster", lambda: many.run(chosen.sessions)
    if name == "keda":
        yield "KEDA polling sleeping sessions", keda.run


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
