"""The names and labels of a session's objects in the cluster.

Invariants: a name follows from the uuid alone; it is a DNS label (RFC 1123), at most 63 of `[a-z0-9-]`, since a uuid is
8 of `[0-9a-z]` and each prefix begins with a letter. A label's value cannot hold every user id, so the label is for
selecting only; the annotation holds the id as it is.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any

Object = dict[str, Any]
"""An object of the Kubernetes API, as parsed JSON."""

PREFIX = "session-manager.dev/"
"""The prefix of every annotation."""

UUID_LABEL = "session-uuid"
USER_LABEL = "user-id"
APP_LABEL = "app"

WORKSPACE = "workspace"
"""`app` of all objects of a workspace, its pods included."""

BACKUP = "workspace-archive"
"""`app` of the Jobs that back up and restore; not `WORKSPACE`, so that their pods do not count as the workspace's."""

KEPT = "kept-volume"
"""`app` of claims that were out of reach and were replaced: they may hold newer files, until someone decides."""

DOWNLOAD = "backup-reader"
"""`app` of the download Jobs."""

AGENT, EDITOR = "agent", "editor"
"""The containers of a workspace's pod."""

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
"""The annotation by which `kubectl logs` and `exec` choose a container."""

USER = PREFIX + "user-id"
IDENTITY = PREFIX + "identity"
GENERATION = PREFIX + "generation"
EPOCH = PREFIX + "epoch"
"""On the claim: the epoch of the token in the Secret."""

RESTORED = PREFIX + "restored"
TEMPLATE = PREFIX + "template"
ADDRESS = PREFIX + "address"
"""The label that identifies the settings by which an Ingress was made."""

PORTS = PREFIX + "ports"
"""On the Ingress of a workspace's ports: their numbers, as `3000,5173`."""

LOOK_AGAIN = PREFIX + "look-again"

FIELD_MANAGER = "session-manager"

SELECTOR = f"{APP_LABEL}={WORKSPACE},{UUID_LABEL}"

LABEL_LENGTH = 63
UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def workspace(uuid: str) -> str:
    """The name of the session's Deployment, Service, Ingress, Secret and first volume claim."""
    return f"user-{uuid}"


def claim(uuid: str, volume: int) -> str:
    """The name of the session's volume claim, after so many were replaced."""
    return f"{workspace(uuid)}-{volume}" if volume else workspace(uuid)


def is_claim(name: str, uuid: str) -> bool:
    """Whether this is the name of one of the session's claims."""
    return name.removeprefix(workspace(uuid)).removeprefix("-").isdecimal() or name == workspace(uuid)


def scaler(uuid: str) -> str:
    """The name of the session's ScaledObject."""
    return f"user-{uuid}-scaler"


def ports(uuid: str) -> str:
    """The name of the Ingress of the session's opened ports."""
    return f"user-{uuid}-ports"


def host(uuid: str, domain: str, port: int = 0) -> str:
    """The host name of the workspace, or of one of its ports."""
    return f"{f'{port}--' if port else ''}vs-code-{uuid}.{domain}"


def selector(uuid: str, app: str = WORKSPACE) -> str:
    """The label selector of the session's objects with this `app`."""
    return f"{APP_LABEL}={app},{UUID_LABEL}={uuid}"


def backup_job(action: str, uuid: str, backup: str) -> str:
    """The name of the Job that does `action` with that backup. It is the same for the same work, so that a repeated
    task finds the Job of the one before."""
    return f"{action}-{uuid}-{hashlib.sha256(backup.encode()).hexdigest()[:10]}"


def download_job() -> str:
    """A new name for a download Job: no two downloads share one."""
    return f"read-{secrets.token_hex(8)}"


def label_value(text: str) -> str:
    """`text` as a label's value: at most 63 of `[A-Za-z0-9._-]`, a letter or digit at both ends
    (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/).

    A valid text is unchanged. Any other is sanitised, cut, and gets 8 hex digits of its digest, so that different
    texts stay different.
    """
    fit = UNFIT.sub("-", text).strip("-._")
    if fit == text and len(text) <= LABEL_LENGTH:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    kept = fit[: LABEL_LENGTH - len(digest) - 1].rstrip("-._")
    return f"{kept}-{digest}" if kept else digest
