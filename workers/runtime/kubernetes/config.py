"""The settings that shape a session's objects in the cluster."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from app.agent.protocol import AGENT_PORT
from app.core.sessions.model import SIZES
from app.editor.code_server import CODE_SERVER
from app.process.secret_keys import Purpose
from app.process.settings import Settings, SettingsError
from workers.runtime.agent_environment import agent_environment
from workers.runtime.kubernetes.names import Object


@dataclass(frozen=True, kw_only=True)
class KubernetesConfig:
    """The settings, parsed once. `sizes` are container resources by size; `disk` is each container's request and limit
    of the node's disk; `agent` is the environment of every agent, None where workspaces have no agent for lack of a
    SECRET_KEY; `port_url` is the address of a port, with `{uuid}` for the session's uuid and `{{port}}` for VS Code to
    fill in."""

    domain: str
    port_url: str
    image: str
    sizes: Mapping[str, Object]
    disk: tuple[str, str]
    volume_size: str
    storage_class: str
    ingress_class: str
    api_host: str
    agent: Mapping[str, str] | None
    embed_origins: Sequence[str]
    keepalive_max: float
    ingress_annotations: Mapping[str, str]
    tls_secret: str
    priority_class: str
    runtime_class: str
    node_selector: Mapping[str, str]
    tolerations: Sequence[Object]
    stop_grace: int
    backup_url: str
    backup_role: str
    backup_role_limit: int
    job_deadline: int
    restore_limits: tuple[int, int]

    @classmethod
    def of(cls, settings: Settings) -> KubernetesConfig:
        """Parse `settings`; `SettingsError` names the invalid one."""
        node_selector = _json(settings.node_selector, "NODE_SELECTOR", dict)
        tolerations = _json(settings.tolerations, "TOLERATIONS", list)
        if settings.spot_label:
            node_selector = {**node_selector, settings.spot_label: "true"}
            spot = {"key": settings.spot_label, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
            tolerations = [*tolerations, spot]
        return cls(
            domain=settings.workspace_domain,
            port_url=settings.workspace_url("{uuid}", "{{port}}") + "/",
            image=settings.workspace_image,
            sizes=_sizes(settings.workspace_sizes),
            disk=_disk(settings.ephemeral_storage),
            volume_size=settings.volume_size,
            storage_class=settings.storage_class,
            ingress_class=settings.ingress_class,
            api_host=settings.api_host,
            agent=_agent_environment(settings) if settings.keys_for(Purpose.WORKSPACE) else None,
            embed_origins=settings.embedding_origins(),
            keepalive_max=settings.keepalive_max,
            # Forward auth last: no other annotation may replace it.
            ingress_annotations=_json(settings.ingress_annotations, "INGRESS_ANNOTATIONS", dict)
            | _json(settings.ingress_forward_auth, "INGRESS_FORWARD_AUTH", dict),
            tls_secret=settings.ingress_tls_secret,
            priority_class=settings.priority_class,
            runtime_class=settings.runtime_class,
            node_selector=node_selector,
            tolerations=tolerations,
            stop_grace=_pod_grace(settings),
            backup_url=settings.backups_location(),
            backup_role=settings.backup_role,
            backup_role_limit=round(settings.backup_role_limit),
            job_deadline=max(1, round(settings.long_task_limit * 0.9)),
            restore_limits=(settings.restore_max_bytes, settings.restore_max_entries),
        )

    def with_disk(self, resources: Mapping[str, Mapping[str, str]]) -> Object:
        """The resources of a container, with its part of the node's disk."""
        return {
            kind: {**resources[kind], "ephemeral-storage": amount}
            for kind, amount in zip(("requests", "limits"), self.disk, strict=True)
        }

    def agent_at(self, address: str) -> str:
        """The URL of the agent in the pod with this IP address, "" where pods have no agent."""
        if self.agent is None or not address:
            return ""
        return f"http://[{address}]:{AGENT_PORT}" if ":" in address else f"http://{address}:{AGENT_PORT}"

    @property
    def backup_folder(self) -> str:
        """The folder of the backup store, "" when that is an object store."""
        url = urlsplit(self.backup_url)
        return url.path if url.scheme in ("", "file") else ""


def _pod_grace(settings: Settings) -> int:
    """The grace period of a pod, which has whole seconds; never less than the setting."""
    return max(1, math.ceil(settings.stop_grace))


def _agent_environment(settings: Settings) -> Mapping[str, str]:
    return agent_environment(
        settings, host="0.0.0.0", port=AGENT_PORT, editor_port=CODE_SERVER.port, stop_grace=_pod_grace(settings)
    )


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


def _disk(text: str) -> tuple[str, str]:
    amounts = _json(text, "EPHEMERAL_STORAGE", list)
    if len(amounts) != 2 or not all(isinstance(each, str) for each in amounts):
        raise SettingsError("EPHEMERAL_STORAGE must give two quantities: request and limit.")
    return amounts[0], amounts[1]


def _json(text: str, name: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not valid JSON: {error}.") from error
    if not isinstance(value, kind):
        raise SettingsError(f"{name} must be a JSON {'object' if kind is dict else 'list'}.")
    return value
