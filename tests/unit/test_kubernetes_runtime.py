"""What the Kubernetes runtime does beyond the contract: races, scalers, repairs, and what it makes of trouble."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest
import redis

from app.sessions.errors import (
    BackupIncomplete,
    FilesGoing,
    PermanentError,
    RetryableError,
    RuntimeUnavailable,
    Superseded,
    WorkspaceConflict,
)
from app.sessions.inbox import MARKER
from app.sessions.model import PHASES, Identity
from app.sessions.secrets import SessionSecrets
from app.settings import Settings, SettingsError
from tests.contract.runtimes import watching
from tests.service import wait_for
from tests.unit import fake_api
from tests.unit.fake_api import FakeApi
from workers import runtime as runtimes
from workers.runtime import binding, jobs, names, scalers
from workers.runtime.base import BackupSummary
from workers.runtime.cluster import Conflict, find_cluster
from workers.runtime.kubernetes import KubernetesRuntime
from workers.runtime.views import BINDING_PATIENCE, SCHEDULING_PATIENCE, pod_problem
from workers.runtime.watches import LOOKS

A = "aaaa0001"
NAME = f"user-{A}"
ADA = Identity(uuid=A, user_id="ada@example.com", created_at=1_763_625_600.0)
LABELS = {"app": "workspace", "session-uuid": A}
SECRET_KEY = "the-secret-key-of-these-unit-tests"


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api.serving() as served:
        yield served


@pytest.fixture(autouse=True)
def nobody_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake gives no pod a node: not to be waited for."""
    monkeypatch.setattr(binding, "LIMIT", 0.0)


@pytest.fixture
def on_cluster(settings: Settings) -> Settings:
    return replace(
        settings, runtime="kubernetes", workspace_image="workspace:1", start_timeout=60.0, secret_key=SECRET_KEY
    )


@pytest.fixture
def runtime(on_cluster: Settings, redis_client: redis.Redis, api: FakeApi) -> KubernetesRuntime:
    return KubernetesRuntime(on_cluster, redis_client, api.cluster())


@pytest.fixture
def keda(
    on_cluster: Settings, redis_client: redis.Redis, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> KubernetesRuntime:
    monkeypatch.setattr(scalers, "SETTLE", 0.0)
    return KubernetesRuntime(replace(on_cluster, scaler="keda"), redis_client, api.cluster())


ALL_KINDS = {"persistentvolumeclaims", "deployments", "secrets", "services", "ingresses", "scaledobjects"}
"""What a session consists of, with KEDA."""


def replicas(api: FakeApi) -> int:
    return int(api.get("deployments", NAME)["spec"]["replicas"])


def pod(status: dict[str, Any], name: str = "pod-1") -> dict[str, Any]:
    """A pod of the workspace, as the API shows it."""
    metadata = {"name": name, "uid": name, "labels": LABELS, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status}


def conditions(**values: str) -> list[dict[str, str]]:
    return [{"type": name, "status": value} for name, value in values.items()]


READY = {"conditions": conditions(PodScheduled="True", PodReadyToStartContainers="True", Ready="True")}
CRASHED = {
    "containerStatuses": [
        {
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "Error", "message": "one\n\x1b[31mtwo\x1b[0m\n"}},
        }
    ]
}


# What is made


def test_provisioning_makes_all_of_a_session(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Asleep, and owned by the Deployment but for the volume."""
    runtime.provision(ADA, 1)
    kinds = ("persistentvolumeclaims", "deployments", "secrets", "services", "ingresses")
    assert api.names() == {(kind, NAME) for kind in kinds}
    assert replicas(api) == 0
    owners = {kind: len(api.get(kind, NAME)["metadata"].get("ownerReferences", [])) for kind in kinds}
    assert owners == {"persistentvolumeclaims": 0, "deployments": 0, "secrets": 1, "services": 1, "ingresses": 1}


def test_a_creation_brings_the_pod_up_before_what_stands_beside_it(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """All is there in the end; before the pod only the Secret, without which that can't begin."""
    runtime.provision(ADA, 1, starting=True)
    assert {kind for kind, _ in api.names()} == {"persistentvolumeclaims", "deployments"}
    before = len(api.requests)
    runtime.start(A, 1)
    assert {kind for kind, _ in api.names()} == ALL_KINDS - {"scaledobjects"}
    made = [request.split()[1] for request in api.requests[before:] if not request.startswith("GET")]
    assert made[:2] == ["secrets", "deployments"]


def secret_of(api: FakeApi) -> str:
    return base64.b64decode(api.get("secrets", NAME)["data"]["token"]).decode()


def test_the_secret_follows_from_the_key(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Nothing of it is random, so it is the same after anything that may happen, and not written again."""
    started(runtime)
    assert secret_of(api) == SessionSecrets([SECRET_KEY]).token_file(A)
    before = len(api.requests)
    runtime.start(A, 3)
    assert [each for each in api.requests[before:] if each.endswith(" secrets")] == ["GET secrets"]


def test_with_another_key_a_start_writes_another_secret(
    runtime: KubernetesRuntime, on_cluster: Settings, redis_client: redis.Redis, api: FakeApi
) -> None:
    """And in the place of one that an earlier release made."""
    started(runtime)
    api.put("secrets", {**api.get("secrets", NAME), "data": {"secret": "c29tZXRoaW5n"}})
    runtime.start(A, 3)
    assert secret_of(api) == SessionSecrets([SECRET_KEY]).token_file(A)
    rotated = ("another-secret-key-of-these-tests", SECRET_KEY)
    later = KubernetesRuntime(replace(on_cluster, secret_key=",".join(rotated)), redis_client, api.cluster())
    later.start(A, 4)
    assert secret_of(api) == SessionSecrets(rotated).token_file(A)


def test_without_a_key_a_session_has_neither_agent_nor_secret(
    on_cluster: Settings, redis_client: redis.Redis, api: FakeApi
) -> None:
    """And starts all the same."""
    runtime = KubernetesRuntime(replace(on_cluster, secret_key=""), redis_client, api.cluster())
    started(runtime)
    assert {kind for kind, _ in api.names()} == ALL_KINDS - {"scaledobjects", "secrets"}
    (container,) = api.get("deployments", NAME)["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "editor"
    api.put("pods", pod({"podIP": "10.1.2.3", **READY}))
    seen = runtime.observe(A)
    assert seen is not None
    assert (seen.ready, seen.agent) == (True, "")


def test_a_start_makes_again_what_someone_deleted(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The volume is the session: the rest follows from it."""
    runtime.provision(ADA, 1)
    for kind in ("deployments", "secrets", "services", "ingresses"):
        api.drop(kind, NAME)
    runtime.start(A, 2)
    kinds = {kind for kind, _ in api.names()}
    assert kinds == {"persistentvolumeclaims", "deployments", "secrets", "services", "ingresses"}
    assert replicas(api) == 1
    seen = runtime.observe(A)
    assert seen is not None
    assert (seen.identity, seen.generation, seen.running) == (ADA, 2, True)


def test_a_volume_without_a_deployment_still_knows_its_intent(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Else deleting the Deployment would let an older intent pass."""
    runtime.provision(ADA, 1)
    runtime.start(A, 7)
    api.drop("deployments", NAME)
    with pytest.raises(Superseded):
        runtime.start(A, 6)
    seen = runtime.observe(A)
    assert seen is not None
    assert (seen.generation, seen.running) == (7, False)


def test_a_sleeping_workspace_is_brought_up_to_date_when_it_starts(
    runtime: KubernetesRuntime, api: FakeApi, on_cluster: Settings, redis_client: redis.Redis
) -> None:
    """A release with a newer image reaches every session, one that runs only after its next sleep."""
    newer = KubernetesRuntime(replace(on_cluster, workspace_image="workspace:2"), redis_client, api.cluster())
    runtime.provision(ADA, 1)
    runtime.start(A, 2)
    newer.start(A, 3)
    assert image(api) == "workspace:1"
    newer.stop(A, 4)
    newer.start(A, 5)
    assert image(api) == "workspace:2"


def image(api: FakeApi) -> str:
    return str(api.get("deployments", NAME)["spec"]["template"]["spec"]["containers"][0]["image"])


def test_a_deployment_of_that_name_that_is_not_ours_is_left_alone(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """What stands in the way is told, never taken."""
    api.put("deployments", {"metadata": {"name": NAME, "labels": {"app": "shop"}}, "spec": {"replicas": 3}})
    with pytest.raises(WorkspaceConflict):
        runtime.provision(ADA, 1)
    assert replicas(api) == 3
    assert ("persistentvolumeclaims", NAME) not in api.names()


# Races


def test_a_change_decided_on_an_old_look_is_decided_again(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The cluster writes to a Deployment all the time."""
    runtime.provision(ADA, 1)
    api.before["PATCH deployments"] = lambda: api.put("deployments", api.get("deployments", NAME))
    runtime.start(A, 2)
    assert replicas(api) == 1


def test_an_intent_that_is_overtaken_between_its_look_and_its_change_is_refused(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """The moment no lease can close."""
    runtime.provision(ADA, 1)
    api.before["PATCH deployments"] = lambda: runtime.stop(A, 3)
    with pytest.raises(Superseded):
        runtime.start(A, 2)
    assert replicas(api) == 0


def test_a_deployment_made_and_started_meanwhile_is_not_stopped(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Two workers may both find none; the later one must not set the replicas back."""

    def other() -> None:
        runtime.provision(ADA, 2)
        runtime.start(A, 3)

    api.before["PATCH deployments"] = other
    with pytest.raises(Superseded):
        runtime.provision(ADA, 1)
    assert replicas(api) == 1


def test_notes_made_with_a_deployment_overwrite_no_newer_ones(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """A newer intent may come between the making of the claim and that of the Deployment."""
    api.before["PATCH deployments"] = lambda: runtime.provision(ADA, 2)
    with pytest.raises(Superseded):
        runtime.provision(ADA, 1)
    assert api.get("deployments", NAME)["metadata"]["annotations"][names.GENERATION] == "2"


def test_an_update_keeps_what_the_deployment_was_made_with(
    runtime: KubernetesRuntime, api: FakeApi, on_cluster: Settings, redis_client: redis.Redis
) -> None:
    """Server-side apply takes away what it applied before and doesn't apply again."""
    runtime.provision(ADA, 1)
    newer = KubernetesRuntime(replace(on_cluster, workspace_image="workspace:2"), redis_client, api.cluster())
    made = api.get("deployments", NAME)["metadata"]["annotations"]
    newer.start(A, 2)
    updated = next(body for body in api.applied if body["kind"] == "Deployment")
    assert updated["metadata"]["annotations"].keys() >= made.keys()


def test_what_is_made_while_it_is_being_removed_goes_as_well(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Nobody would own it."""
    api.before["POST persistentvolumeclaims"] = lambda: runtime.remove(A, 5)
    with pytest.raises(Superseded):
        runtime.provision(ADA, 1)
    assert api.names() == set()


def test_a_change_that_is_overtaken_for_ever_ends(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """With an error that has the task tried again later."""
    runtime.provision(ADA, 1)
    api.answers["PATCH deployments"] = (409, "modified")
    with pytest.raises(RetryableError):
        runtime.start(A, 2)


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("call", ["provision", "start", "stop", "remove"])
def test_a_worker_may_die_at_any_request(keda: KubernetesRuntime, api: FakeApi, call: str, done: bool) -> None:
    """Before the server did it or after: the same intent, tried again, ends where it would have ended."""
    for step in range(1, 40):
        keda.provision(ADA, 1)
        keda.start(A, 2)
        if call == "provision":
            keda.remove(A, 3)
        elif call == "start":
            api.drop("deployments", NAME)
        subject: Any = ADA if call == "provision" else A
        api.lose = (step, done)
        try:
            getattr(keda, call)(subject, 4)
        except RetryableError:
            getattr(keda, call)(subject, 4)
        survived, api.lose = api.lose[0] > 0, (0, False)
        if call == "remove":
            assert api.names() == set()
        else:
            assert {kind for kind, _ in api.names()} == ALL_KINDS
            assert replicas(api) == (1 if call == "start" else 0)
            keda.remove(A, 5)
        keda._redis.flushall()
        if survived:
            assert step > 5
            return
    raise AssertionError("it takes more requests than it should")


# Scalers


def test_the_marker_comes_before_the_replicas_and_goes_before_them(
    keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis
) -> None:
    """Else KEDA would see a Deployment that disagrees with its list, and act on it."""
    keda.provision(ADA, 1)
    queue, seen = f"queue:{A}", []
    for call, generation in ((keda.start, 2), (keda.start, 3), (keda.stop, 4)):
        api.before["PATCH deployments"] = lambda: seen.append((redis_client.lrange(queue, 0, -1), replicas(api)))
        call(A, generation)
    assert seen == [([MARKER], 0), ([MARKER], 1), ([], 1)]


def test_prompts_stay_when_the_marker_goes(keda: KubernetesRuntime, redis_client: redis.Redis) -> None:
    """They are a user's; and they will wake the session."""
    keda.provision(ADA, 1)
    redis_client.rpush(f"queue:{A}", '{"id": 1}')
    keda.start(A, 2)
    keda.stop(A, 3)
    assert redis_client.lrange(f"queue:{A}", 0, -1) == ['{"id": 1}']


def test_an_overtaken_start_leaves_no_marker(keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis) -> None:
    """KEDA would wake a session that is asleep on purpose."""
    keda.provision(ADA, 1)
    api.before["PATCH deployments"] = lambda: keda.stop(A, 3)
    with pytest.raises(Superseded):
        keda.start(A, 2)
    assert redis_client.lrange(f"queue:{A}", 0, -1) == []


def test_an_overtaken_stop_leaves_the_marker(keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis) -> None:
    """KEDA would put a session down that someone works in."""
    keda.provision(ADA, 1)
    keda.start(A, 2)
    api.before["PATCH deployments"] = lambda: keda.start(A, 4)
    with pytest.raises(Superseded):
        keda.stop(A, 3)
    assert redis_client.lrange(f"queue:{A}", 0, -1) == [MARKER]


@pytest.mark.parametrize("provisioner", ["local", ""])
def test_a_pod_is_wanted_once_its_claim_has_a_volume(
    runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch, provisioner: str
) -> None:
    """Unless the class makes volumes for pods only: then nobody is named in the claim who would make one."""
    monkeypatch.setattr(binding, "LIMIT", 5.0)
    monkeypatch.setattr(binding, "NAMING_LIMIT", 0.0)
    runtime.provision(ADA, 1)
    claim = api.get("persistentvolumeclaims", NAME)
    if provisioner:
        claim["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] = provisioner
    api.put("persistentvolumeclaims", claim | {"status": {"phase": "Pending"}})
    asked: list[int] = []

    def look() -> None:
        asked.append(replicas(api))
        if len(asked) == 3:
            api.put("persistentvolumeclaims", api.get("persistentvolumeclaims", NAME) | {"status": {"phase": "Bound"}})
        else:
            api.before["GET persistentvolumeclaims"] = look

    api.before["GET persistentvolumeclaims"] = look
    api.before["GET pods"] = lambda: api.put("pods", pod({}))
    runtime.start(A, 2)
    assert (replicas(api), asked) == (1, [0, 0, 0] if provisioner else [0])


def test_what_stands_beside_a_pod_is_made_when_that_has_its_node(
    keda: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the Secret, which the pod needs: a busy API server refuses a kubelet what it asks for first."""
    monkeypatch.setattr(binding, "LIMIT", 5.0)
    keda.provision(ADA, 1, starting=True)
    looks: list[set[str]] = []

    def look() -> None:
        looks.append({kind for kind, _ in api.names()})
        if len(looks) == 2:
            api.put("pods", pod({}))
        else:
            api.before["GET pods"] = look

    api.before["GET pods"] = look
    keda.start(A, 2)
    assert looks == [{"persistentvolumeclaims", "deployments", "secrets"}] * 2
    assert {kind for kind, _ in api.names()} - {"pods"} == ALL_KINDS


def test_a_start_that_was_overtaken_keeps_no_moment_for_keda(
    keda: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins again at once: nothing was put down."""
    keda.provision(ADA, 1)
    pauses: list[float] = []
    monkeypatch.setattr(scalers, "SETTLE", 0.5)
    monkeypatch.setattr(scalers.time, "sleep", pauses.append)
    api.before["PATCH deployments"] = lambda: api.put("deployments", api.get("deployments", NAME))
    keda.start(A, 2)
    assert (replicas(api), max(pauses, default=0.0)) == (1, 0.0)


def test_a_stop_lets_keda_act_on_what_it_saw_before(
    keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker is gone and the replicas are still there meanwhile: one look at the list from before does nothing."""
    keda.provision(ADA, 1)
    keda.start(A, 2)
    pauses: list[tuple[float, list[str], int]] = []

    def pause(seconds: float) -> None:
        pauses.append((seconds, redis_client.lrange(f"queue:{A}", 0, -1), replicas(api)))

    monkeypatch.setattr(scalers, "SETTLE", 0.5)
    monkeypatch.setattr(scalers.time, "sleep", pause)
    keda.stop(A, 3)
    keda.stop(A, 4)
    assert pauses == [(0.5, [], 1)]


def test_a_wake_during_that_moment_keeps_its_marker(
    keda: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two put its hand on the marker last."""
    keda.provision(ADA, 1)
    keda.start(A, 2)

    def woken(_: float) -> None:
        keda.start(A, 4)
        redis_client.delete(f"queue:{A}")

    monkeypatch.setattr(scalers.time, "sleep", woken)
    with pytest.raises(Superseded):
        keda.stop(A, 3)
    assert (redis_client.lrange(f"queue:{A}", 0, -1), replicas(api)) == ([scalers.MARKER], 1)


def test_where_keda_scales_no_more_its_objects_go_and_are_no_danger_until_then(
    keda: KubernetesRuntime, runtime: KubernetesRuntime, api: FakeApi, redis_client: redis.Redis
) -> None:
    """The marker agrees with the replicas, whoever scales."""
    keda.provision(ADA, 1)
    keda.tidy()
    assert ("scaledobjects", f"{NAME}-scaler") in api.names()
    runtime.start(A, 2)
    assert redis_client.lrange(f"queue:{A}", 0, -1) == [scalers.MARKER]
    runtime.stop(A, 3)
    assert redis_client.exists(f"queue:{A}") == 0
    runtime.tidy()
    assert {kind for kind, _ in api.names()} == ALL_KINDS - {"scaledobjects"}


def test_a_sleeping_session_gets_the_address_of_the_settings_of_now(
    on_cluster: Settings, runtime: KubernetesRuntime, redis_client: redis.Redis, api: FakeApi
) -> None:
    """With its owner and its user, and once. A visit that is to wake it finds the door that was put there since."""
    runtime.provision(ADA, 1)
    runtime.start(A, 2)
    runtime.stop(A, 3)
    before = api.get("ingresses", NAME)
    changed = replace(
        on_cluster, ingress_door='{"door": "closed"}', api_host="api.example.com", ingress_class="traefik"
    )
    later = KubernetesRuntime(changed, redis_client, api.cluster())
    later.tidy()
    after = api.get("ingresses", NAME)
    assert (after["metadata"]["annotations"]["door"], len(after["spec"]["rules"])) == ("closed", 2)
    for kept in ("ownerReferences", "name"):
        assert after["metadata"][kept] == before["metadata"][kept]
    assert after["metadata"]["annotations"].items() >= before["metadata"]["annotations"].items()
    later.tidy()
    assert api.get("ingresses", NAME)["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    api.answers["GET ingresses"] = (500, "nobody needs to ask again so soon")
    later.tidy()


def test_a_cluster_without_keda_is_tidy(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """It knows no such kind."""
    api.answers["GET scaledobjects"] = (404, "the server could not find the requested resource")
    runtime.tidy()


def test_only_keda_gets_a_scaled_object(keda: KubernetesRuntime, api: FakeApi) -> None:
    """And it goes with the Deployment."""
    keda.provision(ADA, 1)
    owners = api.get("scaledobjects", f"{NAME}-scaler")["metadata"]["ownerReferences"]
    assert [owner["name"] for owner in owners] == [NAME]
    keda.remove(A, 2)
    assert api.names() == set()


# Stop and start of what does not behave


def test_a_stop_scales_down_again_what_someone_scaled_up_meanwhile(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """KEDA may have looked at the list a moment before the marker went."""
    runtime.provision(ADA, 1)
    runtime.start(A, 2)
    api.put("pods", pod(READY))

    def scaled_up() -> None:
        deployment = api.get("deployments", NAME)
        api.put("deployments", {**deployment, "spec": {**deployment["spec"], "replicas": 1}})
        api.before["PATCH deployments"] = lambda: api.drop("pods", "pod-1")

    api.before["GET pods"] = scaled_up
    runtime.stop(A, 3)
    assert replicas(api) == 0


def test_a_pod_that_crashes_is_replaced_by_a_start(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Kubernetes would have the user wait for up to five minutes."""
    runtime.provision(ADA, 1)
    runtime.start(A, 2)
    api.put("pods", pod(CRASHED))
    runtime.start(A, 3)


def test_a_pod_that_works_is_kept_by_a_start(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Whoever works in it notices nothing."""
    runtime.provision(ADA, 1)
    runtime.start(A, 2)
    api.put("pods", pod(READY))
    runtime.start(A, 3)
    assert ("pods", "pod-1") in api.names()


# Trouble


def test_a_quota_is_told_as_one(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Trying again changes nothing, and the user can do something about it."""
    api.answers["POST persistentvolumeclaims"] = (
        403,
        'persistentvolumeclaims "user-aaaa0001" is forbidden: exceeded quota: workspaces, requested: '
        "persistentvolumeclaims=1, used: persistentvolumeclaims=50, limited: persistentvolumeclaims=50",
    )
    with pytest.raises(PermanentError, match="quota for workspaces is used up.*limited: persistentvolumeclaims=50"):
        runtime.provision(ADA, 1)


@pytest.mark.parametrize("status", [401, 429, 500, 503, 504])
def test_a_server_that_can_not_serve_is_asked_again_later(
    runtime: KubernetesRuntime, api: FakeApi, status: int
) -> None:
    """By the task, not by the adapter: it asks once."""
    api.answers["GET deployments"] = (status, "")
    with pytest.raises(RetryableError):
        runtime.observe(A)
    assert api.requests.count("GET deployments") == 1


def test_a_server_that_is_away_is_told_as_such(on_cluster: Settings, redis_client: redis.Redis) -> None:
    """Nobody listens there."""
    with fake_api.serving() as api:
        cluster = api.cluster()
    with pytest.raises(RuntimeUnavailable):
        KubernetesRuntime(on_cluster, redis_client, cluster).observe(A)


def test_a_server_that_hangs_is_left(on_cluster: Settings, redis_client: redis.Redis, api: FakeApi) -> None:
    """The client's own calls would wait for ever, or three times as long as told."""
    api.before["GET persistentvolumeclaims"] = lambda: time.sleep(1.0)
    hasty = KubernetesRuntime(on_cluster, redis_client, api.cluster(timeout=0.1))
    with pytest.raises(RuntimeUnavailable):
        hasty.observe(A)
    assert api.requests.count("GET deployments") == 0


def test_a_list_is_read_page_by_page(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """No answer may grow with the number of sessions."""
    uuids = [f"aaaa{number:04}" for number in range(5)]
    for uuid in uuids:
        runtime.provision(replace(ADA, uuid=uuid), 1)
    api.page = 2
    assert [seen.identity.uuid for seen in runtime.observe_all()] == uuids


def test_a_claim_that_does_not_say_whose_it_is_hides_no_other(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Anyone with kubectl can break an annotation."""
    runtime.provision(ADA, 1)
    runtime.provision(replace(ADA, uuid="bbbb0002"), 1)
    claim = api.get("persistentvolumeclaims", NAME)
    api.put("persistentvolumeclaims", {**claim, "metadata": {**claim["metadata"], "annotations": {}}})
    assert [seen.identity.uuid for seen in runtime.observe_all()] == ["bbbb0002"]


def test_no_cluster_is_a_setting_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at the start, by name."""
    monkeypatch.setenv("KUBECONFIG", "/nonexistent/config")
    with pytest.raises(SettingsError, match="KUBECONFIG"):
        find_cluster()
    with pytest.raises(SettingsError, match="WORKSPACE_IMAGE"):
        Settings(runtime="kubernetes").checked()
    with pytest.raises(SettingsError, match="RUNTIME"):
        runtimes.load(Settings(runtime="docker"))


def test_an_object_that_is_there_is_not_made_again(api: FakeApi) -> None:
    """The one call that must not overwrite."""
    cluster = api.cluster()
    cluster.create("secrets", {"metadata": {"name": "one"}, "data": {}})
    with pytest.raises(Conflict):
        cluster.create("secrets", {"metadata": {"name": "one"}, "data": {}})


# A volume that someone else has deleted: its claim stays while a pod has it


def delete_claim(api: FakeApi) -> None:
    claim = api.get("persistentvolumeclaims", NAME)
    api.put("persistentvolumeclaims", {**claim, "metadata": {**claim["metadata"], "deletionTimestamp": "now"}})


def test_a_workspace_is_neither_stopped_nor_replaced_while_its_files_end_with_it(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    started(runtime)
    delete_claim(api)
    for act in (runtime.stop, runtime.start):
        with pytest.raises(FilesGoing):
            act(A, 3)
    assert replicas(api) == 1


def test_files_that_are_going_are_backed_up_on_their_node_past_the_scheduler(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """Which has no place for a pod whose claim is being deleted."""
    started(runtime)
    api.put("pods", pod(READY))
    delete_claim(api)
    made: list[dict[str, Any]] = []

    def ended() -> None:
        made.extend(item for (kind, _), item in api.objects.items() if kind == "jobs")
        for kind, name in api.names():
            if kind == "jobs":
                api.drop(kind, name)

    api.before["GET jobs"] = ended
    with pytest.raises(RetryableError, match="deleted by someone else"):
        runtime.backup(A, "app-aaaa0001-20260101-000000.zip")
    assert made[0]["spec"]["template"]["spec"]["nodeName"] == "node-1"


# Backups and restores that come to no end

BACKUP = "app-aaaa0001-20260101-000000.zip"


def overtaken() -> None:
    raise Superseded("Intent 1 was overtaken by 2.")


def job_pod(api: FakeApi, *, owned: bool = True, message: str = "") -> None:
    """The pod of the one Job there is, as its controller would make it; it has ended when it has a message."""
    ((_, name),) = (key for key in api.names() if key[0] == "jobs")
    uid = api.get("jobs", name)["metadata"]["uid"]
    state = {"terminated": {"message": message, "exitCode": 0}} if message else {"running": {}}
    made = pod({"containerStatuses": [{"state": state}]}, f"pod-{uid}")
    template = api.get("jobs", name)["spec"]["template"]["metadata"]
    made["metadata"]["labels"] = {**template["labels"], "batch.kubernetes.io/controller-uid": uid}
    if owned:
        made["metadata"]["ownerReferences"] = [{"uid": uid}]
    api.put("pods", made)


def backups_and_restores(runtime: KubernetesRuntime) -> list[Callable[[Callable[[], None]], object]]:
    return [
        lambda check: runtime.backup(A, BACKUP, check=check),
        lambda check: runtime.restore(replace(ADA, restore_from=BACKUP), 2, check=check),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_work_that_is_broken_off_ends_its_job_and_its_pod(runtime: KubernetesRuntime, api: FakeApi, which: int) -> None:
    """What asked for it goes on only then."""
    runtime.provision(ADA, 1)
    looks = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 1:
            job_pod(api)
        else:
            overtaken()

    with pytest.raises(Superseded):
        backups_and_restores(runtime)[which](check)
    assert not [name for kind, name in api.names() if kind in ("jobs", "pods")]
    claim = api.get("persistentvolumeclaims", NAME)
    assert names.RESTORED not in claim["metadata"]["annotations"]


def test_a_pod_that_does_not_end_keeps_nobody(
    runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node may be away; what is wanted now is tried all the same."""
    monkeypatch.setattr(jobs, "END_LIMIT", 0.0)
    runtime.provision(ADA, 1)

    def check() -> None:
        job_pod(api, owned=False)
        ((_, name),) = (key for key in api.names() if key[0] == "pods")
        api.get("pods", name)["metadata"]["finalizers"] = ["the.kubelet/is-away"]
        overtaken()

    with pytest.raises(Superseded):
        runtime.backup(A, BACKUP, check=check)
    assert [kind for kind, name in api.names() if kind in ("jobs", "pods")] == ["pods"]


@pytest.mark.parametrize("end", ["check", "removal"])
def test_a_job_that_ends_takes_its_pod_with_it_at_once(runtime: KubernetesRuntime, api: FakeApi, end: str) -> None:
    """No garbage collector is waited for: in that time the pod would do what nobody wants any more."""
    runtime.provision(ADA, 1)

    def check() -> None:
        job_pod(api, owned=False)
        if end == "removal":
            runtime.remove(A, 2, force=True)
        overtaken()

    with pytest.raises(Superseded):
        runtime.backup(A, BACKUP, check=check)
    assert not [name for kind, name in api.names() if kind in ("jobs", "pods")]


def test_a_job_is_not_told_the_end_of_one_that_had_its_name_before(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Whose pod is still there for a moment, as after a try that failed."""
    runtime.provision(ADA, 1)
    failed = json.dumps({"error": "temporarily_unavailable", "text": "The store is away."})
    with pytest.raises(RetryableError, match="away"):
        runtime.backup(A, BACKUP, check=lambda: job_pod(api, owned=False, message=failed))
    summary = BackupSummary(created_at=1.0, size=2, files=3, content_bytes=4, sha256="5")
    message = json.dumps({"summary": asdict(summary)})
    assert runtime.backup(A, BACKUP, check=lambda: job_pod(api, message=message)) == summary


@pytest.mark.parametrize("partial", [False, True])
def test_another_ones_partial_backup_does_not_pass_for_a_whole_one(
    runtime: KubernetesRuntime, api: FakeApi, partial: bool
) -> None:
    """The Job of that name may have been made for less."""
    runtime.provision(ADA, 1)
    summary = BackupSummary(
        created_at=1.0, size=2, files=3, content_bytes=4, sha256="5", unreadable=("mine",), unreadable_count=1
    )
    message = json.dumps({"summary": asdict(summary)})

    def back_up() -> BackupSummary:
        return runtime.backup(A, BACKUP, partial=partial, check=lambda: job_pod(api, message=message))

    if partial:
        assert back_up() == summary
    else:
        with pytest.raises(BackupIncomplete, match="1 .mine."):
            back_up()


def test_a_start_tells_whether_it_began_anything(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Also when its decision was overtaken after it had begun, and when it replaced a pod."""
    runtime.provision(ADA, 1)
    api.before["PATCH persistentvolumeclaims"] = lambda: api.put(
        "persistentvolumeclaims", api.get("persistentvolumeclaims", NAME)
    )
    assert runtime.start(A, 2) is False
    assert api.requests.count("PATCH persistentvolumeclaims") > 1
    api.put("pods", pod(READY))
    assert runtime.start(A, 3) is True
    api.put("pods", pod(CRASHED))
    assert runtime.start(A, 4) is False


def test_a_volume_that_is_being_deleted_is_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Also by a watch that begins later; and no more once the workspace has another."""
    started(runtime)
    api.put("pods", pod(READY))
    with watching(runtime) as seen:
        assert seen.snapshot().workspaces[0].ready
        delete_claim(api)
        assert "is being deleted by someone else" in seen.until(lambda each: bool(each.failure)).failure
    with watching(runtime) as seen:
        assert "is being deleted by someone else" in seen.snapshot().workspaces[0].failure
        api.drop("persistentvolumeclaims", NAME)
        seen.until(lambda each: each.ready)


# The watch


def started(runtime: KubernetesRuntime) -> None:
    runtime.provision(ADA, 1)
    runtime.start(A, 2)


def test_the_steps_of_a_start_are_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """When each was seen: the API's own times are whole seconds."""
    with watching(runtime) as seen:
        seen.snapshot()
        started(runtime)
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x"))
        about = {"kind": "Pod", "name": f"{NAME}-x"}
        seen.until(lambda each: each.pod_name == f"{NAME}-x")
        api.put("events", {"metadata": {"name": "e"}, "involvedObject": about, "reason": "Pulled", "message": ""})
        api.put("pods", pod({"containerStatuses": [{"state": {"running": {}}}], **READY}, f"{NAME}-x"))
        ready = seen.until(lambda each: each.ready)
    assert list(ready.phases) == list(PHASES[1:])
    assert list(ready.phases.values()) == sorted(ready.phases.values())


def test_a_step_that_was_seen_tells_of_those_before_it(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The kubelet tells of an image at once, and of the volumes only when it looks again."""
    with watching(runtime) as seen:
        seen.snapshot()
        started(runtime)
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x"))
        seen.until(lambda each: "scheduled" in each.phases)
        about = {"kind": "Pod", "name": f"{NAME}-x"}
        api.put("events", {"metadata": {"name": "e"}, "involvedObject": about, "reason": "Pulled", "message": ""})
        pulled = seen.until(lambda each: "image" in each.phases)
        assert pulled.phases["scheduled"] < pulled.phases["volume"] == pulled.phases["image"]
        api.put("events", {"metadata": {"name": "f"}, "involvedObject": about, "reason": "Started", "message": ""})
        begun = seen.until(lambda each: "started" in each.phases)
    assert not begun.ready
    assert begun.phases.items() > pulled.phases.items()


def test_the_agents_events_are_no_steps_of_a_start(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """It is there before the editor, and users wait for that."""
    with watching(runtime) as seen:
        seen.snapshot()
        started(runtime)
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x"))
        seen.until(lambda each: "scheduled" in each.phases)
        for container, reason in (("agent", "Started"), ("editor", "Pulled")):
            about = {"kind": "Pod", "name": f"{NAME}-x", "fieldPath": f"spec.containers{{{container}}}"}
            event = {"metadata": {"name": container}, "involvedObject": about, "reason": reason, "message": ""}
            api.put("events", event)
        pulled = seen.until(lambda each: "image" in each.phases)
    assert "started" not in pulled.phases


def container_status(name: str, *, ready: bool, **more: Any) -> dict[str, Any]:
    return {"name": name, "ready": ready, "state": {"running": {}}, **more}


LOOPING: dict[str, Any] = {
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}},
    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
}
AGENT_DOWN = {
    "podIP": "10.1.2.3",
    "conditions": conditions(PodScheduled="True", ContainersReady="False", Ready="False"),
    "containerStatuses": [container_status("agent", ready=False, **LOOPING), container_status("editor", ready=True)],
}


def test_an_agent_that_keeps_dying_is_told_and_fails_nothing(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The pod isn't ready then, by the cluster's rules; the editor works, and its users go on."""
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", pod(AGENT_DOWN))
        down = seen.until(lambda each: bool(each.trouble))
        assert (down.ready, down.failure, down.agent) == (True, "", "http://10.1.2.3:1111")
        assert down.trouble.startswith("The agent ended unexpectedly (it needed more memory")
        both = [container_status("agent", ready=True), container_status("editor", ready=True)]
        api.put("pods", pod({"podIP": "10.1.2.3", "containerStatuses": both, **READY}))
        up = seen.until(lambda each: not each.trouble)
    assert (up.ready, up.agent) == (True, "http://10.1.2.3:1111")


def test_an_editor_that_keeps_dying_has_failed_whatever_its_agent_does(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """The two are told apart by name: the cluster lists them in an order of its own."""
    started(runtime)
    statuses = [container_status("agent", ready=True), container_status("editor", ready=False, **LOOPING)]
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", pod({**AGENT_DOWN, "containerStatuses": statuses}))
        failed = seen.until(lambda each: bool(each.failure))
    assert failed.failure.startswith("The editor ended unexpectedly")


def test_an_agent_is_told_of_as_soon_as_its_pod_has_an_address(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """So that one whose call was lost is found."""
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", pod({"podIP": "10.1.2.3", **READY}))
        assert seen.until(lambda each: each.ready).agent == "http://10.1.2.3:1111"
    observed = runtime.observe(A)
    assert observed is not None
    assert observed.agent == "http://10.1.2.3:1111"


def test_another_pods_events_are_no_steps_of_this_ones(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """One that is going may still have something to say."""
    with watching(runtime) as seen:
        seen.snapshot()
        started(runtime)
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-new"))
        seen.until(lambda each: "scheduled" in each.phases)
        for number, name in enumerate((f"{NAME}-old", f"{NAME}-new")):
            about = {"kind": "Pod", "name": name}
            reason = ("Started", "Pulled")[number]
            event = {"metadata": {"name": f"e{number}"}, "involvedObject": about, "reason": reason, "message": ""}
            api.put("events", event)
        pulled = seen.until(lambda each: "image" in each.phases)
    assert "started" not in pulled.phases


def test_scaling_by_others_is_seen(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """With the intent that was carried out last, which tells it from one of ours."""
    runtime.provision(ADA, 1)
    with watching(runtime) as seen:
        seen.snapshot()
        for wanted in (1, 0):
            deployment = api.get("deployments", NAME)
            api.put("deployments", {**deployment, "spec": {**deployment["spec"], "replicas": wanted}})
            told = seen.until(lambda each, up=bool(wanted): each.running is up)  # type: ignore[misc]
            assert (told.generation, told.deleted) == (1, False)


def test_a_deleted_deployment_is_a_workspace_that_is_down(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """With the intent it last carried out, and told from one that was put down."""
    started(runtime)
    with watching(runtime) as seen:
        assert len(seen.snapshot().workspaces) == 1
        api.drop("deployments", NAME)
        down = seen.until(lambda each: not each.running)
    assert (down.generation, down.failure, down.deleted) == (2, "", True)


def test_a_deleted_deployment_is_not_made_again_beside_its_old_pod(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Two pods must never share a volume. The start waits, as a stop does: each try again counts as a delivery."""
    started(runtime)
    api.put("pods", pod(READY))
    api.drop("deployments", NAME)
    api.requests.clear()
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(runtime.start, A, 3)
        try:
            wait_for(lambda: api.requests.count("GET pods") > 2, "the start to look for the old pod again")
            assert "POST deployments" not in api.requests
        finally:
            api.drop("pods", "pod-1")
        start.result()
    assert replicas(api) == 1


@pytest.mark.parametrize("forget", [False, True])
def test_a_watch_that_is_cut_misses_nothing(runtime: KubernetesRuntime, api: FakeApi, forget: bool) -> None:
    """It goes on where it was; and lists anew when that is too long ago (410)."""
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
        api.cut(forget=forget)
        api.put("pods", pod(READY))
        assert seen.until(lambda each: each.ready).pod_name == "pod-1"


def test_a_watch_that_can_not_go_on_says_so(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Its silence would pass for nothing having happened."""
    api.answers["GET events"] = (403, "forbidden")
    with pytest.raises(RetryableError, match="events"):
        next(runtime.watch(Event()))


TROUBLES: dict[str, tuple[dict[str, Any], str]] = {
    "crash": (CRASHED, "killed by SIGKILL.*\none\ntwo$"),
    "memory": (
        {
            "containerStatuses": [
                {
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                }
            ]
        },
        "needed more memory",
    ),
    "image": (
        {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}}]},
        "image can't be fetched: no such host",
    ),
    "configuration": (
        {"containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "oh"}}}]},
        "can't be started: oh",
    ),
    "room": (
        {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available: 1 Insufficient cpu.",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ]
        },
        "has room.*Insufficient cpu",
    ),
    "no volume": (
        {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ]
        },
        "volume is not there.*unbound immediate",
    ),
    "node": (
        {
            "conditions": conditions(Ready="False", ContainersReady="True"),
            "containerStatuses": [{"ready": True, "state": {"running": {}}}],
        },
        "machine the workspace runs on does not answer",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_told_and_clears_by_itself(runtime: KubernetesRuntime, api: FakeApi, trouble: str) -> None:
    """In words a user understands; and when its cause is gone, so is the failure."""
    status, text = TROUBLES[trouble]
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
        api.put("pods", pod(status))
        failed = seen.until(lambda each: bool(each.failure))
        assert (failed.running, failed.ready, failed.generation) == (False, False, 2)
        assert re.search(text, failed.failure, re.DOTALL), failed.failure
        api.put("pods", pod(READY))
        assert seen.until(lambda each: each.ready).failure == ""


def test_a_volume_that_is_being_made_has_longer_than_room_that_is_not_there() -> None:
    """A cloud takes up to 15 s for a disk, and a create must not be called failed meanwhile."""
    told = {trouble: pod_problem(pod(TROUBLES[trouble][0])) for trouble in ("room", "no volume")}
    patience = {trouble: problem.patience for trouble, problem in told.items() if problem}
    assert patience == {"room": SCHEDULING_PATIENCE, "no volume": BINDING_PATIENCE}


def test_a_volume_that_can_not_be_mounted_is_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Only events know of it."""
    started(runtime)
    api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x"))
    with watching(runtime) as seen:
        seen.snapshot()
        about = {"kind": "Pod", "name": f"{NAME}-x"}
        event = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "FailedMount", "message": "bad disk"}
        api.put("events", event)
        failed = seen.until(lambda each: bool(each.failure))
    assert failed.failure == "The workspace's volume can't be mounted: bad disk"


def test_a_kubelet_that_came_too_early_is_asked_to_look_again(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """It would wait for 10 to 15 s. Not for ever: what is refused for another reason stays refused."""
    started(runtime)
    name = f"{NAME}-x"
    young = pod({"conditions": conditions(PodScheduled="True")}, name)
    young["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
    api.put("pods", young)
    about = {"kind": "Pod", "name": name}
    refused = 'persistentvolumeclaims "x" is forbidden: no relationship found between node "n" and this object'

    with watching(runtime) as seen:
        seen.snapshot()
        for number in range(LOOKS + 2):
            event = {"metadata": {"name": f"e{number}"}, "involvedObject": about, "reason": "FailedMount"}
            api.put("events", event | {"message": refused})
        api.put("events", {"metadata": {"name": "last"}, "involvedObject": about, "reason": "Pulled", "message": ""})
        seen.until(lambda each: "image" in each.phases)
    assert api.requests.count("PATCH pods") == LOOKS
    assert names.LOOK_AGAIN in api.get("pods", name)["metadata"]["annotations"]


def test_a_volume_that_was_mounted_after_all_is_no_trouble(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """On a busy cluster the first try often comes too early, and what follows may take long for other reasons."""
    started(runtime)
    young = pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x")
    young["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
    api.put("pods", young)
    about = {"kind": "Pod", "name": f"{NAME}-x"}
    with watching(runtime) as seen:
        seen.snapshot()
        for number, reason in enumerate(("FailedMount", "Pulled")):
            event = {"metadata": {"name": f"e{number}"}, "involvedObject": about, "reason": reason, "message": "no"}
            api.put("events", event)
        seen.until(lambda each: "image" in each.phases)
        # Old enough by now for a warning to count.
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-x"))
        api.put("pods", pod({"conditions": conditions(PodScheduled="True")}, f"{NAME}-y"))
        later = seen.until(lambda each: bool(each.failure) or each.pod_name == f"{NAME}-y")
    assert later.failure == ""


def test_a_pod_that_is_refused_is_told(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """There is no pod to ask then: the Deployment knows."""
    started(runtime)
    with watching(runtime) as seen:
        seen.snapshot()
        condition = {
            "type": "ReplicaFailure",
            "status": "True",
            "message": 'pods "x" is forbidden: exceeded quota: workspaces, limited: pods=1',
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        api.put("deployments", {**api.get("deployments", NAME), "status": {"conditions": [condition]}})
        failed = seen.until(lambda each: bool(each.failure))
    assert failed.failure == "The cluster's quota for workspaces is used up: workspaces, limited: pods=1."
