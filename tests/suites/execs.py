"""Commands that calls run in a workspace, wherever the service runs. A module of tests derives a class and has the
fixture `chat`, a session there."""

from __future__ import annotations

from typing import Any

from tests.conversation import ASYNC, Conversation
from tests.waiting import wait_for

PATIENT = "wait=60"


def run(chat: Conversation, command: Any, prefer: str = PATIENT, **body: Any) -> Any:
    return chat.call("POST", f"/session/{chat.uuid}/exec", {"command": command, **body}, prefer).json()


def look(chat: Conversation, exec_id: str, prefer: str = ASYNC) -> Any:
    return chat.call("GET", f"/session/{chat.uuid}/exec/{exec_id}", prefer=prefer).json()


class Execs:
    """What becomes of a command while its session lives as sessions do."""

    def test_a_command_runs_awake_and_asleep_and_its_files_stay(self, chat: Conversation) -> None:
        told = run(chat, "cat > hello.py && python3 hello.py", stdin="print('hi')\n")
        assert (told["exit_code"], told["stdout"], told["stderr"]) == (0, "hi\n", "")
        assert chat.inside("cat hello.py") == "print('hi')\n"
        chat.sleep()
        again = run(chat, ["python3", "hello.py"])
        assert (again["state"], again["stdout"]) == ("exited", "hi\n")
        chat.wait_awake()
        assert look(chat, told["exec_id"]) == told, "the volume has it still"

    def test_it_runs_in_the_workspaces_folder_and_has_no_variable_of_the_agent(self, chat: Conversation) -> None:
        folder, *variables = run(chat, "pwd; env")["stdout"].splitlines()
        assert f"{folder}\n" == chat.inside("pwd")
        assert variables
        assert not [each for each in variables if each.startswith(("AGENT_", "GATEWAY_", "LLM_", "PYTHON"))]

    def test_a_sleep_ends_it_and_says_so(self, chat: Conversation) -> None:
        begun = run(chat, "echo begun; sleep 1000", ASYNC)
        assert begun["state"] == "running"
        wait_for(lambda: look(chat, begun["exec_id"])["stdout"], "the command begins")
        chat.sleep()
        told = look(chat, begun["exec_id"])
        assert (told["state"], told["reason"], told["stdout"]) == ("exited", "sleep", "begun\n")

    def test_it_goes_on_without_its_caller_and_ends_on_request(self, chat: Conversation) -> None:
        begun = run(chat, "echo $$ > pid; exec sleep 1000", detach=True)
        chat.wait_file("pid")
        assert look(chat, begun["exec_id"])["state"] == "running"
        ended = chat.call("DELETE", f"/session/{chat.uuid}/exec/{begun['exec_id']}", prefer=PATIENT).json()
        assert (ended["signal"], ended["reason"]) == ("SIGTERM", "killed")
        assert chat.inside("kill -0 $(cat pid) 2>/dev/null || echo gone") == "gone\n"

    def test_its_output_comes_as_it_is_written(self, chat: Conversation) -> None:
        command = "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two"
        with chat.streaming(f"/session/{chat.uuid}/exec", {"command": command}) as events:
            assert next(events) == ("stdout", {"text": "one\n"})
            chat.inside("touch go")
            assert next(events) == ("stdout", {"text": "two\n"})
            kind, data = next(events)
            assert (kind, data["exit_code"]) == ("exit", 0)
