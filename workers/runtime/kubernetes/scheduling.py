"""Avoids races between the steps of a start and the cluster's own work, and recovers a pod that lost one.

Both waits are short and bounded; a start continues also when one runs out, and when the wait for the pod fails.
"""

from __future__ import annotations

import logging
import time

from app.core.errors import SessionError
from workers.runtime.kubernetes import names, status
from workers.runtime.kubernetes.api_server import ApiServer
from workers.runtime.kubernetes.names import Object
from workers.runtime.kubernetes.pod_waits import SinglePod

log = logging.getLogger(__name__)

LIMIT = 0.6
"""s for each wait; binding a claim, or a pod, takes 0.1."""

PAUSE = 0.02
"""s between two looks at an object whose name is known."""

LIST_PAUSE = 0.1
"""s before each list of pods, until there is one: normally it is made and has a node in this time. A watch would be a
list for the API server too, as it begins with the present pods, and could only be left with its connection."""

NAMING_LIMIT = 0.15
"""s in which the cluster notes the provisioner of a claim that it binds at once."""

PROVISIONER = frozenset({"volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"})

TOO_EARLY = "no relationship found between node"
"""The node authorizer's message in the event FailedMount."""

KUBELET_LOOK = 0.15
"""s until a kubelet has read the claims of a new pod; it looks for pods every 0.1 s."""


def let_claim_bind(cluster: ApiServer, claim: Object) -> Object:
    """Wait until the claim is bound; returns it. The scheduler puts a pod without a volume aside, and takes seconds to
    return to it. A storage class that makes volumes only for pods notes no provisioner on the claim: then this does not
    wait."""
    began = time.monotonic()
    while _pending(claim) and (passed := time.monotonic() - began) < LIMIT:
        if passed > NAMING_LIMIT and not PROVISIONER & (claim["metadata"].get("annotations") or {}).keys():
            break
        time.sleep(PAUSE)
        claim = cluster.get("persistentvolumeclaims", claim["metadata"]["name"]) or claim
    return claim


def let_pod_begin(pod: SinglePod) -> None:
    """Wait until a kubelet has looked at the new pod. A kubelet reads the pod's claim at once. If the API server is
    busy with other controllers, which act on a new Ingress or ScaledObject, it does not know yet that the pod is on the
    node and refuses ("no relationship found between node and this object"); the kubelet tries again after 10 to 15 s,
    in 2 of 20 creates on two cores. `look_again` helps a pod to which this happens all the same, or whose wait fails:
    that is only logged."""
    deadline = time.monotonic() + LIMIT
    try:
        while time.monotonic() < deadline:
            time.sleep(PAUSE if pod.known else LIST_PAUSE)
            if any(each.node and not each.gone for each in map(status.pod_view, pod.look())):
                time.sleep(KUBELET_LOOK)
                return
    except SessionError as error:
        log.warning("a start goes on without waiting for its pod: %s", error)


def came_too_early(text: str) -> bool:
    """Whether this message of a kubelet says that the API server did not know yet that the pod is on its node."""
    return TOO_EARLY in text


def look_again(cluster: ApiServer, pod: str, now: float) -> None:
    """Make the kubelet retry a pod at once (`now` is seconds since the epoch), by changing the pod: otherwise it
    retries after 10 to 15 s. A failure is only logged, as the kubelet retries by itself."""
    try:
        cluster.patch("pods", pod, {"metadata": {"annotations": {names.LOOK_AGAIN: f"{now:.3f}"}}})
    except SessionError as error:
        log.info("the kubelet was not asked to retry: %s", error, extra={"pod": pod})


def _pending(claim: Object) -> bool:
    return bool((claim.get("status") or {}).get("phase") == "Pending")
