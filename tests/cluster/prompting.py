"""What tests of prompts need of a cluster with the whole product: a model beside it, its secrets, its backups, and
sudden deaths."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from app.core.backups.store import BackupStore
from app.core.storage.archive_keys import ArchiveKeys
from scripts.cluster import host, layout
from tests.cluster.product import SYSTEM, WORKSPACES, kubectl, rolled_out
from tests.model_server import ModelServer

MODEL_KEY = "sk-the-key-of-the-model-provider"


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
    told = secret("llm", SYSTEM)
    if not told:
        with model_for_the_gateway() as model:
            yield model
        return
    address = urlsplit(told["base-url"])
    with ModelServer(address.port or 80, host=str(address.hostname), api_key=told["api-key"]) as model:
        yield model


def restart(*names: str) -> None:
    """These processes, until none of before is left."""
    kubectl("rollout", "restart", *(f"deployment/{name}" for name in names), namespace=SYSTEM)
    rolled_out(*names)


def secret(name: str, namespace: str) -> dict[str, str]:
    """The values of a Secret, {} for none."""
    found = kubectl("get", "secret", name, "--ignore-not-found", "-o", "json", namespace=namespace)
    data = json.loads(found)["data"] if found else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def secrets_of_the_manager() -> dict[str, str]:
    """Every value that no workspace may find."""
    found = {"the model's key": MODEL_KEY}
    for name in ("manager", "redis", "flower"):
        found |= {f"{name}/{key}": value for key, value in secret(name, SYSTEM).items()}
    return found


def token_file(uuid: str) -> str:
    """What the session's agent was given."""
    return secret(f"user-{uuid}", WORKSPACES)["token"]


def stored_backups() -> BackupStore:
    """The backups of the product, as its own processes read them."""
    folder = Path(kubectl("get", "pv", "fresh-backups-workspaces", "-o", "jsonpath={.spec.hostPath.path}"))
    return BackupStore(folder.as_uri(), ArchiveKeys(secret("manager", SYSTEM)["archive-key"]))


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
