"""The entry of a Job's pod: workers/job/program.py, in the environment of a process beside a stranger's files.

The clients of the stores read their settings when they are imported, so this runs before.
"""

from __future__ import annotations

import os
import sys

from app.volume.environment import ALONE


def main() -> int:
    """Run the Job of the command line; the exit status."""
    os.environ.clear()
    os.environ.update(ALONE)
    from workers.job import program

    return program.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
