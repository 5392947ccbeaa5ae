"""Where the fuzzer plays: a whole running service, the means to trouble it, and a look behind it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import psutil
import redis
import requests

from app.agent.tools.orphans import marked_processes
from app.core.access.agent_credentials import AgentCredentials
from app.core.backups.store import PART_PATTERN
from app.core.redis import keys
from scripts.lib.leftovers import WORKSPACE
from scripts.lib.processes import MANAGER
from tests.faults.counting import counting
from tests.model_server import ModelServer
from tests.service import KEY, Service
from tests.stored import backups_of
from tests.waiting import wait_for
from workers.runtime.local.storage import WorkspaceStorage

SETTINGS = {
    # A killed worker's lease and its message are waited for, and rare sweeps come in each run.
    "LEASE_TTL": "3",
    "STALE_AFTER": "2",
    "RECONCILE_INTERVAL": "5",
    "RETENTION_INTERVAL": "10",
    # A session says itself when it falls asleep.
    "IDLE_TIMEOUT": "0",
    "SESSION_TTL": "0",
    # Each session is drilled several times in a run.
    "DRILL_CYCLE": "30",
    "WAKE_GRACE": "1",
    "MAX_SESSIONS_PER_USER": "1000",
    # What became of a prompt is judged to the end of the run.
    "PROMPT_TTL": "86400",
    "RATE_LIMIT_WORK": "100000/minute",
    "RATE_LIMIT_INPUT": "100000/minute",
    # An hour's prompts cost more than a day's budget.
    "LLM_TOKENS_PER_DAY": "0",
}

NOISE = ("request_id", "uuid", "logger", "data", "caller")
"""Fields of a log line that tell nothing about a session."""

BACK = 3
"""Times a place's patience after which a service has come back from whatever was done to it."""

BROWSER = {
    "Accept": "text/html",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
}
"""What a browser sends when somebody opens a page."""


class Place(Protocol):
    """A running service. `parts` are its processes, each of which may be killed or frozen."""

    model: ModelServer
    prefix: str
    """Of the users whose sessions are this run's; others use the service too where it isn't ""."""
    patience: float
    """s after which everything must be as it was last asked to be."""
    agent_port: int
    """Where an agent has to listen, 0 for any port."""

    @property
    def parts(self) -> Sequence[str]: ...

    @property
    def url(self) -> str:
        """The API's."""

    def call(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout: float, *, stream: bool = False
    ) -> requests.Response:
        """The answer of the API to a body of bytes or of JSON; raises `requests.RequestException`."""

    def visit(self, url: str, cookies: str = "") -> str:
        """Follow a link into a workspace as a browser does that has these cookies of others; what came of it."""

    def redis(self) -> redis.Redis:
        """The Redis of the service."""

    def gateway(self, uuid: str) -> tuple[str, str]:
        """The gateway's URL, and the token by which the workspace of a session opens it."""

    def kill(self, part: str, chance: random.Random) -> bool:
        """SIGKILL or SIGTERM a part, or one of its children; False where it isn't there at the moment."""

    def freeze(self, part: str, seconds: float) -> bool:
        """SIGSTOP for so long; "" is all of them, workspaces too, as a suspended machine."""

    def end_agent(self, uuid: str, number: signal.Signals) -> bool:
        """Send the agent of this session a signal; False where there is none."""

    def kill_editor(self, uuid: str) -> bool:
        """SIGKILL the editor of this session; False where there is none."""

    def stop(self) -> None:
        """Stop everything as an operator does."""

    def die(self, *, workspaces: bool) -> None:
        """SIGKILL everything at once, the workspaces too if so wanted."""

    def start(self) -> None:
        """Start what was stopped, and return when it answers."""

    def absent(self) -> str:
        """What is not back yet, "" when all is."""

    def write(self, uuid: str, files: Mapping[str, bytes]) -> bool:
        """Write files into a workspace; False where it isn't there."""

    def grow(self, uuid: str, name: str, size: int) -> None:
        """Write a file of so many bytes into a workspace that takes no room."""

    def files(self, uuid: str) -> Mapping[str, int] | None:
        """The CRC-32 of every file of a workspace that is up; None where it isn't there."""

    def read(self, uuid: str, name: str) -> str:
        """A file of a workspace that is up, "" where it isn't there."""

    def running(self) -> Mapping[str, Counter[str]]:
        """How many processes of which kind each workspace has."""

    def commands(self, uuid: str) -> Sequence[str]:
        """The command lines of what runs in a workspace besides."""

    def lives(self) -> set[str]:
        """The processes of the service, by names that they don't share with those that came before them."""

    def memory(self) -> Mapping[str, int]:
        """Bytes of memory that each part has, all its processes together."""

    def leftovers(self, up: set[str], failed: set[str], living: set[str]) -> list[str]:
        """What nobody needs any more, or is missing, where these sessions are up, failed, and not terminated."""

    def stored(self) -> set[str]:
        """The names of the backups in the store."""

    def zipped(self, name: str) -> zipfile.ZipFile:
        """A backup."""

    def backup_begun(self, name: str) -> float:
        """When a backup was begun, as it says itself."""

    def lines(self, uuid: str, since: float) -> list[tuple[float, str]]:
        """What all processes logged about a session."""


class LocalPlace:
    """The service as `scripts/run` starts it; see `Place`."""

    parts = (*MANAGER, "traefik", "redis")
    prefix, patience, agent_port = "", 60.0, 0

    def __init__(self, folder: Path, code_server: str, model: ModelServer, **settings: str) -> None:
        given = SETTINGS | model.settings | settings
        self.model = model
        self.service = Service(folder, code_server, **given)
        self._folders = WorkspaceStorage(self.service.data_dir)

    # Calls

    def call(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout: float, *, stream: bool = False
    ) -> requests.Response:
        shown = {**headers} if "Authorization" in headers else {"X-API-Key": KEY, **headers}
        url = self.service.url + path
        return requests.request(method, url, **content_of(body), headers=shown, timeout=timeout, stream=stream)

    def visit(self, url: str, cookies: str = "") -> str:
        parts = urlsplit(url)
        return page_opened(f"http://127.0.0.1:{parts.port}", parts, cookies)

    @property
    def url(self) -> str:
        return self.service.url

    def redis(self) -> redis.Redis:
        return self.service.redis()

    def gateway(self, uuid: str) -> tuple[str, str]:
        secret = (self.service.data_dir / "secret-key").read_text().strip()
        epoch = int(self.redis().hget(keys.SESSION.format(uuid=uuid), "epoch") or 0)
        return self.service.gateway_url, AgentCredentials([secret]).token(uuid, epoch)

    # Trouble

    def kill(self, part: str, chance: random.Random) -> bool:
        with contextlib.suppress(psutil.Error):
            if process := self._part(part):
                children = process.children()
                victim = chance.choice(children) if children and chance.random() < 0.3 else process
                victim.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                return True
        return False

    def freeze(self, part: str, seconds: float) -> bool:
        if part:
            leader = self._part(part)
            frozen = [leader, *leader.children(recursive=True)] if leader else []
        else:
            frozen = self.service.processes()
        try:
            for process in frozen:
                with contextlib.suppress(psutil.Error):
                    process.suspend()
            time.sleep(seconds if frozen else 0)  # meant: for so long it is frozen
        finally:
            for process in reversed(frozen):
                with contextlib.suppress(psutil.Error):
                    process.resume()
        return bool(frozen)

    def end_agent(self, uuid: str, number: signal.Signals) -> bool:
        running = self._folders.read_running(uuid)
        return bool(running and running.agent_pid) and _signalled(running.agent_pid, number)  # type: ignore[union-attr]

    def kill_editor(self, uuid: str) -> bool:
        running = self._folders.read_running(uuid)
        return bool(running and running.pid) and _signalled(running.pid, signal.SIGKILL)  # type: ignore[union-attr]

    def stop(self) -> None:
        self.service.stop()

    def die(self, *, workspaces: bool) -> None:
        self.service.die()
        for process in self.service.processes():
            with contextlib.suppress(psutil.Error):
                if workspaces or WORKSPACE not in process.environ():
                    process.kill()

    def start(self) -> None:
        self.service.start()

    def absent(self) -> str:
        for part in self.parts:
            if self._part(part) is None:
                return part
        try:
            answer = self.call("GET", "/health", None, {}, 5)
        except requests.RequestException as error:
            return type(error).__name__
        return "" if answer.ok else answer.text

    def _part(self, part: str) -> psutil.Process | None:
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int((self.service.data_dir / "pids" / f"{part}.pid").read_text()))
            # The id may be another's by now.
            if process.environ().get("DATA_DIR") == str(self.service.data_dir):
                return process if process.status() != psutil.STATUS_ZOMBIE else None
        return None

    # A look behind it

    def write(self, uuid: str, files: Mapping[str, bytes]) -> bool:
        folder = self.service.files(uuid)
        try:
            for name, content in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
        except FileNotFoundError:
            return False
        return True

    def grow(self, uuid: str, name: str, size: int) -> None:
        with (self.service.files(uuid) / name).open("wb") as file:
            file.truncate(size)

    def files(self, uuid: str) -> Mapping[str, int] | None:
        return checksums(self.service.files(uuid))

    def read(self, uuid: str, name: str) -> str:
        return text_of(self.service.files(uuid) / name)

    def running(self) -> Mapping[str, Counter[str]]:
        found: dict[str, Counter[str]] = {}
        for process in self.service.processes():
            with contextlib.suppress(psutil.Error):
                if uuid := process.environ().get(WORKSPACE):
                    found.setdefault(uuid, Counter())[_kind(process)] += 1
        return found

    def commands(self, uuid: str) -> Sequence[str]:
        return [line_of(pid) for pid in marked_processes(uuid, and_below=True)]

    def lives(self) -> set[str]:
        return {f"{part} {process.pid}" for part in self.parts for process in self._forks(part)}

    def memory(self) -> Mapping[str, int]:
        found: Counter[str] = Counter()
        for part in self.parts:
            for process in self._tree(part):
                with contextlib.suppress(psutil.Error):
                    found[part] += process.memory_info().rss
        return found

    def _tree(self, part: str) -> list[psutil.Process]:
        """Its processes, without the workspaces that it has started."""
        found = []
        with contextlib.suppress(psutil.Error):
            leader = self._part(part)
            for process in [leader, *leader.children(recursive=True)] if leader else ():
                with contextlib.suppress(psutil.Error):
                    if WORKSPACE not in process.environ():
                        found.append(process)
        return found

    def _forks(self, part: str) -> list[psutil.Process]:
        """Those of its processes that run its program: none that it runs for a moment, as restic."""
        found, tree = [], self._tree(part)
        for process in tree:
            with contextlib.suppress(psutil.Error):
                if process.cmdline() == tree[0].cmdline():
                    found.append(process)
        return found

    def leftovers(self, up: set[str], failed: set[str], living: set[str]) -> list[str]:
        data = self.service.data_dir
        found = [f"trash/{path.name}" for path in (data / "trash").iterdir()]
        found += parts_in(data / "backups")
        for path in (data / "workspaces").iterdir():
            # The name of the place is the disk's, no session's.
            if path.name == ".place":
                continue
            if path.name not in living:
                found.append(f"workspaces/{path.name} of no session")
            with contextlib.suppress(FileNotFoundError):
                left = (".restoring", ".replacing", ".meta")
                found += [f"{path.name}/{name}" for name in os.listdir(path) if name.startswith(left)]
        should_run = set(self._folders.running_files())
        found += [f"running/{uuid}.json of a session that is not up" for uuid in should_run - up - failed]
        found += [f"no running/{uuid}.json of a session that is up" for uuid in up - should_run]
        return found

    def stored(self) -> set[str]:
        return set(backups_of(self.service.data_dir).names())

    def zipped(self, name: str) -> zipfile.ZipFile:
        with backups_of(self.service.data_dir).open(name) as stored:
            return zipfile.ZipFile(io.BytesIO(stored.read()))

    def backup_begun(self, name: str) -> float:
        return float(backups_of(self.service.data_dir).sidecar(name)["created_at"])

    def lines(self, uuid: str, since: float) -> list[tuple[float, str]]:
        found = []
        for name in ("run.log.1", "run.log"):
            path = self.service.data_dir / "log" / name
            for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
                head, _, text = line.partition("|")
                if uuid in line and (told := said(head.split()[-1], text)) and told[0] >= since:
                    found.append(told)
        return found


def content_of(body: Any) -> dict[str, Any]:
    """The argument of a request that sends this body, bytes or what is to be JSON."""
    return {"data": body} if isinstance(body, bytes) else {"json": body}


def _signalled(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _kind(process: psutil.Process) -> str:
    """What a process of a workspace is: `agent`, `editor`, or what it runs besides."""
    words = process.cmdline()
    if words[-1:] == ["app.agent"]:
        return "agent"
    return "editor" if "--bind-addr" in words else "other"


def line_of(pid: int) -> str:
    """The command line of a process, "" where it is gone."""
    with contextlib.suppress(psutil.Error):
        return " ".join(psutil.Process(pid).cmdline())
    return ""


def checksums(folder: Path) -> Mapping[str, int] | None:
    """The CRC-32 of every file of a workspace, as `Place.files`."""
    try:
        found = (path for path in folder.rglob("*") if path.is_file() and ".session" not in path.parts)
        files = {str(path.relative_to(folder)): zlib.crc32(path.read_bytes()) for path in found}
    except FileNotFoundError:
        return None
    return files if folder.exists() else None


def parts_in(backups: Path) -> list[str]:
    """The names of backups that are not written to their end; folders may go while this looks."""
    return [name for _, _, names in os.walk(backups) for name in names if PART_PATTERN.fullmatch(name)]


def text_of(path: Path) -> str:
    """What is in a file, "" where it isn't there."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    return ""


def page_opened(here: str, link: SplitResult, others: str = "") -> str:
    """What came of following a link as a browser does that has the cookies `others`, to the service at the address
    `here`."""
    headers = BROWSER | {"Host": link.netloc}
    let_in = requests.get(f"{here}/?{link.query}", headers=headers, timeout=60, allow_redirects=False)
    own = [f"{name}={value}" for name, value in let_in.cookies.items()]
    cookies = "; ".join([others, *own] if others else own)
    answer = requests.get(f"{here}/", headers=headers | {"Cookie": cookies}, timeout=60, allow_redirects=False)
    return f"{let_in.status_code} {answer.status_code}"


def said(who: str, text: str) -> tuple[float, str] | None:
    """A line of a process's log: when, and who said what; None for one that isn't ours."""
    try:
        told = json.loads(text)
        at = datetime.fromisoformat(told.pop("time")).timestamp()
    except (ValueError, KeyError, AttributeError):
        return None
    message = str(told.pop("message", ""))
    if message.startswith("Task ") and message.endswith("received"):
        return None
    rest = " ".join(f"{name}={value}" for name, value in told.items() if name not in NOISE)
    return at, f"[{who}] {message} ({rest})"[:300]


@contextmanager
def local_place(folder: Path, code_server: str, **settings: str) -> Iterator[LocalPlace]:
    """A running service, with a model that counts."""
    with ModelServer(rules=[counting]) as model:
        place = LocalPlace(folder, code_server, model, **settings)
        place.start()
        try:
            yield place
        finally:
            place.stop()


def wait_back(place: Place) -> None:
    """Until everything is there that was killed."""
    wait_for(lambda: not place.absent(), "the service to come back", place.absent, BACK * place.patience)
