"""Runs an image as a cluster would: uid 1000, no capability, a read-only root file system, a network of its own.

No container engine: runc, and buildah only to unpack the image.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from uuid import uuid4

from scripts.images import oci
from tests.conftest import ROOT
from tests.waiting import PATIENCE, wait_for

TIMEOUT = 120.0
"""Seconds for one command; none takes a tenth of it."""

NAMESPACES = ("pid", "ipc", "uts", "mount")
LAST_WORDS = "last-words"
HIDDEN = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")

ASK = """
import sys, time, urllib.error, urllib.request
url, patience = sys.argv[1], time.monotonic() + float(sys.argv[2])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while True:
    try:
        with opener.open(url, timeout=5) as answer:
            print(answer.status, answer.read().decode(errors="replace"))
            break
    except urllib.error.HTTPError as error:
        # code-server listens a moment before it knows its pages.
        if error.code != 404 or time.monotonic() > patience:
            print(error.code, error.read().decode(errors="replace"))
            break
        time.sleep(0.005)
    except OSError:
        if time.monotonic() > patience:
            raise
        time.sleep(0.005)
"""
"""Asks until there is an answer, whatever it is but that there is no such page."""


class Image:
    """An image unpacked into a folder that containers share, which none of them can change."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.config = oci.config(archive)
        self._container = oci.run(["buildah", "from", "--pull-never", f"oci-archive:{archive}"], TIMEOUT).splitlines()[
            -1
        ]
        self.root = Path(oci.run(["buildah", "mount", self._container], TIMEOUT))

    def close(self) -> None:
        oci.run(["buildah", "rm", self._container], TIMEOUT)


class Container:
    """One container of an image; `volume` is a folder to mount at /workspace, `settings` are added to its
    environment. The root file system can't be written, /tmp can. What it prints is in `output()`."""

    def __init__(
        self, image: Image, bundle: Path, *arguments: str, volume: Path | None = None, **settings: str
    ) -> None:
        self._image, self._bundle = image, bundle
        self._name = f"test-{uuid4().hex[:12]}"
        self._runtime = ("runc", f"--root={bundle / 'state'}")
        (bundle / LAST_WORDS).touch()
        (bundle / LAST_WORDS).chmod(0o666)
        config = specification(image, self._name, list(arguments), _mounts(bundle, volume))
        config["process"]["env"] += [f"{name}={value}" for name, value in settings.items()]
        (bundle / "config.json").write_text(json.dumps(config))
        self._log = bundle / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Container:
        run = f"ip link set lo up && exec {' '.join(self._runtime)} run --bundle {self._bundle} {self._name}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", run], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        process = self._process
        wait_for(
            lambda: process.poll() is not None or self._state() in ("running", "stopped"),
            "the container runs",
            self.output,
            interval=0.02,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        self._runc("delete", "--force", self._name)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def get(self, url: str) -> tuple[int, str]:
        """Status and text of a page, asked for from inside the container's network until it answers."""
        done = self._inside(sys.executable, "-c", ASK, url, str(PATIENCE))
        assert done.returncode == 0, f"{url} does not answer: {done.stderr[-500:]}\n{self.output()}"
        status, _, text = done.stdout.partition(" ")
        return int(status), text

    def run(self, *command: str) -> str:
        """What a command in the running container prints; fails the test when the command fails."""
        done = self._inside(*self._runtime, "exec", self._name, *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    @contextmanager
    def beside(self, *command: str) -> Iterator[IO[str]]:
        """What a program of this machine prints that runs in the container's network, until its input ends."""
        process = subprocess.Popen(
            [*self._in_network(), *command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.stdin.close()
            process.wait(TIMEOUT)
            process.stdout.close()

    def wait(self) -> int:
        """The exit status, once the container has ended by itself."""
        assert self._process is not None
        return self._process.wait(timeout=TIMEOUT)

    def stop(self) -> int:
        """Ask it to end, as a cluster does, and return its exit status."""
        self._runc("kill", self._name, "TERM")
        return self.wait()

    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    def last_words(self) -> str:
        """What it wrote where Kubernetes looks for a container's termination message."""
        return (self._bundle / LAST_WORDS).read_text()

    def _inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine in the container's network."""
        return _run(*self._in_network(), *command)

    def _in_network(self) -> tuple[str, str]:
        assert self._process is not None
        return "nsenter", f"--net=/proc/{self._process.pid}/ns/net"

    def _state(self) -> str:
        done = self._runc("state", self._name)
        return str(json.loads(done.stdout)["status"]) if done.returncode == 0 else ""

    def _runc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _run(*self._runtime, *arguments)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def specification(image: Image, name: str, arguments: list[str], mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """The runtime's configuration of a container. Arguments that start with `!` stand for a command
    instead of the image's own, the rest are given to that."""
    wanted = image.config
    command = [*wanted.get("Entrypoint", []), *(arguments or wanted.get("Cmd", []))]
    if arguments and arguments[0] == "!":
        command = arguments[1:]
    uid, gid = map(int, wanted["User"].split(":"))
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": uid, "gid": gid},
            "args": command,
            "env": list(wanted["Env"]),
            "cwd": wanted.get("WorkingDir") or "/",
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "root": {"path": str(image.root), "readonly": True},
        "hostname": "test",
        "mounts": mounts,
        "linux": {
            "cgroupsPath": f"/{name}",
            "namespaces": [{"type": name} for name in NAMESPACES],
            "maskedPaths": list(HIDDEN),
        },
    }


def _mounts(bundle: Path, volume: Path | None) -> list[dict[str, Any]]:
    temporary = ["nosuid", "nodev", "mode=1777"]
    found: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": temporary},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": temporary},
    ]
    folders = {"/dev/termination-log": bundle / LAST_WORDS} | ({"/workspace": volume} if volume else {})
    for place, source in folders.items():
        found.append({"destination": place, "type": "bind", "source": str(source), "options": ["bind", "rw"]})
    return found
