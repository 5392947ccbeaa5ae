"""Runs the processes of the Procfile with honcho and writes their output to one log.

honcho's own command would give each process another PORT and read a `.env` file. Here all processes get the same
environment, with their name in PROCESS_NAME. Ends on SIGTERM, or when a process ends for good.
"""

from __future__ import annotations

import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.printer import Printer

LOG_BYTES = 20_000_000
"""Size limit of the log, and of the one older log that is kept."""


class Log:
    """honcho's output: the file, and also the terminal if `verbose`."""

    def __init__(self, path: Path, verbose: bool) -> None:
        handlers: list[RotatingFileHandler | logging.StreamHandler[TextIO]] = [
            RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)
        ]
        if verbose:
            handlers.append(logging.StreamHandler(sys.stdout))
        for handler in handlers:
            handler.terminator = ""
        self.handlers = handlers

    def write(self, text: str) -> None:
        record = logging.LogRecord("procfile", logging.INFO, "", 0, text, None, None)
        for handler in self.handlers:
            handler.handle(record)

    def flush(self) -> None:
        for handler in self.handlers:
            handler.flush()


def environment(name: str) -> dict[str, str]:
    """The environment of a process: this one's, the path of its heartbeat, and the model's key for the gateway only."""
    kept = {key: text for key, text in os.environ.items() if name == "gateway" or key != "LLM_API_KEY"}
    heartbeat = Path(os.environ["DATA_DIR"], "pids", f"{name}.heartbeat")
    return kept | {"PROCESS_NAME": name, "HEARTBEAT_FILE": str(heartbeat)}


def main() -> int:
    # On a full disk, logging errors must not fill the terminal.
    logging.raiseExceptions = False
    log = Log(Path(os.environ["DATA_DIR"], "log", "run.log"), os.environ.get("VERBOSE") == "1")
    manager = Manager(Printer(log, colour=False, time_format="%Y-%m-%dT%H:%M:%S"))
    for name, command in parse_procfile(Path("Procfile").read_text()).processes.items():
        manager.add_process(name, f"exec {command}", env=environment(name))
    manager.loop()
    return int(manager.returncode or 0)


if __name__ == "__main__":
    sys.exit(main())
