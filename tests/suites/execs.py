"""Commands that calls run in a workspace, wherever the service runs. A module of tests derives a class and has the
fixture `chat`, a session there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conversation import ASYNC, Conversation
from tests.waiting import wait_for
from workspaces import Asleep, Window

PATIENT = "wait=60"


def run(chat: Conversation, command: Any, prefer: str = PATIENT, **body: Any) -> Any:
    return chat.call("POST", f"/session/{chat.uuid}/exec", {"command": command, **body}, prefer).json()


def look(chat: Conversation, exec_id: str, prefer: str = ASYNC) -> Any:
    return chat.call("GET", f"/session/{chat.uuid}/exec/{exec_id}", prefer=prefer).json()


class Terminal:
    """A command in a terminal, as a client has it."""

    def __init__(self, chat: Conversation, command: str, exec_id: str = "it") -> None:
        self.uuid, self.id, self.calls = chat.uuid, exec_id, chat.client().execs
        self.calls.run(self.uuid, command, tty=Window(30, 100), id=exec_id, wait=0)

    def type(self, text: str) -> None:
        """Type it after all that was typed."""
        at = self.calls.get(self.uuid, self.id).input_bytes
        assert self.calls.write_input(self.uuid, self.id, text.encode(), at=at).input_bytes == at + len(text.encode())

    def shows(self, text: str) -> None:
        """Wait for that."""
        wait_for(lambda: text in self.text(), f"the terminal shows {text!r}", self.text)

    def text(self) -> str:
        return self.calls.get(self.uuid, self.id).stdout


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

    def test_a_shell_in_a_terminal_is_used_until_its_session_sleeps(self, chat: Conversation) -> None:
        shell = Terminal(chat, "PS1='ready ' exec bash --norc")
        shell.shows("ready ")
        shell.type("stty size; tty; sh -c 'echo so > /dev/tty; exec sleep 1000'\r")
        shell.shows("30 100\r\n/dev/pts/")
        shell.shows("so\r\n")
        shell.calls.set_window(shell.uuid, shell.id, 5, 7)
        shell.type("\x03")
        shell.shows("^C\r\n\x1b[?2004hready ")
        shell.type("stty size\r")
        shell.shows("5 7\r\n")
        chat.sleep()
        with pytest.raises(Asleep):
            shell.calls.write_input(shell.uuid, shell.id, b"x", at=0)
        assert chat.session()["status"] == "sleeping"
        assert look(chat, shell.id)["reason"] == "sleep"
