"""The objects of a session in the cluster, as pure functions of what is known of it.

Its pod has two containers of one image: the agent and the editor. The agent stands first, as a kubelet starts
them in this order, and it has a call to make. It has no probe: whether the pod is ready is the editor's affair.

Everything but the volume claim and the archive Jobs is owned by the Deployment, so that deleting that
one takes the rest along. The claim is the session: it alone outlives everything else, so it carries
the identity and the last intent as the Deployment does.

The shapes are those of the Kubernetes API reference, v1.34; pods meet its Pod Security Standard
"restricted".
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from app.sessions.backups import identity_fields, read_identity
from app.sessions.model import SIZES, Identity
from app.settings import Settings, SettingsError
from workers.runtime import names

Object = dict[str, Any]

PORT = 8080
"""Where the editor listens in its pod."""

UID = 1000
"""Of whoever runs in a workspace; the image's user, and the group of its files."""

MOUNT = "/workspace"
"""Where the volume is; the user's files are in `app`, the editor's own in `home`. A level above
them, so that a restore can swap `app` for another folder by a rename."""

FILES = MOUNT + "/app"
HOME = MOUNT + "/home"

TOKEN_FOLDER = "/run/agent"
"""Where the agent finds its secrets, and nobody else does."""

TOKEN_KEY = "token"
"""Of the session's Secret, and the file's name."""

AGENT_REQUESTS = {"cpu": "20m", "memory": "64Mi"}
"""What an agent needs that waits; what it runs may take as much as its size allows."""

TMP_LIMIT = "1Gi"
"""Of /tmp, which is the node's disk."""

NODE_LOST_PATIENCE = 60
"""s a pod stays on a node that does not answer; Kubernetes' own default is 300, longer than anyone waits."""

JOB_KEPT = 300
"""s an archive Job stays when the worker that should have deleted it was killed."""

ARCHIVE_RESOURCES = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
"""Of an archive Job: it needs 33 MB and all the CPU it can get, for as short as that lasts."""


READER_PORT = 8081
"""Where a reader of a backup listens in its pod."""

READER_PATIENCE = 30
"""s a reader waits for its caller, who has waited for it and calls at once."""

READER_KEPT = 5
"""s its Job stays when it has ended: so long that its worker still reads why, if that was too early."""

READER_RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
"""Of a reader: it copies."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the settings say about the objects, read once. `sizes` are container resources by size, `agent` is the
    environment of every agent, None where there are none for want of a SECRET_KEY."""

    domain: str
    image: str
    sizes: Mapping[str, Object]
    volume_size: str
    storage_class: str
    ingress_class: str
    api_host: str
    agent: Mapping[str, str] | None
    agent_port: int
    ingress_annotations: Mapping[str, str]
    tls_secret: str
    runtime_class: str
    node_selector: Mapping[str, str]
    tolerations: Sequence[Object]
    stop_grace: int
    backup_url: str
    backup_pvc: str
    archive_service_account: str
    archive_deadline: int
    restore_limits: tuple[int, int]

    @classmethod
    def of(cls, settings: Settings) -> Choices:
        """Those of `settings`; `SettingsError` names the one that is not what it should be."""
        node_selector = _json(settings.node_selector, "NODE_SELECTOR", dict)
        tolerations = _json(settings.tolerations, "TOLERATIONS", list)
        if settings.spot_label:
            node_selector = {**node_selector, settings.spot_label: "true"}
            spot = {"key": settings.spot_label, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
            tolerations = [*tolerations, spot]
        return cls(
            domain=settings.workspace_domain,
            image=settings.workspace_image,
            sizes=_sizes(settings.workspace_sizes),
            volume_size=settings.volume_size,
            storage_class=settings.storage_class,
            ingress_class=settings.ingress_class,
            api_host=settings.api_host,
            agent=_agent_environment(settings) if settings.secret_keys() else None,
            agent_port=settings.user_pod_port,
            ingress_annotations=_json(settings.ingress_annotations, "INGRESS_ANNOTATIONS", dict),
            tls_secret=settings.ingress_tls_secret,
            runtime_class=settings.runtime_class,
            node_selector=node_selector,
            tolerations=tolerations,
            stop_grace=max(1, round(settings.stop_grace)),
            backup_url=settings.backups_location(),
            backup_pvc=settings.backup_pvc,
            archive_service_account=settings.archive_service_account,
            archive_deadline=max(1, round(settings.long_task_limit * 0.9)),
            restore_limits=(settings.restore_max_bytes, settings.restore_max_entries),
        )

    def agent_at(self, address: str) -> str:
        """Where the agent of a pod at this IP address is found, "" where pods have none."""
        if self.agent is None or not address:
            return ""
        return f"http://[{address}]:{self.agent_port}" if ":" in address else f"http://{address}:{self.agent_port}"

    @property
    def backup_folder(self) -> str:
        """Where backups are kept when that is a folder, "" when it is an object store."""
        url = urlsplit(self.backup_url)
        return url.path if url.scheme in ("", "file") else ""


def identity_text(identity: Identity) -> str:
    """An identity as an annotation holds it."""
    return json.dumps(identity_fields(identity), sort_keys=True)


def identity_of(metadata: Mapping[str, Any]) -> Identity | None:
    """The identity that an object's metadata holds, None when there is none that can be read."""
    try:
        return read_identity(json.loads((metadata.get("annotations") or {})[names.IDENTITY]))
    except (KeyError, TypeError, ValueError):
        return None


def generation_of(metadata: Mapping[str, Any]) -> int:
    """The last intent noted with an object, 0 for none."""
    text = (metadata.get("annotations") or {}).get(names.GENERATION, "")
    return int(text) if text.isdigit() else 0


def claim(identity: Identity, generation: int, choices: Choices) -> Object:
    """The session's volume claim."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": choices.volume_size}},
    }
    if choices.storage_class:
        spec["storageClassName"] = choices.storage_class
    metadata = _metadata(identity)
    metadata["annotations"] |= {names.IDENTITY: identity_text(identity), names.GENERATION: str(generation)}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def deployment(identity: Identity, choices: Choices, replicas: int) -> Object:
    """The session's Deployment. `Recreate`, because two pods must never share the volume."""
    template = pod_template(identity, choices)
    metadata = _metadata(identity)
    metadata["annotations"][names.TEMPLATE] = digest(template)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": _pod_labels(identity.uuid)},
            "template": template,
        },
    }


def digest(template: Object) -> str:
    """Tells one pod template from another, as we wrote them: what the cluster adds doesn't count."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]


def pod_template(identity: Identity, choices: Choices) -> Object:
    """What runs the session's agent, where there is one, and its editor."""
    uuid = identity.uuid
    containers = [editor(identity, choices)]
    volumes = _volumes(uuid)
    if choices.agent is not None:
        containers.insert(0, agent(identity, choices, choices.agent))
        # Readable by its group too, which fsGroup makes it: uid 1000 is not its owner.
        token = {"secretName": names.workspace(uuid), "items": [{"key": TOKEN_KEY, "path": TOKEN_KEY}]}
        volumes.append({"name": "token", "secret": {**token, "defaultMode": 0o400}})
    spec = _pod_spec(containers, volumes, choices, choices.stop_grace)
    # Services come with environment variables otherwise, one set for each session of the namespace.
    return {
        "metadata": {"labels": _pod_labels(uuid), "annotations": {names.DEFAULT_CONTAINER: names.EDITOR}},
        "spec": spec,
    }


def editor(identity: Identity, choices: Choices) -> Object:
    """The container that users see."""
    return {
        "name": names.EDITOR,
        "image": choices.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": [
            {"name": "WORKSPACE_UUID", "value": identity.uuid},
            {"name": "HOME", "value": HOME},
        ],
        # Every second from the start on: a startup probe before it doubles the time to Ready.
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "successThreshold": 1,
            "failureThreshold": 3,
        },
        "resources": choices.sizes[identity.size],
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "files", "mountPath": MOUNT}, {"name": "tmp", "mountPath": "/tmp"}],
    }


def agent(identity: Identity, choices: Choices, environment: Mapping[str, str]) -> Object:
    """The container that works on prompts. The token is its alone."""
    own = {
        "WORKSPACE_UUID": identity.uuid,
        "WORKSPACE_DIR": FILES,
        "HOME": HOME,
        "AGENT_TOKEN_FILE": f"{TOKEN_FOLDER}/{TOKEN_KEY}",
    }
    downward = {"POD_IP": "status.podIP", "POD_NAME": "metadata.name"}
    return {
        "name": names.AGENT,
        "image": choices.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["tini", "--", "workspace-agent"],
        "ports": [{"name": "agent", "containerPort": choices.agent_port, "protocol": "TCP"}],
        "env": [
            *({"name": name, "value": value} for name, value in {**own, **environment}.items()),
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in downward.items()),
        ],
        "resources": {"requests": AGENT_REQUESTS, "limits": choices.sizes[identity.size]["limits"]},
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "files", "mountPath": MOUNT},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        ],
    }


def secret(identity: Identity, owner: Object, value: str) -> Object:
    """What the session's agent is given to prove whose it is, and to tell who calls: good for this session, and
    nothing else."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(identity, owner),
        "type": "Opaque",
        "data": {TOKEN_KEY: base64.b64encode(value.encode()).decode()},
    }


def service(identity: Identity, owner: Object, choices: Choices) -> Object:
    """What the Ingress leads to. Without cluster-wide load balancing state: it has one pod, or none. A pod that is not
    ready is no reason to lead nowhere: maybe only its agent died, and the editor works."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(identity, owner),
        "spec": {
            "type": "ClusterIP",
            "publishNotReadyAddresses": True,
            "selector": _pod_labels(identity.uuid),
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {"name": "agent", "port": choices.agent_port, "targetPort": choices.agent_port, "protocol": "TCP"},
            ],
        },
    }


def ingress(identity: Identity, owner: Object, choices: Choices) -> Object:
    """The workspace's address, and that of its agent: a path of the API's host, whose certificate is the API's own."""
    host = names.host(identity.uuid, choices.domain)
    rules = [_rule(identity, host, "/", "http")]
    if choices.api_host:
        rules.append(_rule(identity, choices.api_host, f"/chat/{identity.uuid}", "agent"))
    spec: Object = {"rules": rules}
    if choices.ingress_class:
        spec["ingressClassName"] = choices.ingress_class
    if choices.tls_secret:
        spec["tls"] = [{"hosts": [host], "secretName": choices.tls_secret}]
    metadata = _metadata(identity, owner)
    metadata["annotations"] |= choices.ingress_annotations
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def _rule(identity: Identity, host: str, path: str, port: str) -> Object:
    backend = {"service": {"name": names.workspace(identity.uuid), "port": {"name": port}}}
    return {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}


def archive_job(action: str, identity: Identity, backup: str, now: float, choices: Choices, node: str = "") -> Object:
    """The Job that does `action` ("backup" or "restore") with the session's files and that backup.

    It runs on `node` when one is given: a volume that is mounted there can be mounted nowhere else.
    It gets no token; an object store's credential comes with its service account, by the cloud's
    own means.
    """
    uuid = identity.uuid
    arguments = [action, "--name", backup, "--url", choices.backup_url, "--files", FILES]
    if action == "backup":
        arguments += ["--identity", identity_text(identity), "--at", f"{now:.3f}"]
    else:
        arguments += ["--max-bytes", str(choices.restore_limits[0]), "--max-entries", str(choices.restore_limits[1])]
    mounts: list[Object] = [
        {"name": "files", "mountPath": MOUNT, "readOnly": action == "backup"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    volumes = _volumes(uuid)
    if choices.backup_folder:
        mounts.append({"name": "backups", "mountPath": choices.backup_folder, "readOnly": action == "restore"})
        volumes.append({"name": "backups", "persistentVolumeClaim": {"claimName": choices.backup_pvc}})
    container = {
        "name": "archive",
        "image": choices.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["archive-job"],
        "args": arguments,
        "resources": ARCHIVE_RESOURCES,
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    spec = _pod_spec([container], volumes, choices, grace=1)
    spec |= {"restartPolicy": "Never", "serviceAccountName": choices.archive_service_account}
    if node:
        here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
        }
    labels = _labels(identity, names.ARCHIVE)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": names.archive_job(action, uuid, backup), "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": choices.archive_deadline,
            "ttlSecondsAfterFinished": JOB_KEPT,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def reader_job(name: str, backup: str, secret_digest: str, choices: Choices) -> Object:
    """The Job `name` that hands out that backup, once, to whoever knows the secret of this digest. It sees the backups
    and may change none; it ends when it is done, when nobody comes, and with its deadline at the latest."""
    arguments = ["serve", "--name", backup, "--url", choices.backup_url]
    arguments += ["--secret-digest", secret_digest, "--port", str(READER_PORT), "--patience", str(READER_PATIENCE)]
    mounts: list[Object] = []
    volumes: list[Object] = []
    if choices.backup_folder:
        mounts.append({"name": "backups", "mountPath": choices.backup_folder, "readOnly": True})
        volumes.append({"name": "backups", "persistentVolumeClaim": {"claimName": choices.backup_pvc}})
    container = {
        "name": "reader",
        "image": choices.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["archive-job"],
        "args": arguments,
        "ports": [{"name": "http", "containerPort": READER_PORT, "protocol": "TCP"}],
        "resources": READER_RESOURCES,
        "securityContext": _container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    spec = _pod_spec([container], volumes, choices, grace=1)
    spec |= {"restartPolicy": "Never", "serviceAccountName": choices.archive_service_account}
    labels = {names.APP_LABEL: names.READER}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": choices.archive_deadline,
            "ttlSecondsAfterFinished": READER_KEPT,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def place(job: Object, node: str) -> None:
    """Put the Job's pod on that node past the scheduler, which has no place for one whose claim is being deleted.
    The kubelet takes it: the volume is in use there already."""
    job["spec"]["template"]["spec"]["nodeName"] = node


def owner_reference(owner: Object) -> Object:
    """What makes an object go when the Deployment `owner` does, and the Deployment wait for it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": False,
        "blockOwnerDeletion": True,
    }


def _pod_spec(containers: list[Object], volumes: list[Object], choices: Choices, grace: int) -> Object:
    lost = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST_PATIENCE}
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
    if choices.runtime_class:
        spec["runtimeClassName"] = choices.runtime_class
    return spec


def _volumes(uuid: str) -> list[Object]:
    return [
        {"name": "files", "persistentVolumeClaim": {"claimName": names.workspace(uuid)}},
        {"name": "tmp", "emptyDir": {"sizeLimit": TMP_LIMIT}},
    ]


def _container_security() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def _metadata(identity: Identity, owner: Object | None = None) -> Object:
    metadata: Object = {
        "name": names.workspace(identity.uuid),
        "labels": _labels(identity, names.WORKSPACE),
        "annotations": {names.USER: identity.user_id},
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return metadata


def _labels(identity: Identity, app: str) -> dict[str, str]:
    return {
        names.APP_LABEL: app,
        names.UUID_LABEL: identity.uuid,
        names.USER_LABEL: names.label_value(identity.user_id),
    }


def _pod_labels(uuid: str) -> dict[str, str]:
    """Without the user: a selector can't be changed, and needs no more."""
    return {names.APP_LABEL: names.WORKSPACE, names.UUID_LABEL: uuid}


def _agent_environment(settings: Settings) -> Mapping[str, str]:
    """What every agent is told, by the names it reads."""
    limits = (
        "agent_turn_timeout",
        "agent_max_steps",
        "agent_max_tokens",
        "agent_command_timeout",
        "checkpoint_interval",
        "message_max_bytes",
    )
    return {
        "AGENT_HOST": "0.0.0.0",
        "USER_POD_PORT": str(settings.user_pod_port),
        "GATEWAY_URL": settings.gateway_location(),
        **{name.upper(): str(getattr(settings, name)) for name in limits},
    }


def _sizes(text: str) -> Mapping[str, Object]:
    sizes = _json(text, "WORKSPACE_SIZES", dict)
    if set(sizes) != set(SIZES) or any(not isinstance(each, list) or len(each) != 4 for each in sizes.values()):
        raise SettingsError(
            f"WORKSPACE_SIZES must give four quantities for each of {', '.join(SIZES)}: "
            "CPU request, CPU limit, memory request, memory limit."
        )
    return {
        size: {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": most_cpu, "memory": most_memory}}
        for size, (cpu, most_cpu, memory, most_memory) in sizes.items()
    }


def _json(text: str, name: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not JSON: {error}.") from error
    if not isinstance(value, kind):
        raise SettingsError(f"{name} must be a JSON {'object' if kind is dict else 'list'}.")
    return value
