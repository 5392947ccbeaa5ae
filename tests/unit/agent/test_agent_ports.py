"""Ports: what listens in a workspace's network, whose it is, and what is to listen there."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from app.agent.ports import ports as ports_module
from app.agent.ports.processes import name_of, started_in
from app.agent.protocol import PORTS_MOST, ExecReason
from app.agent.requests import WAITING, WAITING_CALLERS
from app.agent.server import create_app
from app.agent.service import Agent
from app.agent.services import service as service_module
from app.agent.services import services as services_module
from app.agent.services.definition import read_definition
from app.agent.services.service import Service
from app.agent.settings import OWN, SHARED, AgentSettings, BadSetting, settings_from
from app.agent.sockets import holders, listening
from app.agent.tools.orphans import marked_processes
from tests.ports import free_port
from tests.waiting import PATIENCE

UUID = f"ports{os.getpid()}"

SECRET = "secret"

LISTEN = """
import os, socket, sys, time
host, ports = sys.argv[1], sys.argv[2:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
held = [socket.socket(family) for _ in ports]
for each, port in zip(held, ports):
    if family == socket.AF_INET6:
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not host.startswith("::ffff:"))
    each.bind((host, int(port)))
    each.listen()
"""

STAY = """
print("listening", flush=True)
time.sleep(1000)
"""

WRITE_OVER = """
import ctypes
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
begin, end = int(fields[47]), int(fields[48])
ctypes.memset(begin, 0, end - begin)
"""
"""Leaves no environment to be seen, as a server that puts a title of its own there."""

FORK = """
if not os.fork():
    open("/proc/self/comm", "w").write("worker")
    time.sleep(1000)
"""

RUNS_ON = "exec sleep 1000"


class World:
    """An agent that is asked, beside programs of this machine."""

    def __init__(self, folder, **settings):
        app, home, token = folder / "app", folder / "home", folder / "token"
        app.mkdir(), home.mkdir()
        token.write_text(f"token\n{SECRET}\n")
        (app / "listen.py").write_text(LISTEN + STAY)
        (app / "write_over.py").write_text(WRITE_OVER + LISTEN + STAY)
        given = {"uuid": UUID, "folder": app, "state_folder": folder / ".session", "token_file": token, "home": home}
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "WORKSPACE_UUID": UUID}
        self.agent = Agent(AgentSettings(**given, **settings), environment)
        self.services = self.agent.services
        self.app = create_app(self.agent)

    def get(self, path, status=200, secret=SECRET):
        answer = self.app.test_client().get(path, headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == status, answer.text
        return answer.json

    def ports(self):
        return self.get("/ports")["ports"]

    def at(self, port, query=""):
        """What is told of a port, and of it alone."""
        found = self.get(f"/ports/{port}{query}")
        assert found.pop("port") == port
        return found

    def start(self, port, command=RUNS_ON, name="web", **more):
        return self.services.start(read_definition({"name": name, "command": command, "port": port, **more}))[0]


@pytest.fixture
def worlds(tmp_path):
    made = []

    def make(**settings):
        made.append(World(tmp_path, **settings))
        made[-1].services.open()
        return made[-1]

    yield make
    for each in made:
        each.services.stop(ExecReason.SLEEP)
        each.services.join(PATIENCE)
    assert not marked_processes(UUID, and_below=True)


@pytest.fixture
def world(worlds):
    """In a network of its own: the machine's, to the agent."""
    return worlds()


@pytest.fixture
def shared(worlds):
    return worlds(network=SHARED)


@contextlib.contextmanager
def listener(host, *ports, mark=UUID, then="", program=sys.executable):
    """A process that listens on these ports; its id."""
    environment = {"PATH": os.environ["PATH"]} | ({"WORKSPACE_UUID": mark} if mark else {})
    command = [program, "-c", LISTEN + then + STAY, host, *map(str, ports)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"listening\n"
            yield process.pid
        finally:
            os.killpg(process.pid, 9)


def free_ports(count):
    """So many different ones, by number."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return sorted(found)


def told(state, process=None, service=None):
    return {"state": state, "process": process, "service": service}


NOTHING = told("stopped")


def python():
    """What the kernel calls this program."""
    return name_of(os.getpid())


# What listens


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"]
)
def test_a_socket_that_loopback_leads_to_counts(world, host):
    port = free_port()
    assert world.at(port) == NOTHING
    with listener(host, port) as pid:
        assert world.at(port) == told("listening", name_of(pid))
        (found,) = [each for each in listening(pid) if each.port == port]
        assert holders({found.link}) == {found.link: [pid]}
    assert world.at(port) == NOTHING


def test_one_of_another_address_alone_does_not(world):
    given = [each for addresses in psutil.net_if_addrs().values() for each in addresses]
    address = next((each.address for each in given if each.family is socket.AF_INET and each.address[:4] != "127."), "")
    if not address:
        pytest.skip("this machine has no address but loopback")
    port = free_port()
    with listener(address, port) as pid:
        assert [each.loopback for each in listening(pid) if each.port == port] == [False]
        assert world.at(port) == NOTHING
        with listener("127.0.0.1", port):
            assert world.at(port)["state"] == "listening"


def test_a_socket_that_is_bound_or_connected_does_not(world):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with socket.create_connection(server.getsockname()) as caller:
            assert [world.at(each.getsockname()[1]) for each in (caller, bound)] == [NOTHING, NOTHING]


def test_what_has_ended_has_no_network():
    assert list(listening(2**22 + 1)) == []


def test_a_server_of_the_standard_library(shared):
    port = free_port()
    shared.start(port, f"exec {sys.executable} -m http.server --bind 127.0.0.1 $PORT").wait(PATIENCE)
    assert shared.ports() == [{"port": port, **told("listening", python(), "web")}]


# What is told of the process


def test_it_is_the_first_that_has_the_socket(shared):
    """Not one of its workers."""
    port = free_port()
    with listener("127.0.0.1", port, then=FORK) as pid:
        assert shared.at(port)["process"] == name_of(pid) == python()


@pytest.mark.parametrize(
    ("comm", "program", "name"),
    [
        ("redis-server", "x", "redis-server"),
        ("MainThread", "node", "node"),
        ("MainThread", "n" * 100, "n" * 64),
        ("a\x01\n\u00fcb\x7f", "x", "a\u00fcb"),
        ("\udcffx", "x", "\ufffdx"),
        ("\x1b", "x", None),
    ],
)
def test_its_name_is_the_kernels_but_for_a_threads_and_can_be_shown(world, tmp_path, comm, program, name):
    (tmp_path / program).symlink_to(os.path.realpath(sys.executable))
    port = free_port()
    write = f"open('/proc/self/comm', 'wb').write({os.fsencode(comm)!r})\n"
    with listener("::1", port, then=write, program=tmp_path / program):
        assert world.at(port) == told("listening", name)


def test_one_that_the_agent_can_not_see_counts_without_a_name(world, monkeypatch):
    monkeypatch.setattr(ports_module, "holders", lambda links: {})
    port = free_port()
    with listener("127.0.0.1", port):
        assert world.at(port) == told("listening")
        assert name_of(2**22 + 1) is None


# Whose it is


def test_in_a_network_of_its_own_all_is_the_workspaces(world):
    port = free_port()
    with listener("127.0.0.1", port, mark=None):
        assert world.at(port)["state"] == "listening"


@pytest.mark.parametrize("mark", [None, "{}x", "x{}", "x"])
def test_in_a_shared_one_another_program_is_not(shared, mark):
    port, own = free_ports(2)
    mark = mark and mark.format(UUID)
    with listener("127.0.0.1", port, mark=mark), listener("127.0.0.1", own) as pid:
        assert shared.at(port) == NOTHING
        assert shared.ports() == [{"port": own, **told("listening", name_of(pid))}]
        with listener("::1", port):
            assert shared.at(port) == told("listening", name_of(pid)), "beside another's at another address"


@pytest.mark.parametrize("command", ["env -i {} listen.py", "{} write_over.py"])
def test_one_without_the_mark_is_below_a_service_that_has_it(shared, command):
    port = free_port()
    service = shared.start(port, f"exec {command.format(sys.executable)} 127.0.0.1 $PORT")
    service.wait(PATIENCE)
    (link,) = [each.link for each in listening(os.getpid()) if each.port == port]
    (pid,) = holders({link})[link]
    with open(f"/proc/{pid}/environ", "rb") as file:
        assert UUID.encode() not in file.read()
    assert shared.at(port)["state"] == "listening"
    assert started_in(UUID, {pid, os.getpid(), 2**22 + 1}) == {pid}


@pytest.mark.parametrize("network", [OWN, SHARED])
def test_the_agents_own_port_and_the_editors_are_no_ports_of_it(worlds, network):
    mine, editors, other = free_ports(3)
    world = worlds(network=network, port=mine, editor_port=editors)
    world.start(mine)
    with listener("127.0.0.1", mine, editors, other):
        assert not {mine, editors} & {each["port"] for each in world.ports()}
        assert [world.at(each, "?wait=30") for each in (mine, editors)] == [NOTHING, NOTHING]
        assert world.at(other)["state"] == "listening"


@pytest.mark.parametrize(("given", "network"), [({}, OWN), ({"WORKSPACE_NETWORK": ""}, OWN), ("shared", SHARED)])
def test_the_runtime_says_whose_network_it_is(tmp_path, given, network):
    variables = {"WORKSPACE_UUID": UUID, "WORKSPACE_DIR": str(tmp_path), "AGENT_TOKEN_FILE": "token"}
    given = given if isinstance(given, dict) else {"WORKSPACE_NETWORK": given}
    assert settings_from(variables | given).network == network
    with pytest.raises(BadSetting, match="WORKSPACE_NETWORK"):
        settings_from(variables | {"WORKSPACE_NETWORK": "theirs"})


# Ports of services


def test_a_services_port_is_listed_whatever_it_does(shared, monkeypatch):
    monkeypatch.setattr(service_module, "TRIES", 1)
    ports = free_ports(4)
    commands = {"failed": "exit 1", "listening": f"exec {sys.executable} listen.py ::1 $PORT"}
    commands |= {"starting": RUNS_ON, "stopped": "exit 0"}
    services = [shared.start(port, commands[name], name) for port, name in zip(ports, commands, strict=True)]
    for each in (services[0], services[3]):
        assert each.join(PATIENCE)
    services[1].wait(PATIENCE)
    shared.services.start(read_definition({"name": "without", "command": RUNS_ON}))
    states = ["stopped", "listening", "starting", "stopped"]
    expected = [
        {"port": port, **told(state, python() if state == "listening" else None, name)}
        for port, state, name in zip(ports, states, commands, strict=True)
    ]
    assert shared.ports() == expected
    assert [{"port": port, **shared.at(port)} for port in ports] == expected


def test_one_that_is_started_again_is_starting(shared, monkeypatch):
    monkeypatch.setattr(service_module, "FIRST_PAUSE", 1000.0)
    port = free_port()
    service = shared.start(port, "exit 1")
    with service._changed:
        assert service._changed.wait_for(lambda: service.state == "waiting", PATIENCE)
    assert shared.at(port) == told("starting", None, "web")


def test_another_program_on_a_services_port_is_what_listens(world):
    port = free_port()
    world.start(port)
    with listener("127.0.0.1", port) as pid:
        assert world.at(port) == told("listening", name_of(pid), "web")


def test_of_several_services_with_one_port_the_one_that_runs_is_named(shared):
    port = free_port()
    assert shared.start(port, "exit 0", "a").join(PATIENCE)
    assert shared.at(port)["service"] == "a"
    shared.start(port, RUNS_ON, "b")
    assert shared.at(port) == told("starting", None, "b")
    shared.start(port, f"exec {sys.executable} listen.py 127.0.0.1 $PORT", "c").wait(PATIENCE)
    assert shared.at(port) == told("listening", python(), "c")
    assert len(shared.ports()) == 1


def test_a_list_has_so_many(shared):
    with listener("127.0.0.1", *[0] * (PORTS_MOST + 1)) as pid:
        numbers = sorted(each.port for each in listening(pid) if each.link in holders_of(pid))
        assert [each["port"] for each in shared.ports()] == numbers[:PORTS_MOST]


def holders_of(pid):
    return {link for link, pids in holders({each.link for each in listening(pid)}).items() if pid in pids}


# Waiting


@pytest.fixture
def meanwhile(monkeypatch):
    """What happens as soon as a call waits for a service."""
    wait = Service.wait
    happening: list[Callable[[], object]] = []

    def waiting(self, seconds):
        while happening:
            happening.pop()()
        wait(self, seconds)

    monkeypatch.setattr(Service, "wait", waiting)
    return happening.append


def test_a_call_waits_for_a_service_that_starts(world, meanwhile):
    os.mkfifo(world.agent.settings.folder / "go")
    port = free_port()
    world.start(port, f"read line < go; exec {sys.executable} listen.py 127.0.0.1 $PORT")
    assert world.at(port) == told("starting", None, "web"), "it does not wait unless asked"
    meanwhile(lambda: (world.agent.settings.folder / "go").write_text("go\n"))
    assert world.at(port, "?wait=30") == told("listening", python(), "web")


def test_until_another_program_listens_there(world, meanwhile, monkeypatch):
    monkeypatch.setattr(ports_module, "LOOK", 0.01)
    port = free_port()
    world.start(port)
    with contextlib.ExitStack() as running:
        meanwhile(lambda: running.enter_context(listener("127.0.0.1", port)))
        assert world.at(port, "?wait=30")["state"] == "listening"


def test_until_the_service_is_given_up(world, meanwhile):
    port = free_port()
    service = world.start(port)
    meanwhile(lambda: service.stop(ExecReason.KILLED))
    assert world.at(port, "?wait=30") == told("stopped", None, "web")
    service.start()
    meanwhile(lambda: world.services.remove("web"))
    assert world.at(port, "?wait=30") == NOTHING


def test_until_its_time_is_over(world):
    port = free_port()
    world.start(port)
    assert world.agent.ports.find(port, 0.01).state == "starting"


def test_where_nothing_is_to_come_it_does_not(world, meanwhile):
    meanwhile(lambda: pytest.fail("waits"))
    assert world.at(free_port(), "?wait=30") == NOTHING


def test_so_many_callers_wait(world):
    port, places = free_port(), world.app.extensions[WAITING]
    for _ in range(WAITING_CALLERS):
        places.acquire()
    assert world.get(f"/ports/{port}?wait=1", 503)["error"] == "too_many_waiting"
    assert world.at(port) == NOTHING
    places.release()
    assert world.at(port, "?wait=1") == NOTHING
    places.release()
    assert places.acquire(blocking=False), "a place is given back"


# Requests


NO_PORTS = [
    *("", "0", "65536", "99999", "080", "00080", "+80", "-1", "8.0", "80.", "0x50", "1e3", "8_0", "web", "*"),
    *("80/x", "%20", "%2080", "80%0a", "80%00", "%EF%BC%98%EF%BC%90", "%D9%A8", "%ff", "9" * 5000, "80;80", "80,81"),
]


@pytest.mark.parametrize("path", NO_PORTS)
def test_what_is_no_port_is_not_found(world, path):
    assert world.get(f"/ports/{path}", 404)["error"] == "not_found"


@pytest.mark.parametrize("wait", ["-1", "31", "x", "1.5", "nan", "", "9" * 5000])
def test_a_wait_that_can_not_be_is_refused(world, wait):
    assert world.get(f"/ports/80?wait={wait}", 400)["error"] == "bad_request"


def test_the_first_and_the_last_port_are_ports(world):
    for port in (1, 65_535):
        assert set(world.at(port)) == {"state", "process", "service"}


def test_only_the_manager_may_ask(world):
    for path in ("/ports", "/ports/80", "/ports/x"):
        assert world.get(path, 401, secret="other")["error"] == "unauthorized"


def test_before_the_services_are_read_it_is_too_early(tmp_path, monkeypatch):
    monkeypatch.setattr(services_module, "READY_WAIT", 0.0)
    world = World(tmp_path)
    for path in ("/ports", "/ports/80"):
        assert world.get(path, 503)["error"] == "loading"


def test_a_workspace_with_an_agent_of_the_users_has_them_too(worlds):
    port = free_port()
    world = worlds(program="/bin/false", network=SHARED)
    with listener("127.0.0.1", port) as pid:
        assert world.at(port) == told("listening", name_of(pid))
        assert world.ports() == [{"port": port, **world.at(port)}]
