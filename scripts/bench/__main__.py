"""All measurements, printed as tables: `scripts/bench/run [api] [wake] [backup]`.

Every target is a ratio of figures taken in the same run, in rounds that alternate, because the
machine is noisy; single figures only tell the size of things.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from scripts.bench import api, backup, wake
from scripts.bench.table import Row, print_table

MEASUREMENTS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "api": ("The API", api.run),
    "wake": ("Waking a workspace", wake.run),
    "backup": ("Backing up 300 MB in 10,000 files", backup.run),
}


def main(chosen: list[str]) -> int:
    unknown = set(chosen) - set(MEASUREMENTS)
    if unknown:
        print(f"usage: scripts/bench/run [{'] ['.join(MEASUREMENTS)}]", file=sys.stderr)
        return 2
    for name in chosen or MEASUREMENTS:
        title, run = MEASUREMENTS[name]
        print_table(title, run())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
