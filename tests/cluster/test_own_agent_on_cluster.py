"""An image and an agent of the product's own on a cluster with the whole product, as docs/own-image.md makes them (the
suite is tests/suites/own_agent.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.cluster import images, layout
from scripts.images import oci
from scripts.images.__main__ import cache_folder
from tests.cluster.product import Api, kubectl, running_pods, settings_of_processes
from tests.cluster.prompting import model_for_the_gateway
from tests.conversation import Conversation
from tests.model_server import Answer, ModelServer, ToolCall
from tests.suites.own_agent import AGENT, OwnAgent, Place
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
        oci.run(["buildah", "copy", container, str(AGENT), PROGRAM], BUILD_LIMIT)
        oci.run(["buildah", "commit", "--quiet", container, f"oci-archive:{archive}:{IMAGE}"], BUILD_LIMIT)
    finally:
        oci.run(["buildah", "rm", container], BUILD_LIMIT)
    assert images.load(layout.from_environment(), str(archive)) == [IMAGE]
    return IMAGE


@pytest.fixture(scope="module")
def model(image: str) -> Iterator[ModelServer]:
    """Of a product that has both."""
    settings = {"WORKSPACE_IMAGE": image, "AGENT_PROGRAM": f"python3 -I {PROGRAM}"}
    with model_for_the_gateway() as running, settings_of_processes("worker", "sweeper", **settings):
        yield running


@pytest.fixture(scope="module")
def place(api: Api) -> Place:
    def running(uuid: str) -> list[str]:
        # The pattern does not find itself.
        return api.shell(uuid, f"grep -ls '[{PROGRAM[0]}]{PROGRAM[1:]}' /proc/[0-9]*/cmdline; true", "agent").split()

    return Place(running, running_pods)


class TestOwnAgentOnCluster(OwnAgent):
    """The whole product, as the overlay `dev` puts it there."""


@hides
def test_it_has_the_products_image_and_its_commands_cannot_read_its_token(
    chat: Conversation, model: ModelServer
) -> None:
    images_of_pods = "jsonpath={.items[*].spec.containers[*].image}"
    assert kubectl("get", "pods", "-l", f"session-uuid={chat.uuid}", "-o", images_of_pods).split() == [IMAGE, IMAGE]
    call = ToolCall("run_command", {"command": f"cat {TOKEN_FOLDER}/{TOKEN_KEY}"})
    model.script(Answer(tool_calls=(call,)), Answer(text="no"))
    assert chat.prompt("m1", "read your token")["response"]["text"] == "no"
    [said] = [content for role, content in chat.said() if role == "tool"]
    assert "Permission denied" in said
