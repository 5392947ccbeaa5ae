"""Checks whether the cluster enforces its NetworkPolicies: a delivery worker tries a connection that they forbid.

A network plugin may accept policies without enforcing them, and the cluster's API does not tell. A delivery worker may
reach only Redis, DNS and agents (manifests/base/system/network.yaml). It tries the API server, which every cluster has
and which answers, or the observer would see nothing. So a connection shows that policies are not enforced, and a failed
one, while the observer works, that they are.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

from app.core.redis.heartbeats import Heartbeats, Policies

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""s for a connection, which takes ms where it is allowed; most plugins drop forbidden packets."""


def check(heartbeats: Heartbeats, environ: Mapping[str, str]) -> None:
    """Try a connection and note the result. `environ` holds the address of the API server, as in every pod; elsewhere
    this does nothing. Raises `StateUnavailable`."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        return
    found = Policies.NOT_ENFORCED if reached(host, int(port)) else Policies.ENFORCED
    if heartbeats.note_policies(found) == found:
        return
    if found is Policies.NOT_ENFORCED:
        log.warning("network policies are not enforced: a delivery worker reached the API server, which they forbid")
    else:
        log.info("network policies are enforced")


def reached(host: str, port: int, patience: float = PATIENCE) -> bool:
    """Whether a connection is established within `patience` seconds."""
    try:
        with socket.create_connection((host, port), patience):
            return True
    except OSError:
        return False
