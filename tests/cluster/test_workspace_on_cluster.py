"""A workspace's whole life on a real cluster, with the manager running there too: in Chromium, through the ingress."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser import expect_file, in_terminal, open_editor
from tests.cluster.product import LET_IN, Api, kubectl
from tests.waiting import wait_for

KINDS = "deployments,pods,services,ingresses,secrets,persistentvolumeclaims,jobs,scaledobjects.keda.sh"


def in_workspace(uuid: str, command: str) -> str:
    """What a command prints inside the workspace's pod."""
    return kubectl("exec", f"deployment/user-{uuid}", "--", "sh", "-c", command)


@pytest.fixture(scope="module")
def api() -> Api:
    return Api()


def test_a_workspace_lives_sleeps_wakes_dies_and_is_restored(api: Api, browser: Browser) -> None:
    """create → editor → a file from its terminal → sleep → wake → backup Job → delete → restore; nothing is lost."""
    session = api.call("POST", "/session/create", {"user_id": "ada@example.com"})
    uuid = session["uuid"]
    assert session["status"] == "active"
    wait_for(lambda: api.visit(session).status_code in LET_IN, "the ingress to lead there")

    page = open_editor(browser, api.link(uuid))
    in_terminal(page, "mkdir src && echo hello > src/proof.txt && chmod 750 src/proof.txt && ln -s src/proof.txt link")
    wait_for(lambda: in_workspace(uuid, "test -L /app/link && echo there || true"), "the terminal's files")
    page.close()

    assert api.call("POST", f"/session/{uuid}/scale-down")["status"] == "success"
    running = ["get", "pods", "-l", f"session-uuid={uuid}", "--field-selector=status.phase=Running", "-o", "name"]
    assert kubectl(*running) == ""
    assert api.visit(session).status_code == 503, "the sleeping workspace's URL says so"

    assert api.call("POST", f"/session/{uuid}/scale-up")["status"] == "success"
    assert in_workspace(uuid, "cat /app/src/proof.txt") == "hello\n"
    wait_for(lambda: api.visit(session).status_code in LET_IN, "the ingress to lead there again")
    page = open_editor(browser, api.link(uuid))
    expect_file(page, "link")
    page.close()

    api.call("POST", f"/session/{uuid}/backup")
    wait_for(lambda: api.call("GET", f"/session/{uuid}/backups")["total"] == 1, "the backup Job")
    gone = api.call("DELETE", f"/session/{uuid}")
    assert gone["status"] == "terminated"
    wait_for(lambda: kubectl("get", KINDS, "-l", f"session-uuid={uuid}", "-o", "name") == "", "all of it to be gone")

    restored = api.call("POST", f"/backups/{gone['backup']}/restore")
    assert restored["status"] == "active"
    again = restored["uuid"]
    assert in_workspace(again, "cat /app/link; stat -c %a /app/src/proof.txt; readlink /app/link") == (
        "hello\n750\nsrc/proof.txt\n"
    )
    api.call("DELETE", f"/session/{again}?backup=false")
