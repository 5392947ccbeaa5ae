"""A prompt's whole way, through real processes: web, delivery worker, agent, gateway, a model server, and back."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from app.core.composition import Core
from app.core.sessions.model import Status
from app.process.settings import Settings
from tests.events import Events
from tests.integration.serving import KEY, SECRET_KEY, OwnRedis, running_gateway, running_web, started
from tests.integration.test_prompts import DeliveryWorker
from tests.model_server import ModelServer
from tests.ports import free_port
from tests.waiting import wait_for

DEMO = "create hello.py that prints hi and run it"


class Place:
    """The running service, the test in the runtime's place, and one session."""

    def __init__(self, web: str, gateway: str, core: Core, folder: Path) -> None:
        self.web, self.gateway, self.core, self.folder = web, gateway, core, folder
        self.uuid = str(self.call("POST", "/session/create", {"user_id": "ada"}).json()["uuid"])
        self.files = folder / "app"
        self.files.mkdir()
        self.token = folder / "token"

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        return requests.request(method, self.web + path, json=body, headers={"X-API-Key": KEY} | headers, timeout=70)

    def chat(self, message: str, message_id: str, **headers: str) -> requests.Response:
        return self.call("POST", f"/session/{self.uuid}/chat", {"message": message, "id": message_id}, **headers)

    def move(self, to: Status) -> None:
        """What a worker or the observer would do."""
        self.core.store.change(self.uuid, time.time(), to=to, settle=True)

    def secrets(self) -> str:
        """The agent's token file, as a runtime would write it now."""
        return self.core.credentials.token_file(self.uuid, self.core.store.get(self.uuid).epoch)

    def message(self, message_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/session/{self.uuid}/messages/{message_id}").json()
        return found

    def renew(self) -> None:
        """Write the agent's token file, as a runtime does: all of it appears at once."""
        draft = self.token.with_name("token.new")
        draft.write_text(self.secrets())
        draft.replace(self.token)

    def shown(self, token: str) -> tuple[int, str]:
        """How the gateway answers whoever shows this token, from wherever."""
        headers = {"Authorization": f"Bearer {token}"}
        answer = requests.get(f"{self.gateway}/llm/v1/models", headers=headers, timeout=60)
        return answer.status_code, "" if answer.ok else str(answer.json()["error"])

    def ended(self, message_id: str) -> dict[str, Any]:
        """The message, once its end is known."""
        path = f"/session/{self.uuid}/messages/{message_id}"

        def over() -> Any:
            body = self.call("GET", path).json()
            return body if body["state"] in ("processed", "failed") else None

        found: dict[str, Any] = wait_for(over, f"{message_id} to end", lambda: self.call("GET", path).text)
        return found

    @contextmanager
    def agent(self) -> Iterator[None]:
        """The workspace's agent, as a runtime starts it; told to end when the block does."""
        self.renew()
        environ = {
            "AGENT_HOST": "127.0.0.1",
            "AGENT_TOKEN_FILE": str(self.token),
            "GATEWAY_URL": self.gateway,
            "AGENT_PORT": str(free_port()),
            # Commands run in a login shell, which reads a developer's own profile where this is theirs.
            "HOME": str(self.folder),
            "WORKSPACE_DIR": str(self.files),
            "WORKSPACE_UUID": self.uuid,
        }
        with started([sys.executable, "-m", "app.agent"], environ, self.folder / "agent.log"):
            yield


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        server = stack.enter_context(OwnRedis(tmp_path))
        model = stack.enter_context(ModelServer())
        chosen = {"LLM_BASE_URL": model.url, "LLM_API_KEY": "the-key-of-the-model", "LLM_MODEL": "stub"}
        web = stack.enter_context(running_web(tmp_path, server.url, SECRET_KEY=SECRET_KEY, **chosen))
        gateway = stack.enter_context(running_gateway(tmp_path, server.url, **chosen))
        settings = Settings(data_dir=tmp_path / "data", redis_url=server.url, secret_key=SECRET_KEY)
        delivery_worker = DeliveryWorker(settings, tmp_path / "delivery-worker.log")
        stack.callback(delivery_worker.kill)
        delivery_worker.start()
        yield Place(web, gateway, Core(settings), tmp_path)


def test_a_stolen_token_ends_with_a_revoke_and_the_agent_it_was_stolen_from_goes_on(place: Place) -> None:
    """What it was given meanwhile waits for its new token, and is worked on then."""
    place.move(Status.ACTIVE)
    with place.agent():
        assert place.chat("remember 7", "m1", Prefer="wait=60").json()["status"] == "processed"
        stolen = place.token.read_text().split()[0]
        assert place.shown(stolen) == (200, "")
        assert place.call("POST", f"/session/{place.uuid}/revoke").ok
        assert place.shown(stolen) == (401, "token_ended")
        assert place.chat("remember 8", "m2", Prefer="respond-async").status_code == 202
        wait_for(lambda: place.message("m2")["state"] == "delivered", "the agent to have it")
        place.renew()
        done = place.ended("m2")
        assert (done["state"], done["response"]["text"]) == ("processed", "8 noted")
        assert place.shown(place.token.read_text().split()[0]) == (200, "")
        assert place.shown(stolen) == (401, "token_ended")


def test_prompts_asleep_and_awake_are_worked_on_and_remembered(place: Place) -> None:
    """To a sleeping session: 202, delivered when the agent calls home. Awake: the answer, by waiting and as a stream.
    Asleep again the conversation is read from the archive, the same."""
    place.move(Status.ACTIVE)
    place.move(Status.SLEEPING)
    first = place.chat(DEMO, "m1")
    assert (first.status_code, first.json()["status"]) == (202, "queued")
    with place.agent():
        done = place.ended("m1")
        assert done["state"] == "processed", done
        assert (place.files / "hello.py").read_text() == "print('hi')\n"
        assert "hi" in done["response"]["text"]
        place.move(Status.ACTIVE)

        second = place.chat("remember 7", "m2", Prefer="wait=60")
        assert (second.status_code, second.json()["status"]) == (200, "processed"), second.text
        assert "7 noted" in second.json()["pod_response"]["text"]

        answer = place.chat(DEMO.replace("hello", "again"), "m3", Accept="text/event-stream")
        third = list(Events(answer.text.split("\n")))
        kinds = [kind for kind, _ in third]
        assert {"token", "tool_call", "tool_result"} <= set(kinds)
        assert (kinds[-1], third[-1][1]["state"]) == ("message", "processed")
        said = "".join(data["text"] for kind, data in third if kind == "token")
        assert third[-1][1]["response"]["text"] in said

        awake = place.call("GET", f"/session/{place.uuid}/messages").json()["messages"]
        prompts = [(each["id"], each["content"]) for each in awake if each["role"] == "user"]
        assert prompts == [("m1", DEMO), ("m2", "remember 7"), ("m3", DEMO.replace("hello", "again"))]
    place.core.inbox.agent_gone(place.uuid)
    place.move(Status.SLEEPING)
    assert place.call("GET", f"/session/{place.uuid}/messages").json()["messages"] == awake
    record = place.core.store.get(place.uuid)
    assert (record.waiting, record.unfinished) == (0, 0)
    for log in ("web.log", "gateway.log", "delivery-worker.log", "agent.log"):
        text = (place.folder / log).read_text()
        assert DEMO not in text, log
        assert "the-key-of-the-model" not in text, log
        for secret in place.secrets().split():
            assert secret not in text, log
