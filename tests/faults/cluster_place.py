"""The place of the fuzzer in a cluster: the whole product as `scripts/cluster/cluster demo` starts it, which others may
use too. Only behind `scripts/cluster/cluster exec`, where its addresses, processes and volumes are."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import redis
import requests

from app.core.access.agent_credentials import AgentCredentials
from app.core.backups.store import BackupStore
from app.core.errors import SessionError
from app.core.redis import keys
from app.core.storage.archive_keys import ArchiveKeys
from scripts.cluster import host, layout
from scripts.lib.processes import MANAGER
from tests.cluster.manager import OWNED, SMALL
from tests.cluster.node import volume
from tests.cluster.product import SYSTEM, WORKSPACES, kubectl
from tests.faults.counting import counting
from tests.faults.judging import session_of
from tests.faults.places import SETTINGS, checksums, content_of, line_of, page_opened, parts_in, said, text_of
from tests.model_server import ModelServer
from tests.waiting import wait_for
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.api_server import ApiServer

PART = "app.kubernetes.io/name"
"""The label that tells the manager's pods apart."""

TIMEOUT = 20.0

LAST_WORDS = 330.0
"""s in which a part that is told to end has ended; the gateway lets streams end by themselves for 300."""

BACK = 240.0
TRIES = 3

MODEL_KEY = "sk-the-key-of-the-fuzzer"

NEEDED = ("deployments", "services", "ingresses", "secrets", "persistentvolumeclaims")
"""What there is of every session that is up."""

Object = dict[str, Any]


class ClusterPlace:
    """The product in a cluster; see `Place`. A stop ends no workspace, as those are no part of the manager. A process
    that dies often is started again with growing pauses; its pod is then replaced, which the cluster does at once."""

    parts = (*MANAGER, "redis")
    patience, agent_port = 60.0, 1111

    def __init__(self, folder: Path, model: ModelServer) -> None:
        self.model, self.prefix = model, _prefix()
        self.url, self._key = os.environ["API_URL"], os.environ["API_KEY"]
        self._system, self._workspaces = ApiServer(SYSTEM, TIMEOUT), ApiServer(WORKSPACES, TIMEOUT)
        self._logs = folder / "logs"
        self._logs.mkdir(exist_ok=True)
        self._password = _secret("redis", "password")
        self._shelf = Path(_kubectl("get", "pv", "fresh-backups-workspaces", "-o", "jsonpath={.spec.hostPath.path}"))
        self._backups = BackupStore(self._shelf.as_uri(), ArchiveKeys(_secret("manager", "archive-key")))
        self._counts = {name: self._get("deployments", name)["spec"]["replicas"] for name in MANAGER}
        self._seen: dict[str, bool] = {}
        self._volumes: dict[str, Path] = {}

    # Calls

    def call(
        self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout: float, *, stream: bool = False
    ) -> requests.Response:
        shown = {**headers} if "Authorization" in headers else {"X-API-Key": self._key, **headers}
        given = content_of(body)
        answer = requests.request(method, self.url + path, **given, headers=shown, timeout=timeout, stream=stream)
        if answer.status_code in (404, 502, 503, 504) and "json" not in answer.headers.get("Content-Type", ""):
            raise requests.ConnectionError(f"The proxy answers {answer.status_code}.")
        return answer

    def visit(self, url: str, cookies: str = "") -> str:
        parts = urlsplit(url)
        return page_opened(f"{parts.scheme}://{parts.netloc}", parts, cookies)

    def redis(self) -> redis.Redis:
        return redis.Redis(
            f"redis.{SYSTEM}.svc.cluster.local", password=self._password, decode_responses=True, socket_timeout=10
        )

    def gateway(self, uuid: str) -> tuple[str, str]:
        secret = _secret("manager", "secret-key")
        epoch = int(self.redis().hget(keys.SESSION.format(uuid=uuid), "epoch") or 0)
        return f"http://gateway.{SYSTEM}.svc.cluster.local:8001", AgentCredentials([secret]).token(uuid, epoch)

    # Trouble

    def kill(self, part: str, chance: random.Random) -> bool:
        pods = self._pods_of(part)
        if not pods:
            return False
        pod = chance.choice(pods)
        processes = _processes([pod])
        self._keep_logs()
        if processes[1:] and chance.random() < 0.3:
            return _send([chance.choice(processes)], signal.SIGKILL)
        done = _send(processes, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        if any(status["restartCount"] for status in pod["status"].get("containerStatuses", [])):
            # Not Redis: there could be two with one volume.
            force = ("--grace-period=0", "--force") if part != "redis" and chance.random() < 0.5 else ()
            _kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false", "--ignore-not-found", *force)
        return done

    def freeze(self, part: str, seconds: float) -> bool:
        pods = self._pods_of(part) if part else self._everything(workspaces=True)
        frozen = _processes(pods)
        try:
            _send(frozen, signal.SIGSTOP)
            time.sleep(seconds if frozen else 0)
        finally:
            _send(frozen[::-1], signal.SIGCONT)
        return bool(frozen)

    def end_agent(self, uuid: str, number: signal.Signals) -> bool:
        return self._end_in_workspace(uuid, names.AGENT, number)

    def kill_editor(self, uuid: str) -> bool:
        return self._end_in_workspace(uuid, names.EDITOR, signal.SIGKILL)

    def _end_in_workspace(self, uuid: str, kind: str, number: signal.Signals) -> bool:
        """One that died before is left alone: after a second death it would be away for the pause that the kubelet
        makes, which is longer every time."""
        for pod in self._pods(self._workspaces, names.selector(uuid)):
            died = {each["name"] for each in pod["status"].get("containerStatuses", []) if each["restartCount"]}
            if kind not in died:
                return _send([each for each in _processes([pod]) if _kind(each) == kind], number)
        return False

    @contextmanager
    def away(self) -> Iterator[None]:
        """The manager is stopped for the block, but Redis isn't: to replace all at once takes a third of the time that
        it takes one after the other."""
        try:
            self._stop_manager()
            yield
        finally:
            self.start()

    def stop(self) -> None:
        self._stop_manager()
        _kubectl("scale", "statefulset/redis", "--replicas=0")
        wait_for(lambda: not self._everything(), "Redis to end", self._left, LAST_WORDS)

    def die(self, *, workspaces: bool) -> None:
        self._keep_logs()
        doomed = _processes(self._everything(workspaces=workspaces))
        # Nobody sees anything between the first death and the last, and nothing is started again yet.
        _send(doomed, signal.SIGSTOP)
        try:
            self._scale(dict.fromkeys(MANAGER, 0))
            _kubectl("scale", "statefulset/redis", "--replicas=0")
        finally:
            _send(doomed, signal.SIGKILL)

    def start(self) -> None:
        _kubectl("scale", "statefulset/redis", "--replicas=1")
        self._scale(self._counts)
        wait_for(lambda: not self.absent(), "the service to start", self.absent, BACK)

    def absent(self) -> str:
        try:
            for name, count in self._counts.items():
                found = self._get("deployments", name)
                status = found["status"]
                known = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
                if not known or (status.get("readyReplicas", 0), status.get("replicas", 0)) != (count, count):
                    return f"{name}: {status.get('readyReplicas', 0)} of {count}"
            answer = self.call("GET", "/health", None, {}, 5)
        except requests.RequestException as error:
            return f"{type(error).__name__}: {error}"
        return "" if answer.ok else answer.text

    def _stop_manager(self) -> None:
        self._keep_logs()
        self._scale(dict.fromkeys(MANAGER, 0))
        wait_for(lambda: not self._everything(redis=False), "the manager to end", self._left, LAST_WORDS)

    def _scale(self, counts: Mapping[str, int]) -> None:
        for count in set(counts.values()):
            found = [f"deployment/{name}" for name in counts if counts[name] == count]
            _kubectl("scale", *found, f"--replicas={count}")

    # A look behind it

    def write(self, uuid: str, files: Mapping[str, bytes]) -> bool:
        folder = self._files(uuid)
        try:
            owner = folder.stat()
            for name, content in files.items():
                path = folder / name
                if not path.parent.exists():
                    path.parent.mkdir()
                    os.chown(path.parent, owner.st_uid, owner.st_gid)
                path.write_bytes(content)
                os.chown(path, owner.st_uid, owner.st_gid)
        except FileNotFoundError:
            return False
        return True

    def grow(self, uuid: str, name: str, size: int) -> None:
        assert self.write(uuid, {name: b""})
        os.truncate(self._files(uuid) / name, size)

    def files(self, uuid: str) -> Mapping[str, int] | None:
        return checksums(self._files(uuid))

    def read(self, uuid: str, name: str) -> str:
        return text_of(self._files(uuid) / name)

    def running(self) -> Mapping[str, Counter[str]]:
        found: dict[str, Counter[str]] = {}
        mine = self.mine()
        for pod in self._pods(self._workspaces, names.SELECTOR):
            if (uuid := pod["metadata"]["labels"][names.UUID_LABEL]) in mine:
                kinds = found.setdefault(uuid, Counter())
                kinds.update(_kind(process) for process in _processes([pod]))
        return {uuid: kinds for uuid, kinds in found.items() if kinds}

    def commands(self, uuid: str) -> Sequence[str]:
        pods = self._pods(self._workspaces, f"{names.UUID_LABEL}={uuid}")
        return [line_of(process.pid) for process in _processes(pods)]

    def lives(self) -> set[str]:
        return {
            f"{pod['metadata']['name']} {status['name']} {status['containerID']}"
            for pod in self._everything()
            for status in pod["status"]["containerStatuses"]
        }

    def memory(self) -> Mapping[str, int]:
        found: Counter[str] = Counter()
        for part in self.parts:
            for pod in self._pods_of(part):
                found[part] = max(found[part], sum(map(_memory, _processes([pod]))))
        return found

    def leftovers(self, up: set[str], failed: set[str], living: set[str]) -> list[str]:
        found, mine = [], self.mine()
        missing = {(uuid, kind) for uuid in up for kind in NEEDED}
        for kind in OWNED:
            for each in self._list(self._workspaces, kind, names.UUID_LABEL):
                uuid = each["metadata"]["labels"][names.UUID_LABEL]
                missing.discard((uuid, kind))
                ours = uuid in mine or each["metadata"]["labels"].get(names.USER_LABEL, "").startswith(self.prefix)
                if ours and (uuid not in living or kind == "jobs"):
                    found.append(f"{kind}/{each['metadata']['name']} of {uuid}, living: {uuid in living}")
        found += [f"no {kind} of {uuid}, which is up" for uuid, kind in sorted(missing)]
        return found + [name for name in parts_in(self._shelf) if any(f"app-{uuid}-" in name for uuid in mine)]

    def stored(self) -> set[str]:
        mine = self.mine()
        return {name for name in self._backups.names() if session_of(name) in mine}

    def zipped(self, name: str) -> zipfile.ZipFile:
        with self._backups.open(name) as stored:
            return zipfile.ZipFile(io.BytesIO(stored.read()))

    def backup_begun(self, name: str) -> float:
        return float(self._backups.sidecar(name)["created_at"])

    def lines(self, uuid: str, since: float) -> list[tuple[float, str]]:
        self._keep_logs()
        found = []
        for path in sorted(self._logs.iterdir()):
            for line in path.read_text(errors="replace").splitlines():
                text = line.split(" ", 3)[-1]
                if uuid in line and (told := said(path.name.split("_")[1], text)) and told[0] >= since:
                    found.append(told)
        return found

    def mine(self) -> set[str]:
        """The sessions of this run, as far as is known where Redis is away."""
        with contextlib.suppress(redis.RedisError, OSError), self.redis() as client:
            for key in client.scan_iter("session:????????", count=1000, _type="hash"):
                uuid = key.partition(":")[2]
                if uuid not in self._seen and (user := client.hget(key, "user_id")) is not None:
                    self._seen[uuid] = user.startswith(self.prefix)
        return {uuid for uuid, ours in list(self._seen.items()) if ours}

    def clear(self) -> None:
        """Let nothing of this run stay."""
        for uuid in self.mine():
            self.call("DELETE", f"/session/{uuid}?backup=false", None, {"Prefer": "respond-async"}, TIMEOUT)
        for name in self.stored():
            self.call("DELETE", f"/backups/{name}", None, {}, TIMEOUT)
        wait_for(
            lambda: not self.leftovers(set(), set(), set()),
            "the sessions to go",
            lambda: str(self.leftovers(set(), set(), set())),
            BACK,
        )

    def renew(self) -> None:
        """Begin anew, with nothing of before."""
        self.clear()
        self._seen.clear()
        self._volumes.clear()
        self.prefix = _prefix()

    def _files(self, uuid: str) -> Path:
        # One that comes back from the archive has another volume.
        if uuid not in self._volumes or not self._volumes[uuid].exists():
            with _as_no_answer():
                claim = self._workspaces.get("persistentvolumeclaims", names.workspace(uuid))
            if claim is None or "volumeName" not in claim["spec"]:
                return Path("/nonexistent")
            self._volumes[uuid] = volume(claim) / "app"
        return self._volumes[uuid]

    def _everything(self, *, redis: bool = True, workspaces: bool = False) -> list[Object]:
        """All pods of the manager, and those of this run's workspaces if so wanted."""
        found = [pod for part in (self.parts if redis else MANAGER) for pod in self._pods_of(part)]
        if workspaces:
            mine = self.mine()
            pods = self._pods(self._workspaces, names.SELECTOR)
            found += [pod for pod in pods if pod["metadata"]["labels"][names.UUID_LABEL] in mine]
        return found

    def _left(self) -> str:
        return ", ".join(pod["metadata"]["name"] for pod in self._everything())

    def _pods_of(self, part: str) -> list[Object]:
        return self._pods(self._system, f"{PART}={part}")

    def _pods(self, cluster: ApiServer, selector: str) -> list[Object]:
        return self._list(cluster, "pods", selector)

    def _list(self, cluster: ApiServer, kind: str, selector: str) -> list[Object]:
        with _as_no_answer():
            return cluster.list(kind, selector)[0]

    def _get(self, kind: str, name: str) -> Object:
        with _as_no_answer():
            return self._system.get(kind, name) or {}

    def _keep_logs(self) -> None:
        """Keep what the manager's pods said: it goes with them."""
        for path in (layout.from_environment().folder / "pod-logs").glob(f"{SYSTEM}_*/*/*.log"):
            kept = self._logs / f"{path.parts[-3]}_{path.name}"
            with contextlib.suppress(OSError):
                if kept.exists() and kept.stat().st_ino == path.stat().st_ino:
                    continue
                kept.unlink(missing_ok=True)
                try:
                    os.link(path, kept)
                except OSError:
                    shutil.copyfile(path, kept)


def _prefix() -> str:
    return f"fuzz-{secrets.token_hex(3)}-"


def _secret(name: str, key: str) -> str:
    data = json.loads(_kubectl("get", "secret", name, "-o", "json"))["data"]
    return base64.b64decode(data[key]).decode()


def _kubectl(*arguments: str) -> str:
    """As `kubectl`, tried again where the API server did not answer."""
    for left in reversed(range(TRIES)):
        try:
            return kubectl(*arguments, namespace=SYSTEM)
        except subprocess.CalledProcessError as error:
            if not left:
                raise AssertionError(f"kubectl {arguments}: {error.stderr}") from error
            time.sleep(1)
    raise AssertionError


@contextmanager
def _as_no_answer() -> Iterator[None]:
    """An API server that doesn't answer is as a call that isn't answered."""
    try:
        yield
    except SessionError as error:
        raise requests.ConnectionError(f"the API server: {error}") from error


def _processes(pods: Sequence[Object]) -> list[psutil.Process]:
    """All that run in these pods, but those that hold their networks."""
    uids = [pod["metadata"]["uid"] for pod in pods]
    found = []
    for pid in sorted(host.processes_in_cgroups(layout.from_environment())) if uids else ():
        with contextlib.suppress(OSError, psutil.Error):
            if any(uid in Path(f"/proc/{pid}/cgroup").read_text() for uid in uids):
                process = psutil.Process(pid)
                if process.name() != "pause":
                    found.append(process)
    return found


def _memory(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _send(processes: Sequence[psutil.Process], number: signal.Signals) -> bool:
    """Whether any of them was there to be sent the signal."""
    sent = False
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
            sent = True
    return sent


def _kind(process: psutil.Process) -> str:
    """What a process of a workspace is: `agent`, `editor`, or what it runs besides."""
    words: list[str] = []
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
    if words[-1:] == ["app.agent"]:
        return names.AGENT
    return names.EDITOR if words == ["node", "/opt/editor/workspace.js"] else "other"


@contextmanager
def cluster_place(folder: Path, **settings: str) -> Iterator[ClusterPlace]:
    """The product in the cluster with the fuzzer's settings and a model that counts; at the end with its own again."""
    keys = base64.b64encode(settings.pop("API_KEYS", "[]").encode()).decode()
    # A drill is a Job of some seconds: in a shorter cycle, one is always under way.
    changed = SETTINGS | {"WORKSPACE_SIZES": SMALL, "DRILL_CYCLE": "120"} | settings
    with ModelServer(host=layout.NODE_IP, api_key=MODEL_KEY, rules=[counting]) as model:
        place = ClusterPlace(folder, model)
        try:
            with place.away():
                values = {"base-url": model.url, "api-key": MODEL_KEY, "model": "stub"}
                literals = [f"--from-literal={name}={value}" for name, value in values.items()]
                _kubectl("delete", "secret", "llm", "--ignore-not-found")
                _kubectl("create", "secret", "generic", "llm", *literals)
                _kubectl("patch", "secret", "manager", "--patch", json.dumps({"data": {"api-keys": keys}}))
                _set_env(f"{name}={value}" for name, value in changed.items())
            yield place
            if place.absent():
                place.start()
            place.clear()
        finally:
            with place.away():
                _kubectl("delete", "secret", "llm", "--ignore-not-found")
                _kubectl("patch", "secret", "manager", "--patch", json.dumps({"data": {"api-keys": None}}))
                _set_env(f"{name}-" for name in changed)


def _set_env(words: Iterable[str]) -> None:
    _kubectl("set", "env", *(f"deployment/{name}" for name in MANAGER), *words)
