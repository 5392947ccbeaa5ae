"""A token stolen from inside a workspace, used from outside: what it opens, as long as its session lives and after.

One suite for wherever the service runs. A module of tests derives a class from `StolenTokens`, and has fixtures of its
own: `place`, and `chat`, a session there whose agent has a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import requests

from tests.conversation import Conversation

CALLS = (
    ("GET", "/agent/v1/checkpoint", None),
    ("POST", "/agent/v1/events", {"events": [], "busy": True}),
    ("GET", "/llm/v1/models", None),
)
"""For the conversation, a report, and the model."""

ENDED = [(401, "token_ended")] * len(CALLS)
GONE = [(403, "session_terminated")] * len(CALLS)


@dataclass(frozen=True)
class Place:
    """Where tokens are stolen. `gateway` is the URL of the gateway; the agents are in `network`, and the calls of this
    suite come from its first address; `steal` answers the token that lies in a session's workspace."""

    gateway: str
    network: str
    steal: Callable[[Conversation], str]

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


def works(chat: Conversation, number: int) -> None:
    """Its agent does, on a prompt: so it has a good token itself."""
    assert chat.prompt(f"m{number}", f"remember {number}")["state"] == "processed"


class StolenTokens:
    """The suite."""

    def test_a_stolen_token_opens_nothing_after_revoke_sleep_wake_and_delete(
        self, place: Place, chat: Conversation
    ) -> None:
        """The agent it was stolen from works on, each time with a token of its own. The audit has each try."""
        works(chat, 1)
        stolen = [place.steal(chat)]
        assert place.good(stolen[0])

        chat.call("POST", f"/session/{chat.uuid}/revoke")
        assert place.shown(stolen[0]) == ENDED
        works(chat, 2)
        stolen.append(place.steal(chat))
        assert place.good(stolen[1])

        chat.call("POST", f"/session/{chat.uuid}/scale-down")
        chat.wait_asleep()
        assert [place.shown(each) for each in stolen] == [ENDED, ENDED]

        works(chat, 3)
        chat.wait_awake()
        assert [place.shown(each) for each in stolen] == [ENDED, ENDED]
        stolen.append(place.steal(chat))
        assert place.good(stolen[2])

        chat.delete()
        assert [place.shown(each) for each in stolen] == [GONE, GONE, GONE]
        entries = chat.call("GET", f"/audit?key=workspace:{chat.uuid}").json()["entries"]
        network = ip_network(place.network)
        assert all(ip_address(each["address"]) in network for each in entries), entries
        # In a pod its own agent, too, may show the token of before once more.
        here = str(next(iter(network.hosts())))
        noted = {(each["action"], each["reason"]) for each in entries if each["address"] == here}
        calls = ("conversation", "report", "model")
        assert noted == {(call, reason) for call in calls for reason in ("token_ended", "session_terminated")}
