"""Claims that are lost, being deleted, or out of reach."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.errors import FilesGoing, FilesGone, PermanentError, StillEnding
from tests.unit.fake_api import NAMESPACE, FakeApi
from tests.unit.workers.runtime.kubernetes.samples import ADA, GOING, NAME, READY, A, observed, pod, replicas, started
from workers.runtime.kubernetes import driver, names
from workers.runtime.kubernetes.driver import KubernetesRuntime

SOURCE = f"point-{A}-p000000000000001"
REPLACED = replace(ADA, restore_from=SOURCE, volume=1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE", 0.2)


@pytest.fixture
def replaced(runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> KubernetesRuntime:
    """A runtime with one workspace, whose volume was out of reach and has another in its place."""
    started(runtime)
    api.put("pods", pod(READY))
    assert runtime.discard(REPLACED, 3) == NAME
    monkeypatch.setattr(runtime._jobs, "run", lambda *_: None)
    runtime.restore(REPLACED, 3)
    return runtime


def test_a_claim_that_lost_its_volume_counts_as_gone_and_makes_room(runtime: KubernetesRuntime, api: FakeApi) -> None:
    started(runtime)
    api.change("persistentvolumeclaims", NAME, {"status": {"phase": "Lost"}})
    seen = observed(runtime)
    assert (seen.code, seen.running) == (FilesGone.code, False)
    with pytest.raises(FilesGone):
        runtime.start(A, 3)
    assert runtime.discard(replace(ADA, restore_from=SOURCE), 3) == ""
    assert api.named("persistentvolumeclaims") == []
    assert replicas(api) == 0


def test_a_claim_that_is_being_deleted_is_told_of_and_goes_with_its_workspace(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    started(runtime)
    api.change("persistentvolumeclaims", NAME, GOING)
    seen = observed(runtime)
    assert (seen.code, seen.files_deleted_at) == (FilesGoing.code, 1_767_225_600.0)
    with pytest.raises(StillEnding):
        runtime.discard(ADA, 3)
    assert replicas(api) == 0
    api.drop("persistentvolumeclaims", NAME)
    assert runtime.discard(ADA, 3) == ""


def test_a_volume_out_of_reach_is_kept_and_another_takes_its_place(replaced: KubernetesRuntime, api: FakeApi) -> None:
    """Its pod, on a machine that is silent, is given up too."""
    assert ("pods", "pod-1") not in api.names()
    assert api.get("persistentvolumeclaims", NAME)["metadata"]["labels"]["app"] == names.KEPT
    assert api.named("persistentvolumeclaims") == [NAME, f"{NAME}-1"]
    assert replaced.discard(REPLACED, 3) == "", "the new one stays"
    replaced.start(A, 4)
    volumes = api.get("deployments", NAME)["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["persistentVolumeClaim"] == {"claimName": f"{NAME}-1"}
    assert [each.identity.volume for each in replaced.observe_all()] == [1]


def test_the_kept_claim_outlives_a_deletion_of_the_session(replaced: KubernetesRuntime, api: FakeApi) -> None:
    replaced.remove(A, 4)
    assert api.named("persistentvolumeclaims") == [NAME]


def test_without_its_deployment_the_newest_claim_is_found(replaced: KubernetesRuntime, api: FakeApi) -> None:
    api.drop("deployments", NAME)
    assert observed(replaced).identity.volume == 1


@pytest.mark.parametrize(
    ("name", "whose"), [(NAME, True), (f"{NAME}-1", True), (f"{NAME}-x", False), ("user-bbbb0001", False)]
)
def test_warnings_about_each_of_its_claims_are_its_own(name: str, whose: bool) -> None:
    assert names.is_claim(name, A) is whose


def test_the_place_is_the_namespace(runtime: KubernetesRuntime, api: FakeApi) -> None:
    assert runtime.place() == ""
    api.put("namespaces", {"metadata": {"name": NAMESPACE, "uid": "1234"}})
    assert runtime.place() == "1234"
    api.answers["GET namespaces"] = (403, "namespaces is forbidden")
    with pytest.raises(PermanentError):
        runtime.place()
