"""All measurements, printed as tables: `scripts/bench/run [api] [wake] [backup] [cluster] [--rounds N] [--sessions N]`.

Every target is a ratio of figures taken in the same run, in rounds that alternate, because the
machine is noisy; single figures only tell the size of things. `cluster` needs one with the whole product on
it, so it is only measured when it is asked for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from scripts.bench import api, backup, cluster, many, wake
from scripts.bench.table import Row, print_table

ON_THIS_MACHINE: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "api": ("The API", api.run),
    "wake": ("Waking a workspace", wake.run),
    "backup": ("Backing up 300 MB in 10,000 files", backup.run),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench/run")
    parser.add_argument("measurement", nargs="*", help="api, wake, backup (all three by default), cluster")
    parser.add_argument("--rounds", type=int, default=cluster.ROUNDS, help="of starts on the cluster")
    parser.add_argument("--sessions", type=int, default=many.SESSIONS, help="asleep on the cluster; 0 for none")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.measurement) - set(ON_THIS_MACHINE) - {"cluster"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in chosen.measurement or ON_THIS_MACHINE:
        tables = on_cluster(chosen) if name == "cluster" else [ON_THIS_MACHINE[name]]
        for title, run in tables:
            print_table(title, run())
    return 0


def on_cluster(chosen: argparse.Namespace) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """The measurements on a cluster, as many as were asked for."""
    if chosen.rounds:
        yield "Starting a workspace on a cluster", lambda: cluster.run(chosen.rounds)
    if chosen.sessions:
        yield f"{chosen.sessions:,} sessions asleep on a cluster", lambda: many.run(chosen.sessions)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
