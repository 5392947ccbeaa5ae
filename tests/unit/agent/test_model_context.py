"""The model gets a conversation it can take, however long the history is."""

import json
from unittest.mock import Mock

import pytest

from app.agent.compaction import ENOUGH, compacted, estimate, fitted, shortened, split
from app.agent.model_context import INTERRUPTED, caught_up, for_model, open_calls
from tests.unit.agent.fakes import FakeModel, World, calls, says


def turn(id_, prompt, answer, *outputs, arguments="{}"):
    """A turn of the history: a call for each output, one a step."""
    messages = [{"id": id_, "role": "user", "content": prompt}]
    for n, output in enumerate(outputs):
        call = {"call_id": f"{id_}-{n}", "name": "read_file", "arguments": arguments}
        messages.append({"id": id_, "role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"id": id_, "role": "tool", "call_id": f"{id_}-{n}", "ok": True, "content": output})
    outcome = {"status": "processed"}
    return [*messages, {"id": id_, "role": "assistant", "content": answer, "outcome": outcome}]


def well_formed(messages):
    """Each call has its result right after it, and each result its call."""
    expected: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] == expected.pop(0)
        else:
            assert expected == []
            expected = [call["id"] for call in message.get("tool_calls") or []]
            for call in message.get("tool_calls") or []:
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
    return expected == [] and messages[0]["role"] == "system" and messages[1]["role"] == "user"


def no_summary(text):
    raise AssertionError("no summary was needed")


def long_history(prompt):
    return [
        message for n in range(40) for message in turn(f"{prompt}{n}", f"{prompt} {n} " + "w " * 100, "noted " * 50)
    ]


def test_a_context_is_brought_up_to_date_from_the_history():
    """Whatever it covers; one that covers more than there is, is made anew."""
    history = turn("m1", "hi", "hello", "output") + turn("m2", "and", "so")
    whole = caught_up([], history)
    assert [message["through"] for message in whole] == [1, 2, 3, 4, 5, 6]
    for n in range(len(history)):
        assert caught_up(whole[:n], history) == whole
    assert caught_up([*whole, {"role": "user", "content": "x", "through": 99}], history) == whole
    assert caught_up([{"role": "nobody", "through": 1}], history) == whole


def test_a_failed_turn_is_told_to_the_model():
    failed = {"id": "m1", "role": "assistant", "content": "", "outcome": {"status": "failed", "reason": "it slept"}}
    context = caught_up([], [{"id": "m1", "role": "user", "content": "x"}, failed])
    assert "it slept" in context[1]["content"]


def test_a_request_is_well_formed_whatever_the_context():
    """Missing results are put in, results without a call left out, bad arguments replaced."""
    history = turn("m1", "hi", "hello", "output", arguments='{"path": ')
    context = caught_up([], history)
    assert well_formed(for_model("system", context))
    assert well_formed(for_model("system", context[:2]))
    assert for_model("system", context[:2])[-1]["content"] == INTERRUPTED
    assert well_formed(for_model("system", [context[0], context[2], context[3]]))
    assert all("through" not in message for message in for_model("system", context))


def test_open_calls_are_those_without_a_result():
    """Of the last step only, in order."""
    step = {"role": "assistant", "tool_calls": [{"call_id": "a"}, {"call_id": "b"}]}
    assert open_calls([step, {"role": "tool", "call_id": "a"}]) == ["b"]
    assert open_calls([step]) == ["a", "b"]
    assert open_calls([step, {"role": "tool", "call_id": "a"}, {"role": "tool", "call_id": "b"}]) == []
    assert open_calls([]) == [] and open_calls([{"role": "user"}]) == []


def test_a_short_conversation_is_left_alone():
    context = caught_up([], turn("m1", "hi", "hello", "output"))
    assert compacted(context, 1000, no_summary) == context


def test_old_outputs_and_arguments_go_first():
    """Shortened at both ends, those of the last steps kept whole; no summary is asked for."""
    arguments = json.dumps({"path": "x", "content": "y" * 5000})
    history = [message for n in range(8) for message in turn(f"m{n}", "hi", "hello", "o" * 5000, arguments=arguments)]
    context = caught_up([], history)
    short = compacted(context, estimate(context) - 1, no_summary)
    assert estimate(short) <= estimate(context) * ENOUGH
    assert short[-8:] == context[-8:]
    assert "left out" in short[2]["content"] and "left out" in short[1]["tool_calls"][0]["function"]["arguments"]
    assert well_formed(for_model("system", short))
    assert shortened(short) == short


def test_what_is_left_becomes_a_summary():
    """The model writes it from all but the last steps; the tail begins with a prompt; later messages are added."""
    history = long_history("remember")
    context = caught_up([], history)
    summarise = Mock(return_value="the numbers 0 to 30")
    short = compacted(context, 3000, summarise)
    summarise.assert_called_once()
    assert "remember 0 " in summarise.call_args.args[0]
    assert estimate(short) <= 3000 and short[0]["role"] == "summary" and short[1]["role"] == "user"
    assert short[-1] == context[-1]
    sent = for_model("system", caught_up(short, history + turn("m99", "next", "fine")))
    assert well_formed(sent) and "the numbers 0 to 30" in sent[0]["content"] and sent[-1]["content"] == "fine"


def test_without_a_summary_the_prompts_stand_for_it():
    """The model can't be had: nothing fails, and an earlier summary isn't lost."""
    history = long_history("remember")
    first = compacted(caught_up([], history), 3000, lambda text: "FIRST")
    short = compacted(caught_up(first, history + long_history("also")), 3000, lambda text: "")
    assert short[0]["role"] == "summary" and short[0]["content"].startswith("FIRST")
    assert "- also" in short[0]["content"]
    assert estimate(short) <= 3000


def test_a_turn_longer_than_the_limit_is_cut_between_its_steps():
    """Its prompt stays in front of what is left, calls stay with their results."""
    history = turn("m1", "do much", "done", *["o" * 300] * 60)[:-1]
    short = compacted(caught_up([], history), 2000, lambda text: "SUMMARY")
    assert estimate(short) <= 2000
    assert [message["role"] for message in short[:3]] == ["summary", "user", "assistant"]
    assert short[1]["content"] == "do much" and well_formed(for_model("system", short))


def test_one_enormous_step_is_cut_to_fit():
    """The last resort, when there is nothing before it to leave out."""
    context = caught_up([], turn("m1", "p" * 50_000, "x", "o" * 50_000)[:-1])
    assert split(context, 10)[1]
    short = compacted(context, 2000, lambda text: "")
    assert estimate(short) <= 2000 and well_formed(for_model("system", short))
    assert fitted([], 0) == []


@pytest.mark.slow
def test_a_compacted_conversation_goes_on_and_its_history_is_whole(tmp_path):
    """Fifty turns with a small context: requests stay small, every word stays in history.json, restarts too."""
    model = FakeModel(
        rule=lambda messages: says("a summary" if "replaced by your summary" in str(messages[0]) else "noted")
    )
    world = World(tmp_path, model, context_tokens=2000)
    prompts = [f"remember {n} " + "w " * 100 for n in range(50)]
    for n, prompt in enumerate(prompts):
        world.run(f"m{n}", text=prompt)
        if n % 10 == 9:
            world.state.close()
            world = World(tmp_path, model, context_tokens=2000)
    kept = json.loads((tmp_path / ".session" / "history.json").read_text())
    assert [message["content"] for message in kept[::2]] == prompts
    assert all(estimate(asked) < 2500 for asked in model.asked)
    assert any("a summary" in asked[0]["content"] for asked in model.asked)
    summaries = sum("replaced by your summary" in asked[0]["content"] for asked in model.asked)
    assert 1 <= summaries < 15


def test_usage_of_a_summary_counts_to_the_turn(tmp_path):
    model = FakeModel(rule=lambda messages: says("x " * 400))
    world = World(tmp_path, model, context_tokens=1000)
    world.run(*(f"m{n}" for n in range(8)), text="w " * 400)
    spent = [world.outcome(f"m{n}")["response"]["usage"]["total_tokens"] for n in range(8)]
    assert sum(spent) == 15 * len(model.asked) and max(spent) > 15


def test_calls_after_a_compaction_keep_their_results(tmp_path):
    world = World(tmp_path, FakeModel(*[calls("a")] * 30, says("done")), context_tokens=200)
    world.run("m1")
    assert world.state.outcome("m1") is not None
    for asked in world.model.asked:
        assert "replaced by your summary" in str(asked[0]) or well_formed(asked)
