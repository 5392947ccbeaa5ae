"""What a start lets the cluster do before its next step, so that neither trips over the other, and how one that
tripped gets up again.

Both waits are short and bounded, and end as soon as there is what they are for; a start goes on without it too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from app.sessions.errors import SessionError
from workers.runtime import names
from workers.runtime.cluster import Cluster
from workers.runtime.views import PodView

log = logging.getLogger(__name__)

Object = dict[str, Any]

LIMIT = 0.6
"""s for each; binding a claim, or a pod, takes 0.1."""

PAUSE = 0.02
"""s between two looks."""

NAMING_LIMIT = 0.15
"""s in which the cluster names the provisioner of a claim that is bound at once."""

PROVISIONER = frozenset({"volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"})

TOO_EARLY = "no relationship found between node"
"""The words of the node authorizer, in the event FailedMount."""

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
    to 15 s: so 2 of 20 creates on two cores. Whom it happens to all the same is helped by `look_again`."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if any(pod.node and not pod.gone for pod in pods()):
            time.sleep(KUBELET_LOOK)
            return
        time.sleep(PAUSE)


def came_too_early(text: str) -> bool:
    """Whether these words of a kubelet's say that the API server did not know of its pod yet."""
    return TOO_EARLY in text


def look_again(cluster: Cluster, pod: str, now: float) -> None:
    """Have the kubelet try a pod again at once (`now` is seconds since the epoch): it does for every change of the pod,
    and waits for 10 to 15 s without one. Should it fail, there is nothing to mend: the kubelet comes back by itself."""
    try:
        cluster.patch("pods", pod, {"metadata": {"annotations": {names.LOOK_AGAIN: f"{now:.3f}"}}})
    except SessionError as error:
        log.info("the kubelet was not asked to look again: %s", error, extra={"pod": pod})


def _pending(claim: Object) -> bool:
    return bool((claim.get("status") or {}).get("phase") == "Pending")
