"""Calling a service whose parts are being killed."""

from __future__ import annotations

from typing import Any

import requests

from tests.service import Service
from tests.waiting import wait_for


def ask(service: Service, method: str, path: str, body: object = None) -> Any:
    """The JSON answer of a call that doesn't wait for the end state, made again while the web process or Redis
    comes back; a problem document for what the session's state forbids."""

    def answered() -> requests.Response | None:
        try:
            answer = service.call(method, path, body, headers={"Prefer": "respond-async"}, timeout=30)
        except requests.RequestException:
            return None
        return None if answer.status_code >= 500 else answer

    answer: requests.Response = wait_for(answered, f"an answer to {method} {path}")
    assert answer.ok or answer.status_code == 409, answer.text
    return answer.json()


def wait_status(service: Service, uuid: str, wanted: str, replicas: int) -> None:
    """Wait until the session is as wanted, while any part may still be coming back."""

    def reached() -> bool:
        try:
            seen = service.call("GET", f"/session/{uuid}", timeout=5).json()
        except requests.RequestException:
            return False
        return bool(seen.get("session", {}).get("status") == wanted and seen["replicas"] == replicas)

    wait_for(reached, f"{uuid} to be {wanted}", lambda: service.call("GET", f"/session/{uuid}").text, seconds=120)
