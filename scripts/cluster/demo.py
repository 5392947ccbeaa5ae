"""The whole product on the cluster: images, manifests, secrets, and a wait until it is healthy."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from scripts.cluster import addons, doors, images
from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import Layout
from scripts.cluster.programs import Programs

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = ROOT / "manifests" / "overlays" / "dev"
NAMESPACE = "fresh-system"
API_HOST = "api.localhost"

BUILD_LIMIT = 3_000.0
"""Seconds for all images; 8 min on two cores when nothing is cached."""

ROLLOUT_LIMIT = 300.0
HEALTH_LIMIT = 120.0
"""Seconds until every process runs, and then until the workers have found Redis: their pauses between tries grow."""


def run(layout: Layout, programs: Programs, archives: Mapping[str, Path]) -> str:
    """Put it there, or bring what is there up to date; answers lines of NAME=VALUE. Raises `ClusterError`."""
    for archive in archives.values():
        images.load(layout, str(archive))
    cluster = [str(ROOT / "scripts" / "cluster" / "cluster"), "exec"]
    apply = ["apply", "--server-side", "-k", str(OVERLAY)]
    addons.kubectl(layout, programs, *apply, timeout=ROLLOUT_LIMIT)
    step([str(ROOT / "manifests" / "make-secrets")], ROLLOUT_LIMIT, KUBECTL=" ".join([*cluster, "kubectl"]))
    opened = doors.recall(layout)
    if opened is None:
        raise ClusterError("The cluster is not up.")
    port = f"WORKSPACE_PORT={opened.shown}" if opened.shown else "WORKSPACE_PORT-"
    # A tag says nothing of what it names: with another image under it the processes must start again.
    values = [f"IMAGE_DIGEST={digest(archives)}", port]
    addons.kubectl(layout, programs, "-n", NAMESPACE, "set", "env", "deployment", "--all", *values)
    for kind in ("statefulset/redis", "deployment"):
        status = ["-n", NAMESPACE, "rollout", "status", kind, f"--timeout={ROLLOUT_LIMIT:.0f}s"]
        addons.kubectl(layout, programs, *status, timeout=ROLLOUT_LIMIT + 10)
    url = f"http://{API_HOST}:{opened.shown}" if opened.shown else f"http://{API_HOST}"
    wait_healthy(cluster, url)
    read = ["-n", NAMESPACE, "get", "secret", "manager", "-o", "jsonpath={.data.api-key}"]
    key = base64.b64decode(addons.kubectl(layout, programs, *read)).decode()
    return f"API_URL={url}\nAPI_KEY={key}\n"


def build_images() -> dict[str, Path]:
    """The archive of each image, built if need be. Before `up`: nothing leads out of the cluster's network."""
    built = step([str(ROOT / "scripts" / "images" / "build")], BUILD_LIMIT)
    return {line.split()[0]: Path(line.split()[1]) for line in built.splitlines()}


def digest(archives: Mapping[str, Path]) -> str:
    """What names the manager's content: its archive is called by it."""
    return archives["localhost/manager:dev"].resolve().stem


def wait_healthy(cluster: list[str], url: str) -> None:
    deadline = time.monotonic() + HEALTH_LIMIT
    ask = [*cluster, "curl", "--silent", "--fail", "--max-time", "5", f"{url}/health"]
    while subprocess.run(ask, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode:
        if time.monotonic() > deadline:
            raise ClusterError(f"{url}/health is not 200 after {HEALTH_LIMIT:.0f} s.")
        time.sleep(1)


def step(command: list[str], limit: float, **environ: str) -> str:
    """Run one of the project's own scripts; what it says goes to the terminal, what it answers is returned."""
    print(f"cluster: {Path(command[0]).name}", file=sys.stderr)
    try:
        done = subprocess.run(
            command, env=os.environ | environ, stdout=subprocess.PIPE, text=True, timeout=limit, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ClusterError(f"{command[0]} failed: {error}") from error
    return done.stdout
