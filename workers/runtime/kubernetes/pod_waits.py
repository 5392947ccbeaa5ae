"""What is asked for again and again while something waits for pods: pods by their names.

For a list by label the API server compares the labels of all pods of the namespace; by name it reads one. So a list
tells the names, and is repeated only when other pods may have come.
"""

from __future__ import annotations

from collections.abc import Callable

from workers.runtime.kubernetes import status
from workers.runtime.kubernetes.api_server import ApiServer
from workers.runtime.kubernetes.names import Object


class EndOfPods:
    """The end of all pods that `listed` finds. They are asked for by name until they have ended, and listed again then:
    the cluster may have made another meanwhile, and two pods must never share a volume. So only a list says that all
    have ended, and one that takes long to end costs two lists."""

    def __init__(self, cluster: ApiServer, listed: Callable[[], list[Object]]) -> None:
        self._cluster = cluster
        self._listed = listed
        self._left: list[str] = []

    def reached(self) -> bool:
        """Whether all pods have ended, now."""
        self._left = [name for name in self._left if not self._ended(name)]
        if not self._left:
            self._left = [pod.name for pod in map(status.pod_view, self._listed()) if not pod.ended]
        return not self._left

    def _ended(self, name: str) -> bool:
        pod = self._cluster.get("pods", name)
        return pod is None or status.pod_view(pod).ended


class SinglePod:
    """The pods that `listed` finds where there is one at a time: that of a started workspace, or of a Job. It is asked
    for by name as long as it stays; while there is none, or one takes the place of another, they are listed."""

    def __init__(self, cluster: ApiServer, listed: Callable[[], list[Object]]) -> None:
        self._cluster = cluster
        self._listed = listed
        self._name = ""

    @property
    def known(self) -> bool:
        """Whether the next look asks for the pod by name."""
        return bool(self._name)

    def look(self) -> list[Object]:
        """The pods as they are now: the one that stays, or all of a list."""
        pod = self._cluster.get("pods", self._name) if self._name else None
        pods = self._listed() if pod is None else [pod]
        staying = [view.name for view in map(status.pod_view, pods) if not view.gone]
        self._name = staying[0] if len(staying) == 1 else ""
        return pods
