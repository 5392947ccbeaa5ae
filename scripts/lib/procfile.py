"""Runs the processes of the Procfile with honcho and writes their output to one log.

honcho's own command would give each process another PORT and read a `.env` file. Here all processes get the same
environment, with their name in PROCESS_NAME. Prometheus is one of them with MONITORING=1. Ends on SIGTERM, or when a
process ends for good.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.printer import Printer

from scripts.lib.processes import MANAGER

LOG_BYTES = 20_000_000
"""Size limit of the log, and of the one older log that is kept."""

PROMETHEUS = "prometheus"

MEASURED = tuple(name for name in MANAGER if name != "web")
"""The processes with a port for Prometheus; web has its own."""

SEVERAL = frozenset({"web", *MEASURED[:-2]})
"""The programs of several processes, which count together."""


def metrics_port_of(name: str) -> str:
    """The variable with a process' port for Prometheus."""
    return f"METRICS_PORT_{name.upper().replace('-', '_')}"


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
    """The environment of a process: this one's, the path of its heartbeat, where it counts and shows its metrics, and
    the model's key for the gateway only."""
    kept = {key: text for key, text in os.environ.items() if name == "gateway" or key != "LLM_API_KEY"}
    heartbeat = Path(os.environ["DATA_DIR"], "pids", f"{name}.heartbeat")
    own = {"PROCESS_NAME": name, "HEARTBEAT_FILE": str(heartbeat)}
    own["METRICS_PORT"] = kept.get(metrics_port_of(name), "0")
    if name in SEVERAL:
        own["PROMETHEUS_MULTIPROC_DIR"] = str(Path(os.environ["DATA_DIR"], "metrics", name))
    return kept | own


def started(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The processes of this Procfile that a run has, with their commands: Prometheus only where it has a port."""
    processes: dict[str, str] = parse_procfile(text).processes
    watched = environ.get("MONITORING") == "1" and environ.get("PROMETHEUS_PORT")
    return {name: command for name, command in processes.items() if watched or name != PROMETHEUS}


def main() -> int:
    # On a full disk, logging errors must not fill the terminal.
    logging.raiseExceptions = False
    log = Log(Path(os.environ["DATA_DIR"], "log", "run.log"), os.environ.get("VERBOSE") == "1")
    manager = Manager(Printer(log, colour=False, time_format="%Y-%m-%dT%H:%M:%S"))
    for name, command in started(Path("Procfile").read_text(), os.environ).items():
        manager.add_process(name, f"exec {command}", env=environment(name))
    manager.loop()
    return int(manager.returncode or 0)


if __name__ == "__main__":
    sys.exit(main())
