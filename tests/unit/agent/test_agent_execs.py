"""Commands of callers: run once, to their end or ours, with all their output, and told truly."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import psutil
import pytest

from app.agent.execs import execs as execs_module
from app.agent.execs import run
from app.agent.execs.exec import STREAMS
from app.agent.execs.execs import Closed, Execs, IdReused, TooMany
from app.agent.execs.order import BadOrder, read_order
from app.agent.execs.output import HEAD, TAIL, Output, Stream
from app.agent.execs.signals import signals
from app.agent.protocol import ExecReason
from app.agent.tools.orphans import MARK, marked_processes
from app.agent.tools.sandbox_path import Workspace
from tests.waiting import PATIENCE, wait_for

UUID = f"execs{os.getpid()}"


class Place:
    """A workspace's folders, and agents of it one after another."""

    def __init__(self, folder):
        self.app, self.kept = folder / "app", folder / ".execs"
        self.app.mkdir()
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder), MARK: UUID}
        self.execs = self.agent()

    def agent(self, most=1_000_000, at_once=16):
        limits = {"longest": PATIENCE, "at_once": at_once, "most": most}
        self.execs = Execs(Workspace(self.app), self.kept, self.environment, **limits)
        self.execs.open()
        return self.execs

    def begin(self, command, id_="one", **more):
        return self.execs.begin(read_order({"id": id_, "command": command, **more}, PATIENCE))

    def run(self, command, id_="one", **more):
        begun = self.begin(command, id_, **more)
        begun.wait(PATIENCE)
        assert not begun.running
        return begun


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.execs.stop(PATIENCE)


def texts(found):
    return tuple(found.stream(name).text() for name in STREAMS)


def ended(found):
    return found.end.exit_code, found.end.signal, found.end.reason


def test_output_error_and_exit_code_are_told_apart(place):
    found = place.run("echo out; echo err >&2; exit 3")
    assert texts(found) == ("out\n", "err\n")
    assert ended(found) == (3, None, None)


def test_a_list_runs_a_program_without_a_shell(place):
    found = place.run(["printf", "%s|", "a b", "$HOME", "*", "x=y", "--", "ü\n"])
    assert texts(found) == ("a b|$HOME|*|x=y|--|ü\n|", "")


def test_a_program_that_does_not_exist_is_127(place):
    found = place.run(["no-such-program"])
    assert ended(found) == (127, None, None) and "no-such-program" in texts(found)[1]


def test_folder_variables_and_input_are_the_callers(place):
    (place.app / "a b").mkdir()
    (place.app.parent / ".profile").write_text("export X=profile Y=profile PATH=$PATH:/profile; echo noise; cd /\n")
    given = {"cwd": "a b", "env": {"X": "own\n=$Z'\"", "Z": ""}, "stdin": "in\n"}
    found = place.run('pwd; printf "%s|%s|%s\n" "$X" "$Y" "${PATH##*:}"; cat', **given)
    assert texts(found) == (f"{place.app}/a b\nown\n=$Z'\"|profile|/profile\nin\n", "")


def test_bytes_that_are_no_text_and_nul_arrive(place):
    found = place.run(r"printf 'gr\303\274n\377\000x'")
    assert texts(found)[0] == "grün�\0x"
    assert found.stream("stdout").read(0, 100) == b"gr\xc3\xbcn\xff\x00x"


def test_without_input_it_reads_nothing(place):
    assert texts(place.run("cat; echo done"))[0] == "done\n"


def test_the_same_id_runs_once_and_another_command_is_refused(place):
    place.run("echo x >> count", env={"A": "1"})
    again = place.run("echo x >> count", env={"A": "1"})
    assert ended(again) == (0, None, None)
    assert (place.app / "count").read_text() == "x\n"
    for other in ({"command": "true"}, {"command": "echo x >> count"}, {"command": ["echo x >> count"]}):
        with pytest.raises(IdReused):
            place.execs.begin(read_order({"id": "one", **other}, PATIENCE))


def test_callers_of_one_id_at_once_run_it_once(place):
    callers = [threading.Thread(target=place.run, args=("echo x >> count",)) for _ in range(8)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert (place.app / "count").read_text() == "x\n"


def test_a_signal_ends_it_or_is_its_own_business(place):
    found = place.begin("trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.01; done")
    wait_for(lambda: texts(found)[0] == "ready\n", "the command begins")
    found.kill(signal.SIGINT)
    found.wait(PATIENCE)
    assert (ended(found), texts(found)[0]) == ((7, None, None), "ready\ncaught\n")
    found = place.begin("echo ready; exec sleep 1000", "two")
    wait_for(lambda: texts(found)[0] == "ready\n", "the command begins")
    found.kill(signal.SIGHUP)
    found.wait(PATIENCE)
    assert ended(found) == (None, "SIGHUP", None)


def test_asked_to_end_it_gets_a_sigterm_first(place):
    found = place.begin("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    wait_for(lambda: texts(found)[0] == "ready\n", "the command begins")
    found.kill(None)
    found.wait(PATIENCE)
    assert (ended(found), texts(found)[0]) == ((0, None, None), "ready\nbye\n")
    found.kill(None)  # It has ended: nothing to do.


def test_a_signal_right_behind_the_order_reaches_the_command(place):
    """Before the runner has read either, and perhaps before the login shell has begun the command."""
    found = place.begin("sleep 1000")
    found.kill(signal.SIGHUP)
    found.wait(PATIENCE)
    assert ended(found) in ((None, "SIGHUP", None), (None, None, ExecReason.NOT_BEGUN))


@pytest.mark.parametrize("number", [None, signal.SIGKILL])
def test_what_does_not_listen_is_killed_with_all_it_started(place, number, monkeypatch):
    monkeypatch.setattr(run, "KILL_AFTER", 0.1)
    mark = f"mark-{os.getpid()}-{number}"
    found = place.begin(f"trap '' TERM; setsid sh -c 'sleep 1000; : {mark}' & echo ready; while :; do sleep 0.01; done")
    wait_for(lambda: texts(found)[0] == "ready\n", "the command begins")
    found.kill(number)
    found.wait(PATIENCE)
    assert found.end.reason == ExecReason.KILLED and found.end.exit_code is None
    assert not [each for each in psutil.process_iter(["cmdline"]) if mark in " ".join(each.info["cmdline"] or [])]


def test_it_ends_at_its_time_limit(place):
    """However far it came until then."""
    assert ended(place.run("sleep 1000", timeout=0.3)) == (None, None, ExecReason.TIMEOUT)


def test_what_it_leaves_running_is_ended_and_counted(place):
    found = place.run("sleep 1000 & sleep 1000 & echo done")
    assert (ended(found), texts(found)[0], found.end.left) == ((0, None, None), "done\n", 2)


def test_of_a_long_output_an_answer_has_both_ends_and_the_file_what_it_may(place):
    place.agent(most=200_000)
    found = place.run("echo first; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo last")
    stream = found.stream("stdout")
    text = stream.text()
    assert text.startswith("first\nxxx") and text.endswith("xxx\nlast\n") and stream.truncated
    assert f"[… {1_000_012 - HEAD - TAIL} bytes left out …]" in text
    assert (stream.size, stream.kept, (place.kept / "one/stdout").stat().st_size) == (
        1_000_012,
        200_000,
        200_000,
    )


def test_a_full_disk_costs_the_file_its_end_and_nothing_else(tmp_path, monkeypatch):
    output = Output(tmp_path / "file", 1_000_000)
    output.add(b"kept")
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    output.add(b" and lost")
    output.close()
    so_far = output.so_far
    assert (so_far.size, so_far.kept, so_far.text(), so_far.truncated) == (13, 4, "kept and lost", False)


def test_pieces_follow_each_other_and_cut_no_character(tmp_path):
    path = tmp_path / "file"
    whole = "aü€😀" * 50
    data = whole.encode()
    path.write_bytes(data)
    for step in range(4, 12):
        got, at = "", 0
        while at < len(data):
            # Byte by byte, as a slow command writes.
            for size in range(at + 1, len(data) + 1):
                text, following = Stream(path, size, size).piece(at, step, ended=size == len(data))
                if following > at:
                    break
            got, at = got + text, following
        assert got == whole
    assert Stream(path, 3, 3).piece(0, 10, ended=True) == ("aü", 3)
    assert Stream(path, 2, 2).piece(0, 10, ended=True) == ("a�", 2)
    assert Stream(path, 900, 500).piece(500, 10, ended=False) == ("", 900)
    path.unlink()
    assert Stream(path, 900, 500).piece(7, 10, ended=True) == ("", 900)


def test_a_waiting_caller_gets_each_piece_as_it_comes(place):
    os.mkfifo(place.app / "pipe")
    found = place.begin("echo one; read line < pipe; echo two")
    found.wait(PATIENCE, {"stdout": 0, "stderr": 0})
    assert texts(found)[0] == "one\n" and found.running
    (place.app / "pipe").write_text("go\n")
    found.wait(PATIENCE, {"stdout": 4, "stderr": 0})
    found.wait(PATIENCE)
    assert texts(found)[0] == "one\ntwo\n"


def test_a_killed_runner_is_told_as_lost_and_leaves_nothing(place):
    found = place.begin("echo begun; kill -9 $PPID; setsid sleep 1000 & sleep 1000")
    found.wait(PATIENCE)
    assert (found.end.reason, texts(found)[0]) == (ExecReason.LOST, "begun\n")
    assert marked_processes(UUID, and_below=True) == [] or place.execs.running() == []
    assert texts(place.run("echo alive", "two"))[0] == "alive\n"


def test_a_stop_ends_all_and_says_why(place):
    found = [place.begin("echo begun; sleep 1000", f"id{n}") for n in range(3)]
    wait_for(lambda: all(texts(each)[0] == "begun\n" for each in found), "the command begins")
    place.execs.stop_reason = ExecReason.SLEEP
    place.execs.stop(PATIENCE)
    assert [each.end.reason for each in found] == [ExecReason.SLEEP] * 3
    with pytest.raises(Closed):
        place.begin("true", "late")
    assert marked_processes(UUID, and_below=True) == []


def test_the_next_agent_knows_what_ran(place):
    place.agent(most=4)
    place.run("echo out; echo err >&2; exit 3", "ended")
    place.begin("echo begun; sleep 1000", "cut").wait(PATIENCE, {"stdout": 0, "stderr": 0})
    folder = place.kept
    (folder / "cut" / "kept").write_bytes((folder / "cut" / "stdout").read_bytes())
    place.execs.stop(PATIENCE)
    (folder / "cut" / "end.json").unlink()  # As if the agent had been killed.
    later = place.agent()
    assert [each.asked["id"] for each in later.newest()] == ["cut", "ended"]
    assert (ended(later.find("ended")), texts(later.find("ended"))) == ((3, None, None), ("out\n", "err\n"))
    assert (later.find("cut").end.reason, texts(later.find("cut"))[0]) == (ExecReason.LOST, "begu")
    assert later.begin(read_order({"id": "cut", "command": "echo begun; sleep 1000"}, PATIENCE)).end is not None


ORDER = {"id": "one", "command": "true", "cwd": ".", "detached": False, "tty": None, "digest": "d", "started_at": 1}
STREAM = {"size": 4, "kept": 4, "tail": "YWFhYQ=="}
END = {"exit_code": 0, "signal": None, "reason": None, "left": 0, "at": 1, "streams": dict.fromkeys(STREAMS, STREAM)}


@pytest.mark.parametrize(
    ("order", "known"),
    [
        (ORDER, True),
        (ORDER | {"command": 7}, False),
        (ORDER | {"started_at": "now"}, False),
        (ORDER | {"id": "two"}, False),
        (ORDER | {"tty": {"rows": 24, "columns": 80}}, True),
        (ORDER | {"tty": {"rows": "24", "columns": 80}}, False),
        ([], False),
    ],
)
def test_an_order_that_a_user_wrote_is_ours_or_ignored(place, order, known):
    folder = place.kept / "one"
    folder.mkdir(parents=True)
    (folder / "order.json").write_text(json.dumps(order))
    assert (place.agent().find("one") is not None) == known


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (END, None),
        (END | {"reason": "nonsense"}, ExecReason.LOST),
        (END | {"streams": {}}, ExecReason.LOST),
        (END | {"streams": dict.fromkeys(STREAMS, STREAM | {"size": "4"})}, ExecReason.LOST),
        (END | {"streams": dict.fromkeys(STREAMS, STREAM | {"tail": "!"})}, ExecReason.LOST),
        (END | {"exit_code": [1]}, ExecReason.LOST),
        (END | {"at": "x"}, ExecReason.LOST),
        (7, ExecReason.LOST),
    ],
)
def test_an_end_that_a_user_wrote_is_an_end_or_lost(place, end, reason):
    folder = place.kept / "one"
    folder.mkdir(parents=True)
    (folder / "order.json").write_text(json.dumps(ORDER))
    (folder / "end.json").write_text(json.dumps(end))
    (folder / "stdout").symlink_to("/etc/hostname")
    os.mkfifo(folder / "stderr")
    found = place.agent().find("one")
    assert found.end.reason == reason
    assert texts(found) == (("aaaa", "aaaa") if reason is None else ("", ""))


def test_so_many_run_at_once_and_so_many_are_kept(place, monkeypatch):
    monkeypatch.setattr(execs_module, "KEPT", 3)
    place.agent(at_once=2)
    held = [place.begin("sleep 1000", f"held{n}") for n in range(2)]
    with pytest.raises(TooMany):
        place.begin("true")
    for each in held:
        each.kill(signal.SIGKILL)
        each.wait(PATIENCE)
    for number in range(5):
        place.run("true", f"id{number}")
    assert [each.asked["id"] for each in place.execs.newest()] == ["id4", "id3", "id2"]
    assert sorted(each.name for each in (place.kept).iterdir()) == ["id2", "id3", "id4"]


def test_a_running_command_is_use_and_a_detached_one_quiet_work(place):
    assert signals(place.execs, 5.0) == {}
    place.begin("sleep 1000", "one")
    detached = place.begin(["sleep", "1000"], "two", detach=True)
    found = signals(place.execs, 5.0)
    assert (found["exec"].at, found["detached_command"].at) == (5.0, 5.0)
    assert found["detached_command"].detail == "sleep 1000"
    assert found["detached_command"].worked_at == detached.active_at > time.time() - PATIENCE


WRONG = {
    "no id": {"id": ""},
    "an id with a slash": {"id": "../x"},
    "the folder above": {"id": ".."},
    "the folder itself": {"id": "."},
    "no command": {"command": ""},
    "an empty list": {"command": []},
    "a list of numbers": {"command": [1]},
    "an object": {"command": {}},
    "a NUL": {"command": "a\0b"},
    "a lone surrogate": {"command": "\ud800"},
    "too long": {"command": "x" * 100_001},
    "too much input": {"stdin": "x" * 100_001},
    "a wrong name": {"env": {"1A": "x"}},
    "a name with a sign": {"env": {"A=B": "x"}},
    "our mark": {"env": {MARK: "x"}},
    "no text": {"env": {"A": 1}},
    "no time": {"timeout": 0},
    "too much time": {"timeout": 1e9},
    "a flag for a time": {"timeout": True},
    "a text for a flag": {"detach": "yes"},
    "a flag for a terminal": {"tty": True},
    "a terminal without columns": {"tty": {"rows": 24}},
    "a terminal without a row": {"tty": {"rows": 0, "columns": 80}},
    "a terminal of a thousand and one": {"tty": {"rows": 24, "columns": 1001}},
    "a terminal of half a row": {"tty": {"rows": 0.5, "columns": 80}},
    "a terminal with more": {"tty": {"rows": 24, "columns": 80, "depth": 3}},
    "a terminal and input": {"tty": {"rows": 24, "columns": 80}, "stdin": "in"},
    "more than a day": {"tty": {"rows": 24, "columns": 80}, "timeout": 86_401},
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
def test_a_wrong_order_is_refused(given):
    with pytest.raises(BadOrder):
        read_order({"id": "one", "command": "true", **given}, PATIENCE)


@pytest.mark.parametrize("cwd", ["..", "/", "missing", "file", "out", "a\0b"])
def test_a_folder_elsewhere_or_none_is_refused(place, cwd):
    (place.app / "file").touch()
    (place.app / "out").symlink_to("/tmp")
    with pytest.raises(BadOrder):
        place.begin("true", cwd=cwd)
    assert place.execs.newest() == []
