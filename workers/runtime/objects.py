"""The objects of a session in the cluster, as pure functions of what is known of it.

Its pod has two containers of one image: the editor and the agent. The editor stands first, as a kubelet starts
them in this order, a tenth of a second apart, and the pod is ready when the editor answers; the agent has no probe.

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
from collections.abc import Mapping
from typing import Any

from app.sessions.backups import identity_fields, read_identity
from app.sessions.model import Identity
from workers.runtime import names, pods
from workers.runtime.choices import Choices

Object = dict[str, Any]

PORT = 8080
"""Where the editor listens in its pod."""

TOKEN_FOLDER = "/run/agent"
"""Where the agent finds its secrets, and nobody else does."""

EDITOR_FOLDER = "/run/editor"
"""The same for the editor."""

TOKEN_KEY, EDITOR_KEY = "token", "editor"
"""Of the session's Secret, and the files' names."""

NO_SECRET = "/dev/null"
"""A file that opens no editor, where there is no key to make a secret with: nobody has a pass then."""

AGENT_REQUESTS = {"cpu": "20m", "memory": "64Mi"}
"""What an agent needs that waits; what it runs may take as much as its size allows."""


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


def digest(body: Object) -> str:
    """Tells one body from another, as we wrote them: what the cluster adds doesn't count."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def pod_template(identity: Identity, choices: Choices) -> Object:
    """What runs the session's agent, where there is one, and its editor."""
    uuid = identity.uuid
    containers = [editor(identity, choices)]
    volumes = pods.volumes(uuid, choices)
    if choices.agent is not None:
        containers.append(agent(identity, choices, choices.agent))
        volumes += [_secret_volume(uuid, "token", TOKEN_KEY), _secret_volume(uuid, "editor-secret", EDITOR_KEY)]
    spec = pods.pod_spec(containers, volumes, choices, choices.stop_grace)
    # Services come with environment variables otherwise, one set for each session of the namespace.
    return {
        "metadata": {"labels": _pod_labels(uuid), "annotations": {names.DEFAULT_CONTAINER: names.EDITOR}},
        "spec": spec,
    }


def _secret_volume(uuid: str, name: str, key: str) -> Object:
    """One key of the session's Secret. Never optional: a pod whose Secret an earlier release made waits for a worker
    to complete it."""
    # Readable by its group too, which fsGroup makes it: uid 1000 is not its owner.
    secret = {"secretName": names.workspace(uuid), "items": [{"key": key, "path": key}], "defaultMode": 0o400}
    return {"name": name, "secret": secret}


def editor(identity: Identity, choices: Choices) -> Object:
    """The container that users see. Its secret is in no other; the agent's token is not in it."""
    embedding = [{"name": "EMBED_ORIGINS", "value": " ".join(choices.embed_origins)}] if choices.embed_origins else []
    keyed = choices.agent is not None
    secret = [{"name": "editor-secret", "mountPath": EDITOR_FOLDER, "readOnly": True}] if keyed else []
    return {
        "name": names.EDITOR,
        "image": choices.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": [
            {"name": "WORKSPACE_UUID", "value": identity.uuid},
            {"name": "HOME", "value": pods.HOME},
            {"name": "WORKSPACE_SECRET_FILE", "value": f"{EDITOR_FOLDER}/{EDITOR_KEY}" if keyed else NO_SECRET},
            *embedding,
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
        "securityContext": pods.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "files", "mountPath": pods.MOUNT},
            {"name": "tmp", "mountPath": "/tmp"},
            *secret,
        ],
    }


def agent(identity: Identity, choices: Choices, environment: Mapping[str, str]) -> Object:
    """The container that works on prompts. The token is its alone."""
    own = {
        "WORKSPACE_UUID": identity.uuid,
        "WORKSPACE_DIR": pods.FILES,
        "HOME": pods.HOME,
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
        "securityContext": pods.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "files", "mountPath": pods.MOUNT},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        ],
    }


def secret(identity: Identity, owner: Object, token: str, editor: str) -> Object:
    """What the session's agent is given to prove whose it is, and to tell who calls, and its editor to tell who comes
    by the ingress: good for this session, and nothing else."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(identity, owner),
        "type": "Opaque",
        "data": {
            key: base64.b64encode(value.encode()).decode() for key, value in ((TOKEN_KEY, token), (EDITOR_KEY, editor))
        },
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
    metadata = _metadata(identity, owner)
    metadata["annotations"] |= choices.ingress_annotations
    metadata["labels"][names.ADDRESS] = address(choices)
    spec = _ingress_spec(identity.uuid, choices)
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def address(choices: Choices) -> str:
    """Tells an Ingress that was made by these settings from others, whosever it is."""
    return digest({"annotations": dict(choices.ingress_annotations), "spec": _ingress_spec("", choices)})


def _ingress_spec(uuid: str, choices: Choices) -> Object:
    host = names.host(uuid, choices.domain)
    rules = [_rule(uuid, host, "/", "http")]
    if choices.api_host:
        rules.append(_rule(uuid, choices.api_host, f"/chat/{uuid}", "agent"))
    spec: Object = {"rules": rules}
    if choices.ingress_class:
        spec["ingressClassName"] = choices.ingress_class
    if choices.tls_secret:
        spec["tls"] = [{"hosts": [host], "secretName": choices.tls_secret}]
    return spec


def _rule(uuid: str, host: str, path: str, port: str) -> Object:
    backend = {"service": {"name": names.workspace(uuid), "port": {"name": port}}}
    return {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}


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


def _metadata(identity: Identity, owner: Object | None = None) -> Object:
    metadata: Object = {
        "name": names.workspace(identity.uuid),
        "labels": pods.labels(identity, names.WORKSPACE),
        "annotations": {names.USER: identity.user_id},
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return metadata


def _pod_labels(uuid: str) -> dict[str, str]:
    """Without the user: a selector can't be changed, and needs no more."""
    return {names.APP_LABEL: names.WORKSPACE, names.UUID_LABEL: uuid}
