"""A workspace's token on a real cluster: what its agent is talked into running does not find it; and where somebody has
it all the same, it opens nothing once it has ended (the suite is tests/suites/stolen_tokens.py)."""

from __future__ import annotations

import base64

import pytest

from scripts.cluster.layout import POD_NETWORK
from tests.cluster.prompting import token_file
from tests.conversation import Conversation
from tests.model_server import Answer, ModelServer, ToolCall, content_text, when
from tests.suites.stolen_tokens import Place, StolenTokens

pytestmark = pytest.mark.timeout(1_800)

GATEWAY = "http://gateway.fresh-system:8001"

FILE = "/run/agent/token"
FILES = f"cat {FILE} /run/agent/..data/* /proc/[0-9]*/root{FILE} /proc/[0-9]*/cwd/../..{FILE}"
OPEN = 'ls /proc/[0-9]*/fd; for each in /proc/[0-9]*/fd/*; do readlink "$each"; timeout 1 head -c 4096 "$each"; done'
STARTED_WITH = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'"
MEMORY = """python3 - <<'END'
import glob, os, re
for maps in glob.glob("/proc/[0-9]*/maps"):
    try:
        with open(maps) as areas, open(os.path.dirname(maps) + "/mem", "rb", 0) as memory:
            for area in (line.split()[0] for line in areas if " rw" in line):
                begin, end = (int(each, 16) for each in area.split("-"))
                memory.seek(begin)
                for each in re.findall(rb"[0-9a-z]{8}[.0-9]+[0-9a-f]{64}", memory.read(min(end - begin, 1 << 26))):
                    print(each.decode())
    except OSError as error:
        print(maps, error)
END"""

PLACES = {"its file": FILES, "open files": OPEN, "environments": STARTED_WITH, "memory": MEMORY}
"""Where a command in the agent's container may look for the token."""

REFUSED = "Permission denied"


def looks(uuid: str, place: str) -> str:
    """The command that shows what has a token's shape there and whether something was refused, each but once; and that
    it came to its end."""
    # Written so that it does not find itself, as what the command was started with.
    shape = f"{uuid}\\.[0-9.]*[0-9a-f]{{64}}|{REFUSED.replace(' ', '[ ]')}"
    return f"(\n{PLACES[place]}\n) 2>&1 | grep -aoE '{shape}' | sort -u; echo looked"


def told(model: ModelServer) -> list[str]:
    """What tools have told the model, as it was sent last."""
    return [content_text(each) for each in model.requests[-1].messages if each["role"] == "tool"]


def test_no_tool_of_an_agent_tells_the_model_its_token(chat: Conversation, model: ModelServer) -> None:
    """Neither a command, nor those that read and search files, by its name and by a link. The same commands, run by
    kubectl, are let in: to its file, and to the agent's memory, where it is now and then."""
    assert token_file(chat.uuid).split()[0] in chat.inside(looks(chat.uuid, "its file"), "agent").splitlines()
    assert REFUSED not in chat.inside(looks(chat.uuid, "memory"), "agent")
    for number, place in enumerate(PLACES):
        chat.send(f"m{number}", f"run: {looks(chat.uuid, place)}")
        assert chat.ended(f"m{number}")["response"]["text"] == f"It said:\n\n{REFUSED}\nlooked", place
    chat.send("link", "run: ln -s /run/agent there")
    chat.ended("link")
    calls = [
        ToolCall("read_file", {"path": FILE}),
        ToolCall("read_file", {"path": "there/token"}),
        ToolCall("search_files", {"pattern": chat.uuid, "path": "there"}),
    ]
    model.rules.insert(0, when("read your token", Answer(tool_calls=calls), Answer(text="no")))
    chat.send("read", "read your token")
    assert chat.ended("read")["response"]["text"] == "no"
    said = told(model)
    assert len(said) == len(PLACES) + 1 + len(calls)
    assert all("out of the workspace" in each or "outside the workspace" in each for each in said[-len(calls) :]), said
    assert not any(secret in each for secret in token_file(chat.uuid).split() for each in said)


def test_no_program_that_a_repository_names_finds_the_token(chat: Conversation) -> None:
    """git runs it in a look at unsaved work, which starts with a call of the API or with a sleep."""
    program = f"cat\n({looks(chat.uuid, 'its file')}) >seen 2>&1\n"
    steps = [
        "git init -q",
        "echo old >changed",
        "git add changed",
        "echo new >changed",
        "echo 'changed filter=looking' >.gitattributes",
        f"echo {base64.b64encode(program.encode()).decode()} | base64 -d >looking",
        "git config filter.looking.clean 'sh looking'",
    ]
    chat.send("plant", f"run: {' && '.join(steps)} && pwd")
    folder = chat.ended("plant")["response"]["text"].splitlines()[-1]
    chat.call("GET", f"/session/{chat.uuid}/risk")
    assert chat.inside(f"cat {folder}/seen", "agent").splitlines() == [REFUSED, "looked"]


@pytest.fixture(scope="module")
def place() -> Place:
    """The token is read as whoever may enter the pod reads it, and shown from the node's network, which no policy shuts
    out here."""
    return Place(GATEWAY, POD_NETWORK, lambda chat: chat.inside(f"cat {FILE}", "agent").split()[0])


class TestStolenTokensOnCluster(StolenTokens):
    """The whole product, as the overlay `dev` puts it there."""
