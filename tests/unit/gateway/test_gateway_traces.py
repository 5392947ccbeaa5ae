"""The spans of a model call: within the turn's trace, with its tokens, and none without a trace."""

from __future__ import annotations

from typing import Any

import pytest

from app.gateway import provider
from tests.model_server import Answer, ModelServer
from tests.unit.gateway.helpers import USER, GatewayMaker, Workspace
from tests.unit.process.test_tracing import PARENT, Spans

CANARY = "canary-text"


def traced(workspace: Workspace, **more: Any) -> Any:
    """The answer to a request for a completion within a trace."""
    return workspace.call("POST", "/llm/v1/chat/completions", json=more, headers={"traceparent": PARENT})


def attributes(spans: Spans, name: str) -> dict[str, object]:
    return dict(spans.all()[name].attributes or {})


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_of_the_model_is_a_span_with_its_tokens(
    make_gateway: GatewayMaker, model: ModelServer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Until the last byte, for a stream too."""
    spans = Spans(monkeypatch)
    workspace = Workspace(make_gateway())
    model.script(Answer(text=CANARY))
    said = [{"role": "user", "content": CANARY}]
    answer = workspace.ask(messages=said, stream=stream, model=CANARY)
    assert answer.status_code == 200 and spans.all() == {}, "no trace begins here"
    model.script(Answer(text=CANARY))
    assert traced(workspace, messages=said, stream=stream, model=CANARY).status_code == 200
    found = spans.all()
    call, served = found["chat forced-model"], found["POST /llm/v1/chat/completions"]
    assert call.parent is not None and served.context is not None
    assert call.parent.span_id == served.context.span_id
    told = attributes(spans, "chat forced-model")
    assert told["gen_ai.usage.input_tokens"] and told["gen_ai.usage.output_tokens"]
    assert told["gen_ai.request.model"] == "forced-model"
    assert not any(word in each.to_json() for each in found.values() for word in (CANARY, USER))


def test_a_refusal_of_the_model_is_a_failed_span(
    make_gateway: GatewayMaker, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = Spans(monkeypatch)
    monkeypatch.setattr(provider, "RETRIES", 0)
    workspace = Workspace(make_gateway())
    model.script(Answer(status=400))
    traced(workspace, messages=[], x=CANARY)
    assert attributes(spans, "chat forced-model")["error.type"] == "400"
