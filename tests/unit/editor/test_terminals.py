"""What app/editor/activity.js sees of the terminals below it, with real processes and a real terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.unit.editor.node import NODE
from tests.waiting import PATIENCE, wait_for

HOST = """
import os, pty, select, sys, termios
pid, terminal = pty.fork()
if not pid:
    os.execvp("bash", ["bash", "--norc", "--noprofile"])
while True:
    ready, _, _ = select.select([0, terminal], [], [])
    for file in ready:
        try:
            data = os.read(file, 65536)
        except OSError:  # the shell ended
            os.waitpid(pid, 0)
            terminal, data = 0, b"."
        if not data:
            sys.exit()
        if file == 0 and terminal:
            os.write(terminal, data)
"""
"""What VS Code's process for terminals does, for one of them."""

DRIVER = """
const { TerminalMonitor } = require(process.argv[1]);
const host = require("node:child_process").spawn(process.argv[2], ["-c", process.argv[3], "--type=ptyHost"], {
  stdio: ["pipe", "ignore", "inherit"],
});
const monitor = new TerminalMonitor(process.pid, 600);
require("node:readline").createInterface({ input: process.stdin }).on("line", async (line) => {
  const order = JSON.parse(line);
  if (order.type !== undefined) host.stdin.write(order.type);
  console.log(JSON.stringify(order.look === undefined ? {} : await monitor.sample(order.look)));
}).on("close", () => process.exit());
"""


class Editor:
    """A process with a terminal below it, that looks when it is told to."""

    def __init__(self) -> None:
        command = [str(NODE), "-e", DRIVER, str(ROOT / "app/editor/activity.js"), sys.executable, HOST]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.now = 0.0

    def type(self, text: str) -> None:
        self._order(type=text + "\n")

    def look(self) -> dict[str, Any]:
        self.now = time.time()
        return self._order(look=self.now)

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first look that shows it."""
        seen: dict[str, Any] = {}

        def shown() -> bool:
            seen.update(self.look())
            return condition(seen)

        wait_for(shown, "a look that shows it", lambda: str(seen), interval=0.02)
        return seen

    def rests(self) -> None:
        """Nothing uses the processor, as often as it is looked at in a row."""
        self._in_a_row(lambda seen: seen["busy_at"] < self.now, "nothing is busy")

    def idles(self, job: str) -> None:
        """This job runs and uses no processor, and no job is at work, as often as it is looked at in a row."""

        def waits(seen: dict[str, Any]) -> bool:
            return job in seen["jobs"] and seen["busy_at"] < self.now and seen["quiet"] == {}

        self._in_a_row(waits, f"{job} waits")

    def below(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def terminal(self) -> str:
        """The device of its shell."""
        shells = wait_for(lambda: [each for each in self.below() if each.name() == "bash"], "a shell", interval=0.01)
        return os.readlink(f"/proc/{shells[0].pid}/fd/0")

    def _in_a_row(self, condition: Callable[[dict[str, Any]], bool], what: str) -> None:
        count = 0

        def often() -> bool:
            nonlocal count
            count = count + 1 if condition(self.look()) else 0
            return count >= 20

        wait_for(often, f"20 looks in a row at which {what}", lambda: str(self.look()), interval=0.01)

    def _order(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert isinstance(answer, dict)
        return answer


@pytest.fixture
def editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Editor]:
    """Whatever it started is ended with it, also what detached itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    running = Editor()
    try:
        running.terminal()
        yield running
    finally:
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get("HOME") == str(tmp_path):
                    process.kill()
            except psutil.Error:
                continue
        running.process.wait(PATIENCE)


@pytest.mark.slow
def test_a_job_that_waits_is_seen_and_is_not_busy(editor: Editor) -> None:
    editor.until(lambda seen: seen["jobs"] == [])
    editor.type("sleep 600")
    editor.until(lambda seen: seen["jobs"] == ["sleep"])
    editor.rests()
    assert editor.look()["jobs"] == ["sleep"]


@pytest.mark.slow
def test_a_job_that_uses_the_processor_is_busy_by_its_name_and_then_no_more(editor: Editor) -> None:
    editor.type("yes > /dev/null & sleep 600")
    seen = editor.until(lambda seen: seen["busy"] == "yes")
    assert seen["busy_at"] == editor.now
    [job] = [each for each in editor.below() if each.name() == "yes"]
    job.kill()
    editor.until(lambda seen: seen["jobs"] == ["sleep"])
    editor.rests()


@pytest.mark.slow
def test_many_short_processes_are_busy_together(editor: Editor) -> None:
    """As in a build: none of them lives for long enough to be seen twice."""
    editor.type("while :; do /bin/true; done")
    for _ in range(5):
        editor.until(lambda seen: seen["busy_at"] == editor.now)


@pytest.mark.slow
def test_a_job_that_left_its_terminal_is_still_one(editor: Editor) -> None:
    """Its terminal was closed, and it goes on."""
    editor.type("nohup yes > /dev/null & sleep 600")
    editor.until(lambda seen: seen["jobs"] == ["sleep", "yes"])
    [shell] = [each for each in editor.below() if each.name() == "bash"]
    shell.kill()
    editor.until(lambda seen: seen["jobs"] == ["yes"] or "sleep" not in seen["jobs"])
    editor.until(lambda seen: seen["busy_at"] == editor.now and seen["busy"] == "yes")


@pytest.mark.slow
def test_what_is_typed_is_seen_and_what_is_printed_is_not(editor: Editor) -> None:
    """The device's time of access is that of the last read of what was typed."""
    terminal = editor.terminal()
    editor.type("(while sleep 0.1; do echo hi; done) &")
    editor.until(lambda seen: "sleep" in seen["jobs"])
    os.utime(terminal, (1_000_000, 1_000_000))
    editor.until(lambda seen: os.stat(terminal).st_mtime > 1_000_000)
    assert editor.look()["input_at"] == 1_000_000
    editor.type("true")
    editor.until(lambda seen: seen["input_at"] > 1_000_000)


def test_processes_beside_the_terminals_are_not_looked_at(editor: Editor) -> None:
    """A language server may use the processor with nobody there."""
    assert "python" not in " ".join(editor.look()["jobs"])


# Jobs that are at work and use no CPU


SERVE = "import socket; s = socket.create_server(('127.0.0.1', 0)); s.accept()"

BELOW = (
    f"{sys.executable} -c "
    "'import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], start_new_session=True)'"
)
"""Runs Python with what follows, in a session of its own."""

AT_WORK = {
    "a job that waits": ("sleep 600", "sleep"),
    "a pipeline": ("sleep 600 | cat", "sleep"),
    "below a shell's script": ("sh -c 'sleep 600; true'", "sh"),
    "below a program that starts others": (f"{sys.executable} -c \"import os; os.system('sleep 600')\"", "python"),
    "one that waits for what it connected to": (
        f"{sys.executable} -c 'import select; select.select([], [], [], 600)'",
        "python",
    ),
    "one of a JavaScript program": (f"{NODE} -e 'setTimeout(() => {{}}, 600_000)'", "node"),
    "a loop of the shell itself": ("while true; do sleep 2; done", "sleep"),
    "a shell that waits for what it began": ("sleep 600 & wait", "bash"),
    "one that may ask for input, and does not now": ("sh -c 'sleep 600; read x'", "sh"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("line", "name"), AT_WORK.values(), ids=AT_WORK)
def test_a_job_in_the_foreground_is_at_work_without_using_the_processor(editor: Editor, line: str, name: str) -> None:
    editor.type(line)
    seen = editor.until(lambda seen: seen["quiet"].get("name", "").startswith(name))
    assert seen["quiet"]["at"] == editor.now
    assert seen["quiet"]["worked_at"] <= editor.now
    assert "until" not in seen["quiet"]


def reading(code: str) -> str:
    return f'{sys.executable} -c "import select, sys; {code}"'


WAITING = {
    "read(2)": ("cat", "cat"),
    "a shell's question": ("sh -c 'read answer'", "sh"),
    "a shell without a prompt of its own": ("sh", "sh"),
    "the terminal opened anew": ("sh -c 'read answer < /dev/tty'", "sh"),
    "select(2)": (reading("select.select([0], [], [])"), "python"),
    "poll(2)": (reading("p = select.poll(); p.register(1, 4); p.register(0, 1); p.unregister(1); p.poll()"), "python"),
    "epoll(7)": (reading("p = select.epoll(); p.register(0, 1); p.poll()"), "python"),
    "another thread": (
        reading("import threading, time; threading.Thread(target=sys.stdin.read).start(); time.sleep(600)"),
        "python",
    ),
    "a JavaScript program": (f"{NODE} -e 'process.stdin.on(String(\"data\"), () => 0)'", "node"),
    "a REPL": (f"{sys.executable} -q", "python"),
    "keys, behind a program that has the terminal": (
        reading("import time, tty; tty.setcbreak(0); time.sleep(600)"),
        "python",
    ),
    "connections": (f'{sys.executable} -c "{SERVE}"', "python"),
    "connections, in a process below it": (f'{BELOW} -c "{SERVE}"', "python"),
    "nothing, in the background": ("sleep 600 &", "sleep"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("line", "name"), WAITING.values(), ids=WAITING)
def test_what_waits_for_people_is_not_at_work(editor: Editor, line: str, name: str) -> None:
    """For input or for connections; nor is anything that is not in the foreground."""
    editor.type(line)
    seen = editor.until(lambda seen: any(job.startswith(name) for job in seen["jobs"]))
    [job] = [job for job in seen["jobs"] if job.startswith(name)]
    editor.idles(job)


@pytest.mark.slow
def test_a_job_that_is_stopped_is_no_more_at_work(editor: Editor) -> None:
    editor.type("sleep 600")
    # Bash itself, about to become it, ignores the key.
    editor.until(lambda seen: seen["quiet"].get("name") == "sleep")
    editor.type("\x1a")
    editor.until(lambda seen: seen["quiet"] == {})
    editor.idles("sleep")


@pytest.mark.slow
def test_a_prompt_alone_is_not_at_work(editor: Editor) -> None:
    editor.rests()
    assert editor.look()["quiet"] == {}


@pytest.mark.slow
def test_a_job_that_uses_the_processor_is_not_quiet(editor: Editor) -> None:
    editor.type("yes > /dev/null")
    editor.until(lambda seen: seen["busy"] == "yes")
    for _ in range(5):
        editor.until(lambda seen: seen["busy_at"] == editor.now and seen["quiet"] == {})


@pytest.mark.slow
def test_a_quiet_job_last_worked_when_it_used_its_terminal_or_the_processor(editor: Editor) -> None:
    burn = "import signal, time; end = lambda: time.process_time() + 0.3"
    act = "exec('e = end()\\nwhile time.process_time() < e: pass', globals())"
    editor.type(f'{sys.executable} -c "{burn}; signal.signal(10, lambda *_: {act})\nwhile True: signal.pause()"')
    editor.until(lambda seen: seen["quiet"].get("name", "").startswith("python"))
    terminal, later = editor.terminal(), time.time() + 1_000

    def worked_at(moment: float) -> None:
        editor.until(lambda seen: abs(seen["quiet"].get("worked_at", 0) - moment) < 0.01)

    os.utime(terminal, (later, 1))
    worked_at(later)
    os.utime(terminal, (1, later + 5))
    worked_at(later + 5)
    os.utime(terminal, (1, 1))
    before = editor.until(lambda seen: 0 < seen["quiet"].get("worked_at", 0) < later)["quiet"]["worked_at"]
    [job] = [each for each in editor.below() if each.name().startswith("python") and each.terminal() == terminal]
    job.send_signal(10)
    editor.until(lambda seen: seen["quiet"] == {} and seen["busy_at"] == editor.now)
    began = editor.now
    assert began > before
    seen = editor.until(lambda seen: bool(seen["quiet"]))
    assert seen["quiet"]["worked_at"] >= began


@pytest.mark.slow
def test_of_several_jobs_the_one_that_worked_last_is_told(editor: Editor) -> None:
    """Each terminal has one; `script` makes a second one inside the first, whose own it is not."""
    editor.type("script -q -c 'exec sleep 600' /dev/null")
    seen = editor.until(lambda seen: seen["quiet"].get("name", "") == "sleep")
    assert "script" in seen["jobs"]


KEEP = ROOT / "app" / "editor" / "keep"


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "seconds"), [(5, 300), (10, 600), (11, 600)])
def test_a_command_may_ask_to_be_kept_up(editor: Editor, minutes: int, seconds: int) -> None:
    """For so long from when it began, and for no longer than anything may."""
    before = time.time()
    editor.type(f"{KEEP} {minutes} -- sleep 600")
    # A shell is `keep` until it has become the command.
    seen = editor.until(lambda seen: "until" in seen["quiet"] and "sleep" in seen["jobs"])
    until = seen["quiet"]["until"]
    assert before + seconds <= until <= editor.now + seconds
    assert seen["quiet"]["name"] == "sleep"
    assert editor.look()["quiet"]["until"] == seen["quiet"]["until"]
    editor.type("\x03")
    editor.until(lambda seen: seen["quiet"] == {})


@pytest.mark.slow
def test_what_asks_to_be_kept_up_may_be_in_the_background_or_serve(editor: Editor) -> None:
    editor.type(f'{KEEP} 5 -- {sys.executable} -c "{SERVE}" & {KEEP} 3 -- sleep 600 &')
    began = time.time()
    name = Path(sys.executable).name
    seen = editor.until(lambda seen: seen["quiet"].get("name") == name and {"sleep", name} <= set(seen["jobs"]))
    assert editor.look()["quiet"]["until"] == seen["quiet"]["until"]
    assert seen["quiet"]["until"] > began + 290
    assert "worked_at" not in seen["quiet"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["keep", "keep 5 sleep", "keep -- 5"])
def test_what_only_has_that_name_asks_for_nothing(editor: Editor, tmp_path: Path, name: str) -> None:
    program, *arguments = name.split()
    (tmp_path / program).write_text("#!/bin/sh\nread x\n")
    (tmp_path / program).chmod(0o755)
    editor.type(" ".join([str(tmp_path / program), *arguments]))
    editor.idles("keep")
