"""Whether the whole product works on a real cluster: a workspace's life in Chromium, a prompt that wakes it, and what
still wakes it when workers are dead or die. `.ci/run` runs this; every corner is in the other files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser

from app.core.prompts.inbox import MARKER
from tests.browser import expect_file, in_terminal, open_editor
from tests.cluster.product import LET_IN, Api, kubectl, ready_pods, redis_says, running_pods, stopped
from tests.cluster.prompting import kill, model_at_install
from tests.conversation import Conversation
from tests.documents import table
from tests.model_server import ModelServer
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(1_800)
"""s for a test, which waits for several things."""

USER = "auth0|a:b"
KINDS = "deployments,pods,services,ingresses,secrets,persistentvolumeclaims,jobs,scaledobjects.keda.sh"


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    """The one that the product was told of when it was installed, as `.ci/run` does it."""
    with model_at_install() as running:
        yield running


def test_a_workspace_lives_sleeps_wakes_dies_and_is_restored(api: Api, model: ModelServer, browser: Browser) -> None:
    """create → editor → a file from its terminal → sleep → a prompt wakes it, and runs once → backup Job → delete →
    restore; nothing is lost. The user's id is as Auth0 makes them."""
    one = Conversation(api, USER)
    page = open_editor(browser, one.link())
    in_terminal(page, "mkdir src && echo hello > src/proof.txt && chmod 750 src/proof.txt && ln -s src/proof.txt link")
    one.wait_file("link")
    page.close()

    one.sleep()
    wait_for(lambda: not running_pods(one.uuid), "no pod to be left", one.look, Api.patience)

    def visited() -> int:
        """The status of what a program is told at its address."""
        return api.visit(one.session() | {"uuid": one.uuid}).status_code

    wait_for(lambda: visited() == 503, "the sleeping workspace's URL to say so", one.look, Api.patience, Api.between)

    answer = one.send("m1", "run: echo ran >> /app/log")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert one.ended("m1")["state"] == "processed"
    assert one.inside("cat /app/src/proof.txt /app/log") == "hello\nran\n"
    ran = one.call("POST", f"/session/{one.uuid}/exec", {"command": "cat src/proof.txt log"}, "wait=60").json()
    assert (ran["exit_code"], ran["stdout"]) == (0, "hello\nran\n")
    wait_for(lambda: visited() in LET_IN, "its URL to lead to the editor", one.look, Api.patience, Api.between)
    page = open_editor(browser, one.link())
    expect_file(page, "link")
    page.close()

    one.back_up()
    one.delete("?backup=true")
    left = partial(kubectl, "get", KINDS, "-l", f"session-uuid={one.uuid}", "-o", "name")
    wait_for(lambda: not left(), "all of it to be gone", left, Api.patience)

    again = Conversation(api, USER, backup=one.backups()[0])
    shown = again.inside("cat /app/link /app/log; stat -c %a /app/src/proof.txt; readlink /app/link")
    assert shown == "hello\nran\n750\nsrc/proof.txt\n"
    again.delete()


def test_the_objects_have_the_names_that_products_are_told(chat: Conversation) -> None:
    """docs/coming-from-v3.md has them, and the labels by which programs find them."""
    for kind, told in table("coming-from-v3.md", "Names in a cluster"):
        found = kubectl("get", kind, "-l", f"app=workspace,session-uuid={chat.uuid}", "-o", "name").split()
        wanted = told.split("`")[1].replace("{uuid}", chat.uuid)
        assert [name.rpartition("/")[2] for name in found] == [wanted], kind
    user = r"jsonpath={.metadata.annotations.session-manager\.dev/user-id}"
    assert kubectl("get", "deployment", f"user-{chat.uuid}", "-o", user) == "ada@example.com"


def test_a_pushed_item_wakes_a_session_while_every_worker_is_dead(chat: Conversation) -> None:
    """KEDA does it; and the workers that come back find a session that is up, and go on with it."""
    chat.sleep()
    with stopped("worker", "sweeper", "backup-worker"):
        redis_says("rpush", f"queue:{chat.uuid}", '{"id": "1"}')
        wait_for(lambda: ready_pods(chat.uuid), "KEDA to wake it", seconds=Api.patience)
        (pod,) = ready_pods(chat.uuid)
    chat.wake()
    chat.wait_awake()
    assert ready_pods(chat.uuid) == [pod]
    redis_says("lrem", f"queue:{chat.uuid}", "0", '{"id": "1"}')
    assert redis_says("lrange", f"queue:{chat.uuid}", "0", "-1") == MARKER
    chat.sleep()


def test_a_wake_whose_worker_is_killed_is_done_by_another(chat: Conversation) -> None:
    """Right after it was asked for; nobody asks again."""
    chat.inside("echo kept > /app/kept")
    chat.sleep()
    chat.wake()
    assert kill("app.kubernetes.io/name=worker")
    chat.wait_awake()
    assert chat.inside("cat /app/kept") == "kept\n"
