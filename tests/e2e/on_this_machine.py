"""A service on one machine, as the place of tests/suites/browser_access.py: behind Traefik, or another ingress."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import psutil
import requests

from app.core.redis import keys
from tests.service import KEY, Service
from tests.suites.browser_access import Place


def on_this_machine(
    service: Service,
    agents_host: str,
    ingress: str = "127.0.0.1",
    led_on: Callable[[requests.Response], requests.Response] = lambda answer: answer,
    **facts: Any,
) -> Place:
    """A service that scripts/run has started, behind the ingress at this IP. `led_on` is what a program is told in the
    end that goes where the ingress leads it."""

    def program(session: Any, path: str = "/", **more: str) -> requests.Response:
        return led_on(service.workspace(session, path, ingress=ingress, **more))

    def create(user_id: str, **wanted: Any) -> Any:
        return service.done("POST", "/session/create", {"user_id": user_id, **wanted})

    def agents(path: str, **headers: str) -> requests.Response:
        url = f"http://{ingress}:{service.workspace_port}{path}"
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return led_on(requests.get(url, headers={"Host": agents_host} | named, timeout=60, allow_redirects=False))

    def inside(uuid: str, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def processes(uuid: str, argument: str) -> set[str]:
        return {str(each.pid) for each in service.processes(argument, WORKSPACE_UUID=uuid)}

    def editor(uuid: str) -> set[str]:
        """The process that has the connections."""
        return {each for each in processes(uuid, "") - processes(uuid, "app.agent") if listens(int(each))}

    def stop_editor(uuid: str) -> None:
        (found,) = editor(uuid)
        os.kill(int(found), signal.SIGSTOP)

    def unconfirmed(uuid: str) -> bool:
        with service.redis() as client:
            return client.zscore(keys.DISCONNECTS, uuid) is not None

    def remains(uuid: str) -> str:
        with service.redis(database=1) as routes:
            found = [str(each) for each in routes.scan_iter(f"traefik/http/*/*-{uuid}/*")]
        return " ".join([*found, *map(str, service.files(uuid).parent.glob("*"))])

    return Place(
        ask=service.done,
        create=create,
        key=KEY,
        program=program,
        agents=agents,
        inside=inside,
        folder=lambda uuid: str(service.files(uuid)),
        processes=processes,
        runs_in=editor,
        stop_editor=stop_editor,
        unconfirmed=unconfirmed,
        remains=remains,
        foreign=f"http://foreign.localhost:{service.port}/livez",
        **facts,
    )


def listens(pid: int) -> bool:
    """Whether the process, which may have ended, has a port that accepts connections."""
    try:
        return any(each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections())
    except psutil.NoSuchProcess:
        return False
