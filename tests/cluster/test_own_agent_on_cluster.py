"""An image and an agent of the product's own on a cluster with the whole product, as docs/own-image.md makes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.cluster import images, layout
from scripts.images import oci
from scripts.images.__main__ import cache_folder
from tests.cluster.product import Api, kubectl, settings_of_processes
from tests.cluster.prompting import Conversation
from tests.conftest import ROOT
from tests.model_server import Answer, ModelServer, ToolCall
from tests.unit.landlock import hides
from workers.runtime.kubernetes.objects import TOKEN_FOLDER, TOKEN_KEY

pytestmark = pytest.mark.timeout(1_800)

IMAGE = "localhost/own-workspace:cluster"
PROGRAM = "/opt/own/agent.py"
BUILD_LIMIT = 300.0
"""s to add a file to an image."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The workspaces' image with the example agent, in the node. The cluster's network has no way out, so there is no
    compiler in it."""
    archive = tmp_path_factory.mktemp("own") / "own.tar"
    made = oci.run(["buildah", "from", "--pull-never", f"oci-archive:{cache_folder() / 'workspace.tar'}"], BUILD_LIMIT)
    container = made.splitlines()[-1]
    try:
        oci.run(["buildah", "copy", container, str(ROOT / "docs" / "own-image" / "agent.py"), PROGRAM], BUILD_LIMIT)
        oci.run(["buildah", "commit", "--quiet", container, f"oci-archive:{archive}:{IMAGE}"], BUILD_LIMIT)
    finally:
        oci.run(["buildah", "rm", container], BUILD_LIMIT)
    assert images.load(layout.from_environment(), str(archive)) == [IMAGE]
    return IMAGE


@pytest.fixture
def chat(image: str, model: ModelServer) -> Iterator[Conversation]:
    """A session of a product that has both."""
    settings = {"WORKSPACE_IMAGE": image, "AGENT_PROGRAM": f"python3 -I {PROGRAM}"}
    with settings_of_processes("worker", "sweeper", **settings):
        made = Conversation(Api())
        try:
            yield made
        finally:
            made.delete()


@hides
def test_its_prompts_are_worked_on_by_that_agent(chat: Conversation, model: ModelServer) -> None:
    """After a sleep too, with what was said before it, and undone. Its commands can't read the token that it has."""
    pods = kubectl(
        "get", "pods", "-l", f"session-uuid={chat.uuid}", "-o", "jsonpath={.items[*].spec.containers[*].image}"
    )
    assert pods.split() == [IMAGE, IMAGE]
    call = ToolCall("run_command", {"command": f"printf hi >hello.txt; cat {TOKEN_FOLDER}/{TOKEN_KEY}"})
    model.script(Answer(tool_calls=(call,)), Answer(text="hello.txt says hi"))
    chat.send("m1", "write hello.txt")
    assert chat.ended("m1")["response"]["text"] == "hello.txt says hi"
    assert chat.inside("cat /app/hello.txt") == "hi"
    [said] = [each["content"] for each in chat.messages() if each["role"] == "tool"]
    assert "Permission denied" in said
    chat.sleep()
    chat.send("m2", "how many prompts did I send?")
    assert chat.ended("m2")["response"]["text"] == "2 prompts"
    chat.roll_back("m1")
    assert chat.inside("ls /app") == ""
