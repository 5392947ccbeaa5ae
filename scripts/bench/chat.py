"""What the manager and the gateway add to a model's answer, how many streams they carry, and how soon a prompt
reaches the agent of a workspace that sleeps.

The model server takes no time of its own, so all that is measured is ours and the machine's. Each way to an answer
is tried in turn in every round, so that whatever else the machine does hits all of them.
"""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.core.access.agent_credentials import AgentCredentials
from app.core.redis.connections import connect
from app.core.sessions.store import SessionStore
from scripts.bench import api, wake
from scripts.bench.servers import PROJECT, percentile, running_gateway, running_model, running_redis
from scripts.bench.table import Row

ROUNDS = 100
WAKES = 20
STREAMS = 200
STREAMS_OF_A_SESSION = 5
"""Below GATEWAY_CALLS_PER_SESSION."""

OVERHEAD_TARGET = 15.0
SECRET_KEY = "the-secret-key-of-the-measurement"
TIMEOUT = 60.0


def run() -> list[Row]:
    """Measure; rows of label, value and target."""
    with tempfile.TemporaryDirectory(prefix="bench-chat-") as folder, running_model() as model:
        return [*awake_and_asleep(Path(folder), model), *streams(Path(folder), model)]


@dataclass(frozen=True)
class Place:
    """Where one session can be asked: each URL with what opens it."""

    manager: str
    model: str
    gateway: str
    agent: str
    uuid: str
    token_file: Path

    def held(self) -> tuple[str, str]:
        """The token of the session's agent, and its secret; others after each sleep."""
        token, secret = self.token_file.read_text().split()
        return token, secret


def awake_and_asleep(folder: Path, model: str) -> list[Row]:
    data = folder / "data"
    settings = {"LLM_BASE_URL": model, "LLM_MODEL": "stub", "LLM_TOKENS_PER_DAY": "0", "SECRET_KEY": SECRET_KEY}
    with wake.service(data, project=PROJECT, **settings) as url:
        uuid = wake.call(url, "POST", "/session/create", {"user_id": "bench"}, "wait=30")["uuid"]
        wake.call(url, "POST", f"/session/{uuid}/chat", {"message": "remember 1"}, "wait=60")
        running = json.loads((data / "running" / f"{uuid}.json").read_text())
        ports = json.loads((data / "ports.json").read_text())
        gateway = f"http://127.0.0.1:{ports['GATEWAY_PORT']}/llm/v1"
        agent = f"http://127.0.0.1:{running['agent_port']}"
        place = Place(url, model, gateway, agent, uuid, data / "workspaces" / uuid / "agent-token")
        rows = [*awake(place), *asleep(place)]
        wake.call(url, "DELETE", f"/session/{uuid}?backup=false")
    return rows


def awake(place: Place) -> list[Row]:
    """The same answer by four ways: of the model, through the gateway, of the agent, and of the manager."""
    token, secret = place.held()
    ways: dict[str, Callable[[int], object]] = {
        "model": lambda n: ask_model(place.model, ""),
        "gateway": lambda n: ask_model(place.gateway, token),
        "agent": lambda n: post(f"{place.agent}/chat", {"id": f"a{n}", "message": "remember 1"}, secret),
        "manager": lambda n: ask_manager(place, f"b{n}"),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name, ask in ways.items():
            settle(place)
            began = time.perf_counter()
            ask(number)
            taken[name].append((time.perf_counter() - began) * 1000)
    p50 = {name: statistics.median(times) for name, times in taken.items()}
    through = statistics.median(a - b for a, b in zip(taken["gateway"], taken["model"], strict=True))
    managed = statistics.median(a - b for a, b in zip(taken["manager"], taken["agent"], strict=True))
    return [
        ("the model asked directly, p50 (ms)", f"{p50['model']:.1f}", ""),
        ("the model asked through the gateway, p50 (ms)", f"{p50['gateway']:.1f}", ""),
        ("the agent asked directly, p50 (ms)", f"{p50['agent']:.1f}", ""),
        (
            "POST /session/{uuid}/chat, p50 / p95 (ms)",
            f"{p50['manager']:.1f} / {percentile(taken['manager'], 95):.1f}",
            "",
        ),
        ("what the gateway adds, p50 (ms)", f"{through:.1f}", ""),
        ("what the manager adds, p50 (ms)", f"{managed:.1f}", ""),
        ("manager and gateway together, p50 (ms)", f"{through + managed:.1f}", f"< {OVERHEAD_TARGET:.0f} ms"),
    ]


def settle(place: Place) -> None:
    """Wait until the agent has put the last turn away, which it does after it has answered."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        connection, response = request("GET", f"{place.agent}/activity", None, place.held()[1])
        with closing(connection):
            if not json.load(response)["busy"]:
                return
        time.sleep(0.01)
    raise RuntimeError("the agent is always busy")


def asleep(place: Place) -> list[Row]:
    """From the request until the agent has the prompt, and until the editor of the same start was seen ready."""
    reached, ready = [], []
    for number in range(WAKES):
        wake.call(place.manager, "POST", f"/session/{place.uuid}/scale-down")
        message_id, began = f"w{number}", time.time()
        body = {"message": "remember 1", "id": message_id}
        wake.call(place.manager, "POST", f"/session/{place.uuid}/chat", body, "respond-async")
        message = ended(place, message_id)
        wake.call(place.manager, "POST", f"/session/{place.uuid}/scale-up")
        reached.append((taken_at(place, message_id) - began) * 1000)
        ready.append(wake.call(place.manager, "GET", f"/session/{place.uuid}")["phases"]["ready"])
        if message["state"] != "processed":
            raise RuntimeError(f"the prompt ended {message['state']}")
    return [
        ("prompt to a sleeping session → the agent has it, p50 / p95 (ms)", both(reached), ""),
        ("the same start until the editor is ready, p50 / p95 (ms)", both(ready), ""),
    ]


def both(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} / {percentile(values, 95):.0f}"


def ended(place: Place, message_id: str) -> Any:
    """The message, once its end is known."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        message = wake.call(place.manager, "GET", f"/session/{place.uuid}/messages/{message_id}")
        if message["state"] in ("processed", "failed"):
            return message
        time.sleep(0.02)
    raise RuntimeError("a prompt was not worked on")


def taken_at(place: Place, message_id: str) -> float:
    """When the agent took the prompt, by its own word; its clock is this machine's."""
    path = f"/session/{place.uuid}/messages?limit=1000"
    messages = wake.call(place.manager, "GET", path)["messages"]
    at = next(each["at"] for each in messages if each["id"] == message_id)
    return datetime.fromisoformat(at).timestamp()


def streams(folder: Path, model: str) -> list[Row]:
    """As many answers as may run at once, each of two seconds, through one gateway process."""
    with running_redis(folder) as redis_url, running_gateway(folder, redis_url, model, SECRET_KEY) as port:
        uuids = api.fill(SessionStore(connect(redis_url, 5.0)), STREAMS // STREAMS_OF_A_SESSION)
        secrets = AgentCredentials([SECRET_KEY])
        tokens = [secrets.token(uuid, 1) for uuid in uuids] * STREAMS_OF_A_SESSION
        first: list[float] = []
        troubles: list[str] = []

        def stream(token: str) -> None:
            try:
                first.append(ask_model(f"http://127.0.0.1:{port}/llm/v1", token, "count to 40"))
            except (OSError, http.client.HTTPException, RuntimeError) as error:
                troubles.append(f"{type(error).__name__}: {error}")

        began = time.perf_counter()
        threads = [threading.Thread(target=stream, args=(token,)) for token in tokens]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        seconds = time.perf_counter() - began
    return [
        (f"{len(tokens)} streams at once through one gateway: errors", str(len(tokens) - len(first)), "0"),
        ("  first byte, p50 / p95 (ms)", both([each * 1000 for each in first]), ""),
        ("  all of them (s; each takes 2 by itself)", f"{seconds:.1f}", ""),
        *((f"  {trouble[:50]}", "", "") for trouble in sorted(set(troubles))),
    ]


def ask_manager(place: Place, message_id: str) -> None:
    body = {"message": "remember 1", "id": message_id}
    answer = wake.call(place.manager, "POST", f"/session/{place.uuid}/chat", body, "wait=60")
    if answer["status"] != "processed":
        raise RuntimeError(f"the prompt ended {answer['status']}")


def ask_model(url: str, token: str, prompt: str = "remember 1") -> float:
    """A streamed answer, read to its end; the seconds until its first byte."""
    body = {"model": "stub", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    began = time.perf_counter()
    connection, response = request("POST", f"{url}/chat/completions", body, token)
    with closing(connection):
        first = response.read1()
        seconds = time.perf_counter() - began
        content = first + response.read()
    if not content.rstrip().endswith(b"[DONE]"):
        raise RuntimeError("a stream was cut")
    return seconds


def post(url: str, body: object, secret: str) -> None:
    connection, response = request("POST", url, body, secret)
    with closing(connection):
        response.read()


def request(
    method: str, url: str, body: object, secret: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A request that must succeed; the caller reads the answer and closes the connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
    connection.request(method, parts.path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    if response.status != 200:
        connection.close()
        raise RuntimeError(f"status {response.status}")
    return connection, response
