"""Installs the whole product on the cluster: images, manifests, secrets; waits until it is healthy."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.cluster import addons, host_ports, images
from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import Layout
from scripts.cluster.programs import Programs

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = ROOT / "manifests" / "overlays" / "dev"
NAMESPACE = "fresh-system"
API_HOST, DASHBOARD_HOST = "api.localhost", "dashboard.localhost"

NODE_FOLDERS = "/var/lib/fresh-"
"""What the overlay's folders on its node begin with."""

BUILD_LIMIT = 3_000.0
"""Seconds for all images; 8 min on two cores when nothing is cached."""

ROLLOUT_LIMIT = 300.0
HEALTH_LIMIT = 120.0
"""Seconds until every process runs, and then until the workers have reached Redis, which they retry ever less often."""


def run(layout: Layout, programs: Programs, archives: Mapping[str, Path]) -> str:
    """Install or update the product; returns lines of NAME=VALUE. Raises `ClusterError`."""
    for archive in archives.values():
        images.load(layout, str(archive))
    cluster = [str(ROOT / "scripts" / "cluster" / "cluster"), "exec"]
    objects = addons.kubectl(layout, programs, "kustomize", str(OVERLAY))
    # What is stored goes with the cluster: nothing can be read of it without the cluster's archive key.
    own = objects.replace(NODE_FOLDERS, str(layout.stores / "fresh-"))
    addons.kubectl(layout, programs, "apply", "--server-side", "-f", "-", text=own, timeout=ROLLOUT_LIMIT)
    if told := model_secret(os.environ):
        # Before the processes of a new product can start, which wait for their keys.
        addons.apply(layout, programs, [told])
    step([str(ROOT / "manifests" / "make-secrets")], ROLLOUT_LIMIT, KUBECTL=" ".join([*cluster, "kubectl"]))
    ports = host_ports.recall(layout)
    if ports is None:
        raise ClusterError("The cluster is not up; start it with: scripts/cluster/cluster up")
    suffix = f":{ports.url_port}" if ports.url_port else ""
    url, dashboard = f"http://{API_HOST}{suffix}", f"http://{DASHBOARD_HOST}{suffix}"
    port = f"WORKSPACE_PORT={ports.url_port}" if ports.url_port else "WORKSPACE_PORT-"
    # The image's tag and the name of the model's Secret do not change with what they hold. The first two values do, and
    # restart the processes: after a new build, and when a product that runs already is told of another model.
    model = secret(layout, programs, "llm", "metadata.resourceVersion", "--ignore-not-found")
    values = [f"IMAGE_DIGEST={digest(archives)}", f"MODEL_VERSION={model}", port, f"DASHBOARD_URL={dashboard}"]
    addons.kubectl(layout, programs, "-n", NAMESPACE, "set", "env", "deployment", "--all", *values)
    for kind in ("statefulset/redis", "deployment"):
        status = ["-n", NAMESPACE, "rollout", "status", kind, f"--timeout={ROLLOUT_LIMIT:.0f}s"]
        addons.kubectl(layout, programs, *status, timeout=ROLLOUT_LIMIT + 10)
    wait_healthy(cluster, url)
    key = base64.b64decode(secret(layout, programs, "manager", "data.api-key")).decode()
    return f"API_URL={url}\nDASHBOARD_URL={dashboard}\nAPI_KEY={key}\n"


def build_images() -> dict[str, Path]:
    """The archive of each image, built if need be. Call it before `up`: the cluster's network has no way out."""
    built = step([str(ROOT / "scripts" / "images" / "build")], BUILD_LIMIT)
    return {line.split()[0]: Path(line.split()[1]) for line in built.splitlines()}


def model_secret(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The Secret that tells the product of a model, by `LLM_BASE_URL`, `LLM_API_KEY` and `LLM_MODEL`; None without a
    URL. The model must run in the cluster's network, which has no way out."""
    if not environ.get("LLM_BASE_URL"):
        return None
    values = {"base-url": environ["LLM_BASE_URL"], "api-key": environ.get("LLM_API_KEY", "")}
    if environ.get("LLM_MODEL"):
        values["model"] = environ["LLM_MODEL"]
    metadata = {"namespace": NAMESPACE, "name": "llm"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


def secret(layout: Layout, programs: Programs, name: str, field: str, *options: str) -> str:
    """A field of a Secret of the product, as it is stored. Raises `ClusterError`."""
    read = ["-n", NAMESPACE, "get", "secret", name, "-o", f"jsonpath={{.{field}}}"]
    return addons.kubectl(layout, programs, *read, *options)


def digest(archives: Mapping[str, Path]) -> str:
    """The digest of the manager's image, which is the name of its archive."""
    return archives["localhost/manager:dev"].resolve().stem


def wait_healthy(cluster: list[str], url: str) -> None:
    deadline = time.monotonic() + HEALTH_LIMIT
    ask = [*cluster, "curl", "--silent", "--fail", "--max-time", "5", f"{url}/health"]
    while subprocess.run(ask, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode:
        if time.monotonic() > deadline:
            raise ClusterError(f"{url}/health is not 200 after {HEALTH_LIMIT:.0f} s.")
        time.sleep(1)


def step(command: list[str], limit: float, **environ: str) -> str:
    """Run a script of the project; returns its standard output."""
    print(f"cluster: {Path(command[0]).name}", file=sys.stderr)
    try:
        done = subprocess.run(
            command, env=os.environ | environ, stdout=subprocess.PIPE, text=True, timeout=limit, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ClusterError(f"{command[0]} failed: {error}") from error
    return done.stdout
