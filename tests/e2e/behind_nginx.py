"""A service on one machine with nginx in front of its workspaces, as the place of tests/suites/browser_access.py and
tests/suites/ports.py. A module of tests imports its fixtures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser

from tests.browser import launched
from tests.e2e.on_this_machine import on_this_machine
from tests.nginx import ADDRESS, AGENTS_HOST, API_HOST, SETTINGS, Front, in_front, nginx_program
from tests.service import Service
from tests.suites.browser_access import FORBIDDEN, Pages, Place

__all__ = ["nginx_program"]

REFUSED = (403, "")
"""nginx' own page, for a program."""

OPENING = Pages(*["Opening the workspace"] * 4)
"""The page at the API's host, which knows nothing of the session."""


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    return SETTINGS


@pytest.fixture(scope="module")
def front(service: Service, nginx_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with in_front(service, nginx_program, tmp_path_factory.mktemp("nginx"), []) as running:
        yield running


@pytest.fixture(scope="module")
def place(service: Service, front: Front) -> Place:
    return on_this_machine(
        service,
        AGENTS_HOST,
        ADDRESS,
        partial(led_on, service),
        foreign_told=FORBIDDEN,
        refused=REFUSED,
        gone=REFUSED,
        asleep="unknown",
        pages=OPENING,
        route=front.lead_to,
        route_port=front.lead_to_port,
    )


def led_on(service: Service, answer: requests.Response) -> requests.Response:
    """What a program is told by nginx, or, where that leads it there as the workspace isn't up, by the API's host."""
    again = f"http://{API_HOST}:{service.workspace_port}"
    location = answer.headers.get("Location", "")
    if answer.status_code != 302 or not location.startswith(f"{again}/auth/again?next=&rd="):
        return answer
    return service.call("GET", location.removeprefix(again), headers={"Accept": "application/json"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One that finds nginx where others find Traefik."""
    with launched(f"--host-resolver-rules=MAP *.ws.localhost {ADDRESS}") as chromium:
        yield chromium
