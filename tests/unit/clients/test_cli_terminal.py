"""What is typed into a terminal of a workspace: which of it is meant for sessionctl itself, and how the rest is sent
where it is taken in part, at another place, or not at all."""

from __future__ import annotations

import json
import os
import termios

import httpx
import pytest

from tests.unit.clients.api import RUNNING, UUID, Api, Turn, answer, asked, problem, with_output
from tests.waiting import PATIENCE, wait_for
from workspaces import Forbidden, NoTerminal, Window
from workspaces.cli.terminal import BREATH, LONGEST_PAUSE, MOST_INPUT, Bell, Escape, Sender, raw, window_of

HERE = f"/session/{UUID}/exec/e1"

# Escapes


ESCAPES = [
    (b"ls -l ~/src\r", b"ls -l ~/src\r", False),
    (b"~.", b"", True),
    (b"ls\r~.", b"ls\r", True),
    (b"ls\n~.", b"ls\n", True),
    (b"~~.\r", b"~.\r", False),
    (b"~~", b"~", False),
    (b"~~~.", b"~~.", False),
    (b"~/a\r~.", b"~/a\r", True),
    (b"~\r~.", b"~\r", True),
    (b"a~.\r", b"a~.\r", False),
    (b"\r~", b"\r", False),
    # Several in one paste, of which none is marked; and what follows the one that leaves.
    (b"a\r~~b\r~x\r~.rest\r~.", b"a\r~b\r~x\r", True),
    # A paste that is marked has none, wherever it begins; after it there are some again.
    (b"\x1b[200~~.\n~.\n~~~\n\x1b[201~", b"\x1b[200~~.\n~.\n~~~\n\x1b[201~", False),
    (b"\x1b[200~a\n\x1b[201~~.\r~.", b"\x1b[200~a\n\x1b[201~~.\r", True),
    (b"\xc3\xbc\x00\x03\xff", b"\xc3\xbc\x00\x03\xff", False),
]


def fed(*parts: bytes) -> tuple[bytes, bool]:
    """What is sent of these parts in all, and whether one of them left."""
    escape, sent = Escape(), b""
    for part in parts:
        data, leaves = escape.feed(part)
        sent += data
        if leaves:
            return sent, True
    return sent, False


@pytest.mark.parametrize(("typed", "sent", "leaves"), ESCAPES)
def test_escapes_are_found_at_the_beginning_of_a_line_alone(typed: bytes, sent: bytes, leaves: bool) -> None:
    assert fed(typed) == (sent, leaves)


@pytest.mark.parametrize(("typed", "sent", "leaves"), ESCAPES)
def test_escapes_are_the_same_however_the_keys_come(typed: bytes, sent: bytes, leaves: bool) -> None:
    for at in range(len(typed) + 1):
        assert fed(typed[:at], typed[at:]) == (sent, leaves)
    assert fed(*(bytes([each]) for each in typed)) == (sent, leaves)


# Sending


def typed(input_bytes: int) -> httpx.Response:
    return answer({"uuid": UUID, "exec_id": "e1", "input_bytes": input_bytes})


class Rung:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def sender_of(*turns: Turn, at: int = 0, retries: int = 0) -> tuple[Api, Sender, Rung]:
    api, rung = Api(*turns), Rung()
    return api, Sender(api.client(retries).execs, UUID, "e1", at, rung), rung


def sent(api: Api) -> list[tuple[int, bytes]]:
    """What each call typed, and where."""
    inputs = [each for each in api.requests if each.url.path.endswith("/input")]
    return [(int(each.url.params["at"]), each.content) for each in inputs]


def test_what_comes_during_a_call_goes_with_the_next() -> None:
    def during(request: httpx.Request) -> httpx.Response:
        sender.type(b"b")
        sender.type(b"c")
        return typed(6)

    api, sender, rung = sender_of(during, typed(8), at=5)
    sender.type(b"a")
    assert [sender.step(), sender.step()] == [BREATH] * 2
    assert (sent(api), rung.times) == ([(5, b"a"), (6, b"bc")], 2)


def test_what_is_taken_in_part_is_sent_again_from_there() -> None:
    api, sender, _ = sender_of(typed(2), typed(2), typed(5), typed(6))
    sender.type(b"abcde")
    pauses = [sender.step(), sender.step()]
    sender.type(b"f")
    pauses += [sender.step(), sender.step()]
    assert sent(api) == [(0, b"abcde"), (2, b"cde"), (2, b"cdef"), (5, b"f")]
    assert pauses == [BREATH, 2 * BREATH, BREATH, BREATH]


def test_pauses_grow_while_nothing_is_taken_and_no_longer_than_a_person_waits() -> None:
    _, sender, _ = sender_of(*(typed(0) for _ in range(10)))
    sender.type(b"a")
    pauses = [sender.step() for _ in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE


def test_input_that_another_moved_is_typed_where_it_stands_then() -> None:
    looked = answer(with_output(**RUNNING, input_bytes=9))
    api, sender, _ = sender_of(problem(409, "input_moved"), looked, typed(11), at=5)
    sender.type(b"ls")
    assert [sender.step(), sender.step()] == [BREATH] * 2
    assert sent(api) == [(5, b"ls"), (9, b"ls")]
    assert asked(api)[1] == f"GET {HERE}?wake=false"


@pytest.mark.parametrize(
    "failure",
    [httpx.ReadTimeout("lost"), httpx.ConnectError("refused"), problem(429, "rate_limited"), problem(503, "busy")],
)
def test_a_call_that_failed_is_repeated_just_as_it_was(failure: Turn) -> None:
    """Only so does the service know it again, if it was its answer that got lost."""
    api, sender, _ = sender_of(failure, typed(1), typed(2))
    sender.type(b"a")
    first = sender.step()
    sender.type(b"b")
    sender.step()
    sender.step()
    assert (first, sent(api)) == (2 * BREATH, [(0, b"a"), (0, b"a"), (1, b"b")])


def test_the_newest_size_is_set_alone_and_again_if_that_failed() -> None:
    api, sender, _ = sender_of(httpx.ReadTimeout("lost"), httpx.Response(204), typed(1))
    for rows in (30, 40, 50):
        sender.resize(Window(rows, 100))
    sender.type(b"a")
    sender.step()
    sender.step()
    assert asked(api) == [*[f"PUT {HERE}/window"] * 2, f"PUT {HERE}/input?at=0"]
    assert [json.loads(each.content) for each in api.requests[:2]] == [{"rows": 50, "columns": 100}] * 2


def test_what_waits_is_bounded() -> None:
    api, sender, rung = sender_of(typed(MOST_INPUT), typed(MOST_INPUT + 1))
    rooms = []
    for typing in (b"a" * (MOST_INPUT - 1), b"aa"):
        sender.type(typing)
        rooms.append(sender.has_room)
    sender.step()
    assert (rooms, sender.has_room, rung.times) == ([True, False], True, 1)
    sender.step()
    assert [len(content) for _, content in sent(api)] == [MOST_INPUT, 1]


@pytest.mark.parametrize(
    ("status", "code"), [(409, "no_terminal"), (409, "asleep"), (404, "exec_not_found"), (404, "session_not_found")]
)
def test_an_end_of_the_command_is_no_failure(status: int, code: str) -> None:
    api, sender, rung = sender_of(problem(status, code))
    sender.type(b"a" * MOST_INPUT)
    sender.run()
    sender.type(b"more")
    assert (sender.failure, sender.has_room, rung.times, len(api.requests)) == (None, True, 1, 1)


def test_a_refusal_is_a_failure() -> None:
    _, sender, rung = sender_of(problem(403, "forbidden"))
    sender.type(b"a")
    sender.run()
    assert isinstance(sender.failure, Forbidden)
    assert rung.times == 1


def test_what_was_typed_last_is_sent_before_it_stops() -> None:
    api, sender, rung = sender_of(typed(1))
    sender.type(b"a")
    sender.start()
    sender.finish(PATIENCE)
    wait_for(lambda: rung.times == 2, "the sender ended")
    assert sent(api) == [(0, b"a")]


def test_a_program_that_reads_nothing_is_not_waited_for_at_the_end() -> None:
    api, sender, rung = sender_of(typed(0))
    sender.type(b"a")
    sender.step()
    sender.finish(0.0)
    sender.run()
    assert (sent(api), rung.times) == ([(0, b"a")], 2)


def test_a_terminal_that_ended_by_then_is_told_by_the_step_itself() -> None:
    _, sender, _ = sender_of(problem(409, "no_terminal"))
    sender.resize(Window(40, 120))
    with pytest.raises(NoTerminal):
        sender.step()


# The local terminal


def test_a_bell_tells_each_number_and_none_twice() -> None:
    bell = Bell()
    assert bell.heard() == b""
    bell.ring()
    bell.ring()
    assert (bell.heard(), bell.heard()) == (b"\0\0", b"")
    bell.close()
    bell.ring()


def test_a_bell_that_nobody_hears_holds_nobody_up() -> None:
    bell = Bell()
    for _ in range(100_000):
        bell.ring()
    assert bell.heard()
    bell.close()


def test_a_terminal_is_raw_only_meanwhile_and_keeps_what_was_typed_ahead() -> None:
    master, slave = os.openpty()
    try:
        before = termios.tcgetattr(slave)
        os.write(master, b"ls")
        with pytest.raises(RuntimeError), raw(slave):
            assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
            assert os.read(slave, 10) == b"ls"
            raise RuntimeError
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(("told", "taken"), [((0, 0), (24, 80)), ((1, 1), (1, 1)), ((2_000, 3_000), (1_000, 1_000))])
def test_a_window_has_a_size_that_a_workspace_may_have(told: tuple[int, int], taken: tuple[int, int]) -> None:
    master, slave = os.openpty()
    try:
        termios.tcsetwinsize(slave, told)
        assert window_of(slave) == Window(*taken)
    finally:
        os.close(master)
        os.close(slave)
