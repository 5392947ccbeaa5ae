"""The common parts of all pods: labels, security, and where a session's files are mounted.

The pods meet the Pod Security Standard "restricted" of Kubernetes.
"""

from __future__ import annotations

from app.core.sessions.model import Identity
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.names import Object

UID = 1000
"""The user of every process in a workspace, and the group of its files."""

MOUNT = "/workspace"
"""Where the volume is mounted: the user's files are in `app`, the conversation in `.session`, the editor's files in
`home`. One level above them, so that a restore can replace them by renames. Mounting them one by one would hide the
conversation from the editor, but the kubelet makes missing ones as root, and not every volume applies `fsGroup`."""

FILES = MOUNT + "/app"
CONVERSATION = MOUNT + "/.session"
HOME = MOUNT + "/home"

NODE_LOST_PATIENCE = 60
"""s a pod stays on a node that does not answer; Kubernetes' default of 300 is longer than users wait."""


def pod_spec(containers: list[Object], volumes: list[Object], config: KubernetesConfig, grace: int) -> Object:
    """A pod of these containers; each gets its part of the node's disk."""
    lost = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST_PATIENCE}
    containers = [{**each, "resources": config.with_disk(each["resources"])} for each in containers]
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            # Otherwise the kubelet walks through the whole volume at each start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": volumes,
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", **lost},
            {"key": "node.kubernetes.io/unreachable", **lost},
            *config.tolerations,
        ],
    }
    if config.node_selector:
        spec["nodeSelector"] = dict(config.node_selector)
    if config.priority_class:
        spec["priorityClassName"] = config.priority_class
    if config.runtime_class:
        spec["runtimeClassName"] = config.runtime_class
    return spec


def volumes(identity: Identity, config: KubernetesConfig) -> list[Object]:
    return [
        {"name": "files", "persistentVolumeClaim": {"claimName": names.claim(identity.uuid, identity.volume)}},
        {"name": "tmp", "emptyDir": {"sizeLimit": config.disk[1]}},
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
