"""The bound workspace: the shortest program, and that each call is the client's with its uuid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.clients.api import (
    KEY,
    URL,
    UUID,
    Api,
    action,
    answer,
    archive_of,
    asked,
    content_of,
    created,
    entry,
    listed,
    opened,
    port,
    service,
    unpacked,
    with_output,
    wrote,
)
from workspaces import Client, ConfigError, Workspaces
from workspaces.folders import packed


def test_the_shortest_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_URL", URL)
    monkeypatch.setenv("API_KEY", KEY)
    api = Api(created(), wrote("hello.py"), answer(with_output(stdout="hi\n")))
    ws = Client(transport=api).create(user_id="ada", size="small")
    ws.write("hello.py", "print('hi')")
    assert ws.run("python3 hello.py").stdout == "hi\n"
    assert asked(api) == [
        "POST /session/create",
        f"PUT /session/{UUID}/files/hello.py",
        f"POST /session/{UUID}/exec",
    ]
    assert json.loads(api.requests[0].content) == {"user_id": "ada", "size": "small"}
    assert api.requests[1].content == b"print('hi')"
    assert {each.headers["X-API-Key"] for each in api.requests} == {KEY}


def test_each_call_is_the_clients() -> None:
    deleted = {"uuid": UUID, "status": "terminated", "message": "", "backup": None, "risk": None}
    there = (content_of(b"x"), listed(entry()), answer(service()), answer(opened()), answer({"ports": [port()]}))
    api = Api(*there, action("sleep"), action("wake"), answer(deleted))
    ws = api.client().workspace(UUID)
    assert (ws.uuid, repr(ws)) == (UUID, f"Workspace({UUID!r})")
    assert ws.read("a.py", wake=False) == b"x"
    assert [each.path for each in ws.list_files(depth=2)] == ["a.py"]
    assert ws.serve("web", "npm run dev", port=3000).state == "running"
    assert ws.preview(3000, path="/a", wait=9).state == "listening"
    assert [each.port for each in ws.ports(wake=False)] == [3000]
    assert ws.sleep(wait=5).action == "sleep"
    assert ws.wake().action == "wake"
    assert ws.delete(backup="false").status == "terminated"
    assert asked(api) == [
        f"GET /session/{UUID}/files/a.py?wake=false",
        f"GET /session/{UUID}/files?path=.&depth=2",
        f"POST /session/{UUID}/services",
        f"POST /session/{UUID}/ports/3000/open",
        f"GET /session/{UUID}/ports?wake=false",
        f"POST /session/{UUID}/sleep",
        f"POST /session/{UUID}/wake",
        f"DELETE /session/{UUID}?backup=false",
    ]
    assert json.loads(api.requests[2].content) == {"name": "web", "command": "npm run dev", "port": 3000}
    assert json.loads(api.requests[3].content) == {"path": "/a"}
    assert [api.requests[n].headers["Prefer"] for n in (3, 5)] == ["wait=9", "wait=5"]


def test_a_folder_goes_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a").write_text("x")
    api = Api(unpacked(), archive_of(*packed(tmp_path / "here")))
    ws = api.client().workspace(UUID)
    assert ws.upload_folder(tmp_path / "here", wake=False).files == 2
    assert ws.download_folder(tmp_path / "there", "src") == tmp_path / "there"
    assert (tmp_path / "there/a").read_text() == "x"
    assert asked(api) == [f"PUT /session/{UUID}/tree?path=.&wake=false", f"GET /session/{UUID}/tree?path=src"]


@pytest.mark.parametrize("given", [{"api_url": "http://other"}, {"api_key": KEY}])
def test_a_key_is_not_sent_to_a_service_that_it_was_not_meant_for(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.setenv("API_URL", URL)
    monkeypatch.setenv("API_KEY", KEY)
    with pytest.raises(ConfigError):
        Workspaces(**given)
