"""Prompts, from the API to the agent's work, and what is left of a conversation in the end.

Suites for wherever the service runs. A module of tests derives a class from each, and has fixtures of its own: `place`,
`model`, the one that the service is told of, and `chat`, a session there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from playwright.sync_api import Browser

from app.core.backups.store import BackupStore
from tests.browser import expect_file, in_terminal, open_editor
from tests.conversation import Conversation, Host, conversation
from tests.events import Event
from tests.model_server import Answer, ModelServer, last_prompt
from tests.waiting import wait_for

WHICH = "command -v python3 git"


@dataclass(frozen=True)
class Place:
    """Where prompts are sent. A long conversation has so many `turns` here; `left` tells what still runs of a session;
    below `programs` are those that the service, or the agent, runs on, which are none of a workspace's."""

    backups: BackupStore
    turns: int
    left: Callable[[str], Sequence[object]]
    programs: str


def is_end(event: Event) -> bool:
    """Whether a prompt was processed."""
    kind, data = event
    return bool(kind == "message" and data["state"] == "processed")


def wait_for_end(chat: Conversation, seen: Sequence[Event]) -> None:
    wait_for(lambda: any(map(is_end, seen)), "the end among the events", lambda: f"{seen}\n{chat.look()}", 120)


class Prompts:
    """What becomes of a prompt while nothing fails."""

    def test_a_prompt_makes_a_file_runs_it_and_the_open_editor_shows_it(
        self, place: Place, chat: Conversation, browser: Browser
    ) -> None:
        """The work and the answer come as events while it lasts. The agent has the terminal's programs, so that what
        one installs the other finds, and not those that the service runs on."""
        page = open_editor(browser, chat.link())
        # VS Code lists the files before it watches them; what comes in between it does not see.
        in_terminal(page, f"{WHICH} > watched")
        expect_file(page, "watched")
        with chat.events() as seen:
            answer = chat.answer("m1", "create hello.py that prints hi and run it")
            assert answer["status"] == "processed"
            wait_for_end(chat, seen)
            told = list(seen)
        [ended] = filter(is_end, told)
        assert ended[1]["response"] == answer["pod_response"], "as whole as in the answer"
        assert chat.ended("m1")["response"] == answer["pod_response"]
        assert chat.inside("cat hello.py") == "print('hi')\n"
        assert answer["pod_response"]["text"].endswith("It printed:\n\nhi")
        assert [each["name"] for each in answer["pod_response"]["tool_calls"]] == ["write_file", "run_command"]
        tokens = [data["text"] for kind, data in told if kind == "token"]
        assert answer["pod_response"]["text"] in "".join(tokens)
        assert [data["name"] for kind, data in told if kind == "tool_call"] == ["write_file", "run_command"]
        assert [data["ok"] for kind, data in told if kind == "tool_result"] == [True, True]
        assert told.index(next(each for each in told if each[0] == "token")) < told.index(ended)
        expect_file(page, "hello.py")
        page.close()

        with chat.events() as seen:
            chat.send("m2", "count to 20")
            wait_for_end(chat, seen)
            assert len([kind for kind, _ in seen if kind == "token"]) > 1, "an answer of a second comes in pieces"

        chat.prompt("m3", f"run: {WHICH} > found")
        found = chat.inside("cat found")
        assert found == chat.inside("cat watched")
        assert found.endswith("/git\n")
        assert place.programs not in found

    def test_a_prompt_wakes_a_sleeping_session_and_is_worked_on_once(
        self, chat: Conversation, model: ModelServer
    ) -> None:
        """202 at once, also to who would wait; the answer among the messages later; the same prompt again changes
        nothing."""
        chat.sleep()
        before = len(model.requests)
        answer = chat.send("m1", "remember 7", prefer="")
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        ended = chat.ended("m1")
        assert (ended["state"], ended["response"]["text"]) == ("processed", "7 noted")
        assert chat.answer("m1", "remember 7")["status"] == "processed"
        assert chat.said() == [("user", "remember 7"), ("assistant", "7 noted")]
        assert len(model.requests) == before + 1
        chat.wait_awake()

    def test_a_conversation_reads_the_same_after_sleeps_a_delete_and_a_restore(
        self, host: Host, place: Place, model: ModelServer
    ) -> None:
        """Many turns, asleep before each tenth; read awake, asleep, deleted and restored, and the model is told all of
        it."""
        chat = Conversation(host)
        for number in range(place.turns):
            if number % 10 == 5:
                chat.sleep()
            chat.prompt(f"m{number}", f"remember {number}")
        awake = chat.messages()
        wanted = [text for n in range(place.turns) for text in (f"remember {n}", f"{n} noted")]
        assert [each["content"] for each in awake] == wanted
        chat.wait_awake()
        chat.sleep()
        assert chat.messages() == awake
        chat.delete("")
        assert chat.messages() == awake
        [backup] = chat.backups()
        copied = place.backups.sidecar(backup)["conversation"]
        assert [each["content"] for each in copied["messages"]] == wanted

        with conversation(host, backup=backup) as restored:
            wait_for(lambda: restored.messages() == awake, "the same conversation", restored.look, interval=1.0)
            answer = restored.answer("next", "how many prompts?")
            assert answer["pod_response"]["text"] == f"{place.turns + 1} prompts"

    def test_an_idle_session_waits_for_the_end_of_a_turn(self, host: Host, model: ModelServer) -> None:
        """It is untouched for longer than its idle timeout, but for the agent's work."""
        with conversation(host, awake=False, idle_timeout=3) as chat:
            answer = chat.send("long", "run: sleep 10 && echo over").json()
            assert answer["status"] == "queued", "before it is up, so that it is never idle before its turn"
            ended = chat.ended("long")
            assert (ended["state"], ended["response"]["text"]) == ("processed", "It said:\n\nover")
            chat.wait_asleep()
            assert chat.session()["generation"] == 2, "it did not sleep before"

    def test_a_sleep_on_demand_ends_a_turn_and_its_message_says_so(self, place: Place, chat: Conversation) -> None:
        """Its command ends with it, and the next prompt is worked on as ever."""
        chat.send("cut", "run: touch begun; sleep 600")
        chat.wait_file("begun")
        chat.sleep()
        assert place.left(chat.uuid) == []
        ended = chat.ended("cut")
        assert (ended["state"], ended["reason"]) == ("failed", "The workspace was put to sleep while this ran.")
        assert ended["response"]["tool_calls"] == [{"name": "run_command", "ok": False}]
        assert ended["response"]["usage"]["total_tokens"] > 0, "the model was asked, and billed"
        assert chat.prompt("next", "remember 8")["response"]["text"] == "8 noted"
        assert chat.prompts() == ["cut", "next"]
        chat.wait_awake()

    def test_what_a_prompt_did_is_undone_with_all_that_came_after(self, chat: Conversation) -> None:
        """By the workspace itself: files that git would ignore too; what is rolled back doesn't run again."""
        for number in (1, 2, 3):
            ended = chat.prompt(f"m{number}", f"run: mkdir -p node_modules && echo {number} >> node_modules/done")
            assert ended["state"] == "processed"
        assert chat.roll_back("m2")["restored"] == "checkpoint"
        assert chat.inside("cat node_modules/done").split() == ["1"]
        assert chat.prompts() == ["m1"]
        undone = [chat.ended(f"m{number}")["rolled_back_at"] is not None for number in (1, 2, 3)]
        assert undone == [False, True, True]
        assert chat.prompt("m4", "run: echo 4 >> node_modules/done")["state"] == "processed"
        chat.sleep()
        assert chat.prompt("m5", "run: echo 5 >> node_modules/done")["state"] == "processed"
        assert chat.inside("cat node_modules/done").split() == ["1", "4", "5"]


class PromptsBehindALostVolume:
    """Of a service that makes restore points."""

    def test_prompts_behind_a_lost_volume(self, chat: Conversation, model: ModelServer) -> None:
        """The one that was being worked on is worked on again, those that ended are not: neither the one that the
        restore point knows, nor the one after it. Those sent meanwhile and afterwards go on from there."""
        for number in (1, 2):
            assert chat.prompt(f"m{number}", f"run: echo {number} >> done")["state"] == "processed"
            if number == 1:
                chat.save()
        before, held = len(model.requests), threading.Event()
        model.script(Answer(text="too late", hold=held))
        chat.send("m3", "run: echo 3 >> done")
        model.wait_for_requests(before + 1)
        try:
            chat.lose_volume()
            chat.send("m4", "run: echo 4 >> done")
            chat.wait_restored()
            assert [chat.ended(f"m{number}")["state"] for number in (1, 2, 3, 4)] == ["processed"] * 4
        finally:
            held.set()
        assert chat.prompt("m5", "run: echo 5 >> done")["state"] == "processed"
        assert chat.inside("cat done").split() == ["1", "3", "4", "5"]
        asked = {last_prompt(each.body) for each in model.requests[before:]}
        assert asked == {f"run: echo {number} >> done" for number in (3, 4, 5)}
        assert [chat.ended(f"m{number}")["state"] for number in (1, 2, 3, 4)] == ["processed"] * 4
