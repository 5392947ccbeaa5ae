"""A prompt is one trace, from the API's call through its delivery and the agent to the model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model_server import Answer, ModelServer
from tests.otlp import Collector
from tests.service import Service

PROMPT = "canary-prompt"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer, collector: Collector
) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("service"), code_server, **model.settings, **collector.environment)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def test_a_prompt_is_one_trace_to_the_model_and_has_its_tokens(
    service: Service, collector: Collector, model: ModelServer
) -> None:
    """To an awake session, and to one that it wakes first. Neither the prompt nor the answer is in any span."""
    uuid = service.create("canary-user")["uuid"]
    way = ["POST /session/<session:uuid>/chat", "deliver prompt", "POST /llm/v1/chat/completions", "chat stub"]
    model.script(Answer(text="canary-answer"))
    service.prompt(uuid, PROMPT, "m1")
    asked = collector.wait_for("chat stub")
    for name in way:
        collector.wait_for(name, asked.trace)
    assert collector.path(asked) == way
    usage = service.conversation(uuid)[-1]["usage"]
    assert asked.service == "gateway"
    assert asked.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "stub",
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
    }

    service.done("POST", f"/session/{uuid}/sleep")
    service.wait_status(uuid, "sleeping", 0)
    model.script(Answer(text="canary-answer"))
    service.done("POST", f"/session/{uuid}/chat", {"message": PROMPT, "id": "m2"})
    service.ended(uuid, "m2")
    woken = collector.wait_for("session wake")
    for name in way:
        collector.wait_for(name, woken.trace)
    assert collector.path(collector.wait_for("chat stub", woken.trace)) == way
    assert woken.service == "observer" or woken.service.endswith("worker")
    assert "phase.ready" in woken.attributes and not woken.failed
    assert collector.wait_for("sessions.wake", woken.trace).service == "worker"
    assert not any(b"canary" in body for body in collector.bodies)
