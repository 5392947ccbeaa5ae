"""The objects of a session in the cluster, as pure functions.

Its pod has two containers of one image: the editor and the agent. The editor comes first, because a kubelet starts them
in this order, a tenth of a second apart, and the pod is ready when the editor answers; the agent has no probe.

The Deployment owns everything but the volume claim and the backup Jobs, so that deleting it deletes the rest. The claim
outlives all other objects, so it carries the identity and the last intent as the Deployment does.

The shapes are those of the Kubernetes API reference, v1.34; pods meet its Pod Security Standard "restricted".
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.agent.protocol import AGENT_PORT
from app.core.access.forwarded_request import NOWHERE
from app.core.backups.index import identity_fields, read_identity
from app.core.sessions.model import Identity
from app.editor.code_server import CODE_SERVER
from workers.runtime.kubernetes import names, pods
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.names import Object

TOKEN_FOLDER = "/run/agent"
"""Where the agent's secrets are mounted, in its container only."""

EDITOR_FOLDER = "/run/editor"
"""The same for the editor."""

TOKEN_KEY, EDITOR_KEY = "token", "editor"
"""The keys of the session's Secret, and the names of the files."""

CGROUP = "/sys/fs/cgroup"
"""Where a container sees its own control group."""

NO_SECRET = "/dev/null"
"""The editor's secret file where there is no SECRET_KEY: it admits nobody."""

LOWEST_PRIORITY = "traefik.ingress.kubernetes.io/router.priority"
"""The annotation of an Ingress with the rank of its routers; other controllers ignore it."""

AGENT_REQUESTS = {"cpu": "20m", "memory": "64Mi"}
"""For an idle agent; the commands it runs may use up to the limits of the session's size."""


def identity_text(identity: Identity) -> str:
    """An identity as the text of an annotation."""
    return json.dumps(identity_fields(identity), sort_keys=True)


def identity_of(metadata: Mapping[str, Any]) -> Identity | None:
    """The identity noted in an object's metadata, None when it is missing or unreadable."""
    try:
        return read_identity(json.loads((metadata.get("annotations") or {})[names.IDENTITY]))
    except (KeyError, TypeError, ValueError):
        return None


def generation_of(metadata: Mapping[str, Any]) -> int:
    """The last intent noted in an object's metadata, 0 for none."""
    return _count(metadata, names.GENERATION)


def epoch_of(metadata: Mapping[str, Any]) -> int:
    """The epoch of the newest token noted in a claim's metadata, 0 for none."""
    return _count(metadata, names.EPOCH)


def _count(metadata: Mapping[str, Any], annotation: str) -> int:
    text = (metadata.get("annotations") or {}).get(annotation, "")
    return int(text) if text.isdigit() else 0


def claim(identity: Identity, generation: int, config: KubernetesConfig) -> Object:
    """The session's volume claim."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": config.volume_size}},
    }
    if config.storage_class:
        spec["storageClassName"] = config.storage_class
    metadata = _metadata(identity)
    metadata["name"] = names.claim(identity.uuid, identity.volume)
    metadata["annotations"] |= {names.IDENTITY: identity_text(identity), names.GENERATION: str(generation)}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def deployment(identity: Identity, config: KubernetesConfig, replicas: int) -> Object:
    """The session's Deployment. `Recreate`, because two pods must never share the volume."""
    template = pod_template(identity, config)
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
            "selector": {"matchLabels": _pod_selector(identity.uuid)},
            "template": template,
        },
    }


def digest(body: Object) -> str:
    """A short hash of a body as we write it, without what the cluster adds."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def pod_template(identity: Identity, config: KubernetesConfig) -> Object:
    """The pod of the session's editor and, where workspaces have one, its agent."""
    uuid = identity.uuid
    containers = [editor(identity, config)]
    volumes = pods.volumes(identity, config)
    if config.agent is not None:
        containers.append(agent(identity, config, config.agent))
        volumes += [_secret_volume(uuid, "token", TOKEN_KEY), _secret_volume(uuid, "editor-secret", EDITOR_KEY)]
    spec = pods.pod_spec(containers, volumes, config, config.stop_grace)
    labels = pods.labels(identity, names.WORKSPACE)
    return {"metadata": {"labels": labels, "annotations": {names.DEFAULT_CONTAINER: names.EDITOR}}, "spec": spec}


def _secret_volume(uuid: str, name: str, key: str) -> Object:
    """A volume with one key of the session's Secret. Never optional: a pod waits until a worker has written it."""
    # fsGroup makes it readable by the group: uid 1000 is not its owner.
    secret = {"secretName": names.workspace(uuid), "items": [{"key": key, "path": key}], "defaultMode": 0o400}
    return {"name": name, "secret": secret}


def editor(identity: Identity, config: KubernetesConfig) -> Object:
    """The editor's container. Only it has the editor's secret, and it does not have the agent's token."""
    embedding = [{"name": "EMBED_ORIGINS", "value": " ".join(config.embed_origins)}] if config.embed_origins else []
    keyed = config.agent is not None
    secret = [{"name": "editor-secret", "mountPath": EDITOR_FOLDER, "readOnly": True}] if keyed else []
    return {
        "name": names.EDITOR,
        "image": config.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": CODE_SERVER.port, "protocol": "TCP"}],
        "env": [
            {"name": "WORKSPACE_UUID", "value": identity.uuid},
            {"name": "USER_ID", "value": identity.user_id},
            {"name": "HOME", "value": pods.HOME},
            {"name": "WORKSPACE_CGROUP", "value": CGROUP},
            {"name": "KEEPALIVE_MAX", "value": f"{config.keepalive_max:.0f}"},
            {"name": "VSCODE_PROXY_URI", "value": config.port_url.replace("{uuid}", identity.uuid)},
            {"name": "WORKSPACE_OWN_PORTS", "value": f"{CODE_SERVER.port} {AGENT_PORT}"},
            {"name": "WORKSPACE_SECRET_FILE", "value": f"{EDITOR_FOLDER}/{EDITOR_KEY}" if keyed else NO_SECRET},
            *embedding,
        ],
        # Every second from the start on: a startup probe would double the time to Ready.
        "readinessProbe": {
            "httpGet": {"path": CODE_SERVER.health, "port": "http", "scheme": "HTTP"},
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "successThreshold": 1,
            "failureThreshold": 3,
        },
        "resources": config.sizes[identity.size],
        "securityContext": pods.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "files", "mountPath": pods.MOUNT},
            {"name": "tmp", "mountPath": "/tmp"},
            *secret,
        ],
    }


def agent(identity: Identity, config: KubernetesConfig, environment: Mapping[str, str]) -> Object:
    """The agent's container. Only it has the agent's token."""
    own = {
        "WORKSPACE_UUID": identity.uuid,
        "USER_ID": identity.user_id,
        "WORKSPACE_DIR": pods.FILES,
        "AGENT_STATE_DIR": pods.CONVERSATION,
        "HOME": pods.HOME,
        "WORKSPACE_CGROUP": CGROUP,
        "AGENT_TOKEN_FILE": f"{TOKEN_FOLDER}/{TOKEN_KEY}",
        "VSCODE_PROXY_URI": config.port_url.replace("{uuid}", identity.uuid),
    }
    downward = {"POD_IP": "status.podIP", "POD_NAME": "metadata.name"}
    return {
        "name": names.AGENT,
        "image": config.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["tini", "--", "workspace-agent"],
        "ports": [{"name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "env": [
            *({"name": name, "value": value} for name, value in {**own, **environment}.items()),
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in downward.items()),
        ],
        "resources": {"requests": AGENT_REQUESTS, "limits": config.sizes[identity.size]["limits"]},
        "securityContext": pods.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "files", "mountPath": pods.MOUNT},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
        ],
    }


def secret(identity: Identity, owner: Object, token: str, editor: str) -> Object:
    """The secrets of the session's agent, to authenticate itself and its callers, and of its editor, to recognise
    requests of the ingress. They are valid for this session only."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(identity, owner),
        "type": "Opaque",
        "data": {
            key: base64.b64encode(value.encode()).decode() for key, value in ((TOKEN_KEY, token), (EDITOR_KEY, editor))
        },
    }


def service(identity: Identity, owner: Object, config: KubernetesConfig) -> Object:
    """The Service behind the Ingress. It includes a pod that is not ready: maybe only the agent died, and the editor
    works."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(identity, owner),
        "spec": {
            "type": "ClusterIP",
            "publishNotReadyAddresses": True,
            "selector": _pod_selector(identity.uuid),
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {"name": "agent", "port": AGENT_PORT, "targetPort": AGENT_PORT, "protocol": "TCP"},
            ],
        },
    }


def ingress(identity: Identity, owner: Object, config: KubernetesConfig) -> Object:
    """The addresses of the workspace and of its agent, which is a path of the API's host and uses that certificate."""
    return _ingress(_metadata(identity, owner), _ingress_spec(identity.uuid, config), config)


def port_ingress(identity: Identity, owner: Object, ports: Iterable[int], config: KubernetesConfig) -> Object:
    """The addresses of these ports of the workspace. Each has an exact host: an Ingress matches no part of a label."""
    uuid, numbers = identity.uuid, sorted(set(ports))
    hosts = [names.host(uuid, config.domain, port) for port in numbers]
    metadata = _metadata(identity, owner)
    metadata["name"] = names.ports(uuid)
    metadata["annotations"][names.PORTS] = ",".join(map(str, numbers))
    rules = [_rule(names.workspace(uuid), host, "/", "http") for host in hosts]
    return _ingress(metadata, _routed(rules, hosts, config), config)


def ports_of(metadata: Mapping[str, Any]) -> list[int] | None:
    """The ports noted in the metadata of an Ingress, None if it is not that of ports."""
    text = (metadata.get("annotations") or {}).get(names.PORTS)
    return None if text is None else [int(each) for each in text.split(",") if each.isdecimal()]


def _ingress(metadata: Object, spec: Object, config: KubernetesConfig) -> Object:
    metadata["annotations"] |= config.ingress_annotations
    metadata["labels"][names.ADDRESS] = address(config)
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def address(config: KubernetesConfig) -> str:
    """Identifies the settings of a session's Ingresses; the same for all sessions."""
    return digest({"annotations": dict(config.ingress_annotations), "spec": _ingress_spec("", config)})


def _ingress_spec(uuid: str, config: KubernetesConfig) -> Object:
    host, service = names.host(uuid, config.domain), names.workspace(uuid)
    rules = [_rule(service, host, "/", "http")]
    if config.api_host:
        rules.append(_rule(service, config.api_host, f"/chat/{uuid}", "agent"))
    return _routed(rules, [host], config)


def _routed(rules: list[Object], hosts: Sequence[str], config: KubernetesConfig) -> Object:
    """The `spec` of an Ingress with these rules; `hosts` are those that the workspaces' certificate is for."""
    spec: Object = {"rules": rules}
    if config.ingress_class:
        spec["ingressClassName"] = config.ingress_class
    if config.tls_secret:
        spec["tls"] = [{"hosts": list(hosts), "secretName": config.tls_secret}]
    return spec


def nowhere() -> Object:
    """A Service of no pods. Forward auth answers who visits a host that leads to it, or else the waking page."""
    spec = {"ports": [{"name": "http", "port": 80, "targetPort": CODE_SERVER.port}]}
    metadata = {"name": NOWHERE, "labels": {names.APP_LABEL: NOWHERE}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def other_hosts(config: KubernetesConfig) -> Object:
    """The Ingress of all workspaces, ports and agents that have none of their own: of new and archived sessions, of
    those that are gone, and of ports that are not opened. Traefik ranks routers by the length of their rule, so this
    one names the lowest priority; elsewhere an exact host, or a longer path, comes first anyway."""
    host = f"*.{config.domain}"
    rules = [_rule(NOWHERE, host, "/", "http")]
    if config.api_host:
        # It needs a rule of its own even if the first fits: nginx looks for the path within an exact host only.
        rules.append(_rule(NOWHERE, config.api_host, "/chat", "http"))
    metadata = {
        "name": NOWHERE,
        "labels": {names.APP_LABEL: NOWHERE},
        "annotations": {LOWEST_PRIORITY: "1", **config.ingress_annotations},
    }
    spec = _routed(rules, [host], config)
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def _rule(service: str, host: str, path: str, port: str) -> Object:
    backend = {"service": {"name": service, "port": {"name": port}}}
    return {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}


def owner_reference(owner: Object) -> Object:
    """Makes the cluster delete an object with the Deployment `owner`, and before it in a foreground deletion."""
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


def _pod_selector(uuid: str) -> dict[str, str]:
    """What never changes of a session: a Deployment's selector is immutable."""
    return {names.APP_LABEL: names.WORKSPACE, names.UUID_LABEL: uuid}
