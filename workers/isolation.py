"""Whether the cluster enforces its NetworkPolicies, which a courier finds out by trying what they forbid it.

A network plugin may take policies and enforce none, and nothing in the cluster's API tells. A courier may reach Redis,
the names and agents, and nothing else (manifests/base/system/network.yaml). The API server is what it tries: that is
there in every cluster, and a watcher that sees anything says that it answers. So who gets through shows that nothing
keeps him, and who does not, while the watcher sees, that something does.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

from app.sessions.fleet import Fleet, Policies

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""s for a connection, which takes ms where nothing is in its way; most plugins drop what they forbid."""


def check(fleet: Fleet, environ: Mapping[str, str]) -> None:
    """Try, and note what was found. `environ` says where the API server is, as in every pod; outside of pods there is
    nothing to be found. Raises `StateUnavailable`."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        return
    found = Policies.NOT_ENFORCED if reached(host, int(port)) else Policies.ENFORCED
    if fleet.note_policies(found) == found:
        return
    if found is Policies.NOT_ENFORCED:
        log.warning("network policies are not enforced: a courier reached the API server, which they forbid it")
    else:
        log.info("network policies are enforced")


def reached(host: str, port: int, patience: float = PATIENCE) -> bool:
    """Whether a connection comes about within `patience` seconds."""
    try:
        with socket.create_connection((host, port), patience):
            return True
    except OSError:
        return False
