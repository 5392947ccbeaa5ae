"""How fast a session is created and woken on a cluster, against a bare Deployment of the same image.

The floor is a Deployment's `replicas 0 → 1 → Ready` with the editor's container, resources and probe, and
nothing around it: no agent, no volume claim, no Secret. All are measured from sending the request until one
and the same watch tells that the pod is ready, in rounds that alternate.

A prompt wakes a session too, and is with its agent before the pod is ready: that is measured until the manager notes
that the agent has it on its disk. It takes a service that was told of a model; whether the model answers is no matter.
"""

from __future__ import annotations

import copy
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.core.sessions.model import PHASES
from scripts.bench.product import NAMESPACE, PATIENCE, TIMEOUT, CallFailed, Manager, Pods, watched_pods
from scripts.bench.servers import percentile
from scripts.bench.table import Row
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.api_server import ApiServer

Object = dict[str, Any]

ROUNDS = 20
FAILURES = 4
"""One round in so many may fail, on a machine that does other things too; they are told and left out."""

TARGETS = {"create": 1.6, "wake": 1.15}
"""Of the floor, at most, by the medians."""

DELIVERY_TARGET = 0.6
"""Of the time the cluster takes to call the same pod ready, at most."""

LABELS = {"floor": "a bare Deployment's 0 → 1", "create": "create", "wake": "wake"}

FLOOR = "bench-floor"
USER = "bench"


@dataclass(frozen=True)
class Start:
    """One start: s from the request until its pod was ready and until the API said `active`, and the ms since the
    request of each phase, as the record tells. The floor has the first alone; a prompt has besides it the s until the
    agent had it."""

    kind: str
    ready: float
    active: float = 0.0
    phases: Mapping[str, int] = field(default_factory=dict)
    delivered: float = 0.0


def run(rounds: int = ROUNDS) -> list[Row]:
    """Measure; rows of label, value and target."""
    manager, cluster = Manager(), ApiServer(NAMESPACE, TIMEOUT)
    starts: list[Start] = []
    failed: list[str] = []
    with watched_pods(cluster) as pods, no_session_left(manager), floor(manager, cluster):
        for moments in zip(*(moments_of_a_second(rounds, seed) for seed in range(4)), strict=True):
            try:
                starts += [start_floor(cluster, pods, moments[0]), *start_session(manager, pods, moments[1:])]
            except CallFailed as error:
                failed.append(str(error))
                if len(failed) > rounds // FAILURES:
                    raise
    complete = sum(start.kind == "wake" for start in starts)
    return [
        *rows_of_starts(starts),
        *rows_of_prompts([start for start in starts if start.kind == "prompt"]),
        *rows_of_rounds(complete, failed),
        *rows_of_phases(starts),
    ]


def moments_of_a_second(rounds: int, seed: int) -> list[float]:
    """Pauses before the starts of one kind (s): all over a second alike, in no order.

    The kubelet looks at its containers once a second, and a start is told after a look. A pod's end is
    told so too: a start that follows one directly would always meet the same moment of that second.
    """
    moments = [(number + 0.5) / rounds for number in range(rounds)]
    random.Random(seed).shuffle(moments)
    return moments


def start_floor(cluster: ApiServer, pods: Pods, pause: float) -> Start:
    """Scale the bare Deployment up, and down again."""
    time.sleep(pause)
    began = time.monotonic()
    cluster.patch("deployments", FLOOR, {"spec": {"replicas": 1}})
    try:
        return Start("floor", pods.ready_at(FLOOR, began) - began)
    finally:
        cluster.patch("deployments", FLOOR, {"spec": {"replicas": 0}})
        pods.wait_gone(FLOOR)


def start_session(manager: Manager, pods: Pods, pauses: Sequence[float]) -> list[Start]:
    """Create a session, wake it, wake it by a prompt, delete it; each after a pause (s), and a sleep."""
    before_create, before_wake, before_prompt = pauses
    time.sleep(before_create)
    began = time.monotonic()
    uuid = manager.call("POST", "/session/create", {"user_id": USER})["uuid"]
    try:
        created = came_up(manager, pods, "create", uuid, began)
        manager.call("POST", f"/session/{uuid}/scale-down")
        pods.wait_gone(uuid)
        time.sleep(before_wake)
        began = time.monotonic()
        manager.call("POST", f"/session/{uuid}/wake")
        woken = came_up(manager, pods, "wake", uuid, began)
        manager.call("POST", f"/session/{uuid}/scale-down")
        pods.wait_gone(uuid)
        return [created, woken, *start_by_prompt(manager, pods, uuid, before_prompt)]
    finally:
        manager.call("DELETE", f"/session/{uuid}?backup=false")
        pods.wait_gone(uuid)


def start_by_prompt(manager: Manager, pods: Pods, uuid: str, pause: float) -> list[Start]:
    """Wake a session by a prompt. Nothing where the service has no model, and so takes none."""
    time.sleep(pause)
    began, wall = time.monotonic(), time.time()
    try:
        sent = manager.call("POST", f"/session/{uuid}/chat", {"message": "Say hello."}, wait=0)
    except CallFailed as error:
        if "llm_not_configured" in str(error):
            return []
        raise
    ready = pods.ready_at(uuid, began)
    deadline = time.monotonic() + PATIENCE
    while not (noted := manager.call("GET", f"/session/{uuid}/messages/{sent['message_id']}")["delivered_at"]):
        if time.monotonic() > deadline:
            raise CallFailed("the prompt never reached the agent")
        time.sleep(0.1)
    return [Start("prompt", ready - began, delivered=datetime.fromisoformat(noted).timestamp() - wall)]


def came_up(manager: Manager, pods: Pods, kind: str, uuid: str, began: float) -> Start:
    """What is to be told of a start whose call has just been answered."""
    active = time.monotonic() - began
    seen = manager.call("GET", f"/session/{uuid}")
    if seen["session"]["status"] != "active":
        raise CallFailed(f"the {kind} ended in {seen['session']['status']}: {seen['session']['reason']}")
    return Start(kind, pods.ready_at(uuid, began) - began, active, seen["phases"])


@contextmanager
def no_session_left(manager: Manager) -> Iterator[None]:
    """Delete what a run that was broken off, or a create that failed, has left; they take room of the node."""

    def delete_all() -> None:
        for session in manager.call("GET", f"/sessions?user_id={USER}")["sessions"]:
            manager.call("DELETE", f"/session/{session['uuid']}?backup=false")

    delete_all()
    try:
        yield
    finally:
        delete_all()


@contextmanager
def floor(manager: Manager, cluster: ApiServer) -> Iterator[None]:
    """The bare Deployment at 0, made after a session's, whatever image and resources those have here."""
    uuid = manager.call("POST", "/session/create", {"user_id": USER})["uuid"]
    try:
        like = cluster.get("deployments", names.workspace(uuid))
    finally:
        manager.call("DELETE", f"/session/{uuid}?backup=false")
    if like is None:
        raise RuntimeError("The session that was made has no Deployment.")
    cluster.delete("deployments", FLOOR)
    cluster.create("deployments", bare(like))
    try:
        yield
    finally:
        cluster.delete("deployments", FLOOR)


def bare(like: Object) -> Object:
    """A Deployment at 0 that runs the editor of `like`, with an empty folder in the place of its volume."""
    labels = {names.APP_LABEL: FLOOR}
    spec = copy.deepcopy(like["spec"]["template"]["spec"])
    spec["containers"] = [each for each in spec["containers"] if each["name"] == names.EDITOR]
    spec["volumes"] = [each for each in spec["volumes"] if "secret" not in each]
    for volume in spec["volumes"]:
        if volume.pop("persistentVolumeClaim", None) is not None:
            volume["emptyDir"] = {}
    there = {volume["name"] for volume in spec["volumes"]}
    for container in spec["containers"]:
        # What names a file of the Secret that is gone; an editor without one must be told that it has none.
        kept = [each for each in container.get("env", []) if each["name"] != "WORKSPACE_SECRET_FILE"]
        container["env"] = [each for each in kept if "valueFrom" not in each]
        container["env"].append({"name": "WORKSPACE_SECRET_FILE", "value": "none"})
        container["volumeMounts"] = [each for each in container["volumeMounts"] if each["name"] in there]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": FLOOR, "labels": labels},
        "spec": {
            "replicas": 0,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def rows_of_starts(starts: Sequence[Start]) -> list[Row]:
    """p50, p95 and max of each kind, and the medians against the floor's."""
    ready = {kind: [start.ready for start in starts if start.kind == kind] for kind in ("floor", "create", "wake")}
    active = {kind: [start.active for start in starts if start.kind == kind] for kind in ("create", "wake")}
    rows = [(f"{LABELS[kind]} → Ready, p50 / p95 / max (ms)", spread(taken), "") for kind, taken in ready.items()]
    rows += [(f"{kind} → active by the API, p50 / p95 / max (ms)", spread(taken), "") for kind, taken in active.items()]
    base = statistics.median(ready["floor"])
    for kind, target in TARGETS.items():
        rows.append(
            (f"{kind} → Ready against the floor", f"{statistics.median(ready[kind]) / base:.2f}x", f"<= {target}x")
        )
    return rows


def rows_of_prompts(prompts: Sequence[Start]) -> list[Row]:
    """When the agents had their prompts, beside when their pods were ready."""
    if not prompts:
        return [("prompt to a sleeping session", "none was taken: no model is configured", "")]
    delivered, ready = [each.delivered for each in prompts], [each.ready for each in prompts]
    ratio = statistics.median(delivered) / statistics.median(ready)
    return [
        ("prompt to a sleeping session → at the agent, p50 / p95 / max (ms)", spread(delivered), ""),
        ("the same pods → Ready, p50 / p95 / max (ms)", spread(ready), ""),
        ("prompt at the agent against Ready of the same pod", f"{ratio:.2f}x", f"<= {DELIVERY_TARGET}x"),
    ]


def rows_of_rounds(complete: int, failed: Sequence[str]) -> list[Row]:
    """How many rounds the figures are of, and why others are left out."""
    return [
        ("rounds; left out for a call that failed", f"{complete}; {len(failed)}", ""),
        *((each, "", "") for each in failed),
    ]


def rows_of_phases(starts: Sequence[Start]) -> list[Row]:
    """The median of each phase (ms since the request), by kind of start."""
    return [
        (
            f"{kind}: {name} (ms since the request)",
            median([start.phases[name] for start in starts if start.kind == kind and name in start.phases]),
            "",
        )
        for kind in TARGETS
        for name in PHASES
    ]


def spread(seconds: Sequence[float]) -> str:
    values = [each * 1000 for each in seconds]
    high = percentile(values, 95) if len(values) > 1 else values[0]
    return f"{statistics.median(values):.0f} / {min(high, max(values)):.0f} / {max(values):.0f}"


def median(values: Sequence[int]) -> str:
    return f"{statistics.median(values):.0f}" if values else "none"
