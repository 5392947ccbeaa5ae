"""What the Kubernetes runtime does beyond the contract: what it makes, repairs, and makes of trouble."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import redis

from app.core.access.agent_credentials import AgentCredentials
from app.core.errors import (
    PermanentError,
    RetryableError,
    RuntimeUnavailable,
    StillEnding,
    Superseded,
    WorkspaceConflict,
)
from app.process.settings import Settings, SettingsError
from tests.unit import fake_api
from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import (
    ADA,
    CRASHED,
    KINDS,
    NAME,
    READY,
    SECRET_KEY,
    A,
    MakeRuntime,
    observed,
    pod,
    replicas,
    secret_of,
    started,
)
from tests.waiting import PATIENCE
from workers import runtime as runtimes
from workers.runtime.kubernetes.api_server import find_cluster
from workers.runtime.kubernetes.driver import KubernetesRuntime


def pod_spec(api: FakeApi) -> dict[str, Any]:
    return dict(api.get("deployments", NAME)["spec"]["template"]["spec"])


def test_provisioning_makes_all_of_a_session(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Asleep, and owned by the Deployment but for the volume."""
    runtime.provision(ADA, 1)
    assert api.names() == {(kind, NAME) for kind in KINDS}
    assert replicas(api) == 0
    owners = {kind: len(api.get(kind, NAME)["metadata"].get("ownerReferences", [])) for kind in KINDS}
    assert owners == {"persistentvolumeclaims": 0, "deployments": 0, "secrets": 1, "services": 1, "ingresses": 1}


def test_hosts_without_a_route_get_one_with_the_first_session(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Before that has its own, whose address is followed at once. Who takes it away finds it again after a sweep."""
    runtime.provision(ADA, 1, starting=True)
    assert api.get("ingresses", "asleep")["spec"]["rules"][0]["host"] == "*.localhost"
    assert api.get("services", "asleep")["spec"].get("selector") is None
    runtime.provision(replace(ADA, uuid="bbbb0002"), 1, starting=True)
    assert api.requests.count("PATCH ingresses") == 1, "each process writes it once"
    api.cluster().delete("ingresses", "asleep")
    runtime.tidy()
    assert api.get("ingresses", "asleep")["spec"]["rules"]


@pytest.mark.parametrize(
    "answer",
    [(403, "admission webhook denied the request: host is already defined"), (409, "the object has been modified")],
)
def test_a_cluster_that_refuses_that_route_makes_sessions_all_the_same(
    runtime: KubernetesRuntime, api: FakeApi, caplog: pytest.LogCaptureFixture, answer: tuple[int, str]
) -> None:
    """So does one where another process writes it at the same time."""
    api.answers["PATCH ingresses"] = answer
    runtime.provision(ADA, 1, starting=True)
    assert ("deployments", NAME) in api.names()
    assert "left to the next sweep" in caplog.text
    del api.answers["PATCH ingresses"]
    runtime.tidy()
    assert api.get("ingresses", "asleep")["spec"]["rules"]


def test_a_creation_brings_the_pod_up_before_what_stands_beside_it(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """All is there in the end; before the pod only the Secret, without which that can't begin."""
    runtime.provision(ADA, 1, starting=True)
    assert api.kinds() == {"persistentvolumeclaims", "deployments"}
    api.requests.clear()
    runtime.start(A, 1)
    assert api.kinds() == KINDS
    assert [request.split()[1] for request in api.changes()[:3]] == ["secrets", "secrets", "deployments"]


def test_without_a_key_a_session_has_neither_agent_nor_secret(make_runtime: MakeRuntime, api: FakeApi) -> None:
    """And starts all the same."""
    runtime = make_runtime(secret_key="")
    started(runtime)
    assert api.kinds() == KINDS - {"secrets"}
    (container,) = pod_spec(api)["containers"]
    assert container["name"] == "editor"
    api.put("pods", pod({"podIP": "10.1.2.3", **READY}))
    seen = observed(runtime)
    assert (seen.ready, seen.agent) == (True, "")


def test_a_session_of_before_there_was_a_key_has_its_secret_before_its_pod_wants_it(
    runtime: KubernetesRuntime, make_runtime: MakeRuntime, api: FakeApi
) -> None:
    """Whoever scales the new template up between two calls of the worker finds all that it mounts."""
    make_runtime(secret_key="").provision(ADA, 1)
    api.requests.clear()
    runtime.start(A, 2)
    changed = [request.split()[1] for request in api.changes()]
    assert changed[:3] == ["secrets", "secrets", "deployments"], "tried to replace, created"
    assert secret_of(api, "editor") == AgentCredentials([SECRET_KEY]).editor_file(A)
    mounted = [each["secret"]["items"] for each in pod_spec(api)["volumes"] if "secret" in each]
    assert mounted == [[{"key": "token", "path": "token"}], [{"key": "editor", "path": "editor"}]]


def test_a_start_makes_again_what_someone_deleted(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """The volume is the session: the rest follows from it."""
    runtime.provision(ADA, 1)
    for kind in KINDS - {"persistentvolumeclaims"}:
        api.drop(kind, NAME)
    runtime.start(A, 2)
    assert api.kinds() == KINDS
    assert replicas(api) == 1
    seen = observed(runtime)
    assert (seen.identity, seen.generation, seen.running) == (ADA, 2, True)


def test_a_volume_without_a_deployment_still_knows_its_intent(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Else deleting the Deployment would let an older intent pass."""
    runtime.provision(ADA, 1)
    runtime.start(A, 7)
    api.drop("deployments", NAME)
    with pytest.raises(Superseded):
        runtime.start(A, 6)
    seen = observed(runtime)
    assert (seen.generation, seen.running) == (7, False)


def test_a_sleeping_workspace_is_brought_up_to_date_when_it_starts(
    runtime: KubernetesRuntime, make_runtime: MakeRuntime, api: FakeApi
) -> None:
    """A release with a newer image reaches every session, one that runs only after its next sleep."""
    newer = make_runtime(workspace_image="workspace:2")
    started(runtime)
    newer.start(A, 3)
    assert pod_spec(api)["containers"][0]["image"] == "workspace:1"
    newer.stop(A, 4)
    newer.start(A, 5)
    assert pod_spec(api)["containers"][0]["image"] == "workspace:2"


def test_a_deployment_of_that_name_that_is_not_ours_is_left_alone(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """What stands in the way is told, never taken."""
    api.put("deployments", {"metadata": {"name": NAME, "labels": {"app": "shop"}}, "spec": {"replicas": 3}})
    with pytest.raises(WorkspaceConflict):
        runtime.provision(ADA, 1)
    assert replicas(api) == 3
    assert ("persistentvolumeclaims", NAME) not in api.names()


# Stop and start of what does not behave


def test_a_stop_scales_down_again_what_someone_scaled_up_meanwhile(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """KEDA may have looked at the list a moment before the marker went."""
    started(runtime)
    api.put("pods", pod(READY))

    def scaled_up() -> None:
        api.change("deployments", NAME, {"spec": {"replicas": 1}})
        api.before["PATCH deployments"] = lambda: api.drop("pods", "pod-1")

    api.before["GET pods"] = scaled_up
    runtime.stop(A, 3)
    assert replicas(api) == 0


def test_a_stop_holds_nobody_up_while_a_pod_ends(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """It is scaled down, and asked for again until there is no pod."""
    started(runtime)
    api.put("pods", pod(READY))
    for _ in range(2):
        with pytest.raises(StillEnding):
            runtime.stop(A, 3, patience=0.0)
    assert replicas(api) == 0
    api.drop("pods", "pod-1")
    runtime.stop(A, 3, patience=0.0)


def test_a_start_keeps_a_pod_that_works_replaces_one_that_crashes_and_tells_whether_it_began_anything(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """Kubernetes would have the user wait for up to five minutes. A decision that was overtaken may have begun too."""
    runtime.provision(ADA, 1)
    api.before["PATCH persistentvolumeclaims"] = lambda: api.change("persistentvolumeclaims", NAME, {})
    assert runtime.start(A, 2) is False
    assert api.requests.count("PATCH persistentvolumeclaims") > 1
    api.put("pods", pod(READY))
    assert runtime.start(A, 3) is True
    assert ("pods", "pod-1") in api.names()
    api.put("pods", pod(CRASHED))
    assert runtime.start(A, 4) is False
    assert ("pods", "pod-1") not in api.names()


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
    left = threading.Event()
    api.before["GET deployments"] = lambda: left.wait(PATIENCE)
    hasty = KubernetesRuntime(on_cluster, redis_client, api.cluster(timeout=0.1))
    with pytest.raises(RuntimeUnavailable):
        hasty.observe(A)
    left.set()
    assert api.requests.count("GET persistentvolumeclaims") == 0


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
    """Said at the start, by name; as is an ingress that asks nobody who gets in."""
    monkeypatch.setenv("KUBECONFIG", "/nonexistent/config")
    with pytest.raises(SettingsError, match="KUBECONFIG"):
        find_cluster()
    with pytest.raises(SettingsError, match="WORKSPACE_IMAGE"):
        Settings(runtime="kubernetes").checked()
    for forward_auth in ("", "{}"):
        with pytest.raises(SettingsError, match="INGRESS_FORWARD_AUTH"):
            Settings(runtime="kubernetes", workspace_image="w:1", ingress_forward_auth=forward_auth).checked()
    Settings(runtime="kubernetes", workspace_image="w:1", ingress_forward_auth='{"a": "b"}').checked()
    with pytest.raises(SettingsError, match="RUNTIME"):
        runtimes.load(Settings(runtime="docker"))
