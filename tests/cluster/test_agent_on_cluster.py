"""Prompts on a cluster with the whole product (the suites are tests/suites/prompts.py), also while parts of it die; and
what a hostile user finds in a workspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests import sampling
from tests.cluster.product import kubectl, running_pods
from tests.cluster.prompting import delete_pod, kill, secrets_of_the_manager, stored_backups, token_file
from tests.conversation import Conversation, Host, conversation
from tests.model_server import ModelServer
from tests.suites.prompts import Place, Prompts, PromptsBehindALostVolume
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(1_800)

PROMPTS = 5
"""For each thing that dies."""


@pytest.fixture(scope="module")
def place(model: ModelServer) -> Place:
    return Place(stored_backups(), 3, running_pods, "/opt/agent/")


class TestPromptsOnCluster(Prompts):
    """The whole product, as the overlay `dev` puts it there."""


class TestPromptsBehindALostVolumeOnCluster(PromptsBehindALostVolume):
    """The same."""


def test_each_container_reports_what_its_own_control_group_says(chat: Conversation) -> None:
    """As the kubelet measures it; asleep there is the disk only."""
    chat.inside("head -c 50000000 /dev/urandom > /app/large")

    def now() -> Any:
        return chat.call("GET", f"/session/{chat.uuid}/metrics").json()["now"]

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
    # A command that ran as the pod died may have had its effect or not; the model is told that it did not succeed.
    calls = [(each["response"] or {}).get("tool_calls", []) for each in states]
    unsure = [n for n, made in enumerate(calls) if not all(call["ok"] for call in made)]
    failed = {n: each["reason"] for n, each in enumerate(states) if each["state"] != "processed"}
    assert list(failed) == slept, failed
    assert done == sorted(set(done)), "in order, and none twice"
    assert set(range(PROMPTS)) - set(done) <= {*slept, *unsure}, f"none lost: {states}"
    assert chat.prompts() == [f"m{number}" for number in range(PROMPTS)]


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
def test_a_shell_in_a_workspace_finds_no_secret_of_anyone_else(host: Host, chat: Conversation, container: str) -> None:
    """In files and environments; the editor's finds not even those of its own session. What it may call by the network
    (the test cluster enforces no policy) asks for more than it has."""
    with conversation(host, "eve@example.com") as other:
        other.prompt("m1", "remember the-word-of-the-other-session")
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
