"""The way from the host into the cluster's network, without a cluster: who listens, and what is forwarded how."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.cluster import forwarder, host_ports, processes
from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import Layout

LIMIT = 30.0
"""s for anything between sockets of one machine."""
KERNELS_SHARE = 64 << 20
"""Bytes, far above what the buffers of four sockets hold and far below what is sent."""


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """Listens where the forwarder leads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        yield listener


@contextmanager
def forwarding(target: int) -> Iterator[int]:
    """A forwarder to that port; gives its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inherited = json.dumps([[listener.fileno(), "127.0.0.1", target]])
        command = [sys.executable, "-m", "scripts.cluster.forwarder"]
        process = subprocess.Popen(
            command, env=os.environ | {forwarder.VARIABLE: inherited}, pass_fds=[listener.fileno()]
        )
        port = listener.getsockname()[1]
    try:
        yield port
    finally:
        process.kill()
        process.wait(LIMIT)


def through(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), LIMIT)


def accept(target: socket.socket) -> socket.socket:
    connection, _ = target.accept()
    connection.settimeout(LIMIT)
    return connection


def all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


class TestForwarder:
    def test_an_end_of_one_direction_leaves_the_other_open(self, target):
        """As `nc -N` and HTTP/1.0 clients use it."""
        with forwarding(target.getsockname()[1]) as port, through(port) as near:
            near.sendall(b"question")
            near.shutdown(socket.SHUT_WR)
            with accept(target) as far:
                assert all_of(far) == b"question"
                far.sendall(b"answer")
            assert all_of(near) == b"answer"

    def test_bytes_go_both_ways_at_once_and_arrive_whole(self, target):
        content = os.urandom(1 << 20) * 8
        with forwarding(target.getsockname()[1]) as port, through(port) as near, accept(target) as far:
            got: list[bytes] = []

            def echo() -> None:
                while data := far.recv(1 << 16):
                    far.sendall(data)
                far.shutdown(socket.SHUT_WR)

            threads = [threading.Thread(target=echo), threading.Thread(target=lambda: got.append(all_of(near)))]
            for thread in threads:
                thread.start()
            near.sendall(content)
            near.shutdown(socket.SHUT_WR)
            for thread in threads:
                thread.join(LIMIT)
        assert got == [content]

    def test_what_nobody_reads_is_not_collected(self, target):
        """The sender is held up; nothing is lost when the reader goes on."""
        with forwarding(target.getsockname()[1]) as port, through(port) as near, accept(target) as far:
            sent = 0
            far.settimeout(1.0)
            with pytest.raises(TimeoutError):
                while sent < 4 * KERNELS_SHARE:
                    sent += far.send(bytes(1 << 20))
            assert sent < KERNELS_SHARE
            far.shutdown(socket.SHUT_WR)
            assert len(all_of(near)) == sent

    def test_a_reset_is_passed_on(self, target):
        """Else one side would wait for ever for the other."""
        with forwarding(target.getsockname()[1]) as port, through(port) as near, accept(target) as far:
            near.sendall(b"x")
            assert far.recv(1) == b"x"
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            near.close()
            with pytest.raises(ConnectionResetError):
                far.recv(1)

    def test_with_nobody_behind_it_connections_end_and_later_ones_work(self, target):
        """As while the ingress controller starts."""
        number = target.getsockname()[1]
        target.close()
        with forwarding(number) as port:
            with through(port) as near, pytest.raises(ConnectionResetError):
                near.recv(1)
            with socket.create_server(("127.0.0.1", number)) as again, through(port) as near:
                again.settimeout(LIMIT)
                near.sendall(b"x")
                with accept(again) as far:
                    assert far.recv(1) == b"x"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Layout]:
    """A cluster's folder; whatever was started in it is ended."""
    found = Layout("test", tmp_path)
    for folder in (found.pids, found.logs, found.config):
        folder.mkdir()
    yield found
    processes.stop(processes.recorded(found, host_ports.NAME), 0.0)


@contextmanager
def opened(place: Layout, wanted: int = 0) -> Iterator[host_ports.HostPorts]:
    """The ports, with their sockets until the end of the block."""
    found, sockets = host_ports.open_ports(place, wanted)
    try:
        yield found
    finally:
        for each in sockets:
            each.close()


def taken(address: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, 0), family=family)


class TestHostPorts:
    def test_a_port_asked_for_that_is_taken_is_an_error(self, place):
        with taken() as other, pytest.raises(ClusterError, match="taken"):
            host_ports.open_ports(place, other.getsockname()[1])

    def test_a_port_of_before_that_is_taken_now_is_done_without(self, place):
        """The rest of the cluster is still reached, and the page again as soon as the port is free."""
        with taken() as free:
            port = free.getsockname()[1]
        with opened(place, port) as first:
            assert first.web == port
        with taken() as other:
            (place.config / "ports.json").write_text(json.dumps(vars(first) | {"wanted": other.getsockname()[1]}))
            with opened(place) as second:
                assert (second.web, second.api) == (0, first.api)
            port = other.getsockname()[1]
        with opened(place) as third:
            assert third == host_ports.HostPorts(port, port, first.api)

    def test_half_a_port_is_none(self):
        """Another program on ::1 would be shown in place of the cluster's pages."""
        try:
            other = taken("::1")
        except OSError:
            # Without IPv6 there is no other half.
            return
        with other:
            port = other.getsockname()[1]
            assert host_ports.listen(port) == []
            # What was opened of it is closed again.
            socket.create_server(("127.0.0.1", port)).close()

    def test_one_that_runs_with_all_it_wants_is_left_alone(self, place):
        with taken() as free:
            port = free.getsockname()[1]
        with opened(place, port) as first:
            processes.start(place, host_ports.NAME, [sys.executable, "-c", "import signal; signal.pause()"])
            runs = processes.running(place, host_ports.NAME)
            assert runs
            assert host_ports.open_ports(place) == (first, [])
            assert processes.running(place, host_ports.NAME) == runs

    def test_one_that_lacks_its_page_is_replaced_once_the_port_is_free(self, place):
        with taken() as other:
            port = other.getsockname()[1]
            before = host_ports.HostPorts(port, 0, 0)
            (place.config / "ports.json").write_text(json.dumps(vars(before)))
            processes.start(place, host_ports.NAME, [sys.executable, "-c", "import signal; signal.pause()"])
            assert host_ports.open_ports(place) == (before, [])
            assert processes.running(place, host_ports.NAME)
        with opened(place) as after:
            assert after.web == port
            assert processes.running(place, host_ports.NAME) is None

    @pytest.mark.parametrize(("web", "url_port"), [(80, 0), (0, 0), (8080, 8080)])
    def test_a_url_has_a_port_only_when_it_must(self, web, url_port):
        assert host_ports.HostPorts(web or 80, web, 1).url_port == url_port
