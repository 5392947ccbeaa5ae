"""A token stolen from inside a workspace, used from outside: what it opens, as long as its session lives and after.

For the service on one machine and in a cluster alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from tests.waiting import wait_for

PATIENCE = 300.0
"""s. In a cluster a new token reaches its agent when the node looks at the Secret again."""

CALLS = (
    ("GET", "/agent/v1/checkpoint", None),
    ("POST", "/agent/v1/events", {"events": [], "busy": True}),
    ("GET", "/llm/v1/models", None),
)
"""For the conversation, a report, and the model."""

ENDED = [(401, "token_ended")] * len(CALLS)
GONE = [(403, "session_terminated")] * len(CALLS)


@dataclass(frozen=True)
class Victim:
    """A session with its agent, and a model. `ask` makes a call of the API that goes well (method, path, body) and
    answers its JSON; `gateway` is the URL of the gateway, `steal` answers the token that lies in the workspace."""

    uuid: str
    gateway: str
    ask: Callable[..., Any]
    steal: Callable[[], str]

    def works(self, number: int) -> None:
        """Its agent does, on a prompt: so it has a good token itself."""
        self.ask("POST", f"/session/{self.uuid}/chat", {"message": f"remember {number}", "id": f"m{number}"})
        path = f"/session/{self.uuid}/messages/m{number}"
        wait_for(lambda: self.ask("GET", path)["state"] == "processed", f"m{number} to be processed", seconds=PATIENCE)

    def becomes(self, status: str) -> None:
        """Wait for the session to be in that state."""

        def reached() -> bool:
            seen = self.ask("GET", f"/session/{self.uuid}")
            return bool(seen["session"]["status"] == status and seen["replicas"] == (status == "active"))

        wait_for(reached, f"the session to be {status}", seconds=PATIENCE)

    def shown(self, token: str) -> list[tuple[int, str]]:
        """How the gateway answers it."""
        said = []
        for method, path, body in CALLS:
            headers = {"Authorization": f"Bearer {token}"}
            answer = requests.request(method, self.gateway + path, json=body, headers=headers, timeout=60)
            said.append((answer.status_code, "" if answer.ok else str(answer.json()["error"])))
        return said

    def good(self, token: str) -> bool:
        refusals = ("token_ended", "unauthorized", "session_terminated")
        return all(code not in refusals for _, code in self.shown(token))


def opens_nothing_after_revoke_sleep_wake_and_delete(victim: Victim) -> None:
    """The agent it was stolen from works on, each time with a token of its own. The session is gone in the end."""
    victim.works(1)
    stolen = [victim.steal()]
    assert victim.good(stolen[0])

    victim.ask("POST", f"/session/{victim.uuid}/revoke")
    assert victim.shown(stolen[0]) == ENDED
    victim.works(2)
    stolen.append(victim.steal())
    assert victim.good(stolen[1])

    victim.ask("POST", f"/session/{victim.uuid}/scale-down")
    victim.becomes("sleeping")
    assert [victim.shown(each) for each in stolen] == [ENDED, ENDED]

    victim.works(3)
    victim.becomes("active")
    assert [victim.shown(each) for each in stolen] == [ENDED, ENDED]
    stolen.append(victim.steal())
    assert victim.good(stolen[2])

    victim.ask("DELETE", f"/session/{victim.uuid}?backup=false")
    victim.becomes("terminated")
    assert [victim.shown(each) for each in stolen] == [GONE, GONE, GONE]
