"""The terminal of a command: what is typed into it, and its size."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import termios
import threading

from app.agent.protocol import Window

IUTF8 = 0x4000
"""The flag that deletes a whole character (termios(3)); Python does not name it."""


class Ended(Exception):
    """The command has ended, and its terminal with it."""


class Moved(Exception):
    """The input does not stand where the caller means."""


class Terminal:
    """A terminal (pty(7)) whose other end is `path`. Thread-safe, but for reading from `fd`."""

    def __init__(self, window: Window) -> None:
        # The other end stays open, so that this one never is without it.
        self.fd, self._other = os.openpty()
        self.path = os.ttyname(self._other)
        self._lock = threading.Lock()
        self._open = True
        self._last: tuple[int, bytes] | None = None
        self.taken = 0
        """Bytes of input so far."""
        os.set_blocking(self.fd, False)
        modes = termios.tcgetattr(self._other)
        modes[0] |= IUTF8
        termios.tcsetattr(self._other, termios.TCSANOW, modes)
        termios.tcsetwinsize(self.fd, (window.rows, window.columns))
        self.window = window

    def write(self, at: int, data: bytes) -> int:
        """Type what comes after `at` bytes of input, as much as there is room for; returns how many came by then. The
        last piece again types nothing. Raises `Moved` and `Ended`."""
        piece = at, hashlib.sha256(data).digest()
        with self._lock:
            if not self._open:
                raise Ended
            if piece == self._last:
                return self.taken
            if at != self.taken:
                raise Moved
            while data and (written := self._typed(data)):
                data = data[written:]
                self.taken += written
                self._last = piece
            return self.taken

    def _typed(self, data: bytes) -> int:
        try:
            return os.write(self.fd, data)
        except OSError:  # No room, or a program hung the terminal up.
            return 0

    def resize(self, window: Window) -> None:
        """Give it a size, and tell the programs in its foreground (SIGWINCH), also of the one that it has: they draw
        anew for somebody who has just come. Raises `Ended`."""
        with self._lock:
            if not self._open:
                raise Ended
            same = self.window == window
            termios.tcsetwinsize(self.fd, (window.rows, window.columns))
            self.window = window
            # The kernel tells of a change only.
            with contextlib.suppress(OSError):
                if same and (foreground := os.tcgetpgrp(self.fd)) > 0:
                    os.killpg(foreground, signal.SIGWINCH)

    def close(self) -> None:
        """Free it, once nothing reads from it any more."""
        with self._lock:
            self._open = False
            os.close(self.fd)
            os.close(self._other)
