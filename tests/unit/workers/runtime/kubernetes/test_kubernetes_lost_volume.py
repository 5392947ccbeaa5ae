"""Claims that are lost, being deleted, or out of reach."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core.errors import FilesGoing, FilesGone, PermanentError, StillEnding
from tests.unit.fake_api import NAMESPACE, FakeApi
from tests.unit.workers.runtime.kubernetes.samples import ADA, LABELS, NAME, READY, A, pod, replicas, started
from workers.runtime.kubernetes import driver, names
from workers.runtime.kubernetes.driver import KubernetesRuntime

SOURCE = f"point-{A}-p000000000000001"
REPLACED = replace(ADA, restore_from=SOURCE, volume=1)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE", 0.2)


def claims(api: FakeApi) -> set[str]:
    return {name for kind, name in api.names() if kind == "persistentvolumeclaims"}


def change_claim(api: FakeApi, **changes: Any) -> None:
    claim = api.get("persistentvolumeclaims", NAME)
    api.put("persistentvolumeclaims", {**claim, **changes})


def test_a_claim_that_lost_its_volume_counts_as_gone_and_makes_room(runtime: KubernetesRuntime, api: FakeApi) -> None:
    started(runtime)
    change_claim(api, status={"phase": "Lost"})
    seen = runtime.observe(A)
    assert seen is not None
    assert (seen.code, seen.running) == (FilesGone.code, False)
    with pytest.raises(FilesGone):
        runtime.start(A, 3)
    assert runtime.discard(replace(ADA, restore_from=SOURCE), 3) == ""
    assert claims(api) == set()
    assert replicas(api) == 0


def test_a_claim_that_is_being_deleted_is_told_of_and_goes_with_its_workspace(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    started(runtime)
    claim = api.get("persistentvolumeclaims", NAME)
    going = {**claim["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    change_claim(api, metadata=going)
    seen = runtime.observe(A)
    assert seen is not None
    assert (seen.code, seen.files_deleted_at) == (FilesGoing.code, 1_767_225_600.0)
    with pytest.raises(StillEnding):
        runtime.discard(ADA, 3)
    assert replicas(api) == 0
    api.drop("persistentvolumeclaims", NAME)
    assert runtime.discard(ADA, 3) == ""


def test_a_volume_out_of_reach_is_kept_and_another_takes_its_place(
    runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pod, on a machine that is silent, is given up too."""
    started(runtime)
    api.put("pods", pod(READY))
    assert runtime.discard(REPLACED, 3) == NAME
    assert ("pods", "pod-1") not in api.names()
    assert api.get("persistentvolumeclaims", NAME)["metadata"]["labels"]["app"] == names.KEPT
    monkeypatch.setattr(runtime._jobs, "run", lambda *_: None)
    runtime.restore(REPLACED, 3)
    assert claims(api) == {NAME, f"{NAME}-1"}
    assert runtime.discard(REPLACED, 3) == "", "the new one stays"
    runtime.start(A, 4)
    volumes = api.get("deployments", NAME)["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["persistentVolumeClaim"] == {"claimName": f"{NAME}-1"}
    assert [each.identity.volume for each in runtime.observe_all()] == [1]


def test_the_kept_claim_outlives_a_deletion_of_the_session(
    runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(runtime)
    runtime.discard(REPLACED, 3)
    monkeypatch.setattr(runtime._jobs, "run", lambda *_: None)
    runtime.restore(REPLACED, 3)
    runtime.remove(A, 4)
    assert claims(api) == {NAME}


def test_without_its_deployment_the_newest_claim_is_found(
    runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(runtime)
    runtime.discard(REPLACED, 3)
    monkeypatch.setattr(runtime._jobs, "run", lambda *_: None)
    runtime.restore(REPLACED, 3)
    api.drop("deployments", NAME)
    seen = runtime.observe(A)
    assert seen is not None
    assert seen.identity.volume == 1
    assert LABELS["session-uuid"] == A


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
