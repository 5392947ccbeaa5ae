"""Runs one command, and ends every process it starts.

    python -I -S runner.py, then one line: {"argv", "cwd", "environment", "added", "seconds", "head", "tail",
    "processes", "hidden", "login", "streams", "terminal"}

It may wait for that line. `environment` is set before the shell's profile is read, null for a variable that is not,
`added` after it. `streams` are descriptors of the command's standard input, output and error that this process
inherited; without them it has no input, and its output is kept here. `terminal` is the path of one that takes their
place, and becomes the controlling terminal of the command's session.

This process is the reaper of orphans (prctl(2), PR_SET_CHILD_SUBREAPER): processes that detach with setsid or a double
fork become its children again, so without children nothing is left. The command ends with its shell, at its time limit,
with too many processes, or when standard input is closed (by the agent, or because the agent was killed); a further
line there is the number of a signal for the command's process group. In the end all remaining processes are stopped, so
that none forks meanwhile, and killed. The answer is one JSON object:
`{"code", "ended", "head", "tail", "omitted", "left", "survivors", "open", "begun"}`, `code` as a shell gives it, output
as text with invalid UTF-8 escaped. `open`: the kernel could not hide the `hidden` folder. `begun` is false if the login
shell, by whose environment the command runs with `login`, ended before it, or could not be started.

It imports nothing of the agent, and what hides the folder. RLIMIT_NPROC is not used: it counts all processes of a user
id on the machine, other workspaces' too. The count here is the command's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import sys
import time

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))))

from app.volume.landlock import hide

PR_SET_CHILD_SUBREAPER = 36

TICK, LONGEST_TICK = 0.05, 0.5
"""Seconds between two looks at how many processes there are: twice as long after each that finds as many as before."""

PIPE_READS = 16
"""More than a pipe holds; a process that could not be killed may go on writing."""

KILLING_SECONDS = 8.0
"""How long to try; only processes stuck in the kernel take this long."""

RUN = """cd -P /proc/self/fd/9 && printf . >&8 && while [ "$1" != -- ]; do export "$1"; shift; done && shift &&
exec "$@" <&6 >&7 2>&5 5>&- 6>&- 7>&- 8>&- 9>&-"""
"""What the first shell runs, with the variables to add, `--`, and the command. A profile that it read may have printed
something, or gone elsewhere: the command has only the variables of that."""


class Output:
    """The first and the last bytes of a stream of any length."""

    def __init__(self, head: int, tail: int) -> None:
        self._head_limit, self._tail_limit = head, tail
        self._head, self._tail = bytearray(), bytearray()
        self.omitted = 0

    def add(self, data: bytes) -> None:
        """Add data of the stream."""
        room = self._head_limit - len(self._head)
        self._head += data[:room] if room > 0 else b""
        self._tail += data[max(room, 0) :]
        surplus = len(self._tail) - self._tail_limit
        if surplus > 0:
            del self._tail[:surplus]
            self.omitted += surplus

    def parts(self) -> tuple[str, str]:
        """Head and tail as text; the head is the whole if nothing was omitted."""
        if not self.omitted:
            return text_of(bytes(self._head + self._tail)), ""
        # The cuts may have split characters.
        tail = bytes(self._tail)
        while tail and 0x80 <= tail[0] < 0xC0:
            tail = tail[1:]
        return text_of(_whole_characters(bytes(self._head))), text_of(tail)


def _whole_characters(data: bytes) -> bytes:
    """Without a character that was cut off at the end."""
    try:
        data.decode()
    except UnicodeDecodeError as e:
        return data[: e.start] if e.end == len(data) else data
    return data


def text_of(data: bytes) -> str:
    """Bytes as text, with invalid UTF-8 and unusual control characters escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c >= " " or c in "\n\t" else "" if c == "\r" else f"\\x{ord(c):02x}" for c in text)


def descendants(root: int | None = None) -> list[int]:
    """Every process below `root`, by default this one, from /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                # The name in parentheses may hold anything; the parent is the second field after it.
                fields = file.read().rpartition(b")")[2].split()
                if fields[0] not in (b"Z", b"X"):
                    children.setdefault(int(fields[1]), []).append(int(name))
    found = list(children.get(root or os.getpid(), ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def reap() -> bool:
    """Reap dead children; whether no child is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            return False


def end_all() -> tuple[int, int]:
    """Kill everything below this process; how many there were, and how many survived."""
    deadline = time.monotonic() + KILLING_SECONDS
    seen: set[int] = set()
    while not reap() and time.monotonic() < deadline:
        stopped: set[int] = set()
        # Until there are no new ones: a stopped process does not fork.
        while (new := set(descendants()) - stopped) and time.monotonic() < deadline:
            for pid in new:
                _signal(pid, signal.SIGSTOP)
            stopped |= new
        for pid in stopped:
            _signal(pid, signal.SIGKILL)
        seen |= stopped
        if not reap():
            time.sleep(0.005)
    return len(seen), 0 if reap() else len(descendants())


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def shell() -> str:
    """The shell that runs commands."""
    return "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"


def start(order: dict, streams: tuple[int, int, int], begun: int) -> int:
    """Start a shell with the command; its process id. A byte is written to `begun` as the command begins."""
    added = [f"{name}={value}" for name, value in order["added"].items()]
    # If memory runs out, the kernel should kill the command, not the agent.
    script = 'echo 1000 2>/dev/null >/proc/self/oom_score_adj; exec "$@"'
    first = [shell(), "-lc" if order["login"] else "-c", RUN, "sh", *added, "--", *order["argv"]]
    stdin, stdout, stderr = streams
    opened = []
    if order["terminal"]:
        # The first terminal that a session's leader opens becomes its controlling one.
        opened = [(os.POSIX_SPAWN_OPEN, 6, order["terminal"], os.O_RDWR, 0)]
        stdin = stdout = stderr = 6
    return os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", script, "sh", *first],
        {name: value for name, value in {**os.environ, **order["environment"]}.items() if value is not None},
        file_actions=[
            *opened,
            (os.POSIX_SPAWN_DUP2, stdin, 6),
            (os.POSIX_SPAWN_DUP2, stdout, 7),
            (os.POSIX_SPAWN_DUP2, stderr, 5),
            (os.POSIX_SPAWN_DUP2, begun, 8),
            (os.POSIX_SPAWN_OPEN, 9, order["cwd"], os.O_RDONLY | os.O_DIRECTORY, 0),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM],
    )


def watch(command: int, output: int, ended: int, kept: Output, order: dict) -> tuple[int, str]:
    """Read the output until the shell ends or must end; its status and why it was ended ("": by itself). `ended` can be
    read once a child has ended."""
    deadline = time.monotonic() + order["seconds"]
    poll = select.poll()
    for each in (0, output, ended):
        poll.register(each, select.POLLIN)
    checked, tick, before = 0.0, TICK, 0
    while True:
        left = deadline - time.monotonic()
        for fd, _ in poll.poll(1000 * max(0.0, min(tick, left))):
            if fd == 0:
                wanted = os.read(0, 4096)
                if not wanted:
                    return -1, "stopped"
                pass_on(wanted, command)
                continue
            data = os.read(fd, 1 << 20)
            if not data:
                poll.unregister(fd)
            elif fd == output:
                kept.add(data)
        pid, status = os.waitpid(command, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), ""
        now = time.monotonic()
        if now > deadline:
            return -1, "late"
        if now - checked > tick:
            # Counting all processes is much cheaper than reading each.
            count = len(os.listdir("/proc"))
            if count > order["processes"] and len(descendants()) > order["processes"]:
                return -1, "processes"
            tick = min(LONGEST_TICK, 2 * tick) if count == before else TICK
            checked, before = now, count


def drain(output: int, kept: Output) -> None:
    """Read the rest of the pipe; its writers have ended, or are stuck."""
    os.set_blocking(output, False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(PIPE_READS):
            kept.add(os.read(output, 1 << 20))


def pass_on(signals: bytes, command: int) -> None:
    """Send the command's process group the signals whose numbers these lines are."""
    for number in signals.split():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(command, int(number))


def read_order() -> tuple[dict, bytes] | None:
    """The order, and the signals that came right behind it; None if there comes none."""
    received = bytearray()
    while b"\n" not in received:
        data = os.read(0, 65536)
        if not data:
            return None
        received += data
    line, _, signals = bytes(received).partition(b"\n")
    return json.loads(line), signals


def ends_of_children() -> int:
    """A descriptor that can be read once a child has ended."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read_end


def above(fd: int) -> int:
    """The descriptor under a number that the shell's own do not take."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return moved


def main() -> None:
    """Carry out the order and answer."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ended = ends_of_children()
    received = read_order()
    if received is None:
        return
    order, signals = received
    opened = bool(order["hidden"]) and not hide(order["hidden"])
    kept = Output(order["head"], order["tail"])
    read_end, write_end = os.pipe()
    # No pipe: whatever reads all open files of the user's would take the byte.
    begun = above(os.memfd_create("begun"))
    stdin, stdout, stderr = order["streams"] or (os.open("/dev/null", os.O_RDONLY), write_end, os.dup(write_end))
    streams = above(stdin), above(stdout), above(stderr)
    if order["streams"]:
        os.close(write_end)
    try:
        command = start(order, streams, begun)
    except OSError:  # The folder is gone.
        command = 0
    for each in streams:
        os.close(each)
    if command:
        pass_on(signals, command)
    code, why = watch(command, read_end, ended, kept, order) if command else (-1, "")
    left, survivors = end_all()
    drain(read_end, kept)
    head, tail = kept.parts()
    answer = {"code": code, "ended": why, "head": head, "tail": tail, "omitted": kept.omitted}
    answer |= {"left": left, "survivors": survivors, "open": opened, "begun": os.fstat(begun).st_size > 0}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    # The agent waits for the end of this process: there is nothing left to free.
    os._exit(0)


if __name__ == "__main__":
    main()
