"""What tests of prompts need of a cluster with the whole product: a model beside it, events, and sudden deaths."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from scripts.cluster import host, layout
from tests.cluster.product import LET_IN, SYSTEM, WORKSPACES, Api, kubectl, rolled_out
from tests.model_server import ModelServer
from tests.waiting import wait_for

MODEL_KEY = "sk-the-key-of-the-model-provider"
PATIENCE = 300.0
"""s until a test gives up on a prompt; a pod that died repeatedly is started again with growing pauses."""
BETWEEN = 1.0
"""s between two looks by the API, which counts its calls."""


@contextmanager
def model_for_the_gateway() -> Iterator[ModelServer]:
    """A model at the node's address, which the gateway is told of as an administrator tells it; none afterwards."""
    names = ("gateway", "web")
    with ModelServer(host=layout.NODE_IP, api_key=MODEL_KEY) as model:
        values = {"base-url": model.url, "api-key": MODEL_KEY, "model": "stub-model"}
        kubectl("delete", "secret", "llm", "--ignore-not-found", namespace=SYSTEM)
        literals = [f"--from-literal={name}={value}" for name, value in values.items()]
        kubectl("create", "secret", "generic", "llm", *literals, namespace=SYSTEM)
        try:
            restart(*names)
            yield model
        finally:
            kubectl("delete", "secret", "llm", namespace=SYSTEM)
            restart(*names)


@contextmanager
def model_at_install() -> Iterator[ModelServer]:
    """A model where the product was told of one when it was installed, so that nothing is restarted for it; without one
    as `model_for_the_gateway`."""
    found = kubectl("get", "secret", "llm", "--ignore-not-found", "-o", "json", namespace=SYSTEM)
    if not found:
        with model_for_the_gateway() as model:
            yield model
        return
    told = {name: base64.b64decode(value).decode() for name, value in json.loads(found)["data"].items()}
    address = urlsplit(told["base-url"])
    with ModelServer(address.port or 80, host=str(address.hostname), api_key=told["api-key"]) as model:
        yield model


def restart(*names: str) -> None:
    """These processes, until none of before is left."""
    kubectl("rollout", "restart", *(f"deployment/{name}" for name in names), namespace=SYSTEM)
    rolled_out(*names)


class Conversation:
    """One session, new or with a backup's files, by what its user does with it. It is deleted by whoever made it."""

    def __init__(self, api: Api, user: str = "ada@example.com", *, backup: str = "") -> None:
        self.api = api
        self._headers = {"X-API-Key": api.headers["X-API-Key"]}
        self.uuid = ""
        path = f"/backups/{backup}/restore" if backup else "/session/create"
        self.uuid = str(self._done("POST", path, {"user_id": user}).json()["uuid"])
        self.wait_awake()

    def visit(self) -> int:
        """The status of what a program is told at its address."""
        return self.api.visit(self._record()["session"] | {"uuid": self.uuid}).status_code

    def wait_open(self) -> None:
        """Until its address leads to the editor."""
        self._wait(lambda: self.visit() in LET_IN, "its address to lead to the editor")

    def send(self, message_id: str, text: str) -> requests.Response:
        """A prompt, not waited for."""
        return self._done("POST", f"/session/{self.uuid}/chat", {"message": text, "id": message_id})

    def ended(self, message_id: str) -> Any:
        """The message, once its end is known."""
        found: list[Any] = []

        def over() -> bool:
            answer = self._done("GET", f"/session/{self.uuid}/messages/{message_id}").json()
            if answer["state"] in ("processed", "failed"):
                found.append(answer)
            return bool(found)

        self._wait(over, f"the end of {message_id}")
        return found[0]

    def messages(self) -> list[dict[str, Any]]:
        return list(self._done("GET", f"/session/{self.uuid}/messages").json()["messages"])

    def roll_back(self, message_id: str) -> Any:
        """Undo this prompt and the later ones; what the session says of it."""
        self._done("POST", f"/session/{self.uuid}/rollback", {"message_id": message_id})
        self._wait(lambda: self._record()["session"]["rolled_back"], "the rollback")
        return self._record()["session"]["rolled_back"]

    def sleep(self) -> None:
        """Until no process of it is left."""
        self._done("POST", f"/session/{self.uuid}/sleep")
        self._wait(lambda: self._record()["replicas"] == 0, "the session to sleep")

    def wake(self) -> None:
        """Ask for it, without waiting."""
        self._done("POST", f"/session/{self.uuid}/wake")

    def wait_awake(self) -> None:
        self._wait(lambda: self._status() == "active", "the session to be active")

    def back_up(self) -> None:
        """Until there is a backup."""
        self._done("POST", f"/session/{self.uuid}/backup")
        self._wait(self.backups, "the backup")

    def backups(self) -> list[str]:
        """The names of its backups, newest first."""
        return [each["name"] for each in self._done("GET", f"/session/{self.uuid}/backups").json()["backups"]]

    def delete(self, query: str = "?backup=false") -> None:
        """Until nothing of it is left."""
        self._done("DELETE", f"/session/{self.uuid}{query}")
        self._wait(lambda: self._status() == "terminated", "the session to go")

    def save(self) -> None:
        """Until there is a restore point of its files."""
        points = f"/session/{self.uuid}/restore-points"
        self._done("POST", points)
        self._wait(lambda: self._done("GET", points).json()["total"], "a restore point")

    def lose_volume(self) -> None:
        """Its claim and its volume are gone at once, although they are in use."""
        claim = f"user-{self.uuid}"
        volume = kubectl("get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
        for kind, name in (("pvc", claim), ("pv", volume)):
            kubectl("delete", kind, name, "--wait=false", "--ignore-not-found")
            # Against the cluster's own protection of what is in use. The volume may have gone with its claim.
            with suppress(subprocess.CalledProcessError):
                kubectl("patch", kind, name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    def wait_restored(self) -> None:
        """Until the files of a lost volume are back, and it is up again."""

        def restored() -> bool:
            session = self._record()["session"]
            return bool(session["files_of"]) and (session["restore_from"], session["status"]) == (None, "active")

        self._wait(restored, "the files to come back")

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        wait_for(condition, what, self.look, PATIENCE, BETWEEN)

    def _record(self) -> Any:
        return self._done("GET", f"/session/{self.uuid}").json()

    def _status(self) -> str:
        return str(self._record()["session"]["status"])

    def _done(self, method: str, path: str, body: Any = None) -> requests.Response:
        """The answer of a call that succeeds; one that could not, since something was down, is made again."""
        headers = {**self._headers, "Prefer": "respond-async", "Idempotency-Key": secrets.token_hex(8)}
        answers: list[requests.Response] = []

        def done() -> bool:
            with suppress(requests.ConnectionError, requests.Timeout):
                answer = requests.request(method, self.api.url + path, json=body, headers=headers, timeout=30)
                assert answer.ok or answer.status_code in (429, 502, 503, 504), answer.text
                answers.append(answer)
                return answer.ok
            return False

        wait_for(done, f"{method} {path}", lambda: answers[-1].text if answers else "", PATIENCE, BETWEEN)
        return answers[-1]

    def inside(self, command: str, container: str = "editor") -> str:
        """What a shell prints in one of the pod's containers."""
        return kubectl("exec", f"deployment/user-{self.uuid}", "-c", container, "--", "sh", "-c", command)

    def look(self) -> str:
        """What there is of it, for a test that failed."""
        pods = kubectl("get", "pods", "-l", f"session-uuid={self.uuid}", "-o", "wide")
        return f"{self._record()}\n{pods}"

    @contextmanager
    def events(self) -> Iterator[list[tuple[str, Any]]]:
        """Its events from now on, as they come."""
        seen: list[tuple[str, Any]] = []
        url = f"{self.api.url}/session/{self.uuid}/events"
        answer = requests.get(url, headers=self.api.headers, stream=True, timeout=(10, 60))
        assert answer.ok, answer.text

        def listen() -> None:
            kind = ""
            with suppress(requests.RequestException, AttributeError):
                for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
                    if line.startswith("event: "):
                        kind = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        seen.append((kind, json.loads(line.removeprefix("data: "))))

        threading.Thread(target=listen, daemon=True).start()
        try:
            yield seen
        finally:
            answer.close()


def secrets_of_the_manager() -> dict[str, str]:
    """Every value that no workspace may find."""
    found = {"the model's key": MODEL_KEY}
    for name in ("manager", "redis", "flower"):
        data = json.loads(kubectl("get", "secret", name, "-o", "json", namespace=SYSTEM))["data"]
        found |= {f"{name}/{key}": base64.b64decode(value).decode() for key, value in data.items()}
    return found


def token_file(uuid: str) -> str:
    """What the session's agent was given."""
    data = json.loads(kubectl("get", "secret", f"user-{uuid}", "-o", "json"))["data"]
    return base64.b64decode(data["token"]).decode()


def kill(selector: str, namespace: str = SYSTEM) -> int:
    """SIGKILL every process of the pods that a selector finds, without a word; how many there were."""
    shown = "jsonpath={range .items[*]}{.metadata.uid} {end}"
    uids = kubectl("get", "pods", "-l", selector, "-o", shown, namespace=namespace).split()
    killed = 0
    for pid in host.processes_in_cgroups(layout.from_environment()):
        with suppress(FileNotFoundError, ProcessLookupError):
            if any(uid in Path(f"/proc/{pid}/cgroup").read_text() for uid in uids):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


def delete_pod(uuid: str) -> None:
    """As somebody with kubectl does."""
    kubectl("delete", "pod", "-l", f"app=workspace,session-uuid={uuid}", "--wait=false", namespace=WORKSPACES)
