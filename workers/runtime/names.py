"""What the objects of a session are called in the cluster, and by which labels they are found.

Invariants: a name follows from the uuid alone, so that whoever knows a session finds its objects
without asking; it is a DNS label (RFC 1123), at most 63 of `[a-z0-9-]`, since a uuid is 8 of
`[0-9a-z]` and each prefix begins with a letter. A label's value can't hold every user id, so it is
only good for looking: what counts is the annotation, which holds the id as it is.
"""

from __future__ import annotations

import hashlib
import re
import secrets

PREFIX = "session-manager.dev/"
"""Of every annotation."""

UUID_LABEL = "session-uuid"
USER_LABEL = "user-id"
APP_LABEL = "app"

WORKSPACE = "workspace"
"""`app` of all that a workspace consists of, its pods included."""

ARCHIVE = "workspace-archive"
"""`app` of the Jobs that back up and restore; not `WORKSPACE`, so that their pods are no workspace's."""

READER = "backup-reader"
"""`app` of the Jobs that hand out a backup."""

AGENT, EDITOR = "agent", "editor"
"""The containers of a workspace's pod."""

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
"""The annotation by which `kubectl logs` and `exec` choose one."""

USER = PREFIX + "user-id"
IDENTITY = PREFIX + "identity"
GENERATION = PREFIX + "generation"
EPOCH = PREFIX + "epoch"
"""Of the claim: that of the token which the agent's Secret has."""

RESTORED = PREFIX + "restored"
TEMPLATE = PREFIX + "template"
ADDRESS = PREFIX + "address"
"""The label that tells by which settings an Ingress was made."""

LOOK_AGAIN = PREFIX + "look-again"

FIELD_MANAGER = "session-manager"

SELECTOR = f"{APP_LABEL}={WORKSPACE},{UUID_LABEL}"

LABEL_LENGTH = 63
UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def workspace(uuid: str) -> str:
    """The name of the session's Deployment, Service, Ingress, Secret and volume claim."""
    return f"user-{uuid}"


def scaler(uuid: str) -> str:
    """The name of its ScaledObject."""
    return f"user-{uuid}-scaler"


def host(uuid: str, domain: str) -> str:
    """Where a browser finds the workspace."""
    return f"vs-code-{uuid}.{domain}"


def selector(uuid: str, app: str = WORKSPACE) -> str:
    """Selects the session's objects of one kind of work."""
    return f"{APP_LABEL}={app},{UUID_LABEL}={uuid}"


def archive_job(action: str, uuid: str, backup: str) -> str:
    """The name of the Job that does `action` with that backup; the same again for the same work, so that
    a repeated task finds the Job of the one before."""
    return f"{action}-{uuid}-{hashlib.sha256(backup.encode()).hexdigest()[:10]}"


def reader_job() -> str:
    """The name of a new reader's Job: no two downloads share one."""
    return f"read-{secrets.token_hex(8)}"


def label_value(text: str) -> str:
    """`text` as a label's value: at most 63 of `[A-Za-z0-9._-]`, a letter or digit at both ends
    (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/).

    A text that fits stays as it is. Any other is cut and gets 8 hex digits of its digest, so that
    two that look alike afterwards still differ.
    """
    fit = UNFIT.sub("-", text).strip("-._")
    if fit == text and len(text) <= LABEL_LENGTH:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    kept = fit[: LABEL_LENGTH - len(digest) - 1].rstrip("-._")
    return f"{kept}-{digest}" if kept else digest
