"""A supervisor in a process of its own, which keeps one program: as scripts/run keeps those of the Procfile.

    python -m tests.supervised FOLDER [--heartbeat SECONDS] COMMAND ARGUMENT…

It prints what its program prints, and ends on SIGTERM. The program is called as PROCESS_NAME says.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from threading import Event

from scripts.lib.data_dir import StartError, only_run
from scripts.lib.supervisor import Program, Supervisor


class Terminal:
    """Takes the lines of the program."""

    def write(self, name: str, line: str) -> None:
        print(line, flush=True)


def main(folder: str, *arguments: str) -> int:
    limit, command = None, arguments
    if arguments[0] == "--heartbeat":
        limit, command = float(arguments[1]), arguments[2:]
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    program = Program(os.environ["PROCESS_NAME"], command, os.environ | {"GIVEN": "to the program"}, limit)
    with only_run(Path(folder)):
        supervisor = Supervisor([program], Path(folder), Terminal())
        try:
            supervisor.start()
            while not stop.is_set():
                supervisor.watch(1.0)
        except StartError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            supervisor.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
