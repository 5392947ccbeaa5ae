"""What the agent runs can't read the agent's token, where the kernel can keep it from that, and can do all else."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from pathlib import Path

import pytest

from app.agent.model_context import INSTRUCTIONS, project_instructions
from app.agent.tools import command, runner
from app.agent.tools.command import hidden_folder, run_command
from app.agent.tools.registry import Toolbox
from app.agent.tools.sandbox_path import Workspace
from app.agent.unsaved_work import find_unsaved_work
from tests.model_server import Answer, ModelServer, ToolCall
from tests.unit.agent.fake_gateway import FakeGateway
from tests.unit.agent.process import AgentProcess
from tests.unit.landlock import hides

PATIENCE = 120.0
TOKEN = "the-token-that-nobody-is-to-read"


class Place:
    """A workspace, and beside it a folder with a token that is linked to as in a Secret's volume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app, self.own = folder / "files" / "app", folder / "run" / "agent"
        self.app.mkdir(parents=True)
        (self.own / "..2026").mkdir(parents=True)
        (self.own / "..2026" / "token").write_text(TOKEN)
        (self.own / "..data").symlink_to("..2026")
        self.token = self.own / "token"
        self.token.symlink_to("..data/token")

    def run(self, text: str) -> tuple[bool, str]:
        return run_command(
            Workspace(self.app),
            lambda: False,
            text,
            limit=PATIENCE,
            environment={"PATH": os.environ["PATH"]},
            hidden=hidden_folder(self.token, self.app),
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@hides
@pytest.mark.parametrize(
    "reading",
    [
        "cat {token}",
        "cat {own}/..data/token",
        "cat {own}/..2026/token",
        "cd {own} && cat token",
        "cat /proc/self/root{token}",
        "ln -s {own} here && cat here/token",
        "ln {own}/..2026/token here",
        "mv {own}/..2026/token here && cat here",
        "mv {own}/..2026 there && cat there/token",
        "cp -r {own} copy && cat copy/token",
        "(setsid cat {token}) & wait",
        "bash -c 'exec 3<{token}; cat <&3'",
    ],
)
def test_no_command_gets_at_the_token(place: Place, reading: str) -> None:
    """By no name it has, nor by moving it to where files can be read."""
    ok, text = place.run(reading.format(token=place.token, own=place.own))
    assert TOKEN not in text
    assert not ok or "wait" in reading
    assert (place.own / "..2026" / "token").read_text() == TOKEN


@hides
@pytest.mark.parametrize(
    "reading", ["head -c 1 /proc/{pid}/mem", "readlink /proc/{pid}/fd/0", "ls /proc/{pid}/map_files/*"]
)
def test_no_command_reads_the_agents_memory(place: Place, reading: str) -> None:
    """Where the token is as well: this process stands for the agent."""
    assert place.run(reading.format(pid=os.getpid()))[0] is False


@hides
def test_no_program_that_a_repository_names_gets_at_the_token(place: Place) -> None:
    """git runs it for a look at unsaved work, which the manager asks for."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(place.folder)}
    (place.app / "changed").write_text("old")
    for arguments in (
        "init -q",
        "add changed",
        f"config filter.reading.clean 'cat {place.token} >{place.app}/stolen; cat; echo ran >{place.app}/ran'",
    ):
        subprocess.run(f"git {arguments}", shell=True, cwd=place.app, env=environment, check=True, timeout=PATIENCE)
    (place.app / ".gitattributes").write_text("changed filter=reading\n")
    (place.app / "changed").write_text("new")
    told = find_unsaved_work(place.app, place.folder, environment, hidden_folder(place.token, place.app))
    assert told["uncommitted"]["count"] and (place.app / "ran").exists()
    assert TOKEN not in (place.app / "stolen").read_text()


@pytest.mark.parametrize("target", ["run/agent", "."], ids=["the token's folder", "one above it"])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("read_file", {"path": "{name}"}),
        ("read_file", {"path": "{token}"}),
        ("list_files", {"depth": 5}),
        ("search_files", {"pattern": "token"}),
        ("patch_file", {"path": "{name}", "old": "nobody", "new": "somebody"}),
        ("write_file", {"path": "new", "content": "x"}),
        ("move_path", {"source": "{name}", "target": "moved"}),
        ("delete_path", {"path": "{name}"}),
        ("run_command", {"command": "ls"}),
    ],
)
def test_no_tool_follows_a_link_in_the_place_of_the_workspaces_folder(
    place: Place, target: str, tool: str, arguments: dict[str, object]
) -> None:
    """A command can put one there: the folder above is the workspace's own, too."""
    (place.own / INSTRUCTIONS).write_text("token")
    place.app.rename(place.app.with_name("kept"))
    place.app.symlink_to(place.folder / target)
    name = os.path.relpath(place.own / "..2026" / "token", place.folder / target)
    given = {
        key: value.format(name=name, token=place.token) if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    toolbox = Toolbox(Workspace(place.app), environment={"PATH": os.environ["PATH"]}, command_timeout=PATIENCE)
    result = toolbox.call(tool, json.dumps(given), lambda: False)
    assert not result.ok
    assert TOKEN not in result.text
    assert project_instructions(Workspace(place.app)) == ""
    assert (place.own / "..2026" / "token").read_text() == TOKEN
    assert sorted(os.listdir(place.folder)) == ["files", "run"]


@hides
@pytest.mark.slow
def test_everything_else_works_as_before(place: Place) -> None:
    script = """
        set -e
        mkdir -p a b && echo one >a/x && mv a/x b/y && ln b/y a/z && cat a/z
        python3 - <<'END'
import os, tempfile
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("two"); file.flush()
    print(open(file.name).read())
os.makedirs("c/d"); os.rename("b/y", "c/d/y"); os.rename("c", "e")
print(open("e/d/y").read().strip())
END
        git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m three && git log --format=%s
        sh -c 'exec cat /proc/self/comm'
    """
    assert place.run(script) == (True, "one\ntwo\none\nthree\ncat")


@hides
def test_all_a_command_starts_ends_with_it(place: Place) -> None:
    ok, text = place.run("setsid sleep 600 & setsid sleep 600 & true")
    assert ok
    assert "2 processes it left running were ended" in text


def test_where_the_kernel_cant_hide_it_commands_run_and_the_log_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """An older one, or a sandbox that has no such thing."""
    older = tmp_path / "runner.py"
    older.write_text(
        f"import sys; sys.path.insert(0, {str(Path(runner.__file__).parents[3])!r})\n"
        "from app.agent.tools import runner\n"
        "from app.volume import landlock\n"
        "landlock.version = lambda: 0\n"
        "runner.main()\n"
    )
    monkeypatch.setattr(command, "PROGRAM", older)
    command._warn_of_readable_token.cache_clear()
    with caplog.at_level(logging.WARNING, logger="app.agent.tools.command"):
        assert place.run("echo hi") == (True, "hi")
        assert place.run("echo hi") == (True, "hi")
    assert ["Landlock" in record.getMessage() for record in caplog.records] == [True]


def test_a_token_beside_the_workspaces_files_is_hidden_from_nobody(tmp_path: Path) -> None:
    """So it is on a machine that is shared with the manager, where the same user can read far more."""
    assert hidden_folder(tmp_path / "agent-token", tmp_path / "app") is None
    assert hidden_folder(Path("/run/agent/token"), Path("/workspace/app")) == Path("/run/agent")


@hides
@pytest.mark.slow
def test_an_agent_in_a_container_keeps_its_commands_from_its_token(
    agent: AgentProcess, model: ModelServer, gateway: FakeGateway, tmp_path: Path
) -> None:
    """Its own calls need it all the time."""
    token = tmp_path / "run" / "agent" / "token"
    token.parent.mkdir(parents=True)
    Path(agent.environment["AGENT_TOKEN_FILE"]).rename(token)
    agent.environment["AGENT_TOKEN_FILE"] = str(token)
    model.script(
        Answer(tool_calls=(ToolCall("run_command", {"command": f"cat {token}; echo read"}),)), Answer(text="done")
    )
    agent.start()
    status, answer = agent.chat("m1", "tell me your token")
    assert (status, answer["response"]["text"]) == (200, "done")
    gateway.outcome("m1")
    [result] = [each["content"] for each in agent.history() if each["role"] == "tool"]
    assert result.endswith("read")
    assert gateway.token not in result
