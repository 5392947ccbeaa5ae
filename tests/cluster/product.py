"""The whole product in a cluster, as its users and its administrator see it.

It is there after `scripts/cluster/cluster demo`, which prints API_URL and API_KEY.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import requests

from tests.waiting import wait_for
from workers.runtime.kubernetes.pods import FILES

SYSTEM, WORKSPACES = "fresh-system", "fresh-workspaces"
LET_IN = (200, 302)
"""What the editor answers at its address, by itself or on the way to its folder."""

ROLLOUT_LIMIT = 400
"""s for processes to be replaced, which have up to 315 s to end what they are at."""


class Api:
    """The manager's API, and what kubectl does beside it."""

    patience = 300.0
    """s that a conversation waits; a pod that died repeatedly is started again with growing pauses."""
    between = 1.0
    passing: tuple[int, ...] = (429, 502, 503, 504)

    def __init__(self) -> None:
        self.url = os.environ["API_URL"]
        self.key = os.environ["API_KEY"]
        self.headers = {"X-API-Key": self.key, "Prefer": "wait=60"}

    @property
    def dashboard_url(self) -> str:
        """The dashboard's origin: the API's, at another name."""
        return self.url.replace("//api.", "//dashboard.", 1)

    def ask(self, method: str, path: str, prefer: str = "", **more: Any) -> requests.Response:
        """The answer, whatever it is."""
        headers = self.headers | ({"Prefer": prefer} if prefer else {})
        return requests.request(method, self.url + path, headers=headers, timeout=90, **more)

    def call(self, method: str, path: str, body: Any = None, prefer: str = "") -> Any:
        """The JSON answer, None if there is none; a call that goes well is all there is."""
        answer = self.ask(method, path, prefer, json=body)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def new(self, user_id: str, **wanted: Any) -> Any:
        """A new session, of which nothing is there yet but its record."""
        return self.call("POST", "/session/create", {"user_id": user_id, **wanted}, "respond-async")

    def link(self, uuid: str) -> str:
        """The URL of a link that opens the workspace once."""
        return str(self.call("POST", f"/session/{uuid}/open")["url"])

    def visit(self, session: Any, path: str = "/", *, method: str = "GET", **headers: str) -> requests.Response:
        """What a program is told at the workspace's address, with a session token unless it brings other headers."""
        shown = {name.replace("_", "-"): text for name, text in headers.items()}
        if not shown:
            made = self.call("POST", f"/session/{session['uuid']}/token")
            shown = {"Authorization": f"Bearer {made['token']}"}
        url = session["workspace_url"] + path
        return requests.request(method, url, headers=shown, timeout=60, allow_redirects=False)

    def status(self, uuid: str) -> str:
        return str(self.call("GET", f"/session/{uuid}/status")["session"]["status"])

    def shell(self, uuid: str, command: str, container: str = "editor") -> str:
        """What a shell prints in one of the pod's containers, in the folder that the editor opens."""
        there = f"cd {FILES}\n{command}"
        return kubectl("exec", f"deployment/user-{uuid}", "-c", container, "--", "sh", "-c", there)

    def lose_volume(self, uuid: str) -> None:
        """Its claim and its volume are gone at once, although they are in use."""
        claim = f"user-{uuid}"
        volume = kubectl("get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
        for kind, name in (("pvc", claim), ("pv", volume)):
            kubectl("delete", kind, name, "--wait=false", "--ignore-not-found")
            # Against the cluster's own protection of what is in use. The volume may have gone with its claim.
            with suppress(subprocess.CalledProcessError):
                kubectl("patch", kind, name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    def look(self, uuid: str) -> str:
        """Its pods."""
        return kubectl("get", "pods", "-l", f"session-uuid={uuid}", "-o", "wide")


def kubectl(*arguments: str, namespace: str = WORKSPACES) -> str:
    command = [os.environ["KUBECTL"], "-n", namespace, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=ROLLOUT_LIMIT + 20).stdout


def inside(uuid: str, *command: str) -> subprocess.Popen[str]:
    """A command in the container of the session's editor, with pipes to its input and its output."""
    exec_there = ["exec", "-i", f"deployment/user-{uuid}", "-c", "editor", "--", *command]
    kubectl_there = [os.environ["KUBECTL"], "-n", WORKSPACES]
    return subprocess.Popen([*kubectl_there, *exec_there], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ready_pods(uuid: str) -> list[str]:
    """The names of the session's pods that are ready."""
    shown = '{range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
    lines = kubectl("get", "pods", "-l", f"app=workspace,session-uuid={uuid}", "-o", f"jsonpath={shown}").splitlines()
    return [line.split()[0] for line in lines if line.endswith(" True")]


def running_pods(uuid: str) -> list[str]:
    """The names of those that still run, or are only being started."""
    alive = "--field-selector=status.phase!=Succeeded,status.phase!=Failed"
    return kubectl("get", "pods", "-l", f"app=workspace,session-uuid={uuid}", alive, "-o", "name").split()


@contextmanager
def settings_of_processes(*names: str, **settings: str) -> Iterator[None]:
    """Other settings for these processes, until the block is done; both ways all of them are replaced at the end."""
    deployments = [f"deployment/{name}" for name in names]
    try:
        kubectl("set", "env", *deployments, *(f"{name}={text}" for name, text in settings.items()), namespace=SYSTEM)
        rolled_out(*names)
        yield
    finally:
        kubectl("set", "env", *deployments, *(f"{name}-" for name in settings), namespace=SYSTEM)
        rolled_out(*names)


@contextmanager
def stopped(*names: str) -> Iterator[None]:
    """None of these processes runs until the block is done."""
    deployments = [f"deployment/{name}" for name in names]
    counts = {name: _replicas_of(name) for name in names}
    labels = f"app.kubernetes.io/name in ({','.join(names)})"
    try:
        kubectl("scale", *deployments, "--replicas=0", namespace=SYSTEM)
        left = partial(kubectl, "get", "pods", "-l", labels, "-o", "name", namespace=SYSTEM)
        wait_for(lambda: not left(), f"{names} to end", left, ROLLOUT_LIMIT)
        yield
    finally:
        for name, count in counts.items():
            kubectl("scale", f"deployment/{name}", f"--replicas={count}", namespace=SYSTEM)
        rolled_out(*names)


def rolled_out(*names: str) -> None:
    """Until every process of these is there, and none of before is left."""
    for name in names:
        kubectl("rollout", "status", f"deployment/{name}", f"--timeout={ROLLOUT_LIMIT}s", namespace=SYSTEM)
    for name in names:
        count = _replicas_of(name)
        wait_for(partial(_are, name, count), f"the old {name} to end", seconds=ROLLOUT_LIMIT)


def redis_says(*command: str) -> str:
    """What the service's Redis answers."""
    return kubectl("exec", "redis-0", "--", "redis-cli", "--no-auth-warning", *command, namespace=SYSTEM).strip()


def _are(name: str, count: int) -> bool:
    pods = kubectl("get", "pods", "-l", f"app.kubernetes.io/name={name}", "-o", "name", namespace=SYSTEM)
    return len(pods.split()) == count


def _replicas_of(name: str) -> int:
    return int(kubectl("get", f"deployment/{name}", "-o", "jsonpath={.spec.replicas}", namespace=SYSTEM))
