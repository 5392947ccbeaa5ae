"""The stub provider speaks the wire format as the `openai` client reads it; test_agent_model.py reads its streams, and
what goes wrong in them."""

import json
import threading

import openai
import pytest

from tests.model_server import Answer, ModelServer, when


def client(model, key="k"):
    return openai.OpenAI(base_url=model.url, api_key=key, max_retries=0, timeout=30)


def ask(model, *messages):
    """The model's answer to these, in one piece."""
    return client(model).chat.completions.create(model="m", messages=messages).choices[0].message


def user(text):
    return {"role": "user", "content": text}


def test_the_demo_sentence_writes_runs_and_quotes(model):
    messages = [user("create hello.py that prints hi and run it")]
    for result in ("written", "hi\n"):
        message = ask(model, *messages)
        messages.append(message.model_dump(exclude_none=True))
        messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": result})
    assert messages[1]["tool_calls"][0]["function"]["name"] == "write_file"
    assert json.loads(messages[1]["tool_calls"][0]["function"]["arguments"])["content"] == "print('hi')\n"
    assert messages[3]["tool_calls"][0]["function"]["name"] == "run_command"
    assert ask(model, *messages).content.endswith("hi\n")


def test_a_rule_of_the_test_comes_before_nothing_but_the_script(model):
    model.rules.insert(0, when("weather", Answer(text="rain")))
    assert ask(model, user("the weather?")).content == "rain"
    assert ask(model, user("please remember 17")).content == "17 noted"


def test_a_held_answer_waits_after_its_first_piece(model):
    hold = threading.Event()
    model.script(Answer(text="one two", hold=hold))
    stream = client(model).chat.completions.create(
        model="m", messages=[user("hi")], stream=True, stream_options={"include_usage": True}
    )
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "one "]
    assert model.requests[0].chunks == 2 and not model.requests[0].finished.is_set()
    hold.set()
    assert len(list(stream)) == 3
    assert model.requests[0].headers["Authorization"] == "Bearer k"
    assert model.requests[0].messages == [user("hi")]


def test_a_wrong_key_is_refused():
    with ModelServer(api_key="right") as model:
        with pytest.raises(openai.AuthenticationError):
            list(client(model, "wrong").chat.completions.create(model="m", messages=[], stream=True))
        assert [listed.id for listed in client(model, "right").models.list()] == ["stub-model"]
