"""`sessionctl shell`: a terminal of a workspace in one of this machine, with a person at it."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.unit.clients.api import RUNNING, UUID, answer, command, problem, sse, with_output
from tests.unit.clients.conftest import Ended, Sessionctl
from tests.waiting import PATIENCE, wait_for
from workspaces.cli.context import FAILED, NOT_FOUND, TIMED_OUT, UNREACHABLE, USAGE
from workspaces.cli.running import ENDED, INTERRUPTED
from workspaces.cli.shell import SHELL

HERE = f"/session/{UUID}/exec"
PROMPT = "\x1b[32m$\x1b[0m ü "


class Live(httpx.SyncByteStream):
    """A body whose parts come as a test has them, to its end, which is None."""

    def __init__(self, parts: queue.Queue[str | None]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        while (part := self._parts.get(timeout=PATIENCE)) is not None:
            yield part.encode()


class Remote(httpx.BaseTransport):
    """A workspace with one command in a terminal. `typed` is what it was sent, `windows` its sizes; `refusals` answer
    a method and the end of a path in its stead, each once. It ends with the code 7 at the key Ctrl-D."""

    def __init__(self, **fields: Any) -> None:
        self.about = with_output(**{**RUNNING, **fields})
        self.typed = b""
        self.windows: list[tuple[int, int]] = []
        self.requests: list[httpx.Request] = []
        self.refusals: dict[tuple[str, str], httpx.Response] = {}
        self._events: queue.Queue[str | None] = queue.Queue()

    def shows(self, text: str) -> None:
        self._events.put(sse("9-0", "stdout", text=text))

    def ends(self, **fields: Any) -> None:
        self._events.put(sse("9-0", "exit", **command(**fields)))

    def breaks(self) -> None:
        """The stream ends, before its command."""
        self._events.put(None)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        last = request.url.path.rpartition("/")[2]
        if refusal := self.refusals.pop((request.method, last), None):
            return refusal
        match request.method, last:
            case "POST", "exec":
                body = json.loads(request.content)
                self.about |= {"exec_id": "e1", "tty": body["tty"]}
                self.shows(PROMPT)
                return answer(self.about, 202)
            case "GET", "e1" if "event-stream" in request.headers["Accept"]:
                return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Live(self._events))
            case "GET", "e1":
                return answer(self.about)
            case "PUT", "input":
                return self._input(request)
            case "PUT", "window":
                body = json.loads(request.content)
                self.windows.append((body["rows"], body["columns"]))
                return httpx.Response(204)
            case "DELETE", "e1":
                return answer(self.about, 202)
        raise AssertionError(f"unexpected: {request.method} {request.url}")

    def _input(self, request: httpx.Request) -> httpx.Response:
        assert int(request.url.params["at"]) == self.about["input_bytes"]
        self.typed += request.content
        self.about["input_bytes"] += len(request.content)
        if b"\x04" in request.content:
            self.ends(exit_code=7)
        return answer({"uuid": UUID, "exec_id": "e1", "input_bytes": self.about["input_bytes"]})

    @property
    def asked(self) -> list[str]:
        return [f"{each.method} {each.url.raw_path.decode()}" for each in self.requests]

    @property
    def order(self) -> dict[str, Any]:
        """What the first call asked for."""
        found: dict[str, Any] = json.loads(self.requests[0].content)
        return found


class Person:
    """Somebody at a terminal, which is `keys` on their side and `screen` on the program's. They are
    `alone` once it has ended."""

    def __init__(self) -> None:
        self.keys, self.screen = os.openpty()
        termios.tcsetwinsize(self.screen, (40, 120))
        self.before = termios.tcgetattr(self.screen)
        self.alone = False
        self._shown = b""
        self._went_wrong: Exception | None = None

    def types(self, keys: bytes) -> None:
        os.write(self.keys, keys)

    def sees(self, text: str) -> None:
        """Look until this is shown, or nothing more can be."""
        wait_for(lambda: text in self._look() or self.alone, f"{text!r} is shown", lambda: repr(self._shown))
        assert text in self._look(), f"{text!r} is not in {self._shown!r}"

    @property
    def seen(self) -> str:
        """All that was shown by the last look."""
        return self._shown.decode(errors="replace")

    def _look(self) -> str:
        while select.select([self.keys], [], [], 0)[0]:
            self._shown += os.read(self.keys, 65_536)
        return self.seen

    def leaves_the_window(self) -> None:
        """Close it."""
        keys, self.keys = self.keys, -1
        os.close(keys)

    def acts(self, acts: Callable[[], None]) -> threading.Thread:
        """Do this beside the program; if it goes wrong the window is closed, so that the program ends too."""

        def act() -> None:
            try:
                acts()
            except Exception as error:  # noqa: BLE001 - the test gets every error
                self._went_wrong = error
                self.leaves_the_window()

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        return thread

    def went(self) -> None:
        """Raises what went wrong."""
        if self._went_wrong is not None:
            raise self._went_wrong


@pytest.fixture
def person() -> Iterator[Person]:
    made = Person()
    yield made
    for each in (made.keys, made.screen):
        if each >= 0:
            os.close(each)


@pytest.fixture
def remote() -> Iterator[Remote]:
    """The stream that a test leaves open ends with it."""
    made = Remote()
    yield made
    made.ends()


Shell = Callable[..., Ended]


@pytest.fixture
def shell(sessionctl: Sessionctl, person: Person, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Runs `sessionctl shell` with a person who acts; what they saw is its output."""

    def run(acts: Callable[[], None] = lambda: None, *arguments: str, transport: httpx.BaseTransport = remote) -> Ended:
        with (
            open(person.screen, closefd=False) as stdin,
            open(person.screen, "w", closefd=False) as stdout,
            monkeypatch.context() as patch,
        ):
            # Here, as pytest puts its own there when a test begins.
            patch.setattr("sys.stdin", stdin)
            patch.setattr("sys.stdout", stdout)
            acting = person.acts(acts)
            ended = sessionctl(transport, "shell", UUID, *arguments)
        person.alone = True
        acting.join(PATIENCE)
        person.went()
        assert not acting.is_alive()
        return ended

    return run


def hears(remote: Remote, keys: bytes) -> None:
    wait_for(lambda: remote.typed.endswith(keys), f"{keys!r} was typed", lambda: repr(remote.typed))


# What goes there and back


def test_keys_go_as_they_are_and_so_does_what_they_bring(shell: Shell, person: Person, remote: Remote) -> None:
    def acts() -> None:
        person.sees(PROMPT)
        assert not termios.tcgetattr(person.screen)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        person.types(b"\x03\x1b[A\xc3\xbc\r")
        hears(remote, b"\x03\x1b[A\xc3\xbc\r")
        remote.shows("\x1b[2J\r\nbye\r\n")
        person.sees("\x1b[2J\r\nbye\r\n")
        person.types(b"\x04")

    ended = shell(acts)
    assert (ended.code, ended.err, person.seen) == (7, "", f"{PROMPT}\x1b[2J\r\nbye\r\n")
    assert termios.tcgetattr(person.screen) == person.before
    assert remote.asked[:2] == [f"POST {HERE}?wake=true", f"GET {HERE}/e1?wake=false"]
    assert remote.requests[0].headers["Prefer"] == "respond-async"
    order = remote.order
    assert order.pop("id")
    assert order == {"command": SHELL, "env": {"TERM": "dumb"}, "tty": {"rows": 40, "columns": 120}}


def ends_at_once(person: Person) -> Callable[[], None]:
    def acts() -> None:
        person.sees(PROMPT)
        person.types(b"\x04")

    return acts


def test_options_reach_the_api(shell: Shell, person: Person, remote: Remote) -> None:
    given = ("--cwd", "src", "--env", "TERM=vt100", "--env", "A=1", "--no-wake", "--", "vim", "a b")
    assert shell(ends_at_once(person), *given).code == 7
    assert remote.asked[0] == f"POST {HERE}?wake=false"
    expected = {"command": ["vim", "a b"], "cwd": "src", "env": {"TERM": "vt100", "A": "1"}}
    assert {name: remote.order[name] for name in expected} == expected


def test_one_argument_is_a_text_for_the_shell_and_no_kind_of_terminal_is_none(
    shell: Shell, person: Person, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "")
    shell(ends_at_once(person), "htop -d 5")
    assert (remote.order["command"], "env" in remote.order) == ("htop -d 5", False)


def test_a_paste_comes_whole_and_in_order(shell: Shell, person: Person, remote: Remote) -> None:
    paste = b"".join(b"%06d\r" % each for each in range(20_000))

    def acts() -> None:
        person.sees(PROMPT)
        for at in range(0, len(paste), 1_000):
            person.types(paste[at : at + 1_000])
        hears(remote, paste[-7:])
        person.types(b"\x04")

    assert shell(acts).code == 7
    assert remote.typed == paste + b"\x04"


def test_the_windows_size_is_passed_on(shell: Shell, person: Person, remote: Remote) -> None:
    def acts() -> None:
        person.sees(PROMPT)
        termios.tcsetwinsize(person.screen, (50, 2_000))
        os.kill(os.getpid(), signal.SIGWINCH)
        wait_for(lambda: remote.windows, "the size was set")
        person.types(b"\x04")

    assert shell(acts).code == 7
    assert remote.windows == [(50, 1_000)]


def test_another_who_types_there_too_is_no_hindrance(shell: Shell, person: Person, remote: Remote) -> None:
    def acts() -> None:
        person.sees(PROMPT)
        remote.about["input_bytes"] = 5
        remote.refusals["PUT", "input"] = problem(409, "input_moved")
        person.types(b"ls\x04")

    assert (shell(acts).code, remote.typed) == (7, b"ls\x04")


# Ways out


def test_leaving_says_how_to_come_back_and_what_was_typed_before_is_sent(
    shell: Shell, person: Person, remote: Remote
) -> None:
    def acts() -> None:
        person.sees(PROMPT)
        person.types(b"make\r~.not this")

    ended = shell(acts)
    person.sees(f"{PROMPT}\r\n")
    assert (ended.code, remote.typed) == (0, b"make\r")
    assert f"sessionctl shell {UUID} --attach e1\n" in ended.err
    assert f"sessionctl kill {UUID} e1\n" in ended.err
    assert not any(each.startswith("DELETE") for each in remote.asked)
    assert termios.tcgetattr(person.screen) == person.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_shell_too(shell: Shell, person: Person, remote: Remote, number: int) -> None:
    handler = signal.getsignal(number)

    def acts() -> None:
        person.sees(PROMPT)
        os.kill(os.getpid(), number)

    assert shell(acts).code == 128 + number
    assert remote.asked[-1] == f"DELETE {HERE}/e1?wake=false"
    assert remote.requests[-1].headers["Prefer"] == "respond-async"
    assert termios.tcgetattr(person.screen) == person.before
    assert signal.getsignal(number) == handler


def test_a_window_that_is_closed_ends_the_shell_too(shell: Shell, person: Person, remote: Remote) -> None:
    def acts() -> None:
        person.sees(PROMPT)
        person.leaves_the_window()

    ended = shell(acts)
    assert (ended.code, ended.err) == (128 + signal.SIGHUP, "")
    assert remote.asked[-1] == f"DELETE {HERE}/e1?wake=false"


def test_a_shell_that_can_not_be_ended_is_left(shell: Shell, person: Person, remote: Remote) -> None:
    remote.refusals["DELETE", "e1"] = problem(409, "asleep")

    def acts() -> None:
        person.sees(PROMPT)
        os.kill(os.getpid(), signal.SIGTERM)

    assert shell(acts).code == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("fields", "code", "why"),
    [
        ({"exit_code": None, "signal": "SIGKILL"}, 128 + signal.SIGKILL, ""),
        ({"exit_code": None, "reason": "sleep"}, ENDED, "put to sleep"),
    ],
)
def test_the_code_tells_how_it_ended(
    shell: Shell, person: Person, remote: Remote, fields: dict[str, Any], code: int, why: str
) -> None:
    def acts() -> None:
        person.sees(PROMPT)
        remote.ends(**fields)

    ended = shell(acts)
    assert (ended.code, why in ended.err, len(ended.err.splitlines())) == (code, True, bool(why))


def test_a_session_that_sleeps_by_then_is_an_end_too(shell: Shell, person: Person, remote: Remote) -> None:
    def acts() -> None:
        person.sees(PROMPT)
        remote.refusals["GET", "e1"] = problem(409, "asleep")
        remote.breaks()

    ended = shell(acts)
    assert (ended.code, "its session was put to sleep" in ended.err) == (ENDED, True)
    assert termios.tcgetattr(person.screen) == person.before


@pytest.mark.parametrize(("status", "code", "exit_code"), [(403, "forbidden", FAILED), (404, "gone", NOT_FOUND)])
def test_a_stream_that_is_refused_is_an_error_and_the_way_back_is_told(
    shell: Shell, remote: Remote, status: int, code: str, exit_code: int
) -> None:
    remote.refusals["GET", "e1"] = problem(status, code, "No.")
    ended = shell()
    assert (ended.code, "sessionctl: No." in ended.err, "--attach" in ended.err) == (exit_code, True, status != 404)


def test_keys_that_are_refused_are_an_error(shell: Shell, person: Person, remote: Remote) -> None:
    remote.refusals["PUT", "input"] = problem(401, "unauthorized", "The key is wrong.")

    def acts() -> None:
        person.sees(PROMPT)
        person.types(b"a")

    ended = shell(acts)
    assert (ended.code, "The key is wrong." in ended.err) == (UNREACHABLE, True)


# Coming back


def test_a_terminal_that_runs_is_shown_again(shell: Shell, person: Person, remote: Remote) -> None:
    remote.about |= {"tty": {"rows": 40, "columns": 120}, "input_bytes": 90, "stdout_bytes": 5_000}
    remote.shows("ls\r\na b\r\n")

    def acts() -> None:
        person.sees("a b\r\n")
        wait_for(lambda: remote.windows, "the program was told to draw anew")
        person.types(b"\x04")

    assert shell(acts, "--attach", "e1", "--no-wake").code == 7
    assert remote.windows == [(40, 120)]
    looks = [each for each in remote.requests if each.method == "GET"]
    assert [str(each.url.query, "ascii") for each in looks] == ["wake=false"] * 2
    assert looks[1].headers["Last-Event-ID"] == "4000-0"


def test_one_that_was_there_before_is_left_when_the_window_is_closed(
    shell: Shell, person: Person, remote: Remote
) -> None:
    remote.about |= {"tty": {"rows": 40, "columns": 120}}
    remote.shows(PROMPT)

    def acts() -> None:
        person.sees(PROMPT)
        os.kill(os.getpid(), signal.SIGHUP)

    assert shell(acts, "--attach", "e1").code == 128 + signal.SIGHUP
    assert not any(each.startswith("DELETE") for each in remote.asked)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"state": "exited", "exit_code": 2, "tty": {"rows": 40, "columns": 120}}, "has ended: exit 2"),
        ({}, "has no terminal"),
    ],
)
def test_what_can_not_be_gone_on_in_says_so(
    shell: Shell, person: Person, remote: Remote, fields: dict[str, Any], why: str
) -> None:
    remote.about |= fields
    ended = shell(lambda: None, "--attach", "e1")
    assert (ended.code, why in ended.err, len(remote.asked)) == (FAILED, True, 1)
    assert termios.tcgetattr(person.screen) == person.before


# What is refused


def test_without_a_terminal_there_is_another_command(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Remote(), "shell", UUID, typed="ls")
    assert (ended.code, "terminal" in ended.err, "sessionctl run" in ended.err) == (USAGE, True, True)


@pytest.mark.parametrize("more", [("ls",), ("--cwd", "src"), ("--env", "A=1")])
def test_what_runs_gets_nothing_new(shell: Shell, more: tuple[str, ...]) -> None:
    assert shell(lambda: None, "--attach", "e1", *more).code == USAGE


@pytest.mark.parametrize(
    ("status", "code", "exit_code"), [(409, "asleep", FAILED), (504, "wake_late", TIMED_OUT), (404, "x", NOT_FOUND)]
)
def test_a_shell_that_does_not_begin_is_an_error(
    shell: Shell, person: Person, remote: Remote, status: int, code: str, exit_code: int
) -> None:
    remote.refusals["POST", "exec"] = problem(status, code)
    assert (shell().code, len(remote.asked)) == (exit_code, 1)
    assert termios.tcgetattr(person.screen) == person.before


def test_ctrl_c_while_a_workspace_wakes_says_how_to_look(shell: Shell) -> None:
    def interrupted(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    ended = shell(transport=httpx.MockTransport(interrupted))
    assert (ended.code, f"sessionctl execs {UUID}" in ended.err) == (INTERRUPTED, True)
