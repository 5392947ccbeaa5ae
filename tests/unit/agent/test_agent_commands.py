"""Commands and searches end in time with all they started, say little of much, and leave the agent alive."""

import contextlib
import json
import os
from itertools import chain, repeat

import psutil
import pytest

from app.agent.tools import command, search
from app.agent.tools.command import command_environment, run_command
from app.agent.tools.orphans import MARK, marked_processes
from app.agent.tools.registry import Toolbox
from app.agent.tools.runner import Output
from app.agent.tools.sandbox_path import ToolError, Workspace
from tests.deep_tree import BEYOND_PATH

PATIENCE = 120.0


def never():
    return False


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def run(workspace, text, stop=never, *, timeout=0, limit=PATIENCE, processes=500):
    """At home in the workspace, so that no profile of the machine's has a part in it."""
    home = str(workspace.folder)
    environment = {"PATH": os.environ["PATH"], "HOME": home, MARK: f"test-{os.getpid()}"}
    return run_command(workspace, stop, text, timeout, limit=limit, environment=environment, processes=processes)


def alive(mark):
    """Processes with this in their command line, zombies not counted."""
    others = (each for each in psutil.process_iter(["cmdline"]) if each.pid != os.getpid())
    return [each.pid for each in others if mark in " ".join(each.info["cmdline"] or [])]


@pytest.mark.slow
def test_output_and_status_are_the_answer(workspace, tmp_path):
    assert run(workspace, "pwd; echo oops >&2") == (True, f"{tmp_path}\noops")
    assert run(workspace, "exit 3") == (False, "[exit status 3]")
    assert run(workspace, "kill -9 $$") == (False, "[killed by signal 9]")
    assert run(workspace, "cat; true") == (True, "(no output)")
    assert run(workspace, "nonsense-command")[1].endswith("[exit status 127]")


def test_what_detaches_itself_ends_with_the_command(workspace):
    """In the background, in a session of its own, forked twice, deaf to signals: all are gone when it answers."""
    mark = f"mark-{os.getpid()}"
    script = f"""
        python3 -c 'import os, signal, time
for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
time.sleep(0)' {mark} &
        setsid sh -c 'sleep 1000; echo {mark}' >/dev/null 2>&1 &
        nohup sh -c 'sleep 1000; echo {mark}' &
        wait %1
        echo started
    """
    ok, text = run(workspace, script)
    assert ok and text.startswith("started") and "processes it left running were ended" in text
    assert alive(mark) == []


@pytest.mark.slow
@pytest.mark.parametrize(("timeout", "limit"), [(1, PATIENCE), (1000, 1)], ids=["its own", "the agent's"])
def test_a_command_ends_at_its_time_limit_with_all_it_started(workspace, timeout, limit):
    """However far it came until then, and however much time the model asks for."""
    mark = f"mark-limit-{os.getpid()}"
    script = f"setsid sh -c 'sleep 1000; echo {mark}' & sleep 1000"
    assert run(workspace, script, timeout=timeout, limit=limit) == (False, "[ended after 1 s, the time limit]")
    assert alive(mark) == []


def test_a_command_ends_when_the_turn_is_to_stop(workspace, tmp_path):
    mark = f"mark-stop-{os.getpid()}"
    script = f"echo begun; setsid sh -c 'sleep 1000; echo {mark}' & touch here; sleep 1000"
    assert run(workspace, script, (tmp_path / "here").exists) == (
        False,
        "begun\n[interrupted because the turn was stopped: look how far it came before doing it again]",
    )
    assert alive(mark) == []


@pytest.mark.slow
def test_a_fork_bomb_is_ended_and_leaves_nothing(workspace, tmp_path):
    """It is noticed by its count of processes. This one would end by itself at 2,000, for the machine's sake."""
    bomb = tmp_path / "bomb.py"
    bomb.write_text("""import os, time
for _ in range(1000):
    if os.fork() == 0:
        os.setsid()
        os.fork()
        time.sleep(600)
time.sleep(600)
""")
    assert run(workspace, f"python3 {bomb}", processes=60) == (False, "[ended because it had too many processes]")
    assert alive(str(bomb)) == []
    assert run(workspace, "echo alive") == (True, "alive")


@pytest.mark.slow
def test_of_a_gigabyte_the_beginning_and_the_end_are_kept(workspace):
    ok, text = run(workspace, "echo first; head -c 1000000000 /dev/zero | tr '\\0' 'x'; echo; echo last", limit=600)
    assert ok and text.startswith("first\nxxx") and text.endswith("xxx\nlast")
    assert len(text) < command.HEAD_BYTES + command.TAIL_BYTES + 100
    assert f"[… {1_000_000_012 - command.HEAD_BYTES - command.TAIL_BYTES} bytes left out …]" in text


def test_bytes_that_are_no_text_are_shown_escaped(workspace):
    assert run(workspace, r"printf 'gr\303\274n \377\000\033[1m\tx\n'") == (True, "grün \\xff\\x00\\x1b[1m\tx")


def test_a_command_that_kills_its_runner_is_an_error_and_no_end(workspace):
    """The agent answers that it doesn't know, ends what nobody watches over any more, and goes on."""
    with pytest.raises(ToolError, match="not known"):
        run(workspace, "kill -9 $PPID; setsid sleep 1000 & sleep 1000")
    assert marked_processes(f"test-{os.getpid()}") == []
    assert run(workspace, "echo alive") == (True, "alive")


WHOLE = {"code": 0, "ended": "", "head": "all is well", "tail": "", "omitted": 0}
WHOLE |= {"left": 0, "survivors": 0, "open": False, "begun": True}

NO_ANSWERS = {
    "no keys": "{}",
    "no object": "[]",
    "a number": "7",
    "deep": "[" * 100_000,
    "too few": json.dumps({name: value for name, value in WHOLE.items() if name != "begun"}),
    "too many": json.dumps(WHOLE | {"more": 1}),
    "a text for a number": json.dumps(WHOLE | {"code": "0"}),
    "a flag for a number": json.dumps(WHOLE | {"omitted": True}),
    "a number for a text": json.dumps(WHOLE | {"head": 7}),
    "nothing for a flag": json.dumps(WHOLE | {"open": None}),
    "two": json.dumps(WHOLE) * 2,
}


@pytest.mark.parametrize("told", [NO_ANSWERS["no keys"], json.dumps(WHOLE)])
def test_a_command_that_answers_in_its_runners_place_is_an_error_and_no_end(workspace, tmp_path, told):
    """Whatever it says, as it has to end that before it answers itself."""
    (tmp_path / "told").write_text(told)
    with pytest.raises(ToolError, match="not known"):
        run(workspace, "cat told >/proc/$PPID/fd/1; kill -9 $PPID; setsid sleep 1000 & sleep 1000")
    assert marked_processes(f"test-{os.getpid()}") == []


def answered_by(program, workspace, monkeypatch, told):
    """What comes of a command whose runner says this."""
    program.write_text(f"input(); print({told!r})")
    monkeypatch.setattr(command, "PROGRAM", program)
    return run(workspace, "true")


@pytest.mark.parametrize("told", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_runners_answer_is_taken_for_none(workspace, monkeypatch, tmp_path, told):
    """Also from a runner that a command took over, and that ends as if nothing had happened."""
    with pytest.raises(ToolError, match="not known"):
        answered_by(tmp_path / "runner.py", workspace, monkeypatch, told)


def test_an_answer_is_what_the_runner_says(workspace, monkeypatch, tmp_path):
    """So that the test above tries the answers, and not their runner."""
    assert answered_by(tmp_path / "runner.py", workspace, monkeypatch, json.dumps(WHOLE)) == (True, "all is well")


def test_a_command_sees_nothing_of_the_agent():
    """Neither its variables nor the secret under whatever name; the workspace's own variables stay."""
    given = {"PATH": "/bin", "AGENT_TOKEN_FILE": "/t", "GATEWAY_URL": "u", "LLM_MODEL": "m", "PYTHONPATH": "/srv"}
    given |= {"COPIED": "x-tok-y", "WORKSPACE_UUID": "abc", "MINE": "1"}
    seen = command_environment(given, "tok", "abc")
    assert set(given) & set(seen) == {"PATH", "WORKSPACE_UUID", "MINE"}


def test_a_command_has_the_programs_of_the_users_terminal(workspace, tmp_path):
    """What an installer puts into ~/.profile, too: the user has installed it in a terminal, and asks the agent to use
    it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "own-tool").write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "bin" / "own-tool").chmod(0o755)
    (tmp_path / ".profile").write_text('PATH="$HOME/bin:$PATH"\n')
    assert run(workspace, "own-tool") == (True, "mine")


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("echo welcome; echo oops >&2", (True, "in the project")),
        ("cd /", (True, "in the project")),
        ("alias test=false; set -e; false || true", (True, "in the project")),
        ("read answer; sleep 0.1 & true", (True, "in the project\n[1 processes it left running were ended]")),
        ("exit 0", (False, "[not run: the login shell ended before it; look at ~/.profile or ~/.bash_profile]")),
    ],
)
def test_a_profile_gives_variables_and_disturbs_nothing(workspace, tmp_path, profile, expected):
    """What it prints, where it goes and what it leaves is not the command's; if it ends the shell, the agent is
    told."""
    (tmp_path / ".profile").write_text(profile + "\n")
    assert run(workspace, f'test "$PWD" = {tmp_path} && echo in the project') == expected


@pytest.mark.slow
def test_a_command_that_reads_all_open_files_has_begun(workspace):
    """It may take what is in other processes' pipes."""
    look = "for file in /proc/[0-9]*/fd/*; do timeout 0.05 head -c 9 <> $file >/dev/null 2>&1; done; echo looked"
    mine = look.replace("/proc/[0-9]*/", "/proc/$PPID/")
    assert run(workspace, mine) == (True, "looked")


def test_a_command_holds_no_descriptor_of_the_agent(workspace):
    """Only the three everybody has, and the one ls reads with; also where the agent has many open."""
    with contextlib.ExitStack() as many:
        for _ in range(300):
            many.enter_context(open(os.devnull))
        ok, text = run(workspace, "ls -l /proc/self/fd | grep -v total | awk '{print $9}' | xargs echo")
    assert ok and text == "0 1 2 3"


def test_output_keeps_head_and_tail_of_any_stream():
    """In pieces of any size; cuts don't tear characters apart."""
    whole = Output(10, 10)
    for byte in b"0123456789abcdefghij":
        whole.add(bytes([byte]))
    assert whole.parts() == ("0123456789abcdefghij", "") and whole.omitted == 0
    whole.add(b"klm")
    assert whole.parts() == ("0123456789", "defghijklm") and whole.omitted == 3
    torn = Output(3, 3)
    torn.add("üü".encode() + b"-" * 10 + "üü".encode())
    assert torn.parts() == ("ü", "ü")


def test_the_head_of_cut_output_is_escaped_as_the_rest():
    cut = Output(9, 1)
    cut.add(b"a\0\033[1m " + "üü".encode() + b"-" * 10)
    assert cut.parts() == (r"a\x00\x1b[1m ü", "-")


@pytest.mark.slow
def test_search_finds_lines_by_text_and_by_expression(workspace, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("def one():\n    return 'a.b'\n")
    (tmp_path / "b.txt").write_text("one a.b\naxb\n")
    assert search.search_files(workspace, never, "a.b") == "b.txt:1: one a.b\nsrc/a.py:2: return 'a.b'"
    assert search.search_files(workspace, never, "^a.b$", regex=True) == "b.txt:2: axb"
    assert search.search_files(workspace, never, "one", glob="*.py") == "src/a.py:1: def one():"
    assert search.search_files(workspace, never, "one", path="src") == "a.py:1: def one():"
    assert search.search_files(workspace, never, "nowhere") == "no matches"
    with pytest.raises(ToolError, match="regular expression"):
        search.search_files(workspace, never, "(", regex=True)
    with pytest.raises(ToolError, match="not a folder"):
        search.search_files(workspace, never, "one", path="b.txt")


@pytest.mark.slow
def test_search_goes_on_behind_a_tree_of_any_depth(workspace, tmp_path, deep_trees):
    deep_trees(tmp_path / "deep", content=b"needle at the bottom")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "file").write_text("needle")
    assert search.search_files(workspace, never, "needle").split("\n") == [
        f"deep/{'d/' * BEYOND_PATH}file:1: needle at the bottom",
        "later/file:1: needle",
    ]


def test_search_skips_what_is_no_source(workspace, tmp_path):
    """Binary files, .git, node_modules, links and pipes; and it shows no more than it says."""
    for name in (".git", "node_modules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("needle")
    (tmp_path / "binary").write_bytes(b"\0needle")
    (tmp_path / "link").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    assert search.search_files(workspace, never, "needle") == "no matches"
    (tmp_path / "many").write_text("needle\n" * 10_000)
    lines = search.search_files(workspace, never, "needle").split("\n")
    assert len(lines) == search.MATCHES + 1 and "more matches" in lines[-1]


@pytest.mark.slow
def test_an_expression_that_never_ends_is_ended(workspace, tmp_path):
    (tmp_path / "f").write_text("a" * 60 + "\n")
    with pytest.raises(ToolError, match="ended after 1 s"):
        search.search_files(workspace, never, "(a+)+b", regex=True, seconds=1)
    looks = chain([False] * 4, repeat(True))
    with pytest.raises(ToolError, match="stopped"):
        search.search_files(workspace, lambda: next(looks), "(a+)+b", regex=True, seconds=600)


def test_whatever_the_model_calls_is_answered(workspace):
    toolbox = Toolbox(workspace, environment={"PATH": os.environ["PATH"]}, command_timeout=PATIENCE)
    for name, arguments, told in (
        ("format_disk", "{}", "there is no tool"),
        ("read_file", '{"path": "x', "not valid JSON"),
        ("read_file", "[]", "not a JSON object"),
        ("read_file", "{}", "missing: path"),
        ("read_file", '{"path": 3}', "not of type string"),
        ("read_file", '{"path": "x", "first_line": true}', "not of type integer"),
        ("read_file", '{"path": "x", "mode": "r"}', "no argument mode"),
        ("read_file", json.dumps({"path": "\ud800"}), "no such file"),
        ("run_command", '{"command": " "}', "empty"),
    ):
        result = toolbox.call(name, arguments, never)
        assert not result.ok and told in result.text
        result.text.encode()
    assert toolbox.call("list_files", '{"path": null}', never).ok
    assert toolbox.call("list_files", "", never).ok


def test_schemas_are_what_the_provider_takes(workspace):
    schemas = Toolbox(workspace, environment={}, command_timeout=7).schemas()
    assert [schema["function"]["name"] for schema in schemas] == [
        "list_files",
        "read_file",
        "write_file",
        "patch_file",
        "delete_path",
        "move_path",
        "search_files",
        "run_command",
    ]
    for schema in schemas:
        parameters = schema["function"]["parameters"]
        assert schema["type"] == "function" and parameters["type"] == "object"
        assert set(parameters["required"]) <= set(parameters["properties"])
