"""Terminals of callers: a shell there is one as any other, and each key is typed once."""

from __future__ import annotations

import hashlib
import os
import signal

import psutil
import pytest

from app.agent.execs.order import read_order
from app.agent.execs.signals import signals
from app.agent.execs.terminal import Ended, Moved
from app.agent.protocol import INPUT_BYTES, ExecReason, Window
from tests.unit.agent.test_agent_execs import Place, ended, place, texts
from tests.waiting import PATIENCE, wait_for

__all__ = ["place"]

SIZE = {"rows": 30, "columns": 100}
SHELL = "PS1='$ ' exec bash --norc --noprofile"


def begin(place: Place, command: object = SHELL, id_: str = "it", **more: object):
    return place.begin(command, id_, tty=SIZE, **more)


def typed(found, text: str) -> None:
    """Type it after all that was typed."""
    terminal = found.terminal()
    assert terminal.write(terminal.taken, text.encode()) == terminal.taken


def shows(found, text: str, times: int = 1) -> None:
    wait_for(lambda: texts(found)[0].count(text) >= times, f"the terminal shows {text!r}", lambda: str(texts(found)))


def prompts(shell, times: int) -> None:
    """Wait until the shell has asked so often for a command: what is typed earlier may be flushed."""
    shows(shell, "\x1b[?2004h$ ", times)


def below(shell, name: str) -> psutil.Process:
    """What runs in a terminal by this name."""
    (found,) = [each for each in psutil.Process(shell._run.pid).children(recursive=True) if each.name() == name]
    return found


def test_a_command_has_a_terminal_of_its_own(place):
    """Its input, output and error, its controlling one, of the size asked for, and the variables that go with it."""
    begun = begin(place, "test -t 0 && test -t 1 && test -t 2 && echo so >/dev/tty; stty size; echo $TERM${PAGER-no}")
    begun.wait(PATIENCE)
    assert texts(begun) == ("so\r\n30 100\r\nxterm-256colorno\r\n", "")
    assert ended(begun) == (0, None, None)


def test_a_caller_names_another_kind_of_terminal(place):
    begun = place.begin("echo $TERM", tty=SIZE, env={"TERM": "vt100"})
    begun.wait(PATIENCE)
    assert texts(begun)[0] == "vt100\r\n"


def test_what_is_typed_is_run_interrupted_and_ended(place):
    shell = begin(place)
    prompts(shell, 1)
    typed(shell, "echo $((6*7))\r")
    shows(shell, "42\r\n")
    prompts(shell, 2)
    # As one job: what is typed between two of them is not for either.
    typed(shell, "sh -c 'echo begun; exec sleep 1000'\r")
    shows(shell, "\rbegun\r\n")
    typed(shell, "\x03")
    prompts(shell, 3)
    typed(shell, "echo $?ü\r")
    shows(shell, "130ü\r\n")
    typed(shell, "exit 3\r")
    shell.wait(PATIENCE)
    assert ended(shell) == (3, None, None)
    with pytest.raises(Ended):
        shell.terminal().write(shell.input_bytes, b"x")
    with pytest.raises(Ended):
        shell.terminal().resize(Window(1, 1))
    assert shell.tty == SIZE


def test_a_job_in_the_foreground_can_be_stopped_and_goes_on(place):
    shell = begin(place)
    prompts(shell, 1)
    typed(shell, "sh -c 'echo ready; exec sed -u s/^/got:/'\r")
    shows(shell, "\rready\r\n")
    typed(shell, "seen\r")
    shows(shell, "got:seen\r\n")
    typed(shell, "\x1a")
    shows(shell, "Stopped")
    prompts(shell, 2)
    job = below(shell, "sed")
    typed(shell, "fg\r")
    wait_for(lambda: job.status() != psutil.STATUS_STOPPED, "it goes on")
    typed(shell, "again\r")
    shows(shell, "got:again\r\n")


def test_a_piece_is_typed_once_and_only_where_it_belongs(place):
    cat = begin(place, "stty -echo; echo ready; cat > typed; echo written")
    shows(cat, "ready")
    terminal = cat.terminal()
    assert [terminal.write(0, b"one\n"), terminal.write(0, b"one\n")] == [4, 4]
    for at, data in ((0, b"two\n"), (3, b"two\n"), (5, b"two\n"), (4_000, b"")):
        with pytest.raises(Moved):
            terminal.write(at, data)
    assert [terminal.write(4, b"two\n"), terminal.write(4, b"two\n"), cat.input_bytes] == [8, 8, 8]
    terminal.write(8, b"\x04")
    shows(cat, "written")
    assert (place.app / "typed").read_text() == "one\ntwo\n"


def test_a_program_that_reads_nothing_takes_a_part_and_the_rest_later(place):
    """Nothing is lost, and nobody waits."""
    command = "stty raw -echo; echo ready; while [ ! -e go ]; do sleep 0.01; done; head -c 300000 | sha256sum"
    slow = begin(place, command)
    shows(slow, "ready")
    data = os.urandom(300_000)
    terminal, taken = slow.terminal(), 0
    while (further := terminal.write(taken, data[taken : taken + INPUT_BYTES])) > taken:
        taken = further
    assert 0 < taken < len(data)
    assert terminal.write(taken, data[taken : taken + INPUT_BYTES]) == taken, "there is no room"
    (place.app / "go").touch()

    def send() -> bool:
        nonlocal taken
        taken = terminal.write(taken, data[taken : taken + INPUT_BYTES])
        return taken == len(data)

    wait_for(send, "the rest is taken")
    slow.wait(PATIENCE)
    assert hashlib.sha256(data).hexdigest() in texts(slow)[0]


def test_all_that_is_written_arrives(place):
    """Also what was written just before the end."""
    for number in range(5):
        begun = begin(place, "stty -opost; head -c 1000000 /dev/zero", f"id{number}")
        begun.wait(PATIENCE)
        assert (begun.stream("stdout").size, ended(begun)) == (1_000_000, (0, None, None))


def test_a_program_is_told_of_another_size(place):
    program = begin(place, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done")
    shows(program, "ready")
    program.terminal().resize(Window(5, 7))
    program.wait(PATIENCE)
    assert texts(program)[0].endswith("5 7\r\n")
    assert program.tty == {"rows": 5, "columns": 7}


def test_a_program_is_told_also_of_the_size_that_it_has(place):
    """Who attaches sees it drawn anew."""
    program = begin(place, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done")
    shows(program, "ready")
    program.terminal().resize(Window(**SIZE))
    program.wait(PATIENCE)
    assert texts(program)[0].endswith("30 100\r\n")


def test_a_shell_that_is_to_end_ends_though_it_ignores_sigterm(place):
    shell = begin(place)
    prompts(shell, 1)
    shell.kill(signal.SIGTERM)
    typed(shell, "echo still $((40+2))\r")
    shows(shell, "still 42")
    prompts(shell, 2)
    # bash notices a SIGHUP that comes just before it waits for a key only with the next key.
    bash = below(shell, "bash")
    wait_for(lambda: bash.status() == psutil.STATUS_SLEEPING, "it waits for a key")
    shell.kill(None)
    shell.wait(PATIENCE)
    assert (shell.end.reason, shell.end.signal) == (ExecReason.KILLED, "SIGHUP")


def test_a_stop_of_the_workspace_ends_it(place):
    shell = begin(place)
    prompts(shell, 1)
    place.execs.stop_reason = ExecReason.SLEEP
    place.execs.stop(PATIENCE)
    assert shell.end.reason is ExecReason.SLEEP


def test_nothing_is_left_open(place):
    place.run("true", "first")
    wait_for(lambda: place.execs._runners._spare, "a runner is started ahead")
    before = set(os.listdir("/proc/self/fd"))
    for number in range(3):
        begin(place, "true", f"id{number}").wait(PATIENCE)
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= len(before), "all is closed")


def test_a_terminal_that_is_only_open_is_no_use(place):
    shell = begin(place)
    prompts(shell, 1)
    used = signals(place.execs, 1e10)["exec"].at
    assert used <= shell.active_at < 1e10
    typed(shell, "x")
    wait_for(lambda: shell.active_at > used, "what is typed is shown")
    assert used < signals(place.execs, 1e10)["exec"].at < 1e10


def test_a_terminal_may_be_used_for_a_day():
    given = {"id": "it", "command": "bash", "tty": SIZE}
    assert read_order(given, 60.0).seconds == 86_400
    assert read_order({**given, "timeout": 80_000}, 60.0).seconds == 80_000
    assert read_order(given, 90_000.0).seconds == 90_000


def test_the_end_of_a_longer_output_than_is_kept_is_followed(place):
    """A shell outlives what a file keeps of it."""
    place.agent(most=1_000)
    shell = begin(place, "cat /dev/zero | head -c 5000 | tr '\\0' x; read; echo late; read")
    wait_for(lambda: shell.stream("stdout").size == 5_000, "it has written")
    stream = shell.stream("stdout")
    assert stream.piece(0, 65_536, ended=False) == ("x" * 1_000, 1_000)
    assert stream.piece(1_000, 65_536, ended=False) == ("x" * 4_000, 5_000)
    assert stream.piece(5_000, 65_536, ended=False) == ("", 5_000)
    typed(shell, "\r")
    shows(shell, "late")
    assert shell.stream("stdout").piece(5_000, 65_536, ended=False)[0].endswith("late\r\n")
