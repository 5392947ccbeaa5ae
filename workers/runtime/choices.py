"""What the settings say about the objects of a cluster."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from app.sessions.model import SIZES
from app.settings import Settings, SettingsError

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the settings say about the objects, read once. `sizes` are container resources by size, `disk` is the
    request and the limit of the node's disk that each container has besides, `agent` is the environment of every agent,
    None where there are none for want of a SECRET_KEY."""

    domain: str
    image: str
    sizes: Mapping[str, Object]
    disk: tuple[str, str]
    volume_size: str
    storage_class: str
    ingress_class: str
    api_host: str
    agent: Mapping[str, str] | None
    agent_port: int
    embed_origins: Sequence[str]
    ingress_annotations: Mapping[str, str]
    tls_secret: str
    priority_class: str
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
            disk=_disk(settings.ephemeral_storage),
            volume_size=settings.volume_size,
            storage_class=settings.storage_class,
            ingress_class=settings.ingress_class,
            api_host=settings.api_host,
            agent=_agent_environment(settings) if settings.secret_keys() else None,
            agent_port=settings.user_pod_port,
            embed_origins=settings.embedding_origins(),
            # The door's last: no other annotation may take its place.
            ingress_annotations=_json(settings.ingress_annotations, "INGRESS_ANNOTATIONS", dict)
            | _json(settings.ingress_door, "INGRESS_DOOR", dict),
            tls_secret=settings.ingress_tls_secret,
            priority_class=settings.priority_class,
            runtime_class=settings.runtime_class,
            node_selector=node_selector,
            tolerations=tolerations,
            stop_grace=_pod_grace(settings),
            backup_url=settings.backups_location(),
            backup_pvc=settings.backup_pvc,
            archive_service_account=settings.archive_service_account,
            archive_deadline=max(1, round(settings.long_task_limit * 0.9)),
            restore_limits=(settings.restore_max_bytes, settings.restore_max_entries),
        )

    def with_disk(self, resources: Mapping[str, Mapping[str, str]]) -> Object:
        """The resources of a container, with those of the node's disk."""
        return {
            kind: {**resources[kind], "ephemeral-storage": amount}
            for kind, amount in zip(("requests", "limits"), self.disk, strict=True)
        }

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


def _pod_grace(settings: Settings) -> int:
    """Whole seconds, as a pod has them; never less than the setting says."""
    return max(1, math.ceil(settings.stop_grace))


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
        "AGENT_STOP_GRACE": str(_pod_grace(settings)),
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


def _disk(text: str) -> tuple[str, str]:
    amounts = _json(text, "EPHEMERAL_STORAGE", list)
    if len(amounts) != 2 or not all(isinstance(each, str) for each in amounts):
        raise SettingsError("EPHEMERAL_STORAGE must give two quantities: request and limit.")
    return amounts[0], amounts[1]


def _json(text: str, name: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not JSON: {error}.") from error
    if not isinstance(value, kind):
        raise SettingsError(f"{name} must be a JSON {'object' if kind is dict else 'list'}.")
    return value
