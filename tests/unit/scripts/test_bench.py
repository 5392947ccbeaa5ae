"""What the measurements on a cluster measure: the floor, and when each start begins."""

from __future__ import annotations

from app.core.sessions.model import Identity
from app.settings import Settings
from scripts.bench import cluster
from scripts.bench.cluster import Start
from workers.runtime.kubernetes import objects
from workers.runtime.kubernetes.config import KubernetesConfig

ADA = Identity(uuid="aaaa0001", user_id="ada", created_at=0.0)


def test_the_floor_runs_what_a_session_runs_and_nothing_around_it() -> None:
    """The same editor, and an empty folder in the place of the volume; no agent, and none of their secrets."""
    session = objects.deployment(
        ADA, KubernetesConfig.of(Settings(workspace_image="workspace:1", secret_key="k" * 32)), 1
    )
    floor = cluster.bare(session)
    spec, like = (each["spec"]["template"]["spec"] for each in (floor, session))
    assert {"name": "files", "emptyDir": {}} in spec["volumes"]
    told = {each["name"]: each["value"] for each in spec["containers"][0]["env"]}
    assert told == {
        "WORKSPACE_UUID": "aaaa0001",
        "USER_ID": "ada",
        "HOME": "/workspace/home",
        "WORKSPACE_SECRET_FILE": "none",
    }
    assert [each["name"] for each in like["containers"]] == ["editor", "agent"]
    for name in ("name", "image", "resources", "readinessProbe", "securityContext"):
        assert spec["containers"][0][name] == like["containers"][0][name]
    assert [each["name"] for each in spec["containers"][0]["volumeMounts"]] == ["files", "tmp"]
    assert {each["name"] for each in spec["volumes"]} == {"files", "tmp"}
    assert floor["spec"]["replicas"] == 0
    assert "session-uuid" not in floor["spec"]["template"]["metadata"]["labels"], "it is nobody's session"
    assert like["volumes"][0]["persistentVolumeClaim"], "what it was made after is as it was"


def test_starts_begin_at_every_moment_of_a_second_alike() -> None:
    """Else all of one kind could meet the same moment between two looks of the kubelet."""
    moments = cluster.moments_of_a_second(4, seed=1)
    assert sorted(moments) == [0.125, 0.375, 0.625, 0.875]
    assert moments != cluster.moments_of_a_second(4, seed=2)


def test_ratios_are_of_the_medians() -> None:
    """One slow start changes none."""
    starts = [Start("floor", ready) for ready in (1.0, 1.0, 9.0)]
    starts += [Start("create", ready, ready, {"ready": 1500}) for ready in (1.5, 1.5, 90.0)]
    starts += [Start("wake", ready, ready) for ready in (1.1, 1.1, 0.1)]
    rows = {label: value for label, value, _ in [*cluster.rows_of_starts(starts), *cluster.rows_of_phases(starts)]}
    assert rows["create → Ready against the floor"] == "1.50x"
    assert rows["wake → Ready against the floor"] == "1.10x"
    assert rows["create: ready (ms since the request)"] == "1500"
    assert rows["wake: ready (ms since the request)"] == "none"


def test_prompts_are_compared_with_their_own_pods() -> None:
    """And none with nothing, where no model is configured."""
    prompts = [Start("prompt", 1.0, delivered=0.5), Start("prompt", 1.0, delivered=0.5), Start("prompt", 9.0)]
    rows = {label: value for label, value, _ in cluster.rows_of_prompts(prompts)}
    assert rows["prompt at the agent against Ready of the same pod"] == "0.50x"
    assert cluster.rows_of_prompts([]) == [
        ("prompt to a sleeping session", "none was taken: no model is configured", "")
    ]
