"""What the gateway counts of prompts and models, and who is shown it."""

from __future__ import annotations

import time

from app.core.prompts.token_usage import Tokens
from app.core.redis.counters import ANSWERED, FIRST_TOKEN
from app.gateway.gateway_metrics import MODELS, Metrics, Models
from tests.unit.gateway.helpers import GatewayMaker, Workspace, event


def times(workspace: Workspace) -> dict[str, tuple[int, float]]:
    """How many prompts were measured, and their seconds in all."""
    durations, _ = workspace.core.counters.prompts()
    return {name: (sum(each.counts), each.total) for name, each in durations.items()}


def test_prompts_are_measured_from_when_they_were_stored(workspace: Workspace) -> None:
    """Each once, however often its agent reports."""
    workspace.take(ago=40, delivered=False)
    assert times(workspace) == {ANSWERED: (0, 0.0), FIRST_TOKEN: (0, 0.0)}
    for _ in range(2):
        assert workspace.report(event("token", text="a"), event("token", text="b")).status_code == 204
    assert times(workspace)[ANSWERED] == (0, 0.0)
    count, seconds = times(workspace)[FIRST_TOKEN]
    assert count == 1 and 40 <= seconds < 100
    for _ in range(2):
        assert workspace.report(event("processed", response={"text": "ab"})).status_code == 204
    count, seconds = times(workspace)[ANSWERED]
    assert count == 1 and 40 <= seconds < 100


def test_another_process_counts_no_first_token_again(workspace: Workspace) -> None:
    workspace.take(delivered=False)
    assert workspace.core.inbox.answer_begins(workspace.uuid, "m1", time.time())
    assert not workspace.core.inbox.answer_begins(workspace.uuid, "m1", time.time())
    assert workspace.report(event("token", text="a")).status_code == 204
    assert times(workspace)[FIRST_TOKEN][0] == 1


def test_an_unknown_prompt_leaves_nothing(workspace: Workspace) -> None:
    """An agent may invent ids; none of them is stored."""
    before = set(workspace.core.redis.scan_iter("message:*"))
    assert workspace.report(event("token", text="a")).status_code == 204
    assert not workspace.core.inbox.answer_begins(workspace.uuid, "m2", time.time())
    assert set(workspace.core.redis.scan_iter("message:*")) == before
    assert times(workspace)[FIRST_TOKEN][0] == 0


def test_a_failed_prompt_has_no_answer_to_measure(workspace: Workspace) -> None:
    workspace.take(delivered=False)
    assert workspace.report(event("failed", reason="It was canceled.")).status_code == 204
    assert times(workspace)[ANSWERED][0] == 0


def test_workspaces_cannot_make_labels() -> None:
    """They name the models, of which some APIs take any name."""
    models = Models()
    names = [f"model-{number}" for number in range(MODELS)]
    assert [models.label(name) for name in names] == names
    assert models.label("one-more") == "other"
    assert models.label(names[0]) == names[0]
    assert Models().label('x"} 1\n') == Models().label("x" * 65) == Models().label("") == "other"


def test_tokens_are_counted_by_model() -> None:
    metrics = Metrics()
    metrics.count_tokens(Tokens(7, 2), "gpt-5")
    metrics.count_tokens(Tokens(7, 2, estimated=9), "gpt-5")
    text = metrics.text("text/plain")[0].decode()
    assert 'gateway_llm_tokens_total{kind="prompt",model="gpt-5"} 7.0' in text
    assert 'gateway_llm_tokens_total{kind="completion",model="gpt-5"} 2.0' in text
    assert 'gateway_llm_tokens_estimated_total{kind="prompt"} 7.0' in text


def test_workspaces_are_shown_nothing_that_has_a_port_of_its_own(make_gateway: GatewayMaker) -> None:
    workspace = Workspace(make_gateway(metrics_port=9102))
    assert workspace.call("GET", "/metrics").status_code == 404
