"""What all pods of ours have in common: whose they are, what they may do, and where they see a session's files.

They meet the Pod Security Standard "restricted" of Kubernetes.
"""

from __future__ import annotations

from typing import Any

from app.sessions.model import Identity
from workers.runtime import names
from workers.runtime.choices import Choices

Object = dict[str, Any]

UID = 1000
"""Of whoever runs in a workspace; the image's user, and the group of its files."""

MOUNT = "/workspace"
"""Where the volume is; the user's files are in `app`, the editor's own in `home`. A level above
them, so that a restore can swap `app` for another folder by a rename."""

FILES = MOUNT + "/app"
HOME = MOUNT + "/home"

NODE_LOST_PATIENCE = 60
"""s a pod stays on a node that does not answer; Kubernetes' own default is 300, longer than anyone waits."""


def pod_spec(containers: list[Object], volumes: list[Object], choices: Choices, grace: int) -> Object:
    """The pod of these containers, each of which is given its part of the node's disk."""
    lost = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST_PATIENCE}
    containers = [{**each, "resources": choices.with_disk(each["resources"])} for each in containers]
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            # Else the kubelet walks all of a volume at each start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": volumes,
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", **lost},
            {"key": "node.kubernetes.io/unreachable", **lost},
            *choices.tolerations,
        ],
    }
    if choices.node_selector:
        spec["nodeSelector"] = dict(choices.node_selector)
    if choices.priority_class:
        spec["priorityClassName"] = choices.priority_class
    if choices.runtime_class:
        spec["runtimeClassName"] = choices.runtime_class
    return spec


def volumes(uuid: str, choices: Choices) -> list[Object]:
    return [
        {"name": "files", "persistentVolumeClaim": {"claimName": names.workspace(uuid)}},
        {"name": "tmp", "emptyDir": {"sizeLimit": choices.disk[1]}},
    ]


def container_security() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def labels(identity: Identity, app: str) -> dict[str, str]:
    return {
        names.APP_LABEL: app,
        names.UUID_LABEL: identity.uuid,
        names.USER_LABEL: names.label_value(identity.user_id),
    }
