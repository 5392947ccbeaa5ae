"""What one pod of a workspace, or of a Job beside it, may take of its node: disk and processes, as CPU and memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.agent.tools.command import PROCESSES
from app.core.sessions.model import SIZES, Identity
from app.process.settings import Settings
from scripts.cluster.components import kubelet_config
from scripts.cluster.layout import Layout
from workers.runtime.kubernetes import job_objects, objects
from workers.runtime.kubernetes.config import KubernetesConfig

BACKUP = "app-abcd1234-20260101-000000.zip"
SETTINGS = Settings(runtime="kubernetes", workspace_image="w:1", secret_key="k" * 32)


def specs(choices: KubernetesConfig) -> list[objects.Object]:
    """Of every pod we make."""
    everyone = [Identity(uuid="abcd1234", user_id="u", created_at=0.0, size=size) for size in SIZES]
    made = [objects.pod_template(each, choices) for each in everyone]
    for action in ("backup", "restore"):
        made.append(job_objects.backup_job(action, everyone[0], BACKUP, 0.0, choices)["spec"]["template"])
    made.append(job_objects.download_job("read-1", BACKUP, "d1", choices)["spec"]["template"])
    return [each["spec"] for each in made]


def test_every_container_has_a_limit_of_everything_a_node_has() -> None:
    for spec in specs(KubernetesConfig.of(SETTINGS)):
        for container in spec["containers"]:
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) == {"cpu", "memory", "ephemeral-storage"}, container["name"]


@pytest.mark.parametrize("limit", ["1Gi", "300Mi"])
def test_no_folder_of_the_nodes_disk_may_hold_more_than_a_container(limit: str) -> None:
    """A pod may take what its containers may together, so none is ended for a /tmp that is allowed."""
    choices = KubernetesConfig.of(replace(SETTINGS, ephemeral_storage=f'["100Mi", "{limit}"]'))
    for spec in specs(choices):
        folders = [each["emptyDir"] for each in spec["volumes"] if "emptyDir" in each]
        assert all(each == {"sizeLimit": limit} for each in folders)
        assert {each["resources"]["limits"]["ephemeral-storage"] for each in spec["containers"]} == {limit}
        assert {each["resources"]["requests"]["ephemeral-storage"] for each in spec["containers"]} == {"100Mi"}


def test_the_test_cluster_bounds_the_processes_of_a_pod() -> None:
    """Above what the agent lets a command have, so that it is the agent who says so; far below what the kernel has."""
    limit = kubelet_config(Layout("test", Path("/nowhere")))["podPidsLimit"]

    assert isinstance(limit, int)
    assert 2 * PROCESSES < limit < 32_768 / 8
