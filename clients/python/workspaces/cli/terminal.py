"""The local terminal while one of a workspace is shown in it: its mode, its size, its signals, and what is typed."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from workspaces.errors import (
    Asleep,
    ConnectionFailed,
    InputMoved,
    NoTerminal,
    NotFound,
    RateLimited,
    ServerError,
    WorkspacesError,
)
from workspaces.models import Window
from workspaces.resources.execs import Execs

MOST_INPUT: Final = 65_536
"""Bytes that one call may type, and that wait to be sent at most before no more is read."""

BREATH: Final = 0.025
"""s between two calls: 3,000 are allowed in a minute."""

LONGEST_PAUSE: Final = 2.0
"""s between two calls while the program reads nothing, or the service can't be reached."""

LARGEST_SIDE: Final = 1_000
"""Rows or columns that a terminal of a workspace may have."""

PASTE_BEGINS: Final = b"\x1b[200~"
PASTE_ENDS: Final = b"\x1b[201~"
"""What a terminal puts around a paste where the program asks for it (xterm's "bracketed paste mode")."""


class Escape:
    """Finds the escapes in what is typed, as ssh has them at the beginning of a line: `~.` leaves, `~~` is one `~`. A
    `~` there waits for what follows. What the terminal marks as pasted has no escapes."""

    def __init__(self) -> None:
        self._line_begins = True
        self._held = False
        self._pasting = False
        self._newest = b""

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What of these bytes is to be sent, and whether to leave; what follows that is dropped."""
        found = bytearray()
        for number in typed:
            each = bytes([number])
            if self._held:
                self._held = False
                if each == b".":
                    return bytes(found), True
                found += b"" if each == b"~" else b"~"
            elif each == b"~" and self._line_begins:
                self._held = True
                continue
            found += each
            self._see(each)
        return bytes(found), False

    def _see(self, each: bytes) -> None:
        self._newest = (self._newest + each)[-len(PASTE_BEGINS) :]
        if self._newest in (PASTE_BEGINS, PASTE_ENDS):
            self._pasting = self._newest == PASTE_BEGINS
        self._line_begins = each in b"\r\n" and not self._pasting


class Bell:
    """Wakes a thread that waits in `select`, from any thread and from signals, with a number for each time."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        for each in (self._here, self._there):
            each.setblocking(False)

    def fileno(self) -> int:
        """What is ready to be read once somebody rang."""
        return self._here.fileno()

    def ring(self) -> None:
        """Ring with the number 0. One that is closed, or has been rung unheard very often, is not rung."""
        with suppress(OSError):
            self._there.send(b"\0")

    def heard(self) -> bytes:
        """The numbers since the last call."""
        try:
            return self._here.recv(4_096)
        except BlockingIOError:
            return b""

    @contextmanager
    def rung_by(self, signals: Iterable[int]) -> Iterator[None]:
        """These signals ring with their number meanwhile, and do nothing else. For the main thread."""
        # Python writes the number as soon as the signal comes, in whatever thread, and so wakes the main thread.
        fd = signal.set_wakeup_fd(self._there.fileno(), warn_on_full_buffer=False)
        before = {each: signal.signal(each, lambda *_: None) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, signal.SIG_DFL if handler is None else handler)
            signal.set_wakeup_fd(fd)

    def close(self) -> None:
        """Nobody waits any more."""
        self._here.close()
        self._there.close()


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Each key goes to the program as it is, and nothing is shown by itself."""
    # Here, as there are systems without them, on which the other commands work.
    import termios
    import tty

    before = termios.tcgetattr(fd)
    try:
        # Not tty's own, which would drop what was typed ahead.
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        # One that was closed meanwhile has no mode.
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def window_of(fd: int) -> Window:
    """The size of the local terminal, as far as a workspace's can have it; 24 x 80 for one that tells none."""
    columns, rows = os.get_terminal_size(fd)
    return Window(rows=min(rows or 24, LARGEST_SIDE), columns=min(columns or 80, LARGEST_SIDE))


class Sender:
    """Types into a terminal of a workspace, and sets its size, by one call at a time, in a thread of its own. What
    comes during a call goes with the next. `changed` is called when more may be typed, and at the end; `failure` is
    why that came, if no end of the command or its session is the cause."""

    def __init__(self, calls: Execs, uuid: str, exec_id: str, at: int, changed: Callable[[], None]) -> None:
        self.failure: WorkspacesError | None = None
        self._calls, self._uuid, self._exec_id = calls, uuid, exec_id
        self._at: int | None = at
        self._changed = changed
        self._news = threading.Condition()
        self._window: Window | None = None
        self._waiting = bytearray()
        # What the last call sent, until it is answered: only the very same call may be repeated.
        self._sent = b""
        self._in_vain = 0
        self._over = False

    @property
    def has_room(self) -> bool:
        """Whether more may be typed. At the end that comes to nothing."""
        return self._over or len(self._waiting) < MOST_INPUT

    def type(self, data: bytes) -> None:
        """Send this after all before it."""
        with self._news:
            if not self._over:
                self._waiting += data
            self._news.notify_all()

    def resize(self, window: Window) -> None:
        """Set the size; one that waits to be set is forgotten."""
        with self._news:
            self._window = window
            self._news.notify_all()

    def start(self) -> None:
        """Begin to send."""
        threading.Thread(target=self.run, name="typing", daemon=True).start()

    def finish(self, seconds: float) -> None:
        """Wait until all is sent, not longer than this, and stop."""
        with self._news:
            self._news.wait_for(lambda: self._over or not self._waiting, seconds)
        self.stop()

    def stop(self) -> None:
        """Send nothing more."""
        with self._news:
            self._over = True
            self._news.notify_all()

    def run(self) -> None:
        """Send until it is stopped, or the command has ended."""
        try:
            while self._wait():
                self._pause(self.step())
        except (NoTerminal, NotFound, Asleep):
            pass  # Who follows the output is told how it ended.
        except WorkspacesError as error:
            self.failure = error
        finally:
            self.stop()
            self._changed()

    def step(self) -> float:
        """Send what there is, once; returns the seconds to wait before the next call. Raises what no repetition
        helps against."""
        try:
            self._send_window()
            moved = self._send_input()
        except InputMoved:
            self._at, self._sent = None, b""
            return BREATH
        except (ConnectionFailed, RateLimited, ServerError):
            moved = False
        self._in_vain = 0 if moved else self._in_vain + 1
        return min(LONGEST_PAUSE, BREATH * 2.0 ** min(self._in_vain, 16))

    def _send_window(self) -> None:
        window = self._window
        if window is None:
            return
        self._calls.set_window(self._uuid, self._exec_id, window.rows, window.columns)
        with self._news:
            if self._window is window:
                self._window = None

    def _send_input(self) -> bool:
        """Whether any of the input was taken, or none is there."""
        if self._at is None:
            self._at = self._calls.get(self._uuid, self._exec_id, wake=False).input_bytes
        with self._news:
            self._sent = self._sent or bytes(self._waiting[:MOST_INPUT])
        if not self._sent:
            return True
        stands = self._calls.write_input(self._uuid, self._exec_id, self._sent, at=self._at).input_bytes
        taken = max(0, min(stands - self._at, len(self._sent)))
        self._at, self._sent = stands, b""
        with self._news:
            del self._waiting[:taken]
            self._news.notify_all()
        self._changed()
        return taken > 0

    def _wait(self) -> bool:
        """Wait for something to send; whether there is something."""
        with self._news:
            self._news.wait_for(lambda: self._over or self._window is not None or self._waiting)
            return not self._over

    def _pause(self, seconds: float) -> None:
        with self._news:
            self._news.wait_for(lambda: self._over, seconds)
