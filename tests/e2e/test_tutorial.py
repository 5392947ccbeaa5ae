"""What README.md and docs/tutorial.md have their readers type, and what they say comes of it.

Each command is run by a shell as it stands there, in its order. What it prints must be of the same shape as what stands
below it: with the times, ids, ports, sizes and counts of this run in the place of those.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.model_server import MODEL, ModelServer
from tests.service import KEY, Service
from tests.waiting import wait_for

TUTORIAL = (ROOT / "docs/tutorial.md").read_text()
README = (ROOT / "README.md").read_text()

API = "http://127.0.0.1:8000"
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PREAMBLE = re.compile(r"^```sh\n(DATA_DIR=.*?)^```$", re.MULTILINE | re.DOTALL)
CLIENT = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ASSIGNED = re.compile(r"^(?:\$ )?([A-Z]+)=|(?<= )([A-Z]+)=(?=\S)", re.MULTILINE)

BACKUP = re.compile(r"app-[a-z0-9]{8}-\d{8}-\d{6}\.zip")
UUID = re.compile(r'(?<="uuid": ")[a-z0-9]{8}|(?<=vs-code-)[a-z0-9]{8}(?=\.localhost)')
ADDRESS = re.compile(r"http://vs-code-[a-z0-9]{8}\.localhost:\d+")
NAMED = (BACKUP, ADDRESS, UUID)
"""What a later command names that an earlier one printed."""

DIFFERENT = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (BACKUP, "BACKUP"),
    (ADDRESS, "ADDRESS"),
    (re.compile(r"(?<=workspace-link=)[^\"\s]+"), "LINK"),
    (re.compile(r"^id: \d+-\d+", re.MULTILINE), "id: N"),
    (re.compile(r"\b[0-9a-f]{32}(?:[0-9a-f]{32})?\b"), "DIGEST"),
    (re.compile(r"(?<=local-)\d+"), "N"),
    (re.compile(r"(?<=exec_id\": \")[0-9a-f]{16}"), "N"),
    (re.compile(r"(?<=call_)\d+_\d+"), "N"),
    (re.compile(r"(?<=\": )\d+(?=[,}\n])"), "N"),
    (re.compile(r"(?<=\"uuid\": \")[a-z0-9]{8}|(?<=workspace=)[a-z0-9]{8}"), "UUID"),
    (re.compile(r"(?<=Session )[a-z0-9]{8}(?= (?:is|cannot) )"), "UUID"),
    (re.compile(r"(?<=\"/session/)[a-z0-9]{8}(?=/)"), "UUID"),
)
"""What is another thing each time. A number in JSON counts as one, whatever it is."""

PIECES = re.compile(
    r'(event: token\ndata: {"message_id": "(\w+)", "text": ".*)"}\n\n'
    r'id: N\nevent: token\ndata: {"message_id": "\2", "text": "'
)
"""Between two pieces of an answer: how many there are is a matter of time."""

LIMIT = 90.0
"""Seconds after which a command is given up."""

STREAM = 10
"""Seconds a stream without an end is read."""


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a document's console blocks, each with what it says that it prints."""
    found = []
    for block in CONSOLE.findall(text):
        starts = [match.start() for match in re.finditer(r"^\$ ", block, re.MULTILINE)] + [len(block)]
        for begin, end in pairwise(starts):
            command, _, printed = re.sub(r"\\\n\s+", "", block[begin + 2 : end]).partition("\n")
            found.append((command, printed.strip("\n")))
    return found


def shape(printed: str) -> str:
    """What is printed, without what is different each time."""
    for pattern, word in DIFFERENT:
        printed = pattern.sub(word, printed)
    joined = 1
    while joined:
        printed, joined = PIECES.subn(r"\1", printed)
    return printed.strip()


def test_an_answer_in_pieces_has_the_shape_of_one_in_one_piece() -> None:
    piece = 'id: 1-{}\nevent: token\ndata: {{"message_id": "m2", "text": "{}"}}\n\n'
    pieces = "".join(piece.format(*each) for each in enumerate(("It said:\\n\\n", "h", "i")))
    assert shape(pieces) == shape(piece.format(7, "It said:\\n\\nhi"))
    assert shape(pieces) != shape(pieces.replace("m2", "m3", 1))


class Shell:
    """Runs commands one after the other, each with the variables that those before have set."""

    def __init__(self, preamble: str, state: Path) -> None:
        self._preamble = preamble
        self._state = state
        self._state.touch()
        self._names = " ".join(sorted({a or b for a, b in ASSIGNED.findall(TUTORIAL)} - {"DATA_DIR", "API", "KEY"}))
        self._seen: dict[str, str] = {}

    def run(self, command: str) -> str:
        """What `command` prints, with the names of this run in the place of those of the document."""
        for told in sorted(self._seen, key=len, reverse=True):
            command = command.replace(told, self._seen[told])
        endless = command.replace("curl -sN", f"timeout {STREAM} curl -sN") if "/events" in command else command
        script = (
            f'{self._preamble}\n. "{self._state}"\n{endless}\ndeclare -p {self._names} >"{self._state}" 2>/dev/null\n:'
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=LIMIT, check=True)
        return (done.stdout + done.stderr).strip("\n")

    def learn(self, told: str, seen: str) -> None:
        """Remember what the document's names are called in this run."""
        for pattern in NAMED:
            self._seen |= dict(zip(pattern.findall(told), pattern.findall(seen), strict=False))


def check(shell: Shell, command: str, told: str) -> None:
    """Run `command`; it must print what is told, and a read may take its time for it."""
    printed: list[str] = []

    def as_told() -> bool:
        printed.append(shell.run(command))
        return shape(printed[-1]) == shape(told)

    if any(option in command for option in (" -d ", " -X ", "=$(")):
        assert as_told(), f"{command}: {printed[-1]}"
    else:
        wait_for(as_told, command, lambda: printed[-1], interval=0.2)
    shell.learn(told, printed[-1])


@pytest.fixture(scope="module")
def service_settings() -> Iterator[Mapping[str, str]]:
    with ModelServer() as model:
        yield {"LLM_BASE_URL": model.url, "LLM_MODEL": MODEL, "LOGIN_URL": "https://app.example.com/sign-in"}


def test_every_command_of_the_tutorial_does_what_it_says(service: Service, tmp_path: Path) -> None:
    """From the first session to the token for programs, in one go."""
    [preamble] = PREAMBLE.findall(TUTORIAL)
    own = preamble.replace("DATA_DIR=.data", f"DATA_DIR={service.data_dir}").replace(API, service.url)
    shell = Shell(re.sub(r"KEY=\S.*", f"KEY={KEY}", own), tmp_path / "state")
    told = commands(TUTORIAL)
    assert len(told) > 30

    for command, printed in told:
        check(shell, command, printed)


def test_the_client_of_the_readme_works(service: Service, tmp_path: Path) -> None:
    """Its lines, in a folder whose .data has the key."""
    [client] = CLIENT.findall(README)
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data/api-key").write_text(f"{KEY}\n")

    done = subprocess.run(
        [sys.executable, "-c", client.replace(API, service.url)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "clients/python")},
        input="\n",
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )

    first, *rest, link, files = done.stdout.splitlines() or [done.stderr]
    assert first.startswith("I created hello.py and ran it."), done.stdout + done.stderr
    assert "hi" in rest[-2:], "what the command printed"
    assert "/?workspace-link=" in link
    assert BACKUP.search(files)
