"""The files of a workspace in the dashboard, with a real agent behind them."""

from __future__ import annotations

import io
import os
import re
import time
import zipfile
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.sessions.model import Status
from app.web.session import files_tab
from app.web.session.file_look import PAGE, VIEWED, text_of
from app.web.session.files_tab import FOLLOWED
from tests.unit.api.helpers import ADMIN_KEY, AppMaker, core_of, keyed, move, new_session
from tests.unit.api.real_agent import Workspace
from tests.unit.web.conftest import HTMX, ORIGIN, Visitor, page, signed_in
from tests.unit.web.session.conftest import HOSTILE

TAB = {"HX-Request": "true", "HX-Target": "tab"}
"""What a part of the page sends that changes the tab."""

NO_SLASH = HOSTILE.replace("/", "")
"""As a name of a file."""

ODD = b"a\xff%20 \n?#&+;%2e%2e'\"" + NO_SLASH.encode() + "é😀".encode()
"""A name that takes care, and is no text."""


@pytest.fixture
def folder(workspace: Workspace) -> Path:
    return workspace.app


@pytest.fixture
def tab(uuid: str) -> str:
    """The tab's address."""
    return f"/sessions/{uuid}/files"


def at(tab: str, path: str | bytes, call: str = "", **more: str) -> str:
    """The address of a call about a path."""
    raw = quote_from_bytes(path if isinstance(path, bytes) else path.encode())
    return f"{tab}{call}?path={raw}" + "".join(f"&{name}={text}" for name, text in more.items())


def put(visitor: Visitor, address: str, content: bytes, **headers: str) -> Any:
    """Send what the page's script sends."""
    sent = {"Origin": ORIGIN, "X-CSRF-Token": visitor.csrf, **HTMX, **headers}
    return visitor.client.put(address, data=content, base_url=ORIGIN, headers=sent)


def links(text: str) -> list[str]:
    """The addresses on a page."""
    return [unescape(each) for each in re.findall(r'href="([^"]*)"', text)]


def test_a_folder_is_listed(visitor: Visitor, folder: Path, tab: str) -> None:
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "src" / "main.py").write_bytes(b"x" * 1_500)
    (folder / "to").symlink_to("src/main.py")
    os.mkfifo(folder / "pipe")
    text = page(visitor, tab)
    assert re.findall(r"<bdi>([^<]*)</bdi>", text) == ["pipe", "src", "to", "src/main.py"]
    assert f"{tab}?path=src" in links(text)
    text = page(visitor, at(tab, "src"))
    assert "1.5 kB" in text
    assert f"{tab}/view?path=src/main.py" in links(text)
    assert f"{tab}/download?path=src/main.py" in links(text)
    assert 'aria-current="page">src<' in text
    text = page(visitor, at(tab, "src/deep"))
    assert "Nothing is in this folder." in text
    assert {tab, f"{tab}?path=src"} <= set(links(text))
    assert "There is no such file or folder" in page(visitor, at(tab, "gone"))


def test_a_long_folder_is_shown_page_by_page(visitor: Visitor, folder: Path, tab: str) -> None:
    (folder / "d").mkdir()
    for number in range(PAGE + 5):
        (folder / "d" / f"{number:04}").touch()
    text = page(visitor, at(tab, "d"))
    assert text.count("<bdi>") == PAGE
    more = unescape(re.findall(r'hx-get="([^"]*/more[^"]*)"', text)[0])
    text = page(visitor, more, **HTMX)
    assert re.findall(r"<bdi>([^<]*)</bdi>", text) == [f"{number:04}" for number in range(PAGE, PAGE + 5)]
    assert "/more" not in text


@pytest.mark.parametrize("name", [ODD, b"%2e%2e", b" ", b"a\nb", NO_SLASH.encode(), "ü😀".encode(), b"-", b"a?b#c"])
def test_names_of_any_bytes(visitor: Visitor, folder: Path, tab: str, name: bytes) -> None:
    """They are shown as text, and lead to the very file."""
    top = os.path.join(os.fsencode(folder), name)
    os.mkdir(top)
    with open(os.path.join(top, name), "wb") as file:
        file.write(b"found me")
    for address in (tab, at(tab, name)):
        text = page(visitor, address)
        assert NO_SLASH not in text
        assert "<img" not in text
        assert all(quote_from_bytes(name) in each for each in links(text) if "path=" in each)
    address = next(each for each in links(text) if "/view" in each)
    assert address == at(tab, name + b"/" + name, "/view")
    assert "found me" in page(visitor, address)
    answer = visitor.get(at(tab, name + b"/" + name, "/download"))
    assert answer.get_data() == b"found me"
    shown = name.decode("utf-8", "replace")
    assert answer.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{quote(shown, safe='')}"
    assert "\n" not in answer.headers["Content-Disposition"]
    assert put(visitor, at(tab, name + b"/" + name, replace="true"), b"anew").status_code == 204
    assert b"anew" in visitor.get(address).data
    dialog = page(visitor, at(tab, name, "/move"), **HTMX)
    assert "<img" not in dialog
    assert visitor.post(at(tab, name, "/folder"), {"name": "in it"}, headers=TAB).status_code == 200
    assert visitor.post(at(tab, name + b"/" + name, "/move"), {"move_to": "moved"}, headers=TAB).status_code == 200
    assert (folder / "moved").read_bytes() == b"anew"
    assert os.listdir(top) == [b"in it"]
    answer = visitor.post(at(tab, name, "/delete"), headers=TAB)
    assert answer.headers["HX-Replace-Url"] == tab
    assert os.listdir(folder) == ["moved"]


def test_a_file_is_shown_as_far_as_it_is_text(visitor: Visitor, folder: Path, tab: str) -> None:
    def shown(content: bytes) -> str:
        (folder / "file").write_bytes(content)
        return page(visitor, at(tab, "file", "/view"))

    text = shown(f"\nfirst\n{HOSTILE}".encode())
    assert "\n\nfirst\n&lt;img" in text
    assert HOSTILE not in text
    assert "Only the beginning" not in text
    assert "This file is empty." in shown(b"")
    assert "This is no text" in shown(b"a\0b")
    assert "This is no text" in shown(b"\xff\xfe")
    assert "This is no text" in shown("é".encode()[:1])
    assert "Only the beginning" not in shown(b"x" * VIEWED)
    text = shown(b"x" * (VIEWED - 1) + "é".encode() * 100_000)
    assert "262 kB of 462 kB" in text
    assert "x" * (VIEWED - 1) in text
    assert "é" not in text
    assert "mode 644" in text


def test_what_is_no_file_is_not_shown_as_one(visitor: Visitor, folder: Path, tab: str) -> None:
    """A link leads to what is at its end, or says that it leads nowhere."""
    (folder / "b").mkdir()
    (folder / "b" / "c").write_text("the words")
    for name, target in {"file": "b/c", "dir": "b", "dangling": "gone", "out": "/etc/passwd", "loop": "loop"}.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe")
    text = page(visitor, at(tab, "file"))
    assert "the words" in text
    assert "b/c</bdi>" in text
    assert "data-upload" not in text
    assert f"{tab}/view?path=b/c" in links(page(visitor, at(tab, "dir")))
    assert "There is no such file or folder" in page(visitor, at(tab, "dangling"))
    assert "leads out of the workspace" in page(visitor, at(tab, "out"))
    for path in ("loop", "../x", "/etc", "b/c/d"):
        assert "data-upload" in page(visitor, at(tab, path)), path
    assert "This is no text" in page(visitor, at(tab, "pipe", "/view"))


@pytest.mark.parametrize(
    ("content", "cut", "text"),
    [
        (b"", False, ""),
        ("é".encode(), False, "é"),
        ("aé".encode()[:-1], True, "a"),
        ("aé".encode()[:-1], False, None),
        (b"a\xffb", True, None),
        (b"a\0", True, None),
    ],
)
def test_text_of_bytes(content: bytes, cut: bool, text: str | None) -> None:
    assert text_of(content, cut=cut) == text


def test_a_file_is_downloaded_in_whole_and_in_parts(visitor: Visitor, folder: Path, tab: str) -> None:
    content = b"<html><script>alert(1)</script>" + bytes(range(256)) * 10_000
    (folder / "page.html").write_bytes(content)
    address = at(tab, "page.html", "/download")
    answer = visitor.client.get(address, base_url=ORIGIN)
    assert answer.get_data() == content
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''page.html"
    part = {"Range": "bytes=2-11", "If-Range": answer.headers["ETag"]}
    again = visitor.client.get(address, base_url=ORIGIN, headers=part)
    assert (again.status_code, again.get_data()) == (206, content[2:12])
    part["If-Range"] = '"other"'
    assert visitor.client.get(address, base_url=ORIGIN, headers=part).get_data() == content
    refused = visitor.get(at(tab, "gone", "/download"))
    assert (refused.status_code, refused.mimetype) == (404, "text/html")
    assert "There is no such file or folder" in refused.text


def test_a_folder_is_downloaded_as_a_zip(visitor: Visitor, folder: Path, tab: str, uuid: str) -> None:
    (folder / "my ü").mkdir()
    (folder / "my ü" / "a").write_text("the words")
    assert f"{tab}/zip?path=my%20%C3%BC" in links(page(visitor, tab))
    assert f"{tab}/zip" in links(page(visitor, tab))
    for path, name, inside in (("my ü", "my%20%C3%BC", "a"), ("", uuid, "my ü/a")):
        answer = visitor.client.get(at(tab, path, "/zip"), base_url=ORIGIN)
        assert answer.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{name}.zip"
        assert answer.headers["Content-Type"] == "application/octet-stream"
        with zipfile.ZipFile(io.BytesIO(answer.get_data())) as archive:
            assert archive.read(inside) == b"the words"
    refused = visitor.get(at(tab, "gone", "/zip"))
    assert (refused.status_code, refused.mimetype) == (404, "text/html")


def test_an_upload_is_passed_on_and_replaces_nothing_unasked(visitor: Visitor, folder: Path, tab: str) -> None:
    content = bytes(range(256)) * 20_000
    answer = put(visitor, at(tab, "new/big"), content)
    assert (answer.status_code, answer.data) == (204, b"")
    assert (folder / "new" / "big").read_bytes() == content
    answer = put(visitor, at(tab, "new/big"), b"other")
    assert (answer.status_code, answer.headers["HX-Retarget"]) == (412, "#notices")
    assert (folder / "new" / "big").read_bytes() == content
    assert put(visitor, at(tab, "new/big", replace="true"), b"").status_code == 204
    assert (folder / "new" / "big").read_bytes() == b""
    refused = put(visitor, at(tab, "../out"), b"x")
    assert (refused.status_code, refused.headers["HX-Retarget"]) == (400, "#notices")
    assert "leads out of the workspace" in refused.text
    assert put(visitor, tab, b"x").status_code in (404, 405)


def test_an_upload_of_another_page_is_refused(visitor: Visitor, folder: Path, tab: str) -> None:
    assert put(visitor, at(tab, "a"), b"x", Origin="http://evil.example").status_code == 403
    assert put(visitor, at(tab, "a"), b"x", **{"X-CSRF-Token": "guessed"}).status_code == 403
    form = {"Content-Type": "application/x-www-form-urlencoded", "X-CSRF-Token": ""}
    assert put(visitor, at(tab, "a"), f"csrf={visitor.csrf}".encode(), **form).status_code == 403
    assert os.listdir(folder) == []


def test_an_upload_may_be_as_long_as_a_file_and_no_longer(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app(file_max_bytes=1_000_000)
    visitor, uuid = signed_in(app), running(app)
    workspace = Workspace(core_of(app), uuid, tmp_path)
    workspace.start()
    try:
        tab = f"/sessions/{uuid}/files"
        assert put(visitor, at(tab, "a"), b"x" * 1_000_000).status_code == 204
        answer = put(visitor, at(tab, "b"), b"x" * 1_000_001)
        assert (answer.status_code, answer.headers["HX-Retarget"]) == (413, "#notices")
        assert "larger than this service accepts" in answer.text
        assert os.listdir(workspace.app) == ["a"]
    finally:
        workspace.stop()


def running(app: Flask) -> str:
    """A session that runs."""
    uuid = new_session(keyed(app, ADMIN_KEY))
    move(core_of(app), uuid, Status.ACTIVE)
    return uuid


def test_a_folder_is_made_and_things_are_moved_and_deleted(visitor: Visitor, folder: Path, tab: str) -> None:
    answer = visitor.post(at(tab, "", "/folder"), {"name": "docs"}, headers=TAB)
    assert answer.headers["HX-Replace-Url"] == tab
    assert answer.headers["HX-Trigger"] == "dialog-done"
    assert "docs</bdi>" in answer.text
    visitor.post(at(tab, "docs", "/folder"), {"name": "deep er"}, headers=TAB)
    assert (folder / "docs" / "deep er").is_dir()
    (folder / "docs" / "a").write_text("1")
    answer = visitor.post(at(tab, "docs/a", "/move"), {"move_to": "docs/b <i>"}, headers=TAB)
    assert answer.headers["HX-Replace-Url"] == f"{tab}?path=docs"
    assert "b &lt;i&gt;</bdi>" in answer.text
    answer = visitor.post(at(tab, "docs/b <i>", "/delete"), headers=TAB)
    assert answer.headers["HX-Replace-Url"] == f"{tab}?path=docs"
    assert os.listdir(folder / "docs") == ["deep er"]
    answer = visitor.post(at(tab, "docs/gone", "/delete"), headers=TAB)
    assert (answer.status_code, answer.headers["HX-Retarget"]) == (404, "#notices")


def test_a_dialog_says_why_it_was_refused(visitor: Visitor, folder: Path, tab: str) -> None:
    (folder / "a").write_text("1")
    (folder / "b").write_text("2")
    for call, data in (("/move", {"move_to": "b"}), ("/move", {"move_to": "../b"}), ("/move", {"move_to": ""})):
        answer = visitor.post(at(tab, "a", call), data, headers=TAB)
        assert (answer.status_code, answer.headers["HX-Retarget"]) == (200, "#dialog")
        assert f'value="{data["move_to"]}"' in answer.text
        assert 'role="alert"' in answer.text
    answer = visitor.post(at(tab, "", "/folder"), {"name": "a"}, headers=TAB)
    assert answer.headers["HX-Retarget"] == "#dialog"
    assert 'role="alert"' in answer.text
    assert sorted(os.listdir(folder)) == ["a", "b"]


def test_an_onlooker_looks_and_changes_nothing(onlooker: Visitor, folder: Path, tab: str) -> None:
    (folder / "a").write_text("the words")
    for address in (tab, at(tab, "a", "/view")):
        text = page(onlooker, address)
        assert "Download" in text
        for button in ("data-upload", "hx-post", "#dialog"):
            assert button not in text.split('id="tab"')[1].split("<dialog")[0], button
    assert onlooker.get(at(tab, "a", "/download")).text == "the words"
    assert put(onlooker, at(tab, "b"), b"x").status_code == 403
    for call in ("/delete", "/folder", "/move"):
        onlooker.post(at(tab, "a", call), {"name": "x", "move_to": "y"}, headers=TAB)
    assert os.listdir(folder) == ["a"]


def test_no_look_wakes_a_session(visitor: Visitor, core: Core, workspace: Workspace, tab: str) -> None:
    (workspace.app / "a").write_text("the words")
    workspace.sleep()
    for address in (tab, at(tab, "a", "/view"), at(tab, "", "/here"), at(tab, "x", "/here")):
        text = page(visitor, address)
        assert "The session sleeps, so its files can't be seen." in text
        assert "the words" not in text
    for address in (at(tab, "a", "/download"), at(tab, "", "/more", cursor="a")):
        answer = visitor.get(address, headers=HTMX)
        assert (answer.status_code, answer.headers["HX-Retarget"]) == (409, "#notices")
    for call in ("/folder", "/move"):
        assert visitor.get(at(tab, "a", call), headers=HTMX).status_code == 200
    assert core.store.get(workspace.uuid).status is Status.SLEEPING
    workspace.wake()
    assert "a</bdi>" in page(visitor, tab)


def test_a_session_that_is_deleted_takes_no_upload(visitor: Visitor, core: Core, uuid: str, tab: str) -> None:
    assert "data-upload" in page(visitor, tab)
    move(core, uuid, Status.TERMINATING)
    text = page(visitor, tab)
    assert "data-upload" not in text
    assert "The session was deleted" in text


def test_a_file_that_goes_while_it_is_read_is_said_to_be_gone(
    visitor: Visitor, core: Core, folder: Path, tab: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a").write_text("a")
    look = core.files.entry

    def and_gone(*args: Any) -> Any:
        found = look(*args)
        (folder / "a").unlink()
        return found

    monkeypatch.setattr(core.files, "entry", and_gone)
    assert "no such file" in page(visitor, at(tab, "a", "/view"))


def stream(visitor: Visitor, tab: str, path: str = "", *, opened: float | None = None, **headers: str) -> Any:
    opened = time.time() if opened is None else opened
    return visitor.client.get(at(tab, path, "/stream", opened=f"{opened:.0f}"), base_url=ORIGIN, headers=headers)


def test_a_page_is_told_when_to_ask_again(
    visitor: Visitor, tab: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_tab, "PAUSE", 0.0)
    (folder / "src").mkdir()
    assert "/files/follow?path=src" in page(visitor, at(tab, "src"))
    assert "/files/stream?path=src&amp;opened=" in page(visitor, at(tab, "src", "/follow"))
    answer = stream(visitor, tab, "src")
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    told = (part.decode() for part in answer.response)
    first = next(told)
    assert "event: changed\n" in first, "what changed since the page was made"
    (folder / "src" / "a").touch()
    assert "event: changed\n" in next(each for each in told if "event" in each)
    answer.close()
    seen = first.split("\n")[0].removeprefix("id: ")
    answer = stream(visitor, tab, "src", **{"Last-Event-ID": seen})
    again = (part.decode() for part in answer.response)
    assert next(each for each in again if "event" in each).split("\n")[0] != f"id: {seen}", "it goes on after that"
    answer.close()


def test_a_page_that_is_left_open_follows_no_more(
    visitor: Visitor, core: Core, uuid: str, tab: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asks for at each change is use."""
    end = b"id: \nevent: end\ndata: 1\n\n"
    for opened in (time.time() - FOLLOWED - 1, 0):
        assert stream(visitor, tab, opened=opened).data == end
    assert "files" not in core.activity.read(uuid)
    monkeypatch.setattr(files_tab, "PAUSE", 0.0)
    told = [b'id: 1\nevent: changed\ndata: {"path": "."}\n\n'] * 2
    assert [*files_tab.changes(told, time.time() - 1)] == [end]
    assert [*files_tab.changes(told, time.time() + 60)] == [b"id: 1\nevent: changed\ndata: 1\n\n"] * 2


def test_what_is_not_there_is_not_followed(visitor: Visitor, core: Core, uuid: str, tab: str, folder: Path) -> None:
    for path in ("none", "../out", ".git/x"):
        assert stream(visitor, tab, path).data == b"id: \nevent: end\ndata: 1\n\n"
    move(core, uuid, Status.TERMINATING)
    assert stream(visitor, tab).data == b"id: \nevent: end\ndata: 1\n\n"
    assert "/files/follow" not in page(visitor, tab, **TAB)
