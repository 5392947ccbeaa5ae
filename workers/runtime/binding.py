"""What a start lets the cluster do before its next step, so that neither trips over the other.

Both waits are short and bounded, and end as soon as there is what they are for; a start goes on without it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from workers.runtime.cluster import Cluster
from workers.runtime.views import PodView

Object = dict[str, Any]

LIMIT = 0.6
"""s for each; binding a claim, or a pod, takes 0.1."""

PAUSE = 0.02
"""s between two looks."""

NAMING_LIMIT = 0.15
"""s in which the cluster names the provisioner of a claim that is bound at once."""

PROVISIONER = frozenset({"volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"})

KUBELET_LOOK = 0.15
"""s in which a kubelet has read the claims of a pod it was given; it looks for new ones every 0.1 s."""


def let_claim_bind(cluster: Cluster, claim: Object) -> Object:
    """The claim once its volume is there: a pod that has no volume yet is put aside by the scheduler, and it was
    seconds until that came back to it. Where a class makes volumes for pods only, no provisioner is named in the
    claim, and nothing is to be waited for."""
    began = time.monotonic()
    while _pending(claim) and (passed := time.monotonic() - began) < LIMIT:
        if passed > NAMING_LIMIT and not PROVISIONER & (claim["metadata"].get("annotations") or {}).keys():
            break
        time.sleep(PAUSE)
        claim = cluster.get("persistentvolumeclaims", claim["metadata"]["name"]) or claim
    return claim


def let_pod_begin(pods: Callable[[], Iterable[PodView]]) -> None:
    """Return when a kubelet has looked at the new pod. It reads a claim as soon as it has the pod. If the API server is
    busy then, with all the others that act on a new Ingress or ScaledObject, it does not know yet that the pod is the
    node's, refuses ("no relationship found between node and this object"), and the kubelet tries again after 10
    to 15 s: so 2 of 20 creates on two cores."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if any(pod.node and not pod.gone for pod in pods()):
            time.sleep(KUBELET_LOOK)
            return
        time.sleep(PAUSE)


def _pending(claim: Object) -> bool:
    return bool((claim.get("status") or {}).get("phase") == "Pending")
