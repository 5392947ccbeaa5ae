"""The whole product on a cluster, as the measurements see it: its API, and its pods by one watch.

It is found as the cluster's tests find it: by KUBECONFIG, and by API_URL and API_KEY as
`scripts/cluster/cluster demo` prints them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Thread
from typing import Any

import requests

from workers.runtime.kubernetes import names, status
from workers.runtime.kubernetes.api_server import ApiServer, WatchStream

NAMESPACE = os.environ.get("WORKSPACE_NAMESPACE", "fresh-workspaces")
SYSTEM = os.environ.get("SYSTEM_NAMESPACE", "fresh-system")
TIMEOUT = 30.0
"""s for one request to the API server."""

PATIENCE = 90.0
"""s for a pod to come or to go, and for the manager to answer a call that waits."""

WATCH_SECONDS = 3_000
"""After so long the watch on the pods ends: longer than all rounds."""


class CallFailed(Exception):
    """The manager's answer was not a good one, or not in time."""


class Manager:
    """The manager's API. One connection, kept, as a web app's client has it."""

    def __init__(self) -> None:
        try:
            self._url, key = os.environ["API_URL"], os.environ["API_KEY"]
        except KeyError as error:
            raise SystemExit(
                f"{error.args[0]} is missing. Export what `scripts/cluster/cluster demo` prints, and run this as "
                "`scripts/cluster/cluster exec scripts/bench/run cluster`."
            ) from None
        self._session = requests.Session()
        self._session.headers["X-API-Key"] = key

    def call(self, method: str, path: str, body: Any = None, wait: int = 60) -> Any:
        """The JSON answer. Rate limits are waited for, up to `PATIENCE`; anything else that is not 2xx raises."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = self._session.request(
                    method, self._url + path, json=body, headers={"Prefer": f"wait={wait}"}, timeout=PATIENCE
                )
            except requests.RequestException as error:
                raise CallFailed(f"{method} {path}: {type(error).__name__}") from error
            if answer.status_code != 429 or time.monotonic() > deadline:
                break
            time.sleep(min(5.0, float(answer.headers.get("Retry-After", 1))))
        if not answer.ok:
            raise CallFailed(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json()


class Pods:
    """When each pod of the namespace became ready, as the API server told it. Times are monotonic seconds."""

    def __init__(self, watching: WatchStream) -> None:
        self._watching = watching
        self._changed = Condition()
        self._ready: dict[str, float] = {}
        self._there: set[str] = set()
        self._ended = False
        self._thread = Thread(target=self._follow, name="pods", daemon=True)
        self._thread.start()

    def ready_at(self, label: str, since: float) -> float:
        """When the pod with this label became ready after `since`; waits for it."""
        self._wait(lambda: self._ready.get(label, 0.0) > since, f"{label} did not become ready")
        return self._ready[label]

    def wait_gone(self, label: str) -> None:
        """Until no pod has this label."""
        self._wait(lambda: all(each.partition(" ")[0] != label for each in self._there), f"{label} did not go")

    def close(self) -> None:
        self._watching.close()
        self._thread.join(TIMEOUT)

    def _wait(self, done: Callable[[], bool], trouble: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or done(), PATIENCE)
            if not done():
                raise CallFailed(trouble) if not self._ended else RuntimeError("The watch on the pods ended.")

    def _follow(self) -> None:
        try:
            for event in self._watching:
                now = time.monotonic()
                if event["type"] != "BOOKMARK":
                    with self._changed:
                        self._take(event, now)
                        self._changed.notify_all()
        finally:
            self._watching.release()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _take(self, event: Any, now: float) -> None:
        pod = status.pod_view(event["object"])
        label = pod.uuid or event["object"]["metadata"].get("labels", {}).get(names.APP_LABEL, "")
        known = f"{label} {pod.name}"
        if event["type"] == "DELETED":
            self._there.discard(known)
            return
        first = known not in self._there
        self._there.add(known)
        if first:
            # The same Deployment's next pod.
            self._ready.pop(label, None)
        if pod.ready and not pod.gone:
            self._ready.setdefault(label, now)


@contextmanager
def watched_pods(cluster: ApiServer) -> Iterator[Pods]:
    """The pods of the namespace, from now on."""
    pods = Pods(cluster.watch("pods", "", cluster.version("pods"), WATCH_SECONDS))
    try:
        yield pods
    finally:
        pods.close()
