"""The whole service beside a cluster, as processes a test can kill, on the test's own Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import redis
import requests

from app.core.backups.index import BackupIndex
from app.core.redis import keys
from app.core.sessions.store import SessionStore
from app.process.settings import Settings
from tests.cluster.crashing import FOLDERS
from tests.conftest import ROOT
from tests.contract.cluster import IMAGE, TIMEOUT
from tests.integration.serving import KEY, running_web
from tests.waiting import wait_for
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.api_server import ApiServer

PATIENCE = 240.0
"""s until a test gives up on a state that is normally reached in a few."""

AT_ONCE = 8
"""Calls a test has under way at the same time."""

SMALL = json.dumps(dict.fromkeys(("small", "standard", "large"), ["10m", "1", "32Mi", "1Gi"]))
"""What workspaces ask for here, so that many fit on one node."""

OWNED = ("deployments", "services", "ingresses", "secrets", "persistentvolumeclaims", "pods", "jobs", "scaledobjects")


class Manager:
    """A running service. `folder` is that of `tests.cluster.crashing`."""

    def __init__(self, namespace: str, redis_url: str, folder: Path, **environ: str) -> None:
        self.namespace = namespace
        self.folder = folder
        self.cluster = ApiServer(namespace, TIMEOUT)
        self.redis = redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=5.0)
        self.store = SessionStore(self.redis)
        self.environ = {
            "REDIS_URL": redis_url,
            "DATA_DIR": str(folder / "data"),
            "RUNTIME": "kubernetes",
            # Nobody visits these workspaces by an address.
            "INGRESS_FORWARD_AUTH": '{"session-manager.dev/door": "none"}',
            "WORKSPACE_NAMESPACE": namespace,
            # Its route for all other hosts must not take those of the product.
            "WORKSPACE_DOMAIN": f"{namespace}.localhost",
            "WORKSPACE_IMAGE": IMAGE,
            "WORKSPACE_SIZES": SMALL,
            "BACKUP_URL": f"file://{folder}/backups",
            "SCALER": "keda",
            "STOP_GRACE": "5",
            # A killed worker's lease and its message are waited for.
            "LEASE_TTL": "2",
            "STALE_AFTER": "1",
            "RECONCILE_INTERVAL": "5",
            # However slow the machine is.
            "START_TIMEOUT": "240",
            "PROGRESS_TIMEOUT": "240",
            "IDLE_TIMEOUT": "0",
            "MAX_SESSIONS_PER_USER": "1000",
            "WEB_WORKERS": "1",
            **environ,
        }
        self.url = ""
        for name in FOLDERS:
            (folder / name).mkdir()

    @contextmanager
    def web(self) -> Iterator[None]:
        """Serve the API for the block; nothing is carried out yet."""
        rest = {name: text for name, text in self.environ.items() if name not in ("REDIS_URL", "DATA_DIR")}
        with running_web(self.folder, self.environ["REDIS_URL"], **rest) as self.url:
            yield

    @contextmanager
    def workers(self, workers: int = 2, backup_workers: int = 2) -> Iterator[None]:
        """Run all the rest for the block."""
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.cluster.crashing",
            str(self.folder),
            str(workers),
            str(backup_workers),
        ]
        environ = {name: text for name, text in os.environ.items() if name not in Settings.variables()} | self.environ
        with (self.folder / "workers.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)
            try:
                up = self.folder / "pids" / "beat"
                wait_for(lambda: up.exists() or process.poll() is not None, "the workers to be started")
                assert process.poll() is None, (self.folder / "workers.log").read_text()[-3000:]
                yield
            finally:
                assert process.poll() is None, (self.folder / "workers.log").read_text()[-3000:]
                process.terminate()
                process.wait(PATIENCE)

    def call(self, method: str, path: str, body: Any = None, *, wait: int = 0, timeout: float = 90.0) -> Any:
        """The answer of the API; it waits for the end state for `wait` seconds."""
        prefer = f"wait={wait}" if wait else "respond-async"
        headers = {"X-API-Key": KEY, "Prefer": prefer}
        return requests.request(method, self.url + path, json=body, headers=headers, timeout=timeout)

    def done(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON answer of a call that must succeed."""
        answer = self.call(method, path, body, **more)
        assert answer.ok, answer.text
        return answer.json()

    def create(self, user_id: str = "ada@example.com") -> str:
        return str(self.done("POST", "/session/create", {"user_id": user_id})["uuid"])

    def sleep(self, uuid: str) -> None:
        self.done("POST", f"/session/{uuid}/sleep")

    def wake(self, uuid: str) -> None:
        self.done("POST", f"/session/{uuid}/wake")

    def back_up(self, uuid: str) -> None:
        self.done("POST", f"/session/{uuid}/backup")

    def delete(self, uuid: str) -> None:
        self.done("DELETE", f"/session/{uuid}")

    def delete_unsaved(self, uuid: str) -> None:
        self.done("DELETE", f"/session/{uuid}?backup=false")

    def restore(self, backup: str) -> str:
        return str(self.done("POST", f"/backups/{backup}/restore")["uuid"])

    def write(self, uuid: str) -> None:
        """A file of the user's."""
        self.inside(uuid, f"echo {uuid} > /app/kept")

    def holds(self, uuid: str, whose: str = "") -> bool:
        """Whether the file is there that was written in it, or in another session."""
        return self.inside(uuid, "cat /app/kept").strip() == (whose or uuid)

    def session(self, uuid: str) -> Any:
        return self.done("GET", f"/session/{uuid}")

    def reason(self, uuid: str) -> str:
        """Why the session failed."""
        return self.store.get(uuid).reason

    def pod(self, uuid: str) -> str:
        return self.store.get(uuid).pod_name

    def wait_status(self, uuids: Iterable[str], status: str, replicas: int) -> None:
        """Until all of these sessions are in that state."""
        left = list(uuids)

        def reached() -> bool:
            seen = self.store.find(left)
            left[:] = [each.uuid for each in seen if (each.status, each.replicas) != (status, replicas)]
            return not left

        wait_for(reached, f"sessions to be {status}", lambda: self.show(left), PATIENCE)

    def awake(self, count: int) -> list[str]:
        """New sessions that are up, each with a file in it."""
        uuids = together(lambda _: self.create(), [""] * count)
        self.wait_status(uuids, "active", 1)
        together(self.write, uuids)
        return uuids

    def gone(self, uuids: list[str], within: float = 0.0) -> None:
        """Delete them; nothing may be left, at once or so many seconds later."""

        def left() -> list[str]:
            return [each for uuid in uuids for each in self.objects(uuid)]

        together(self.delete_unsaved, uuids)
        self.wait_status(uuids, "terminated", 0)
        wait_for(lambda: not left(), "nothing to be left", lambda: str(left()), within)

    def show(self, uuids: Sequence[str]) -> str:
        """What the first of these sessions look like, for a failed test."""
        return "\n".join(f"{self.session(uuid)} {self.fate(uuid)}" for uuid in uuids[:5])

    def wait_backups(self, uuids: Iterable[str]) -> None:
        """Until all of these sessions have a backup."""
        index = BackupIndex(self.redis)
        wait_for(lambda: all(map(index.newest_of, uuids)), "the backups", seconds=PATIENCE)

    def save(self, uuid: str) -> None:
        """Make a restore point."""
        self.done("POST", f"/session/{uuid}/restore-points")
        wait_for(lambda: not self.saving(uuid), "a restore point", lambda: self.show([uuid]), PATIENCE)
        assert self.store.get(uuid).point

    def prove(self, uuid: str) -> None:
        """Ask for a drill of its newest restore point."""
        self.redis.zadd(keys.DRILL_REQUESTS, {uuid: time.time()})

    def roll_back(self, uuid: str) -> None:
        """Go back to its oldest restore point."""
        self.done("POST", f"/session/{uuid}/rollback", {"restore_point": self.points(uuid)[-1]})

    def fork(self, uuid: str) -> str:
        """Another user's session, from its newest restore point."""
        body = {"user_id": "ben@example.com", "restore_point": self.points(uuid)[0]}
        return str(self.done("POST", f"/session/{uuid}/fork", body)["uuid"])

    def points(self, uuid: str) -> list[str]:
        """The ids of its restore points, newest first."""
        return [each["id"] for each in self.done("GET", f"/session/{uuid}/restore-points")["restore_points"]]

    def unused(self, uuid: str) -> None:
        """Nobody has used it for its `ttl`."""
        self.redis.hset(keys.SESSION.format(uuid=uuid), "ttl", "1")
        self.redis.zadd(keys.EXPIRY, {uuid: 0})

    def wait_archived(self, uuids: Iterable[str]) -> None:
        """Until they are in the archive, and nothing of them in the cluster."""
        left = list(uuids)

        def gone() -> bool:
            seen = self.store.find(left)
            left[:] = [each.uuid for each in seen if not each.archived_at or self.objects(each.uuid)]
            return not left

        wait_for(gone, "the sessions to be archived", lambda: self.show(left), PATIENCE)

    def saving(self, uuid: str) -> bool:
        """Whether a restore point is wanted of it, or being made."""
        return self.redis.zscore(keys.POINT_REQUESTS, uuid) is not None

    def lose(self, uuid: str) -> None:
        """Its claim and its volume are gone at once, whoever uses them."""
        claim = names.workspace(uuid)
        for kind, name in (("pvc", claim), ("pv", self.volume(uuid))):
            self.kubectl("delete", kind, name, "--wait=false", "--ignore-not-found")
            # Against the cluster's own protection of what is in use; what is in no use goes meanwhile.
            unprotected = ("patch", kind, name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
            self.kubectl(*unprotected, unless="NotFound")

    def kill_its_job(self, uuid: str, after: float) -> None:
        """SIGKILL all that the session's next Job does, so many seconds after its pod is there."""
        selector = f"{names.APP_LABEL}={names.BACKUP},{names.UUID_LABEL}={uuid}"

        def pod() -> str:
            items, _ = self.cluster.list("pods", selector)
            left = [each for each in items if each["status"].get("phase") in ("Pending", "Running")]
            return str(left[0]["metadata"]["name"]) if left else ""

        name = wait_for(pod, "a Job's pod", lambda: self.show([uuid]), PATIENCE)
        time.sleep(after)
        self.cluster.delete("pods", name, now=True)

    def volume(self, uuid: str) -> str:
        """The name of the volume behind its first claim."""
        return self.kubectl("get", "pvc", names.workspace(uuid), "-o", "jsonpath={.spec.volumeName}")

    def wait_restored(self, uuid: str, status: str, replicas: int) -> None:
        """Until its lost files are back, and it is in that state."""

        def restored() -> bool:
            record = self.store.get(uuid)
            return bool(record.files_of) and not record.restore_from and record.settled >= record.generation

        wait_for(restored, f"{uuid} to be restored", lambda: self.show([uuid]), PATIENCE)
        self.wait_status([uuid], status, replicas)

    def plan(self, uuid: str, calls: int, method: str = "") -> None:
        """Let the worker that next acts on this session, or does so by this method, die after so many calls."""
        (self.folder / "fate" / uuid).unlink(missing_ok=True)
        self._write_plan("plan", uuid, f"{calls} {method}")

    def plan_new(self, calls: Iterable[int]) -> None:
        """The same for sessions still to be created: one for each of these numbers."""
        for each in calls:
            self._write_plan("new", f"{each:03}", str(each))

    def _write_plan(self, folder: str, name: str, plan: str) -> None:
        file = self.folder / "written" / name
        file.write_text(plan)
        file.rename(self.folder / folder / name)

    def fate(self, uuid: str) -> dict[str, Any]:
        """What became of the last plan for this session; nothing before it is known."""
        try:
            return dict(json.loads((self.folder / "fate" / uuid).read_text()))
        except FileNotFoundError:
            return {}

    def objects(self, uuid: str, *kinds: str) -> list[str]:
        """The names of all there is of a session in the cluster, its Jobs too, or of these kinds."""
        found = []
        for kind in kinds or OWNED:
            items, _ = self.cluster.list(kind, f"{names.UUID_LABEL}={uuid}")
            found += [f"{kind}/{item['metadata']['name']}" for item in items]
        return found

    @contextmanager
    def counting_pods(self) -> Iterator[dict[str, set[str]]]:
        """The names of all pods that each workspace has had since."""
        seen: dict[str, set[str]] = defaultdict(set)
        _, version = self.cluster.list("pods", names.SELECTOR)
        following = self.cluster.watch("pods", names.SELECTOR, version, 3_600)

        def follow() -> None:
            for event in following:
                if event["type"] != "BOOKMARK":
                    metadata = event["object"]["metadata"]
                    seen[metadata["labels"][names.UUID_LABEL]].add(metadata["name"])

        thread = Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            following.close()
            thread.join(PATIENCE)
            following.release()

    def inside(self, uuid: str, command: str) -> str:
        """What a command prints in the workspace's pod."""
        return self.kubectl("exec", f"deployment/user-{uuid}", "--", "sh", "-c", command)

    def kubectl(self, *command: str, unless: str = "") -> str:
        """What kubectl prints, in this namespace. It may fail for the reason `unless`."""
        line = [os.environ.get("KUBECTL", "kubectl"), "-n", self.namespace, *command]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or (unless and unless in done.stderr), done.stderr
        return done.stdout


def store_of(folder: Path) -> Path:
    """The folder of the store of a manager in `folder`, for Jobs too, which are another user's."""
    store = folder / "backups"
    store.mkdir()
    store.chmod(0o777)
    return store


def together(action: Any, uuids: Iterable[str]) -> list[Any]:
    """Do it with all of them, several at a time; answers what each came to."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(action, uuids))
