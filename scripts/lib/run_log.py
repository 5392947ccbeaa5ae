"""The log of a run: what all its processes print, in one file."""

from __future__ import annotations

import logging
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

LOG_BYTES = 20_000_000
"""Size limit of the log, and of the one older log that is kept."""

NAME_WIDTH = 15
"""Of the column with the names of the processes."""


class Quiet(logging.Handler):
    """Says nothing about a line that it can't write: on a full disk that would fill the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        """See logging's."""


class QuietFile(Quiet, RotatingFileHandler):
    """The file with the log."""


class QuietTerminal(Quiet, logging.StreamHandler[TextIO]):
    """The terminal."""


class RunLog:
    """Writes lines into the file, and also to the terminal if `verbose`."""

    def __init__(self, path: Path, verbose: bool) -> None:
        self._handlers: list[Quiet] = [QuietFile(path, maxBytes=LOG_BYTES, backupCount=1)]
        if verbose:
            self._handlers.append(QuietTerminal(sys.stdout))

    def write(self, name: str, line: str) -> None:
        """Log a line that the process of this name printed."""
        text = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {name.ljust(NAME_WIDTH)} | {line}"
        record = logging.LogRecord("run", logging.INFO, "", 0, text, None, None)
        for handler in self._handlers:
            handler.handle(record)
