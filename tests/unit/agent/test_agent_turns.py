"""Turns run one at a time and in order, go on where they were cut short, and always come to an end."""

import threading
from unittest.mock import Mock

import pytest

from app.agent import retry
from app.agent.model import Call, ContextTooLong, ManagerUnavailable, ModelError, ModelUnavailable, Reply, Stopped
from app.agent.model_context import INTERRUPTED, NOT_RUN
from app.agent.protocol import Failure
from app.agent.retry import wait_before
from app.agent.state import IdReused, QueueFull
from tests.unit.agent.fakes import USAGE, FakeModel, World, calls, says
from tests.unit.agent.process import PATIENCE


def broken_off(error):
    """The error, of a reply that had cost something."""
    error.usage = {"prompt_tokens": 7, "completion_tokens": 2}
    return error


class Crash(BaseException):
    """Of the process: nothing handles it."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(retry, "wait_before", lambda attempt, retry_after, chance: 0.0)


def test_a_turn_calls_tools_until_the_model_answers(tmp_path):
    world = World(tmp_path, FakeModel(calls("a", "b"), calls("c"), says("fine")))
    world.run("m1")
    assert world.toolbox.done() == ["a", "b", "c"]
    assert [message["role"] for message in world.state.history()[0]] == [
        "user", "assistant", "tool", "tool", "assistant", "tool", "assistant",
    ]  # fmt: skip
    assert world.outcome("m1")["response"] == {
        "text": "fine",
        "steps": 3,
        "tool_calls": [{"name": name, "ok": True} for name in "abc"],
        "usage": {"prompt_tokens": 30, "completion_tokens": 15, "total_tokens": 45},
    }
    kinds = [event.type for event in world.events]
    assert kinds == ["tool_call", "tool_result"] * 3 + ["token", "processed"]


def test_prompts_are_worked_off_in_order_and_an_id_once(tmp_path):
    world = World(tmp_path)
    for n in range(5):
        world.prompt(f"m{n}", f"prompt {n}")
    assert world.state.accept("m2", "prompt 2", limit=100) is False
    with pytest.raises(IdReused):
        world.state.accept("m2", "another", limit=100)
    with pytest.raises(QueueFull):
        world.state.accept("m9", "x", limit=5)
    world.run()
    assert world.state.accept("m2", "prompt 2", limit=100) is False
    world.run()
    assert world.prompts() == [f"prompt {n}" for n in range(5)]


@pytest.mark.parametrize(
    ("limits", "code", "steps"),
    [({"steps": 3}, "step_limit", 3), ({"tokens": 40}, "token_limit", 3), ({"seconds": 0}, "turn_timeout", 0)],
)
def test_a_model_that_never_answers_meets_a_limit(tmp_path, limits, code, steps):
    world = World(tmp_path, FakeModel(rule=lambda messages: calls("again")), **limits)
    world.run("m1")
    assert world.outcome("m1")["status"] == "failed" and world.outcome("m1")["code"] == code
    assert world.events[-1].type == "failed" and world.events[-1].data["code"] == code
    assert world.toolbox.done() == ["again"] * steps


def test_a_turn_at_its_limit_says_what_it_did(tmp_path):
    world = World(tmp_path, FakeModel(rule=lambda messages: calls("again")), steps=2)
    world.run("m1")
    assert world.outcome("m1")["response"] == {
        "text": "",
        "steps": 2,
        "tool_calls": [{"name": "again", "ok": True}] * 2,
        "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
    }


def test_an_answer_that_breaks_off_is_asked_for_again(tmp_path):
    """What was told of it is taken back; tools that ran before are not run again."""

    def cut(on_text, stop):
        on_text("half an ans")
        return ModelUnavailable("broke off")

    world = World(tmp_path, FakeModel(calls("a"), cut, ModelUnavailable("away"), says("whole")))
    world.run("m1")
    assert world.toolbox.done() == ["a"]
    assert world.outcome("m1")["response"]["text"] == "whole"
    told = [dict(event.data) for event in world.events if event.type == "token"]
    assert told == [{"text": "half an ans"}, {"text": "", "again": True}, {"text": "whole"}]


def test_a_model_that_stays_away_fails_the_turn(tmp_path):
    model = FakeModel(rule=lambda messages: ModelUnavailable("status 500"))
    world = World(tmp_path, model)
    world.run("m1")
    assert world.outcome("m1") == {"status": "failed", "reason": "status 500", "code": "model_unavailable"}
    assert len(model.asked) == ModelUnavailable.tries


def test_a_manager_that_is_away_for_longer_fails_no_turn(tmp_path):
    """It asks the model nothing meanwhile, so a turn has more patience with it; but not for ever."""
    away = [ManagerUnavailable("no Redis")] * (ManagerUnavailable.tries - 1)
    unavailable = [ModelUnavailable("status 500")] * (ModelUnavailable.tries - 1)
    world = World(tmp_path, FakeModel(*away, *unavailable, says("back")))
    world.run("m1")
    assert world.outcome("m1")["response"]["text"] == "back"
    world.model.script = [*away, ManagerUnavailable("no Redis")]
    world.run("m2")
    assert world.outcome("m2")["reason"] == "no Redis"


def test_tries_have_growing_pauses_between_them_and_respect_a_named_one():
    """Bounded: 0.5 s at first and 10 s at most, half of it by chance; what the provider asks for, up to 30 s."""
    assert [wait_before(attempt, 0.0, 1.0) for attempt in (0, 1, 4, 5, 62)] == [0.5, 1.0, 8.0, 10.0, 10.0]
    assert wait_before(62, 0.0, 0.0) == 5.0
    assert [wait_before(0, named, 0.0) for named in (7.0, 3600.0)] == [7.0, 30.0]
    whole = sum(wait_before(attempt, 0.0, 0.5) for attempt in range(ManagerUnavailable.tries - 1))
    assert whole > 400, "a container in its longest pause of 5 minutes comes back meanwhile"


def test_a_refusal_is_not_asked_again(tmp_path):
    """The budget is spent: the gateway's words are the reason."""
    model = FakeModel(ModelError("Spent until midnight.", Failure.LLM_BUDGET_EXCEEDED), says("next"))
    world = World(tmp_path, model)
    world.run("m1", "m2")
    assert world.outcome("m1")["reason"] == "Spent until midnight." and world.outcome("m2")["status"] == "processed"
    assert "Spent until midnight." in model.asked[-1][2]["content"]


def test_what_goes_wrong_inside_fails_one_turn_only(tmp_path):
    """An exception nobody thought of is this turn's end, not the agent's."""
    world = World(tmp_path, FakeModel(ZeroDivisionError("prompt text"), says("next")))
    world.run("m1", "m2")
    assert world.outcome("m1")["code"] == "internal" and "prompt text" not in world.outcome("m1")["reason"]
    assert world.outcome("m2")["status"] == "processed"


def test_cancel_ends_the_turn_and_says_why(tmp_path):
    """In the model's stream; what was told of the answer stays, and what it cost counts."""
    world = World(tmp_path)

    def cancelled(on_text, stop):
        on_text("half an ")
        on_text("answer")
        assert world.turns.cancel("sleep") == "m1"
        assert stop()
        return broken_off(Stopped())

    world.model.script = [calls("a"), cancelled]
    world.prompt("m1")
    world.turns.run_next()
    assert world.outcome("m1") == {
        "status": "failed",
        "reason": "The workspace was put to sleep while this ran.",
        "code": "sleep",
        "response": {
            "text": "half an answer",
            "steps": 2,
            "tool_calls": [{"name": "a", "ok": True}],
            "usage": {"prompt_tokens": 17, "completion_tokens": 7, "total_tokens": 24},
        },
    }
    assert world.turns.closed
    assert world.state.history()[0][-1]["content"] == "half an answer"
    assert world.events[-1].data["response"]["text"] == "half an answer"


def test_the_model_is_told_what_it_had_said(tmp_path):
    """The user may say: go on."""
    world = World(tmp_path)

    def cancelled(on_text, stop):
        on_text("First, I ")
        world.turns.cancel("user")
        return Stopped()

    world.model.script = [cancelled, says("next")]
    world.run("m1", "m2")
    told = world.model.asked[-1][2]["content"]
    assert told.startswith("First, I \n\n(This turn ended without an answer")


def test_what_broke_off_costs_too(tmp_path):
    world = World(tmp_path)

    def cut(on_text, stop):
        on_text("half")
        return broken_off(ModelUnavailable("broke off"))

    world.model.script = [cut, cut, says("whole"), cut, broken_off(ModelError("no", Failure.MODEL_REFUSED))]
    world.run("m1", "m2")
    usage = {"prompt_tokens": 24, "completion_tokens": 9, "total_tokens": 33}
    assert world.outcome("m1")["response"]["usage"] == usage
    response = world.outcome("m2")["response"]
    assert response["text"] == "", "what broke off and was asked for again is void"
    assert response["usage"] == {"prompt_tokens": 14, "completion_tokens": 4, "total_tokens": 18}


def test_cancel_while_a_tool_runs_skips_the_calls_after_it(tmp_path):
    """The running one is told to stop, the rest is answered as not run, so the conversation stays well-formed."""
    world = World(tmp_path, FakeModel(calls("a", "b", "c"), says("next")))

    def cancel(name, stop):
        assert not stop() and world.turns.cancel("user") == "m1" and stop()

    world.toolbox.during = cancel
    world.prompt("m1")
    world.turns.run_next()
    assert world.toolbox.done() == ["a"] and world.outcome("m1")["code"] == "user"
    assert world.contents()[1:5] == ["", "a done", NOT_RUN, NOT_RUN]
    world.run("m2")
    roles = [message["role"] for message in world.model.asked[-1]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "tool", "assistant", "user"]


def test_a_waiting_prompt_can_be_cancelled_and_keeps_its_place(tmp_path):
    """It never runs; its failure is reported when it is its turn; an unknown id cancels nothing."""
    world = World(tmp_path)
    for n in (1, 2, 3):
        world.prompt(f"m{n}")
    assert world.turns.cancel("user", "m2") == "m2"
    assert world.turns.cancel("user", "none") is None
    world.run()
    ended = [(event.message_id, event.type) for event in world.events if event.ends]
    assert ended == [("m1", "processed"), ("m2", "failed"), ("m3", "processed")]
    assert len(world.model.asked) == 2


def test_stop_lets_a_turn_rest_and_the_next_process_goes_on(tmp_path):
    """The calls that were not run are told so; the turn isn't failed, and the prompt isn't put again."""
    world = World(tmp_path, FakeModel(calls("a", "b")))
    world.toolbox.during = lambda name, stop: world.turns.stop()
    world.prompt("m1")
    world.turns.run_next()
    assert world.state.outcome("m1") is None
    world.state.close()

    again = World(tmp_path, FakeModel(says("fine")))
    again.run()
    assert again.outcome("m1")["status"] == "processed" and again.toolbox.done() == ["a"]
    assert [message["content"] for message in again.model.asked[0] if message["role"] == "tool"] == ["a done", NOT_RUN]


def test_a_call_that_was_running_at_a_crash_is_called_interrupted(tmp_path):
    """It is not run again; the model is told that nobody knows how far it came."""
    world = World(tmp_path, FakeModel(calls("a", "b")))
    world.toolbox.during = Mock(side_effect=Crash)
    with pytest.raises(Crash):
        world.run("m1")
    world.state.close()

    again = World(tmp_path, FakeModel(says("fine")))
    again.run()
    assert again.toolbox.done() == ["a"]
    results = [message["content"] for message in again.model.asked[0] if message["role"] == "tool"]
    assert results == [INTERRUPTED, NOT_RUN]


def test_a_turn_that_ends_the_agent_again_and_again_is_given_up(tmp_path):
    """After some resumes without any progress it fails; prompts behind it run."""
    crashes = 0
    for _ in range(20):
        world = World(tmp_path, FakeModel(Crash()))
        world.prompt("m1")
        world.prompt("m2")
        try:
            world.turns.run_next()
            break
        except Crash:
            crashes += 1
            world.state.close()
    assert world.outcome("m1")["code"] == "crashed" and 1 < crashes < 10
    world.model.script.clear()
    world.run()
    assert world.outcome("m2")["status"] == "processed"


def test_calls_with_the_same_id_get_results_of_their_own(tmp_path):
    """Some servers number calls badly; each call still has one result, and each result one call."""
    twice = Reply("", (Call("x", "a", "{}"), Call("x", "b", "{}")), USAGE)
    world = World(tmp_path, FakeModel(twice, says("fine")))
    world.run("m1")
    sent = world.model.asked[1]
    assert [call["id"] for call in sent[2]["tool_calls"]] == [message["tool_call_id"] for message in sent[3:]]
    assert len({message["tool_call_id"] for message in sent[3:]}) == 2


def test_a_context_the_model_refuses_is_shortened_until_it_fits(tmp_path):
    """The estimate was too low for this model; half of it is tried, then half of that."""
    world = World(tmp_path, context_tokens=4000)
    world.run(*(f"m{n}" for n in range(4)), text="word " * 600)

    def refuse_long(messages):
        if len(str(messages)) > 6000:
            return ContextTooLong("too long", Failure.CONTEXT_TOO_LONG)
        return says("short enough")

    world.model.rule = refuse_long
    world.run("m9", text="and now?")
    assert world.outcome("m9")["status"] == "processed"
    assert "and now?" in str(world.model.asked[-1])
    assert len(world.state.history()[0]) == 10


def test_a_full_disk_fails_the_turn_and_keeps_the_outcome(tmp_path, monkeypatch):
    """What can't be written is reported all the same, and written once there is room."""
    world = World(tmp_path, FakeModel(calls("a"), says("fine")))
    world.prompt("m1")
    real, full = world.state._journal.add, [False]

    def add(entry):
        if full[0]:
            raise OSError(28, "No space left on device")
        real(entry)

    monkeypatch.setattr(world.state._journal, "add", add)
    monkeypatch.setattr(world.state, "fold", lambda: None)
    world.toolbox.during = lambda name, stop: full.__setitem__(0, True)
    world.turns.run_next()
    assert world.outcome("m1")["code"] == "disk" and world.events[-1].type == "failed"
    full[0] = False
    world.prompt("m2")
    world.state.close()
    again = World(tmp_path)
    assert again.outcome("m1")["code"] == "disk"
    again.run()
    assert again.outcome("m2")["status"] == "processed"


def test_a_stop_that_was_broken_off_leaves_no_pause(tmp_path):
    """A prompt that comes right after it runs at once, and not when the pause would be over."""
    world = World(tmp_path)
    world.turns.cancel("sleep", generation=2)
    world.prompt("m1")
    assert world.turns.closed and not world.turns.run_next()
    working = threading.Thread(target=world.turns.run)
    working.start()
    world.turns.resume(3)
    assert world.state.wait_for_outcome("m1", PATIENCE) is not None
    world.turns.stop()
    working.join(PATIENCE)
    assert not working.is_alive()


@pytest.mark.parametrize("resumed", [2, 3])
def test_the_cancel_of_a_stop_that_was_broken_off_comes_too_late(tmp_path, resumed):
    """It was under way when the stop was: it neither pauses the agent again nor ends the turn that runs by now."""
    world = World(tmp_path)

    def late(on_text, stop):
        assert world.turns.cancel("sleep", generation=2) is None
        assert not stop()
        return says("fine")

    world.model.script = [late]
    world.turns.cancel("sleep", generation=2)
    world.turns.resume(resumed)
    world.run("m1")
    assert world.outcome("m1")["response"]["text"] == "fine" and not world.turns.closed


def test_the_pause_of_a_newer_stop_stands(tmp_path):
    """Word of an older one that was broken off may come late too. A pause of a stop that named no generation ends."""
    turns = World(tmp_path).turns
    turns.cancel("delete", generation=4)
    seen = []
    for resumed in (3, 4):
        turns.resume(resumed)
        seen.append(turns.closed)
    turns.cancel("sleep")
    turns.resume(4)
    turns.cancel("user", generation=1)
    assert [*seen, turns.closed] == [True, False, False]


def test_a_cancel_that_saw_no_turn_is_sure_that_none_begins(tmp_path):
    """Also one that comes between the look whether there is a pause and the turn's begin."""
    world = World(tmp_path)
    world.prompt("m1")
    world.turns.cancel("sleep", generation=2)
    assert not world.turns.run_next()
    assert world.model.asked == [] and world.state.waiting() == 1
