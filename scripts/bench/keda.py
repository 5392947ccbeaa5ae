"""What KEDA's polling of sleeping sessions costs: N ScaledObjects, looked at every P seconds.

On the cluster of scripts/cluster that is up (CLUSTER names it), in a namespace of its own with a Redis of its own. The
ScaledObjects are the service's, each for a Deployment at 0 replicas: all that KEDA sees of a sleeping session.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis

from app.core.sessions.model import Identity
from app.process.settings import Settings
from scripts.bench.table import Row
from scripts.cluster import addons, layout, network, processes, programs
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.objects import deployment
from workers.runtime.kubernetes.scalers import scaled_object

NAMESPACE = "bench-keda"
PASSWORD = "of-the-bench"
COUNTS = (50, 200, 500)
INTERVALS = (5, 30)
LOOKS, SHORTEST = 2, 30.0
"""How often each ScaledObject is looked at during a measurement, and the seconds that takes at least."""
QUIET = 10.0
"""Seconds without a change after which nothing more is to come."""
LIMIT = 600.0
"""Seconds for the objects to be made, or gone."""
PARTS = ("keda", "apiserver", "controller-manager", "etcd")
REDIS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "redis", "labels": {"app": "redis"}},
    "spec": {
        "containers": [
            {
                "name": "redis",
                "image": "localhost/redis:dev",
                "imagePullPolicy": "Never",
                "command": ["redis-server", "--save", "", "--bind", "0.0.0.0", "--requirepass", PASSWORD],
            }
        ]
    },
}
AROUND: list[dict[str, Any]] = [
    REDIS,
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "redis"},
        "spec": {"selector": {"app": "redis"}, "ports": [{"port": 6379}]},
    },
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "stringData": {"password": PASSWORD}},
    {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": {"name": "redis"},
        "spec": {"secretTargetRef": [{"parameter": "password", "name": "redis", "key": "password"}]},
    },
]


@dataclass(frozen=True)
class Reading:
    """Counters at one moment: seconds of CPU by part, calls of each Redis command, bytes of the operator."""

    at: float
    cpu: dict[str, float]
    calls: dict[str, int]
    resident: int


class Bench:
    def __init__(self) -> None:
        self.layout = layout.from_environment()
        self.programs = programs.built()
        network.enter(self.layout)
        settings = Settings(redis_url=f"redis://redis.{NAMESPACE}.svc:6379/0", scaler="keda", workspace_image="none")
        self.settings = settings

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return addons.kubectl(self.layout, self.programs, "-n", NAMESPACE, *arguments, text=text, timeout=LIMIT)

    def apply(self, items: list[dict[str, Any]]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.kubectl("apply", "--server-side", "-f", "-", text=text)

    @contextmanager
    def namespace(self) -> Iterator[redis.Redis]:
        """A namespace with a Redis, gone afterwards; gives its client."""
        addons.kubectl(self.layout, self.programs, "create", "namespace", NAMESPACE)
        try:
            self.apply(AROUND)
            self.kubectl("wait", "pod/redis", "--for=condition=Ready", "--timeout=120s")
            address = self.kubectl("get", "pod", "redis", "-o", "jsonpath={.status.podIP}")
            yield redis.Redis(address, password=PASSWORD, socket_timeout=10.0, decode_responses=True)
        finally:
            # Before the namespace: its deletion would take the password away from KEDA first.
            self.kubectl("delete", "scaledobjects", "--all", f"--timeout={LIMIT:.0f}s")
            self.kubectl("delete", "namespace", NAMESPACE, f"--timeout={LIMIT:.0f}s")

    def sessions(self, numbers: range) -> None:
        """Make the Deployments of sleeping sessions, and the Secrets they name, which KEDA reads too."""
        choices = KubernetesConfig.of(self.settings)
        items = [deployment(_identity(number), choices, 0) for number in numbers]
        secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {"secret": PASSWORD}}
        self.apply([*items, *({**secret, "metadata": {"name": item["metadata"]["name"]}} for item in items)])

    def polled(self, count: int, interval: int) -> None:
        """Have KEDA look at that many sessions, each every `interval` s; returns when it does."""
        found = json.loads(self.kubectl("get", "deployments", "-o", "json"))["items"]
        owners = {item["metadata"]["name"]: item for item in found}
        settings = replace(self.settings, keda_polling_interval=interval)
        identities = [_identity(number) for number in range(count)]
        self.apply([scaled_object(each, owners[names.workspace(each.uuid)], settings) for each in identities])
        self.kubectl("wait", "scaledobjects", "--all", "--for=condition=Ready", f"--timeout={LIMIT:.0f}s")
        self.settle()

    def settle(self) -> None:
        """Wait for KEDA to have noted all it found: it changes 20 objects a second, and that would be measured too."""
        deadline = time.monotonic() + LIMIT
        seen, found = "", self.versions()
        while seen != found:
            if time.monotonic() > deadline:
                raise TimeoutError("KEDA does not come to rest.")
            time.sleep(QUIET)
            seen, found = found, self.versions()

    def versions(self) -> str:
        return self.kubectl("get", "scaledobjects", "-o", "jsonpath={.items[*].metadata.resourceVersion}")

    def measure(self, client: redis.Redis, interval: int) -> str:
        """What a second costs, on average."""
        before = self.read(client)
        time.sleep(max(LOOKS * interval, SHORTEST))
        after = self.read(client)
        seconds = after.at - before.at
        calls = {name: (count - before.calls.get(name, 0)) / seconds for name, count in after.calls.items()}
        most = sorted(calls, key=lambda name: -calls[name])[:4]
        cpu = {name: (after.cpu[name] - before.cpu[name]) / seconds for name in after.cpu}
        commands = " ".join(f"{name} {calls[name]:.1f}/s" for name in most if calls[name] >= 0.05)
        shares = ", ".join(f"{name} {share:.2%}" for name, share in cpu.items())
        return f"{commands or 'no command'}; CPU of one core: {shares}; operator {after.resident >> 20} MiB"

    def read(self, client: redis.Redis) -> Reading:
        pids = {name: processes.running(self.layout, name) for name in PARTS}
        cpu = {name: _cpu(found.pid) for name, found in pids.items() if found}
        info = client.info("cpu")
        cpu["redis"] = info["used_cpu_user"] + info["used_cpu_sys"]
        calls = {name.removeprefix("cmdstat_"): each["calls"] for name, each in client.info("commandstats").items()}
        operator = pids["keda"]
        resident = _resident(operator.pid) if operator else 0
        return Reading(time.monotonic(), cpu, {k: v for k, v in calls.items() if k != "info"}, resident)


def run() -> list[Row]:
    """Measure each number of sessions with each interval, and none at first; rows of label, value and remarks."""
    bench = Bench()
    rows: list[Row] = []
    with bench.namespace() as client:
        rows.append(("none", "", bench.measure(client, 0)))
        made = 0
        for count in COUNTS:
            bench.sessions(range(made, count))
            made = count
            for interval in INTERVALS:
                bench.polled(count, interval)
                rows.append((f"{count} sessions asleep, every {interval} s", "", bench.measure(client, interval)))
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _identity(number: int) -> Identity:
    return Identity(uuid=f"k{number:07d}", user_id="bench", created_at=0.0)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
