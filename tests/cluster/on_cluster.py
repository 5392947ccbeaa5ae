"""The product on a cluster, as the place of tests/suites/browser_access.py and tests/suites/ports.py."""

from __future__ import annotations

import pytest
import requests

from app.core.redis import keys
from tests.cluster.product import Api, inside, kubectl, ready_pods, redis_says
from tests.suites.browser_access import NO_COOKIE, Place
from workers.runtime.kubernetes.pods import FILES


@pytest.fixture(scope="module")
def place(api: Api) -> Place:
    """Its workspaces are directly below `localhost`, so each is a site of its own to a browser."""

    def agents(path: str, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return requests.get(api.url.replace("//api.", "//agents.") + path, headers=named, timeout=60)

    return Place(
        ask=api.call,
        create=api.new,
        key=api.key,
        program=api.visit,
        agents=agents,
        inside=inside,
        folder=lambda uuid: FILES,
        processes=processes,
        runs_in=lambda uuid: set(ready_pods(uuid)),
        stop_editor=lambda uuid: api.shell(uuid, "kill -STOP $(pgrep -o -x MainThread)"),
        unconfirmed=lambda uuid: bool(redis_says("ZSCORE", keys.DISCONNECTS, uuid)),
        remains=lambda uuid: kubectl("get", "deployments,ingresses,pvc", "-l", f"session-uuid={uuid}"),
        foreign=f"{api.url}/livez",
        sibling_told=NO_COOKIE,
    )


def processes(uuid: str, argument: str) -> set[str]:
    """Those in the editor's container, by their pods and their numbers."""
    found = set()
    for pod in ready_pods(uuid):
        lines = kubectl("exec", pod, "-c", "editor", "--", "ps", "-eo", "pid=,args=").splitlines()
        found |= {f"{pod} {words[0]}" for words in map(str.split, lines) if not argument or argument in words[1:]}
    return found
