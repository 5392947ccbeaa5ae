"""The model's answers as they come over HTTP, and every way in which they don't."""

import logging
import threading
from unittest.mock import Mock

import pytest

from app.agent.model import (
    Call,
    ContextTooLong,
    ManagerUnavailable,
    Model,
    ModelError,
    ModelUnavailable,
    Stopped,
    _Streaming,
)
from tests.model_server import Answer, ToolCall
from tests.unit.agent.fake_gateway import TOKEN

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "a secret prompt"}]


def never():
    return False


@pytest.fixture
def ask(gateway):
    client = Model(gateway.url, lambda: TOKEN)
    return lambda on_text=lambda text: None, stop=never, tools=(): client.answer(MESSAGES, tools, on_text, stop)


def test_text_comes_in_pieces_and_usage_with_it(ask, model):
    model.script(Answer(text="one two three", prompt_tokens=7, completion_tokens=3))
    pieces: list[str] = []
    reply = ask(pieces.append)
    assert "".join(pieces) == reply.text == "one two three" and len([piece for piece in pieces if piece]) == 3
    assert reply.usage == {"prompt_tokens": 7, "completion_tokens": 3} and reply.complete and reply.calls == ()
    assert model.requests[0].body["stream_options"] == {"include_usage": True}
    assert "tools" not in model.requests[0].body


def test_calls_are_put_together_from_their_pieces(ask, model):
    """Several at once, text beside them, arguments as they were written, well-formed or not."""
    model.script(Answer(text="I look", tool_calls=(ToolCall("a", {"path": "ü/long/name.py"}), ToolCall("b", "{brok"))))
    reply = ask(tools=[{"type": "function", "function": {"name": "a", "parameters": {}}}])
    assert [(call.name, call.arguments) for call in reply.calls] == [
        ("a", '{"path": "\\u00fc/long/name.py"}'),
        ("b", "{brok"),
    ]
    assert len({call.id for call in reply.calls}) == 2 and isinstance(reply.calls[0], Call)
    assert model.requests[0].body["tools"][0]["function"]["name"] == "a"


def test_without_figures_tokens_are_estimated(ask, model):
    model.script(Answer(text="word " * 100, usage=False))
    assert ask().usage["completion_tokens"] == 125


def test_an_answer_at_the_limit_of_length_says_so(ask, model):
    model.script(Answer(text="one", finish_reason="length"))
    assert not ask().complete


@pytest.mark.parametrize(
    ("answer", "retry_after"),
    [
        (Answer(text="one two", cut_after=2), 0.0),
        (Answer(text="one two", broken=True), 0.0),
        (Answer(status=500), 0.0),
        (Answer(status=429), 0.0),
        (Answer(status=429, retry_after="7"), 7.0),
    ],
)
def test_what_may_be_better_the_next_time_is_unavailable(ask, model, answer, retry_after):
    """A cut stream, nonsense in it, an error of the server, too many requests, and when to ask again."""
    model.script(answer)
    with pytest.raises(ModelUnavailable) as raised:
        ask()
    assert raised.value.retry_after == retry_after


def test_a_gateway_that_is_away_is_the_managers_fault():
    with pytest.raises(ManagerUnavailable):
        Model("http://127.0.0.1:1", lambda: TOKEN).answer(MESSAGES, (), lambda text: None, never)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (503, "state_unavailable", ManagerUnavailable),
        (503, "session_not_found", ManagerUnavailable),
        (429, "too_many_calls", ManagerUnavailable),
        (401, "token_ended", ManagerUnavailable),
        (502, "llm_unavailable", ModelUnavailable),
    ],
)
@pytest.mark.slow
def test_it_is_told_whether_the_manager_or_the_model_is_away(gateway, ask, status, code, error):
    """By the code of the gateway's problem document."""
    gateway.fail_model(status, {"error": code})
    with pytest.raises(ModelUnavailable) as raised:
        ask()
    assert type(raised.value) is error


def test_what_asking_again_would_not_change_is_refused(gateway, ask, model):
    model.script(Answer(status=400))
    with pytest.raises(ModelError, match="status 400") as raised:
        ask()
    assert raised.value.code == "model_refused" and not isinstance(raised.value, ModelUnavailable)
    with pytest.raises(ModelError, match="token"):
        Model(gateway.url, lambda: "wrong").answer(MESSAGES, (), lambda text: None, never)
    with pytest.raises(ModelError) as raised:
        Model("", lambda: TOKEN).answer(MESSAGES, (), lambda text: None, never)
    assert raised.value.code == "llm_not_configured"


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "llm_budget_exceeded"), (403, "budget_exceeded"), (403, "model_without_price"), (503, "llm_not_configured")],
)
def test_the_gateways_own_refusals_keep_their_words(gateway, ask, status, code):
    """Its problem document says what to do; it isn't asked again."""
    gateway.fail_model(status, {"error": code, "detail": "Resets at midnight."})
    with pytest.raises(ModelError, match="Resets at midnight.") as raised:
        ask()
    assert raised.value.code == code


def test_a_context_that_is_too_long_has_an_error_of_its_own(gateway, ask):
    """By the provider's code."""
    gateway.fail_model(400, {"error": {"code": "context_length_exceeded", "message": "too many tokens"}})
    with pytest.raises(ContextTooLong):
        ask()


def test_stop_ends_a_stream_and_the_connection_with_it(model):
    """In the midst of an answer that never ends: the provider sees its client go."""
    model.script(Answer(text="one two", hold=threading.Event()))
    stop = threading.Event()
    client = Model(model.url.removesuffix("/v1"), lambda: TOKEN)
    with pytest.raises(Stopped) as stopped:
        client.answer(MESSAGES, (), lambda text: stop.set(), stop.is_set)
    assert stopped.value.usage["prompt_tokens"] == sum(len(each["content"]) for each in MESSAGES) // 4
    assert stopped.value.usage["completion_tokens"] >= 1, "an estimate of what was read"
    received = model.requests[0]
    assert received.finished.wait(30) and received.outcome == "client gone"


def test_an_answer_that_breaks_off_says_what_it_cost(ask, model):
    """The provider bills it; one that had not begun costs nothing."""
    model.script(Answer(text="word " * 40, broken=True), Answer(status=500))
    with pytest.raises(ModelUnavailable) as broken:
        ask()
    assert broken.value.usage["prompt_tokens"] >= 1
    with pytest.raises(ModelUnavailable) as away:
        ask()
    assert away.value.usage == {}


def test_stop_ends_the_wait_for_the_first_byte(ask, model):
    model.script(Answer(text="one", delay=1000))
    with pytest.raises(Stopped) as stopped:
        ask(stop=lambda: bool(model.requests))
    assert stopped.value.usage == {}


def test_a_connection_serves_the_next_request_too(ask, model):
    for n in range(5):
        model.script(Answer(text=f"answer {n}"))
        assert ask().text == f"answer {n}"


def test_neither_prompts_nor_secrets_are_logged(ask, model, caplog, monkeypatch):
    """Not even when the client's own debugging is asked for."""
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level(logging.WARNING)
    model.script(Answer(text="a secret answer"), Answer(status=500), Answer(text="x", broken=True))
    ask()
    for _ in range(2):
        with pytest.raises(ModelUnavailable):
            ask()
    assert "secret" not in caplog.text


def test_a_question_that_nobody_waits_for_any_more_is_not_asked():
    """The turn was ended while the client was loaded, which takes most of a second."""
    client = Mock()

    def loaded():
        call.abandon()
        return client

    call = _Streaming(loaded, {"messages": []})
    call.run()
    client.chat.completions.create.assert_not_called()
