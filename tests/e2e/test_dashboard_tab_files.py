"""The files of a workspace at the dashboard, on a running service, in Chromium."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Dialog, Locator, Page, expect

from tests.dashboard_browser import go, signed_in
from tests.looks import LOOKS, expect_readable
from tests.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.browser]

NAMES = [
    " two  spaces ",
    "a\nnew line",
    "half#?%2e%2e&+;",
    "é😀",
    "\"'<img src=x onerror=alert(1)>",
    os.fsdecode(b"no\xff text"),
]

DROP = """(place, files) => {
  const dropped = new DataTransfer();
  for (const [name, text] of files) dropped.items.add(new File([text], name));
  for (const type of ["dragover", "drop"])
    place.dispatchEvent(new DragEvent(type, { dataTransfer: dropped, bubbles: true, cancelable: true }));
}"""
"""What a person does who drags files from the desktop."""


@pytest.fixture
def asking(context: BrowserContext, service: Service) -> Page:
    """The list of sessions, for an admin, of whom the browser's console may say that the service refused something."""
    return signed_in(context, service)


def row(page: Page, name: str) -> Locator:
    link = page.get_by_role("link", name=re.compile(rf"^{re.escape(name)}"))
    return page.locator("#files-here tbody tr").filter(has=link)


def upload(page: Page, *files: Any) -> None:
    page.locator("#upload").set_input_files(files)


def answering(page: Page, *answers: bool) -> list[str]:
    """The questions that are asked from now on, each answered in turn."""
    asked: list[str] = []
    left = list(answers)

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept() if left.pop(0) else dialog.dismiss()

    page.on("dialog", answer)
    return asked


def file(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "text/html", "buffer": content}


def test_files_are_uploaded_looked_at_and_downloaded(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    folder = service.files(uuid)
    go(page, service, uuid, "files")
    page.get_by_role("button", name="New folder").click()
    page.get_by_label("Name").fill("src/deep")
    page.get_by_role("dialog").get_by_role("button", name="Create").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("link", name="src", exact=True).click()
    page.get_by_role("link", name="deep", exact=True).click()
    expect(page.locator(".crumbs")).to_contain_text("deep")
    assert page.url.endswith("/files?path=src/deep")
    content = bytes(range(256)) * 50
    upload(page, file("a.html", b"<h1>hello</h1>\n"), file("b.bin", content))
    expect(page.locator("#upload-state")).to_have_text("2 of 2 uploaded.")
    expect(row(page, "b.bin")).to_contain_text("13 kB")
    assert (folder / "src/deep/b.bin").read_bytes() == content

    page.reload()
    row(page, "a.html").get_by_role("link", name="a.html", exact=True).click()
    expect(page.locator(".file-text")).to_have_text("<h1>hello</h1>")
    page.go_back()
    with page.expect_download() as download:
        row(page, "b.bin").get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "b.bin"
    assert download.value.path().read_bytes() == content
    row(page, "b.bin").get_by_role("link", name="b.bin", exact=True).click()
    expect(page.locator("#files-here")).to_contain_text("This is no text")
    page.locator(".crumbs").get_by_role("link", name="src").click()
    with page.expect_download() as zipped:
        row(page, "deep").get_by_role("link", name="Download deep as a zip").click()
    assert zipped.value.suggested_filename == "deep.zip"
    with zipfile.ZipFile(zipped.value.path()) as archive:
        assert archive.read("b.bin") == content
    page.go_back()
    expect(page.locator("#files-here")).to_contain_text("This is no text")
    (folder / "src/deep/b.bin").write_text("by the agent")
    expect(page.locator(".file-text")).to_have_text("by the agent")


def test_a_folder_shows_what_changes_in_it(page: Page, service: Service) -> None:
    uuid = service.create("grace")["uuid"]
    folder = service.files(uuid)
    (folder / "src").mkdir()
    (folder / "src/one").touch()
    go(page, service, uuid, "files")
    page.get_by_role("link", name="src", exact=True).click()
    expect(row(page, "one")).to_be_visible()
    (folder / "src/one").rename(folder / "src/two")
    expect(row(page, "two")).to_be_visible()
    expect(row(page, "one")).to_have_count(0)
    for number in range(30):
        (folder / "src" / f"more{number}").touch()
    expect(row(page, "more29")).to_be_visible()
    # That of another folder is followed no more, and asked for by nobody.
    (folder / "src" / "deep").mkdir()
    page.get_by_role("link", name="deep", exact=True).click()
    expect(page.locator("#files-here")).to_contain_text("Nothing is in this folder.")
    (folder / "src/deep/three").touch()
    expect(row(page, "three")).to_be_visible()
    expect(row(page, "two")).to_have_count(0)


def test_an_upload_replaces_only_what_the_person_agrees_to(asking: Page, service: Service) -> None:
    page, uuid = asking, service.create()["uuid"]
    folder = service.files(uuid)
    for name in ("a", "b"):
        (folder / name).write_text("before")
    (folder / "dir").mkdir()
    go(page, service, uuid, "files")
    asked = answering(page, False, True)
    again = [file(name, b"after") for name in ("a", "b", "c")]
    upload(page, *again)
    expect(page.locator("#upload-state")).to_have_text("1 of 3 uploaded, 2 left as before.")
    assert [(folder / name).read_text() for name in ("a", "b", "c")] == ["before", "before", "after"]
    upload(page, *again, file("dir", b"in its way"))
    expect(page.locator("#upload-state")).to_have_text("3 of 4 uploaded, 1 failed.")
    expect(page.locator("#notices")).to_contain_text("dir")
    assert [(folder / name).read_text() for name in ("a", "b", "c")] == ["after", "after", "after"]
    assert asked == ["a is there already. Replace it, and all others of this upload that are?"] * 2


def test_files_are_renamed_and_deleted(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    folder = service.files(uuid)
    (folder / "src").mkdir()
    (folder / "src/a").write_text("a")
    (folder / "b").write_text("b")
    go(page, service, uuid, "files")
    row(page, "b").get_by_role("button", name="Rename").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("New path").fill("src/a")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("There is something already")
    dialog.get_by_label("New path").fill("src/b")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(row(page, "b")).to_have_count(0)
    row(page, "src").get_by_role("link", name="src", exact=True).click()
    row(page, "b").get_by_role("link", name="b", exact=True).click()
    expect(page.locator(".file-text")).to_have_text("b")
    page.get_by_role("button", name="Rename b").click()
    dialog.get_by_label("New path").fill("src/c")
    page.keyboard.press("Enter")
    expect(row(page, "c")).to_be_visible()
    assert page.url.endswith("/files?path=src")
    asked = answering(page, True, True)
    row(page, "c").get_by_role("button", name="Delete c").click()
    expect(row(page, "c")).to_have_count(0)
    page.locator(".crumbs").get_by_role("link", name="Files").click()
    row(page, "src").get_by_role("button", name="Delete src").click()
    expect(page.locator("#files-here")).to_contain_text("Nothing is in this folder.")
    assert asked == [
        "Delete src/c? It can't be undone.",
        "Delete the folder src with all that is in it? It can't be undone.",
    ]
    assert os.listdir(folder) == []


def test_names_are_shown_as_they_are_and_lead_to_their_files(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    folder = service.files(uuid)
    for name in NAMES:
        (folder / name).mkdir()
        (folder / name / name).write_text(f"in {NAMES.index(name)}")
    page.on("dialog", lambda dialog: dialog.accept())
    for number, name in enumerate(NAMES):
        shown = os.fsencode(name).decode("utf-8", "replace")
        go(page, service, uuid, "files")
        assert page.locator("main img").count() == 0
        link = page.locator("#files-here td a bdi").filter(has_text=re.compile(rf"^{re.escape(shown)}$"))
        link.click()
        expect(page.locator(".crumbs [aria-current]")).to_have_text(shown, use_inner_text=True)
        upload(page, file("beside", b"new"))
        expect(page.locator("#upload-state")).to_have_text("1 of 1 uploaded.")
        expect(page.locator("#files-here tbody tr")).to_have_count(2)
        assert (folder / name / "beside").read_bytes() == b"new"
        link.click()
        expect(page.locator(".file-text")).to_have_text(f"in {number}")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        assert download.value.path().read_text() == f"in {number}"
        page.get_by_role("button", name="Delete").last.click()
        expect(page.locator("#files-here tbody tr")).to_have_count(1)
        assert os.listdir(folder / name) == ["beside"]


def test_dropped_files_are_uploaded(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    go(page, service, uuid, "files")
    page.locator("#files-here").evaluate(DROP, [["a.txt", "first"], ["é #.txt", "second"]])
    expect(page.locator("#upload-state")).to_have_text("2 of 2 uploaded.")
    expect(row(page, "é #.txt")).to_be_visible()
    assert (service.files(uuid) / "é #.txt").read_text() == "second"
    assert not page.locator(".dropping").count()


def test_a_long_file_arrives_whole_and_replaces_itself(asking: Page, service: Service, tmp_path: Path) -> None:
    page, uuid = asking, service.create()["uuid"]
    content = os.urandom(1_000_000) * 60
    long = tmp_path / "long.bin"
    long.write_bytes(content)
    go(page, service, uuid, "files")
    upload(page, long)
    expect(page.locator("#upload-state")).to_contain_text("Uploading long.bin")
    expect(page.locator("#upload-state")).to_have_text("1 of 1 uploaded.")
    assert (service.files(uuid) / "long.bin").read_bytes() == content
    content = content[::-1]
    long.write_bytes(content)
    answering(page, True)
    upload(page, long)
    expect(page.locator("#upload-state")).to_contain_text("Uploading long.bin")
    expect(page.locator("#upload-state")).to_have_text("1 of 1 uploaded.")
    assert (service.files(uuid) / "long.bin").read_bytes() == content
    with page.expect_download() as download:
        row(page, "long.bin").get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == content


def test_a_look_at_a_sleeping_session_wakes_nothing_and_an_upload_does(page: Page, service: Service) -> None:
    uuid = service.create()["uuid"]
    (service.files(uuid) / "kept").write_text("x")
    service.done("POST", f"/session/{uuid}/sleep")
    service.wait_status(uuid, "sleeping", replicas=0)
    slept = service.states(uuid)
    go(page, service, uuid, "files")
    expect(page.locator("#files-here")).to_contain_text("The session sleeps, so its files can't be seen.")
    page.get_by_role("button", name="Refresh").click()
    page.get_by_role("button", name="New folder").click()
    page.keyboard.press("Escape")
    page.goto(f"{page.url}/view?path=kept")
    expect(page.locator("#files-here")).to_contain_text("The session sleeps")
    assert service.states(uuid) == slept
    go(page, service, uuid, "files")
    upload(page, file("new", b"wakes it"))
    expect(page.locator("#upload-state")).to_have_text("1 of 1 uploaded.")
    expect(row(page, "kept")).to_be_visible()
    expect(row(page, "new")).to_be_visible()
    expect(page.locator(".session-state")).to_contain_text("active")


@pytest.mark.parametrize("look", LOOKS)
def test_files_can_be_read_and_used(page: Page, service: Service, look: str) -> None:
    uuid = service.create()["uuid"]
    folder = service.files(uuid)
    for name in ("docs", "src", "a-folder-with-a-name-that-is-longer-than-the-screen-of-any-phone-that-people-have"):
        (folder / name).mkdir()
    (folder / "README.md").write_text("# Tours\n\nA planner of tours.\n" + "One very long line. " * 40 + "\nx" * 80)
    (folder / "latest").symlink_to("docs")
    (folder / NAMES[4]).write_text("x")
    go(page, service, uuid, "files")
    expect_readable(page, "list")
    for button in ("New folder", "Rename README.md"):
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        expect_readable(page, button)
        page.keyboard.press("Escape")
    row(page, "README.md").get_by_role("link", name="README.md", exact=True).click()
    expect(page.locator(".file-text")).to_contain_text("A planner")
    expect_readable(page, "file")
