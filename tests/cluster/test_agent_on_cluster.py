"""Prompts on a cluster with the whole product: worked on asleep and awake, once, whatever dies; and what a hostile user
finds in a workspace."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests import sampling
from tests.cluster.product import Api, kubectl
from tests.cluster.prompting import (
    Conversation,
    delete_pod,
    kill,
    secrets_of_the_manager,
    token_file,
)
from tests.model_server import Answer, ModelServer, last_prompt
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(1_800)

PROMPTS = 5
"""For each thing that dies."""


def states(seen: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The types of events, with the state that each tells."""
    return [(kind, data.get("state")) for kind, data in seen]


def test_a_prompt_makes_a_file_and_its_answer_streams(chat: Conversation) -> None:
    """The work comes as events while it is done; the file is there for the editor."""
    with chat.events() as seen:
        chat.send("m1", "create hello.py that prints hi and run it")
        wait_for(
            lambda: ("message", "processed") in states(seen),
            "the end among the events",
            lambda: f"{seen}\n{chat.look()}",
            120,
        )
        told = list(seen)
    response = chat.ended("m1")["response"]
    tokens = [data["text"] for kind, data in told if kind == "token"]
    assert [data["name"] for kind, data in told if kind == "tool_call"] == ["write_file", "run_command"]
    assert response["text"].endswith("It printed:\n\nhi")
    assert response["text"] in "".join(tokens)
    assert chat.inside("cat /app/hello.py") == "print('hi')\n"
    with chat.events() as seen:
        chat.send("m2", "count to 20")
        chat.ended("m2")
        wait_for(lambda: len([kind for kind, _ in seen if kind == "token"]) > 1, "an answer of a second in pieces")


def test_each_container_reports_what_its_own_control_group_says(chat: Conversation) -> None:
    """As the kubelet measures it; asleep there is the disk only."""
    chat.inside("head -c 50000000 /dev/urandom > /app/large")

    def now() -> Any:
        return chat.api.call("GET", f"/session/{chat.uuid}/metrics")["now"]

    used = wait_for(lambda: (told := now())["memory_bytes"] > 60_000_000 and told, "both", lambda: str(now()), 200, 1.0)
    node = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    summary = json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
    [pod] = [each for each in summary["pods"] if each["podRef"]["name"].startswith(f"user-{chat.uuid}")]
    measured = sum(each["memory"]["workingSetBytes"] for each in pod["containers"])
    assert len(pod["containers"]) == 2
    assert used["memory_bytes"] == pytest.approx(measured, rel=0.5)
    assert 0 <= used["cpu"] < 4
    assert used["disk_bytes"] > 50_000_000
    chat.sleep()
    asleep = now()
    assert (asleep["cpu"], asleep["memory_bytes"]) == (0.0, 0)
    assert asleep["disk_bytes"] > 50_000_000


def test_a_prompt_to_a_sleeping_session_is_worked_on_once(chat: Conversation, model: ModelServer) -> None:
    """202 at once, the answer among the messages; the same prompt again changes nothing."""
    chat.sleep()
    before = len(model.requests)
    answer = chat.send("m1", "remember 7")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert chat.ended("m1")["response"]["text"] == "7 noted"
    chat.send("m1", "remember 7")
    assert [(each["role"], each["content"]) for each in chat.messages()] == [
        ("user", "remember 7"),
        ("assistant", "7 noted"),
    ]
    assert len(model.requests) == before + 1


def test_a_conversation_is_kept_after_its_session(model: ModelServer) -> None:
    """Read awake, asleep and deleted it is the same."""
    chat = Conversation(Api())
    for number in range(3):
        chat.send(f"m{number}", f"remember {number}")
        chat.ended(f"m{number}")
    awake = chat.messages()
    assert [each["content"] for each in awake] == [text for n in range(3) for text in (f"remember {n}", f"{n} noted")]
    chat.sleep()
    assert chat.messages() == awake
    chat.delete("")
    assert chat.messages() == awake


def test_what_a_prompt_did_is_undone_with_all_that_came_after(chat: Conversation) -> None:
    """By the workspace itself: files that git would ignore too; what is rolled back doesn't run again."""
    for number in (1, 2, 3):
        chat.send(f"m{number}", f"run: mkdir -p /app/node_modules && echo {number} >> /app/node_modules/done")
        assert chat.ended(f"m{number}")["state"] == "processed"
    told = chat.roll_back("m2")
    assert told["restored"] == "checkpoint"
    assert chat.inside("cat /app/node_modules/done").split() == ["1"]
    assert [each["id"] for each in chat.messages() if each["role"] == "user"] == ["m1"]
    chat.send("m4", "run: echo 4 >> /app/node_modules/done")
    assert chat.ended("m4")["state"] == "processed"
    chat.sleep()
    chat.send("m5", "run: echo 5 >> /app/node_modules/done")
    assert chat.ended("m5")["state"] == "processed"
    assert chat.inside("cat /app/node_modules/done").split() == ["1", "4", "5"]


DEATHS: dict[str, Callable[[str], object]] = {
    "the pod, deleted": delete_pod,
    "the pod, killed": lambda uuid: kill(f"session-uuid={uuid}", "fresh-workspaces"),
    "workers and delivery workers": lambda uuid: kill("app.kubernetes.io/name in (worker, sweeper, delivery-worker)"),
    "the gateways": lambda uuid: kill("app.kubernetes.io/name=gateway"),
    "Redis": lambda uuid: kill("app.kubernetes.io/name=redis"),
}


@pytest.mark.parametrize("dying", sampling.some(DEATHS, 2, "deaths"))
def test_no_prompt_is_lost_or_worked_on_twice_whatever_dies(chat: Conversation, dying: str) -> None:
    """In the midst of waking up, of a turn, and with prompts that wait; in the order in which they were sent."""
    deaths: list[object] = []
    for number in range(PROMPTS):
        if number == PROMPTS // 2:
            chat.sleep()
        chat.send(f"m{number}", f"run: echo {number} >> /app/done; sleep 0.2")
        if number % 2 == 0:
            deaths.append(DEATHS[dying](chat.uuid))
    assert any(each != 0 for each in deaths), "nothing was there to kill"
    states = [chat.ended(f"m{number}") for number in range(PROMPTS)]
    done = [int(line) for line in chat.inside("cat /app/done").split()]
    slept = [n for n, each in enumerate(states) if "put to sleep while this ran" in (each["reason"] or "")]
    # A command that was running when the pod died may have come to its effect or not; the model is told so.
    unsure = [n for n, each in enumerate(states) if "interrupted" in json.dumps(each["response"])]
    failed = {n: each["reason"] for n, each in enumerate(states) if each["state"] != "processed"}
    assert list(failed) == slept, failed
    assert done == sorted(set(done)), "in order, and none twice"
    assert set(range(PROMPTS)) - set(done) <= {*slept, *unsure}, "none lost"
    users = [each["id"] for each in chat.messages() if each["role"] == "user"]
    assert users == [f"m{number}" for number in range(PROMPTS)]


def test_prompts_behind_a_lost_volume(chat: Conversation, model: ModelServer) -> None:
    """The one that was being worked on is worked on again, those that ended are not: neither the one that the restore
    point knows, nor the one after it. The next one goes on from there."""
    for number in (1, 2):
        chat.send(f"m{number}", f"run: echo {number} >> /app/done")
        assert chat.ended(f"m{number}")["state"] == "processed"
        if number == 1:
            chat.save()
    before, held = len(model.requests), threading.Event()
    model.script(Answer(text="too late", hold=held))
    chat.send("m3", "run: echo 3 >> /app/done")
    model.wait_for_requests(before + 1)
    try:
        chat.lose_volume()
        chat.send("m4", "run: echo 4 >> /app/done")
        chat.wait_restored()
        assert [chat.ended(f"m{number}")["state"] for number in (1, 2, 3, 4)] == ["processed"] * 4
    finally:
        held.set()
    assert chat.inside("cat /app/done").split() == ["1", "3", "4"]
    asked = {last_prompt(each.body) for each in model.requests[before:]}
    assert asked == {f"run: echo {number} >> /app/done" for number in (3, 4)}


FILES = (
    "find / /workspace /tmp /run -xdev "
    "\\( -path /usr -o -path /opt -o -path /proc -o -path /sys -o -path /lib -o -path /bin \\) -prune -o "
    "-type f -readable -size -1000k -print0 2>/dev/null | xargs -0 cat 2>/dev/null | tr -cd '\\11\\12\\40-\\176'; "
    "cat /run/agent/* /run/secrets/*/*/* /var/run/secrets/*/*/* 2>/dev/null; true"
)
ENVIRONMENTS = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; env"

ASK = """
import json, socket, ssl, sys, urllib.error, urllib.request
def http(url, token=""):
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token} if token else {})
    plain = ssl.create_default_context(); plain.check_hostname = False; plain.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(request, timeout=5, context=plain) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
def redis():
    try:
        with socket.create_connection(("redis.fresh-system", 6379), 5) as connection:
            connection.sendall(b"KEYS *\\r\\n")
            return connection.recv(100).decode()
    except OSError:
        return ""
asked = json.loads(sys.argv[1])
print(json.dumps({"redis": redis(), **{name: http(*words) for name, words in asked.items()}}))
"""


@pytest.mark.parametrize("container", ["agent", "editor"])
def test_a_shell_in_a_workspace_finds_no_secret_of_anyone_else(chat: Conversation, container: str) -> None:
    """In files and environments; the editor's finds not even those of its own session. What it may call by the network
    (the test cluster enforces no policy) asks for more than it has."""
    other = Conversation(Api(), "eve@example.com")
    try:
        other.send("m1", "remember the-word-of-the-other-session")
        other.ended("m1")
        found = chat.inside(FILES, container) + chat.inside(ENVIRONMENTS, container)
        assert chat.uuid in found
        hidden = secrets_of_the_manager() | {"the other's words": "the-word-of-the-other-session"}
        hidden |= dict(zip(("the other's token", "the other's secret"), token_file(other.uuid).split(), strict=True))
        assert [name for name, value in hidden.items() if value in found] == []
        own = token_file(chat.uuid).split()
        assert [value in found for value in own] == [container == "agent"] * 2
        assert chat.inside("ls /var/run/secrets/kubernetes.io 2>&1 || true", container).endswith(
            "No such file or directory\n"
        )
        _ask_around(chat, other, container)
    finally:
        other.delete()


def _ask_around(chat: Conversation, other: Conversation, container: str) -> None:
    token, secret = token_file(chat.uuid).split()
    forged = f"{other.uuid}.{token.partition('.')[2]}"
    sibling = kubectl(
        "get", "pod", "-l", f"app=workspace,session-uuid={other.uuid}", "-o", "jsonpath={.items[0].status.podIP}"
    )
    gateway, agent = "http://gateway.fresh-system:8001", f"http://{sibling}:1111"
    asked = {
        "own models": [f"{gateway}/llm/v1/models", token],
        "models without a token": [f"{gateway}/llm/v1/models"],
        "models with the agent's secret": [f"{gateway}/llm/v1/models", secret],
        "the other's conversation": [f"{gateway}/agent/v1/checkpoint", forged],
        "the other's agent": [f"{agent}/history", token],
        "the other's agent by the secret": [f"{agent}/history", secret],
        "sessions": ["http://web.fresh-system/sessions", token],
        "the API server": ["https://kubernetes.default.svc/api/v1/namespaces/fresh-workspaces/secrets"],
        "metadata": ["http://169.254.169.254/"],
    }
    program = "python3 - \"$0\" <<'END'\n" + ASK + "\nEND"
    said = json.loads(
        kubectl("exec", f"deployment/user-{chat.uuid}", "-c", container, "--", "sh", "-c", program, json.dumps(asked))
    )
    assert said.pop("redis").startswith("-NOAUTH")
    assert said.pop("own models") == 200
    assert said.pop("the API server") in (401, 403)
    assert said.pop("metadata") == 0
    assert set(said.values()) == {401}, said
