"""The conversation in the dashboard."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.prompts.inbox import State
from app.core.sessions.model import Status
from app.web.session.chat_tab import PAGE
from tests.fake_agent import FakeAgent
from tests.unit.api.helpers import AppMaker, move
from tests.unit.web.conftest import HTMX, Visitor, page
from tests.unit.web.session.conftest import HOSTILE


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    """With a model."""
    return make_app(llm_base_url="http://127.0.0.1:1/v1")


@pytest.fixture
def talking(core: Core, uuid: str, agent: FakeAgent) -> FakeAgent:
    """The session's agent, which has called."""
    assert core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    return agent


def turn(number: int, answer: str = "ok") -> list[dict[str, Any]]:
    said = {"id": f"m{number}", "at": "2026-11-20T08:00:00.000Z"}
    ended = {"role": "assistant", "content": answer, "outcome": {"status": "processed"}}
    return [said | {"role": "user", "content": f"prompt {number}"}, said | ended]


def pages(visitor: Visitor, uuid: str) -> Iterator[str]:
    """A conversation from its end: what is shown at first, then each earlier page."""
    shown = page(visitor, f"/sessions/{uuid}/chat")
    yield shown
    while before := re.search(rf'hx-get="(/sessions/{uuid}/chat/before/\d+)"', shown):
        shown = page(visitor, before[1])
        yield shown


def turns(shown: str) -> list[str]:
    return re.findall(r'id="turn-([\w.-]+)"', shown)


def test_what_an_agent_says_and_does_is_shown_and_no_markup(visitor: Visitor, uuid: str, talking: FakeAgent) -> None:
    call = {"call_id": HOSTILE, "name": HOSTILE, "arguments": HOSTILE}
    talking.history = [
        {"id": "m1", "role": "user", "content": HOSTILE},
        {"id": "m1", "role": "assistant", "content": f"**{HOSTILE}**", "tool_calls": [call]},
        {"id": "m1", "role": "tool", "call_id": HOSTILE, "name": HOSTILE, "ok": False, "content": HOSTILE},
        {"id": "m1", "role": "assistant", "outcome": {"status": "failed", "reason": HOSTILE}},
    ]
    shown = page(visitor, f"/sessions/{uuid}/chat")
    assert shown.count("&lt;img src=x onerror=alert(1)&gt;") >= 6
    assert "<img src=x" not in shown
    assert "<script>" not in shown
    assert re.search(r'data-call="&lt;img[^"]*&#34;&gt;', shown)


def test_a_conversation_begins_at_its_end_and_earlier_pages_are_fetched(
    visitor: Visitor, uuid: str, talking: FakeAgent
) -> None:
    talking.history = [message for number in range(100) for message in turn(number)]
    last, *earlier = map(turns, pages(visitor, uuid))
    assert last == [f"m{number}" for number in range(100 - PAGE // 2, 100)]
    assert [*chain(*reversed(earlier)), *last] == [f"m{number}" for number in range(100)]


def test_a_turn_longer_than_a_page_is_shown_whole_and_once(visitor: Visitor, uuid: str, talking: FakeAgent) -> None:
    steps = [{"id": "m1", "role": "assistant", "content": f"step {number}."} for number in range(2 * PAGE)]
    first, last = turn(1)
    talking.history = [*turn(0), first, *steps, last]
    whole = "".join(reversed([*pages(visitor, uuid)]))
    assert [int(each) for each in re.findall(r"step (\d+)\.", whole)] == list(range(2 * PAGE))
    assert turns(whole) == ["m0", "m1"]
    assert "Working" not in whole


def test_a_prompt_wakes_the_session_and_is_shown_as_queued(visitor: Visitor, core: Core, uuid: str) -> None:
    move(core, uuid, Status.SLEEPING)
    shown = visitor.post(f"/sessions/{uuid}/chat", {"message": HOSTILE, "id": "p1"}).text
    assert turns(shown) == ["p1"]
    assert 'data-state="queued"' in shown
    assert "<script>" not in shown
    assert core.sessions.get(uuid).status is Status.WAKING
    assert core.inbox.get(uuid, "p1").text == HOSTILE
    assert "Waking" in page(visitor, f"/sessions/{uuid}/chat/state")


def test_a_prompt_that_ends_while_it_is_sent_is_shown_with_its_answer(
    visitor: Visitor, core: Core, uuid: str, talking: FakeAgent
) -> None:
    """Nothing more comes for it: shown without, it would stay empty."""
    talking.history = turn(1, "**done**")
    core.sessions.prompt(uuid, "prompt 1", "m1", "r1", delivery_worker=True)
    core.inbox.finish(uuid, "m1", response={"text": "**done**"}, now=time.time())
    shown = visitor.post(f"/sessions/{uuid}/chat", {"message": "prompt 1", "id": "m1"}).text
    assert turns(shown) == ["m1"]
    assert 'data-state="processed"' in shown
    assert "<strong>done</strong>" in shown


def test_a_prompt_that_is_refused_says_why(visitor: Visitor, uuid: str) -> None:
    answer = visitor.post(f"/sessions/{uuid}/chat", {"message": " "}, headers=HTMX)
    assert (answer.status_code, answer.headers["HX-Retarget"]) == (400, "#notices")
    assert "Must not be blank." in answer.text


def test_a_turn_that_goes_on_is_shown_as_far_as_it_is(
    visitor: Visitor, core: Core, uuid: str, talking: FakeAgent
) -> None:
    """From the events, whose newest it names: the browser adds those after it."""
    talking.history = [*turn(1), {"id": "p1", "role": "user", "content": "go on"}]
    core.events.append_all(
        uuid,
        [
            ("tool_call", {"message_id": "p1", "call_id": "c1", "name": "run_command", "arguments": {"command": "ls"}}),
            ("token", {"message_id": "p1", "text": "<b>half"}),
        ],
    )
    for path in ("/chat", "/chat/turns/p1"):
        shown = page(visitor, f"/sessions/{uuid}{path}")
        live = shown[shown.index('id="turn-p1"') :]
        assert f'data-upto="{core.events.last_id(uuid)}"' in live
        assert '<div class="said live">&lt;b&gt;half</div>' in live
        assert '<code class="tool-brief">ls</code>' in live
        assert "Working" in live


def test_one_turn_is_fetched_when_it_has_ended(visitor: Visitor, core: Core, uuid: str, talking: FakeAgent) -> None:
    talking.history = [*turn(1), *turn(2, "**done**")]
    shown = page(visitor, f"/sessions/{uuid}/chat/turns/m2")
    assert turns(shown) == ["m2"]
    assert "<strong>done</strong>" in shown
    core.sessions.prompt(uuid, "later", "p9", "r1", delivery_worker=True)
    assert core.inbox.get(uuid, "p9").state is State.QUEUED
    assert 'data-state="queued"' in page(visitor, f"/sessions/{uuid}/chat/turns/p9")
    assert visitor.get(f"/sessions/{uuid}/chat/turns/unknown").status_code == 404
