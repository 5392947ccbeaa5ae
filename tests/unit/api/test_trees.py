"""The calls on folders as archives, with a real agent behind them."""

from __future__ import annotations

import io
import os
import random
import tarfile
import time
import zipfile
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

from app.agent.protocol import FILE_PIECE
from app.core.composition import Core
from app.core.files import transfers
from app.core.files import trees as service
from app.core.sessions.model import Status
from tests.fake_agent import FakeAgent
from tests.unit.api.helpers import Client, check_problem, move
from tests.unit.api.real_agent import Workspace
from tests.waiting import wait_for

LONG = random.Random(7).randbytes(2 * FILE_PIECE + 3)
"""Of several pieces, also when it is packed."""

ID = b"0" * 16


class Trees:
    """The calls on the folders of one session."""

    def __init__(self, client: Client, uuid: str) -> None:
        self.client = client
        self.here = f"/session/{uuid}/tree"

    def get(self, **query: str) -> Any:
        return self.client.get(f"{self.here}?{urlencode(query, errors='surrogateescape')}")

    def put(self, archive: bytes, **query: str) -> Any:
        return self.client.put(f"{self.here}?{urlencode(query, errors='surrogateescape')}", data=archive)


@pytest.fixture
def trees(client: Client, uuid: str, workspace: Workspace) -> Trees:
    return Trees(client, uuid)


def fill(workspace: Workspace) -> None:
    (workspace.app / "src").mkdir()
    (workspace.app / "src" / "long").write_bytes(LONG)
    (workspace.app / "src" / "run").write_text("#!/bin/sh\n")
    (workspace.app / "src" / "run").chmod(0o755)
    (workspace.app / "src" / "link").symlink_to("run")


def left(workspace: Workspace) -> list[str]:
    return os.listdir(workspace.app.parent / ".uploads")


@pytest.mark.parametrize(
    ("query", "media", "name"),
    [
        ({}, "application/gzip", "tar.gz"),
        ({"format": "tar.gz"}, "application/gzip", "tar.gz"),
        ({"format": "zip"}, "application/zip", "zip"),
    ],
)
def test_a_folder_goes_out_and_comes_in(
    trees: Trees, uuid: str, workspace: Workspace, query: dict[str, str], media: str, name: str
) -> None:
    fill(workspace)
    out = trees.get(path="src", **query)
    assert (out.status_code, out.content_type) == (200, media)
    assert out.headers["Content-Disposition"] == f'attachment; filename="{uuid}.{name}"'
    answer = trees.put(out.data, path="copy/of it", **query)
    expected = {"uuid": uuid, "path": "copy/of it", "files": 3, "bytes": len(LONG) + 10}
    assert (answer.status_code, answer.json) == (200, expected)
    copy = workspace.app / "copy" / "of it"
    assert (copy / "long").read_bytes() == LONG
    assert oct((copy / "run").stat().st_mode) == "0o100755"
    assert os.readlink(copy / "link") == "run"
    wait_for(lambda: left(workspace) == [], "nothing to be left")


def test_everything_goes_out_by_default(trees: Trees, workspace: Workspace) -> None:
    fill(workspace)
    with tarfile.open(fileobj=io.BytesIO(trees.get().data)) as archive:
        assert set(archive.getnames()) == {"src", "src/long", "src/run", "src/link"}
    assert trees.client.head(trees.here).status_code == 200


def test_a_path_that_is_no_utf8(trees: Trees, workspace: Workspace) -> None:
    name = os.fsdecode(b"no \xff text")
    (workspace.app / name).mkdir()
    (workspace.app / name / "a").touch()
    answer = trees.put(trees.get(path=name).data, path=f"{name}/copy")
    assert answer.json["path"] == "no \ufffd text/copy"
    assert (workspace.app / name / "copy" / "a").exists()


def test_refusals(trees: Trees, workspace: Workspace) -> None:
    fill(workspace)
    archive = trees.get(path="src").data
    for path, status, error in (
        ("..", 400, "invalid_path"),
        ("src/run", 409, "not_a_file"),
        ("src/run/below", 409, "not_a_file"),
    ):
        check_problem(trees.get(path=path), status, error)
        check_problem(trees.put(archive, path=path), status, error)
    check_problem(trees.get(path="missing"), 404, "file_not_found")
    check_problem(trees.put(b"none"), 422, "invalid_archive")
    check_problem(trees.put(archive, format="zip"), 422, "invalid_archive")
    (workspace.app / "taken" / "run").mkdir(parents=True)
    check_problem(trees.put(archive, path="taken"), 409, "file_exists")
    assert os.listdir(workspace.app / "taken") == ["run"]
    for query in ({"format": "rar"}, {"path": ""}, {"path": "a\0"}, {"more": "1"}):
        check_problem(trees.get(**query), 400, "invalid_request")
        check_problem(trees.put(archive, **query), 400, "invalid_request")
    wait_for(lambda: left(workspace) == [], "nothing to be left")


def test_a_body_that_is_too_large_or_ends_early_changes_nothing(trees: Trees, workspace: Workspace) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a", LONG)
    answer = trees.client.put(
        f"{trees.here}?format=zip",
        environ_overrides={
            "wsgi.input": io.BytesIO(archive.getvalue()),
            "wsgi.input_terminated": True,
            "CONTENT_LENGTH": str(len(archive.getvalue()) + 1),
        },
    )
    check_problem(answer, 400, "invalid_request")
    assert os.listdir(workspace.app) == []
    wait_for(lambda: left(workspace) == [], "nothing to be left")


def test_a_file_that_gets_shorter_breaks_the_answer_off(trees: Trees, workspace: Workspace) -> None:
    fill(workspace)
    answered: Any = FlaskClient.open(trees.client, trees.here, buffered=False)
    pieces = iter(answered.response)
    assert next(pieces)
    (workspace.app / "src" / "long").write_bytes(LONG[: FILE_PIECE + 1])
    with pytest.raises(Exception, match="got shorter"):
        list(pieces)


def test_no_transfer_outlives_a_sleep(trees: Trees, core: Core, uuid: str, workspace: Workspace) -> None:
    fill(workspace)
    archive = trees.get().data
    answered: Any = FlaskClient.open(trees.client, trees.here, buffered=False)
    pieces = iter(answered.response)
    assert next(pieces)
    workspace.sleep()
    with pytest.raises(Exception, match="was ended"):
        list(pieces)
    answered.close()
    check_problem(trees.get(wake="false"), 409, "asleep")
    check_problem(trees.put(archive, path="copy", wake="false"), 409, "asleep")
    assert core.store.get(uuid).status is Status.SLEEPING
    workspace.wake()
    assert trees.put(archive, path="copy").status_code == 200


def test_an_answer_that_is_read_no_further_lets_go(trees: Trees, core: Core, workspace: Workspace) -> None:
    """The slot is free again, and the agent has forgotten the archive."""
    fill(workspace)
    for _ in range(2 * core.settings.files_at_once):
        answered: Any = FlaskClient.open(trees.client, trees.here, buffered=False)
        assert next(iter(answered.response))
        answered.close()
    assert trees.get(path="src").status_code == 200


def test_a_session_that_cannot_run(client: Client, core: Core, uuid: str) -> None:
    move(core, uuid, Status.FAILED, reason="no volume")
    check_problem(Trees(client, uuid).get(), 409, "illegal_state")
    check_problem(Trees(client, "zzzzzzzz").put(b""), 404, "session_not_found")


def test_an_agent_that_lies_costs_a_503(
    client: Client, core: Core, uuid: str, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that never has an archive unpacked, which is not asked in a row."""
    monkeypatch.setattr(transfers, "PATIENCE", 0.0)
    monkeypatch.setattr(service, "LONGEST", 0.6)
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    trees = Trees(client, uuid)
    lies = (
        b"{}",
        b"\xff",
        b'{"tree": "../../x", "upload": "../x"}',
        b'{"tree": 7, "upload": 7}',
        b'{"upload": "%s", "done": true}' % ID,
        b'{"upload": "%s", "done": true, "files": -1, "bytes": "x"}' % ID,
        b'{"upload": "%s", "done": false}' % ID,
    )
    for raw in lies:
        agent.requests.clear()
        agent.raw_response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(raw), raw)
        assert trees.put(b"x").status_code == 503, raw
        if b"upload" not in raw or b"tree" in raw:
            assert trees.get().status_code == 503, raw
    assert sum(path.endswith("/tree") for _, path, _ in agent.requests) < 5
