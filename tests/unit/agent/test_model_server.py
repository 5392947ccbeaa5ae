"""The stub provider speaks the wire format as the `openai` client reads it."""

import json
import threading

import openai
import pytest

from tests.model_server import Answer, ModelServer, ToolCall, when


@pytest.fixture
def model():
    with ModelServer() as server:
        yield server


def client(model, key="k"):
    return openai.OpenAI(base_url=model.url, api_key=key, max_retries=0, timeout=30)


def ask(model, text, stream=True, messages=None):
    extra = {"stream_options": {"include_usage": True}} if stream else {}
    messages = messages or [{"role": "user", "content": text}]
    return client(model).chat.completions.create(model="m", messages=messages, stream=stream, **extra)


def test_a_stream_is_text_in_pieces_then_usage(model):
    """The pieces joined are the text; the last chunk holds usage and no choice."""
    model.script(Answer(text="one two three", prompt_tokens=7, completion_tokens=3))
    chunks = list(ask(model, "hi"))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "one two three"
    assert len(chunks) == 6
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 10
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_tool_calls_are_streamed_in_pieces(model):
    """Id and name come first, the arguments follow in several chunks, each call under its own index."""
    model.script(Answer(tool_calls=(ToolCall("a", {"path": "x/y/z.py"}), ToolCall("b", "{broken"))))
    arguments = {0: "", 1: ""}
    names = []
    for chunk in ask(model, "hi"):
        for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            arguments[call.index] += call.function.arguments
            names += [call.function.name] if call.id else []
    assert names == ["a", "b"]
    assert json.loads(arguments[0]) == {"path": "x/y/z.py"} and arguments[1] == "{broken"


def test_the_demo_sentence_writes_runs_and_quotes(model):
    """Two tool calls, one after the other, then an answer with the second's result in it."""
    messages: list[dict] = [{"role": "user", "content": "create hello.py that prints hi and run it"}]
    for result in ("written", "hi\n"):
        message = ask(model, "", stream=False, messages=messages).choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": result})
    assert messages[1]["tool_calls"][0]["function"]["name"] == "write_file"
    assert json.loads(messages[1]["tool_calls"][0]["function"]["arguments"])["content"] == "print('hi')\n"
    assert messages[3]["tool_calls"][0]["function"]["name"] == "run_command"
    assert ask(model, "", stream=False, messages=messages).choices[0].message.content.endswith("hi\n")


def test_remember_is_echoed(model):
    """The prompt "remember N" answers "N noted"."""
    assert ask(model, "please remember 17", stream=False).choices[0].message.content == "17 noted"


def test_a_rule_of_the_test_comes_before_nothing_but_the_script(model):
    """`when` answers for its prompt only."""
    model.rules.insert(0, when("weather", Answer(text="rain")))
    assert ask(model, "the weather?", stream=False).choices[0].message.content == "rain"
    assert ask(model, "remember 1", stream=False).choices[0].message.content == "1 noted"


@pytest.mark.parametrize(("status", "error"), [(429, openai.RateLimitError), (500, openai.InternalServerError)])
def test_errors_have_the_provider_shape(model, status, error):
    """The client raises its own exception, with Retry-After in reach."""
    model.script(Answer(status=status, retry_after="3"))
    with pytest.raises(error) as raised:
        ask(model, "hi")
    assert raised.value.response.headers["retry-after"] == "3"


def test_a_cut_stream_is_an_error_for_the_client(model):
    """The connection ends without the closing chunk."""
    model.script(Answer(text="one two three", cut_after=2))
    with pytest.raises(openai.APIConnectionError):
        list(ask(model, "hi"))
    assert model.requests[0].finished.wait(60) and model.requests[0].outcome == "cut"


def test_broken_json_in_a_stream(model):
    """The second chunk can't be parsed."""
    model.script(Answer(text="one two", broken=True))
    with pytest.raises(ValueError):
        list(ask(model, "hi"))


def test_a_held_answer_waits_after_its_first_piece(model):
    """The first word is there while the server still holds the rest; requests and headers are noted."""
    hold = threading.Event()
    model.script(Answer(text="one two", hold=hold))
    stream = ask(model, "hi")
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "one "]
    assert model.requests[0].chunks == 2 and not model.requests[0].finished.is_set()
    hold.set()
    assert len(list(stream)) == 3
    assert model.requests[0].headers["Authorization"] == "Bearer k"
    assert model.requests[0].messages == [{"role": "user", "content": "hi"}]


def test_a_client_that_goes_away_is_noticed(model):
    """Closing the stream ends the answer on the server's side."""
    model.script(Answer(text="one two", hold=threading.Event()))
    stream = ask(model, "hi")
    next(iter(stream))
    stream.close()
    assert model.requests[0].finished.wait(60) and model.requests[0].outcome == "client gone"


def test_a_wrong_key_is_refused():
    """With a key of its own the server takes no other."""
    with ModelServer(api_key="right") as model:
        with pytest.raises(openai.AuthenticationError):
            list(client(model, "wrong").chat.completions.create(model="m", messages=[], stream=True))
        assert [listed.id for listed in client(model, "right").models.list()] == ["stub-model"]
