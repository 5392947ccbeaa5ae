"""Services: what may run on, started again where it failed, ended with the workspace, and told truly."""

from __future__ import annotations

import json
import os
import socket

import psutil
import pytest

from app.agent.execs.execs import Closed, TooMany
from app.agent.execs.order import BadOrder
from app.agent.protocol import ExecReason, Restart, ServiceState
from app.agent.services import service as service_module
from app.agent.services.definition import COMMAND_BYTES, Definition, read_definition
from app.agent.services.log import FILE_BYTES, FILES, Log
from app.agent.services.services import DOCUMENT
from app.agent.services.tools import tools_of
from app.agent.sockets import find_listener
from app.agent.tools.orphans import MARK, marked_processes
from app.agent.tools.registry import Toolbox
from app.agent.tools.sandbox_path import Workspace
from tests.unit.agent.fakes import services_of
from tests.waiting import PATIENCE, wait_for

UUID = f"services{os.getpid()}"

RUNS_ON = "echo here; exec sleep 1000"

SERVER = """
import os, socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], int(os.environ["PORT"])), family=family):
    print("listening", flush=True)
    if os.path.exists("go"):
        open("go").read()
    else:
        time.sleep(1000)
print("closed", flush=True)
time.sleep(1000)
"""
"""Listens until somebody opens the pipe `go`, if there is one."""

LISTENS = "exec python3 server.py 127.0.0.1"


class Place:
    """A workspace's folders, and the services of one agent after another."""

    def __init__(self, folder):
        self.app, self.document = folder / "app", folder / ".session" / DOCUMENT
        self.app.mkdir()
        (self.app / "server.py").write_text(SERVER)
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder), MARK: UUID}
        self.services = self.agent()

    def agent(self, most=16):
        self.services = services_of(Workspace(self.app), self.environment, most)
        self.services.open()
        return self.services

    def stop(self, reason=ExecReason.SLEEP):
        self.services.stop(reason)
        self.services.join(PATIENCE)

    def killed(self):
        """What is left once the agent was killed, and the next one has ended what it left."""
        (self.document.parent.parent / ".services" / "web" / "end.json").unlink(missing_ok=True)

    def start(self, command=RUNS_ON, name="web", **more):
        service, _ = self.services.start(read_definition({"name": name, "command": command, **more}))
        service.wait(PATIENCE)
        return service

    def ended(self, command, **more):
        service = self.start(command, **more)
        assert service.join(PATIENCE)
        return service


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(service_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(service_module, "SETTLE", 0.0)
    place = Place(tmp_path)
    yield place
    place.stop()
    assert not marked_processes(UUID, and_below=True)


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def log_of(service):
    return service.piece(0, FILE_BYTES, 0)[0]


def lines_of(service):
    """What its command wrote."""
    return [line for line in log_of(service).splitlines() if not line.startswith("[")]


def writes(service, line):
    wait_for(lambda: line in lines_of(service), f"{line!r} in the log")


# Its runs


def test_it_runs_on_with_its_log(place):
    service = place.start("echo out; echo err >&2; exec sleep 1000")
    wait_for(lambda: set(lines_of(service)) == {"out", "err"}, "both streams")
    told = service.told()
    assert told["state"] == "running" and told["starts"] == 1 and told["exit_code"] is None
    assert told["log_bytes"] == len(log_of(service).encode())
    assert log_of(service).splitlines()[0].endswith("started: echo out; echo err >&2; exec sleep 1000]")


@pytest.mark.parametrize(
    ("command", "restart", "state", "starts"),
    [
        ("exit 0", Restart.NEVER, "stopped", 1),
        ("exit 3", Restart.NEVER, "failed", 1),
        ("exit 0", Restart.ON_FAILURE, "stopped", 1),
        ("exit 3", Restart.ON_FAILURE, "failed", 3),
        ("exit 0", Restart.ALWAYS, "stopped", 3),
        ("kill -9 $$", Restart.ON_FAILURE, "failed", 3),
        ("[ -e once ] || { touch once; exit 1; }", Restart.ON_FAILURE, "stopped", 2),
    ],
)
def test_it_is_started_again_as_asked_and_given_up_in_the_end(place, monkeypatch, command, restart, state, starts):
    monkeypatch.setattr(service_module, "TRIES", 3)
    told = place.ended(command, restart=restart).told()
    assert (told["state"], told["starts"]) == (state, starts)


def test_pauses_grow_and_end_with_a_run_that_lasted(place, monkeypatch):
    monkeypatch.setattr(service_module, "TRIES", 4)
    text = log_of(place.ended("exit 1"))
    said = [line.rpartition("; ")[2] for line in text.splitlines() if "exited with 1" in line]
    assert said[:3] == [f"started again in {pause:g} s]" for pause in (0.01, 0.02, 0.04)]
    assert said[3] == "given up after 4 runs that ended soon]"
    monkeypatch.setattr(service_module, "SOON", 0.0)
    service = place.start("echo x >> runs; [ $(wc -l < runs) -ge 6 ] || exit 1")
    assert service.join(PATIENCE) and service.told()["starts"] == 6, "none of them ended soon"


def test_what_it_left_running_is_ended_with_it(place):
    service = place.ended("sleep 1000 & echo $!; setsid sleep 1000 & :")
    (pid,) = lines_of(service)
    assert not psutil.pid_exists(int(pid))
    assert "2 processes that it left running were ended" in log_of(service)


def test_it_runs_in_its_folder_and_knows_its_port(place, port):
    (place.app / "site").mkdir()
    service = place.ended("pwd; echo $PORT", cwd="site", port=port)
    assert lines_of(service) == [str(place.app / "site"), str(port)]


def test_a_folder_that_goes_away_is_a_run_that_failed(place, monkeypatch):
    monkeypatch.setattr(service_module, "TRIES", 2)
    (place.app / "site").mkdir()
    service = place.ended("cd ..; rmdir site; exit 1", cwd="site")
    assert (service.told()["reason"], service.state) == ("not_begun", "failed")
    assert "there is no folder site" in log_of(service)


def test_one_that_ignores_sigterm_is_killed(place, monkeypatch):
    monkeypatch.setattr("app.agent.execs.run.KILL_AFTER", 0.2)
    service = place.start("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    writes(service, "ready")
    place.stop()
    assert (service.state, service.told()["reason"]) == ("stopped", "sleep")


def test_one_has_time_to_end_in_order(place):
    service = place.start("trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    writes(service, "ready")
    place.stop()
    assert "saved" in lines_of(service)
    assert (service.state, service.told()["reason"], service.told()["exit_code"]) == ("stopped", "sleep", 0)


def test_a_killed_runner_leaves_nothing_and_the_service_is_started_again(place):
    service = place.start("echo $$; exec sleep 1000")
    wait_for(lambda: lines_of(service), "the first run")
    first = int(lines_of(service)[0])
    psutil.Process(psutil.Process(first).ppid()).kill()
    wait_for(lambda: len(lines_of(service)) == 2, "the second run")
    assert first not in marked_processes(UUID, and_below=True)
    assert service.told()["starts"] == 2 and service.told()["reason"] == "lost"


# Its port


def test_it_is_starting_until_its_own_process_listens(place, port):
    service, _ = place.services.start(read_definition({"name": "web", "command": RUNS_ON, "port": port}))
    writes(service, "here")
    with socket.create_server(("127.0.0.1", port)):
        assert service.state is ServiceState.STARTING, "another's server is not its"
    service = place.start(LISTENS, port=port)
    assert service.state is ServiceState.RUNNING
    assert service.state is ServiceState.RUNNING, "a second look finds the same socket"


def test_a_socket_of_ipv6_and_of_a_child_counts(place, port):
    assert place.start("python3 server.py ::1 & wait", port=port).state is ServiceState.RUNNING


def test_one_that_stops_listening_is_starting_again(place, port):
    os.mkfifo(place.app / "go")
    service = place.start(LISTENS, port=port)
    assert service.state is ServiceState.RUNNING
    (place.app / "go").open("w").close()
    writes(service, "closed")
    assert service.told()["state"] == "starting"


def test_one_without_a_port_runs_once_it_has_for_a_moment(place, monkeypatch):
    monkeypatch.setattr(service_module, "SETTLE", 0.2)
    service, _ = place.services.start(read_definition({"name": "web", "command": RUNS_ON}))
    assert service.state is ServiceState.STARTING
    service.wait(PATIENCE)
    assert service.told()["state"] == "running"
    assert place.start("sleep 0.01; exit 1", restart=Restart.NEVER).state is ServiceState.FAILED


def test_no_process_no_port():
    assert find_listener(1, 2**22 + 1) is None


# Changes


def test_the_same_again_is_left_running_and_another_takes_its_place(place):
    service = place.start("echo $$; exec sleep 1000")
    wait_for(lambda: lines_of(service), "the first run")
    (pid,) = map(int, lines_of(service))
    assert place.start("echo $$; exec sleep 1000") is service and service.told()["starts"] == 1
    other = place.start("echo other; exec sleep 1000")
    assert not psutil.pid_exists(pid)
    writes(other, "other")
    assert [each.definition.command for each in place.services.all()] == ["echo other; exec sleep 1000"]
    assert lines_of(other)[0] == str(pid), "the log goes on"


def test_one_that_ended_is_started_by_the_same_call(place):
    service = place.ended("echo run")
    assert place.ended("echo run") is service
    assert lines_of(service) == ["run", "run"]


def test_a_restart_ends_it_and_starts_it(place):
    service = place.start("echo $$; exec sleep 1000")
    wait_for(lambda: lines_of(service), "the first run")
    assert place.services.restart("web") is service
    wait_for(lambda: len(lines_of(service)) == 2, "the second run")
    assert not psutil.pid_exists(int(lines_of(service)[0]))
    assert place.services.restart("none") is None


def test_a_removed_one_is_ended_and_forgotten_with_its_log(place):
    service = place.start()
    writes(service, "here")
    assert place.services.remove("web") and not place.services.remove("web")
    assert service.state is ServiceState.STOPPED and place.services.find("web") is None
    assert place.agent().all() == []
    assert lines_of(place.start("exec sleep 1000")) == []


def test_so_many_and_no_more(place):
    place.agent(most=2)
    place.start(name="a"), place.start(name="b")
    with pytest.raises(TooMany):
        place.start(name="c")
    place.start("echo other; exec sleep 1000", name="b")
    place.services.remove("a")
    place.start(name="c")


def test_none_starts_once_the_workspace_stops(place):
    place.start()
    place.stop()
    for change in (lambda: place.start(name="other"), lambda: place.services.restart("web")):
        with pytest.raises(Closed):
            change()


def test_one_that_can_not_be_kept_is_not_started(place):
    place.document.parent.mkdir(parents=True, exist_ok=True)
    place.document.mkdir()
    with pytest.raises(OSError):
        place.start()
    assert place.services.all() == []
    place.document.rmdir()


@pytest.mark.parametrize(
    "given",
    [
        {"name": ""},
        {"name": "../x"},
        {"name": "a" * 33},
        {"name": "-a"},
        {"name": 3},
        {"command": " "},
        {"command": ["ls"]},
        {"command": "a\0b"},
        {"command": "\ud800"},
        {"command": "x" * COMMAND_BYTES},
        {"cwd": 3},
        {"cwd": "../.."},
        {"cwd": "none"},
        {"port": 0},
        {"port": 65_536},
        {"port": True},
        {"port": "80"},
        {"restart": "sometimes"},
        {"restart": ["always"]},
        {"autostart": 1},
    ],
)
def test_what_none_can_be_is_refused(place, given):
    with pytest.raises(BadOrder):
        place.start(**{"command": "ls", "name": "web", **given})


# From one agent to the next


def test_a_sleep_ends_all_and_a_wake_starts_those_that_are_to(place):
    writes(place.start(autostart=True), "here")
    place.start(name="other")
    place.stop()
    assert [each.told()["reason"] for each in place.services.all()] == ["sleep", "sleep"]
    other, web = place.agent().all()
    assert (other.state, other.told()["reason"], other.told()["starts"]) == ("stopped", "sleep", 0)
    assert web.state in ("starting", "running")
    wait_for(lambda: lines_of(web) == ["here", "here"], "the log goes on")


@pytest.mark.parametrize("reason", [ExecReason.SLEEP, ExecReason.STOPPED])
def test_one_of_an_opened_port_is_brought_back_if_it_ended_with_the_workspace(place, port, reason):
    """Not one that ended before, and none of another port."""
    place.ended("exit 0", name="done", port=port, restart="never")
    place.start(LISTENS, port=port)
    place.start(RUNS_ON, name="portless")
    place.stop(reason)
    services = place.agent()
    services.bring_back([port + 1])
    assert {each.state for each in services.all()} == {"stopped"}
    services.bring_back([port, port + 1])
    assert services.find("web").wait(PATIENCE) is None
    states = {each.definition.name: each.state for each in services.all()}
    assert states == {"done": "stopped", "portless": "stopped", "web": "running"}
    services.bring_back([port])
    assert services.find("web").told()["starts"] == 1
    place.stop(reason)
    services.bring_back([port])
    assert services.find("web").state == "stopped", "none starts while the workspace stops"


@pytest.mark.parametrize(("restart", "again"), [(Restart.ON_FAILURE, True), (Restart.NEVER, False)])
def test_one_whose_agent_was_killed_is_started_again_unless_never(place, restart, again):
    writes(place.start(restart=restart), "here")
    place.stop()
    place.killed()
    (web,) = place.agent().all()
    if again:
        wait_for(lambda: lines_of(web) == ["here", "here"], "the second run")
    else:
        assert (web.state, web.told()["reason"]) == ("failed", "lost")


@pytest.mark.parametrize(
    "document",
    ["", "[]", "{", '{"services": 3}', '{"services": [3, {}, {"name": "../x", "command": "ls"}]}', "[" * 100_000],
)
def test_a_document_that_a_user_wrote_is_read_as_far_as_it_holds(place, document):
    place.document.parent.mkdir(parents=True, exist_ok=True)
    place.document.write_text(document)
    assert place.agent().all() == []
    place.start()


def test_the_document_holds_so_many_and_their_own(place):
    """The first of a name."""
    written = [{"name": f"s{n}", "command": "ls"} for n in range(20)]
    place.document.parent.mkdir(parents=True, exist_ok=True)
    place.document.write_text(json.dumps({"services": [*written[:1], {"name": "s0", "command": "cat"}, *written[1:]]}))
    assert [each.definition for each in place.agent(most=3).all()] == [Definition("s0", "ls"), Definition("s1", "ls")]


@pytest.mark.parametrize("name", ["run.json", "end.json", "log-0"])
def test_a_folder_in_the_place_of_a_file_costs_no_run(place, name):
    (place.app.parent / ".services" / "web" / name).mkdir(parents=True)
    service = place.start()
    assert service.state is ServiceState.RUNNING


def test_what_is_reported(place, port):
    assert services_of(Workspace(place.app)).report() is None, "not known yet"
    assert place.services.report() == []
    place.start(port=port, name="web", command=LISTENS)
    place.ended("exit 0", name="api")
    assert place.services.report() == [
        {"name": "api", "port": None, "state": "stopped"},
        {"name": "web", "port": port, "state": "running"},
    ]


# The log


def test_the_newest_output_is_kept_and_told_by_its_place(tmp_path):
    log, written = Log(tmp_path), b"".join(b"%07d\n" % n for n in range(FILES * FILE_BYTES // 8 + 1000))
    for at in range(0, len(written), 65_521):
        log.add(written[at : at + 65_521])
    assert log.size == len(written) and log.first == FILE_BYTES
    assert log.piece(log.size - 16, 100) == (written[-16:].decode(), log.size)
    across = FILES * FILE_BYTES - 10
    assert log.piece(across, 30) == (written[across : across + 30].decode(), across + 30)
    assert log.piece(0, 8) == (written[FILE_BYTES : FILE_BYTES + 8].decode(), FILE_BYTES + 8), "the rest is passed over"
    assert log.piece(log.size, 100) == ("", log.size)
    log.close()
    later = Log(tmp_path)
    assert (later.size, later.first) == (log.size, log.first)
    later.add(b"more")
    assert later.piece(log.size, 100) == ("more", log.size + 4)
    later.close()


def test_a_character_is_never_cut(tmp_path):
    log = Log(tmp_path)
    log.add(b"x" * (FILE_BYTES - 1) + "ü".encode() + "€".encode()[:2])
    assert log.piece(FILE_BYTES - 1, 100) == ("ü", FILE_BYTES + 1)
    assert log.piece(FILE_BYTES + 1, 100) == ("", FILE_BYTES + 1)
    log.add("€".encode()[2:] + b"\xff!")
    assert log.piece(FILE_BYTES + 1, 100) == ("€\ufffd!", FILE_BYTES + 6)
    log.close()


def test_files_that_a_user_changed_are_read_as_far_as_they_go(tmp_path):
    log = Log(tmp_path)
    log.add(b"a" * FILE_BYTES + b"b" * 10)
    log.close()
    (tmp_path / "log-0").write_bytes(b"short")
    (tmp_path / "log-x").write_bytes(b"none")
    (tmp_path / f"log-{FILE_BYTES + 5}").mkdir()
    log = Log(tmp_path)
    text, following = log.piece(0, 100)
    assert text.startswith("short") and following >= 5
    log.add(b"more")
    log.close()


# The model's tools


@pytest.fixture
def toolbox(place):
    more = tools_of(place.services)
    return Toolbox(Workspace(place.app), environment=place.environment, command_timeout=PATIENCE, more=more)


def call(toolbox, tool, /, stop=lambda: False, **arguments):
    return toolbox.call(tool, json.dumps(arguments), stop)


def test_the_model_starts_looks_and_ends(place, toolbox, port):
    assert call(toolbox, "show_services").text == "(no services)"
    started = call(toolbox, "start_service", name="web", command=LISTENS, port=port, autostart=True)
    assert started.ok and f"web: running, port {port}" in started.text
    assert place.services.find("web").definition.autostart
    assert call(toolbox, "show_services").text.startswith("web: running")
    wait_for(lambda: "listening" in call(toolbox, "show_services", name="web").text, "its log")
    assert call(toolbox, "stop_service", name="web").ok
    assert not call(toolbox, "stop_service", name="web").ok
    assert call(toolbox, "show_services", name="web").text == "there is no service web; see show_services"


def test_the_model_sees_why_one_does_not_run(place, toolbox, monkeypatch):
    monkeypatch.setattr(service_module, "TRIES", 1)
    monkeypatch.setattr(service_module, "SETTLE", PATIENCE)
    failed = call(toolbox, "start_service", name="web", command="echo no module >&2; exit 1")
    assert not failed.ok and "no module" in failed.text and "exited with 1" in failed.text
    assert not call(toolbox, "start_service", name="web/", command="ls").ok
    assert not call(toolbox, "start_service", name="web", command="ls", port=99_999).ok


def test_a_turn_that_ends_waits_for_no_port(place, toolbox, port):
    result = call(toolbox, "start_service", stop=lambda: True, name="web", command=RUNS_ON, port=port)
    assert not result.ok and "web: starting" in result.text
