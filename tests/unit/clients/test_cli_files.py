"""sessionctl's commands on files: what a list shows, and where a copy goes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.unit.clients.api import (
    UUID,
    Api,
    Body,
    archive_of,
    asked,
    content_of,
    entry,
    listed,
    problem,
    unpacked,
    wrote,
)
from tests.unit.clients.conftest import Sessionctl
from workspaces.cli.context import FAILED, NOT_FOUND, UNREACHABLE, USAGE
from workspaces.folders import packed

HERE = f"/session/{UUID}/files"
TREE = f"/session/{UUID}/tree"


def folder(path: str) -> httpx.Response:
    return listed(entry(path, type="folder", size=None, mode="755"))


def linked() -> httpx.Response:
    return listed(entry("l", type="link", mode="777", target="src"))


def missing() -> httpx.Response:
    return problem(404, "file_not_found")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder on this machine."""
    path = tmp_path / "project"
    (path / "src").mkdir(parents=True)
    (path / "src/a b.py").write_text("x")
    (path / "l").symlink_to("src")
    return path


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A program on this machine."""
    path = tmp_path / "a.sh"
    path.write_bytes(b"#!/bin/sh\n")
    path.chmod(0o750)
    return path


# Lists


def test_files_are_listed_with_what_they_are(sessionctl: Sessionctl) -> None:
    entries = [
        entry("src", type="folder", size=None, mode="755"),
        entry("src/a.py", size=1_200),
        entry("l", type="link", size=None, mode="777", target="../b"),
    ]
    api = Api(*[listed(*entries)] * 2)
    shown = sessionctl(api, "ls", UUID).out.splitlines()
    assert shown[0].split() == ["MODE", "SIZE", "AGE", "PATH"]
    assert [line.split()[0] for line in shown[1:]] == ["755", "644", "777"]
    column = shown[0].index("PATH")
    assert [line[column:].rstrip() for line in shown[1:]] == ["src/", "src/a.py", "l -> ../b"]
    assert " 1 kB " in shown[2]
    assert json.loads(sessionctl(api, "ls", UUID, "--json").out) == entries


def test_options_of_a_list_reach_the_api(sessionctl: Sessionctl) -> None:
    api = Api(listed())
    ended = sessionctl(api, "ls", UUID, "src", "--depth", "3", "--glob", "*.py", "--no-wake", "--limit", "5")
    assert (ended.code, "no such file" in ended.err) == (0, True)
    assert asked(api) == [f"GET {HERE}?path=src&depth=3&glob=%2A.py&wake=false&limit=6"]


def test_a_name_can_not_spoil_a_terminal(sessionctl: Sessionctl) -> None:
    """Neither by control characters, nor by newlines and tabs, nor by markup."""
    evil = entry("a\x1b[31m\n\tb[bold]", type="link", target="\r\n\x07c")
    (_, line) = sessionctl(Api(listed(evil)), "ls", UUID).out.splitlines()
    bad = "\N{REPLACEMENT CHARACTER}"
    assert line.endswith(f"a{bad}[31m{bad}{bad}b[bold] -> {bad}{bad}{bad}c")


# Into a workspace


@pytest.mark.parametrize(
    ("target", "looks", "path"),
    [
        ("src/", [], "src/a.sh"),
        ("", [], "a.sh"),
        ("src", [folder("src")], "src/a.sh"),
        ("b.sh", [listed(entry("b.sh"))], "b.sh"),
        ("b:c.sh", [problem(404, "file_not_found")], "b%3Ac.sh"),
    ],
)
def test_a_file_is_copied_into_a_workspace_with_its_mode(
    sessionctl: Sessionctl, local: Path, target: str, looks: list[httpx.Response], path: str
) -> None:
    api = Api(*looks, wrote())
    ended = sessionctl(api, "cp", str(local), f"{UUID}:{target}")
    assert (ended.code, ended.out) == (0, "")
    assert asked(api)[-1] == f"PUT {HERE}/{path}?mode=750&wake=true"
    assert api.requests[-1].content == local.read_bytes()
    assert len(api.requests) == 1 + len(looks)


def test_standard_input_is_copied_into_a_workspace(sessionctl: Sessionctl) -> None:
    api = Api(problem(404, "file_not_found"), wrote())
    ended = sessionctl(api, "cp", "-", f"{UUID}:notes.txt", "--no-wake", "--json", typed="to do\r\n")
    assert json.loads(ended.out)["path"] == "a.py"
    assert asked(api) == [f"GET {HERE}?path=notes.txt&depth=0&wake=false", f"PUT {HERE}/notes.txt?wake=false"]
    assert api.requests[-1].content == b"to do\r\n"


def test_a_local_name_with_a_colon_is_written_with_its_folder(
    sessionctl: Sessionctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").write_text("x")
    api = Api(wrote())
    assert sessionctl(api, "cp", "./a:b", f"{UUID}:").code == 0
    assert asked(api)[0].startswith(f"PUT {HERE}/a%3Ab?")


def test_a_local_file_that_is_not_there_is_named(sessionctl: Sessionctl, tmp_path: Path) -> None:
    ended = sessionctl(Api(), "cp", str(tmp_path / "none"), f"{UUID}:a")
    assert (ended.code, "none: No such file" in ended.err) == (FAILED, True)


# Out of a workspace


@pytest.mark.parametrize(("target", "name"), [("", "a.sh"), ("/", "a.sh"), ("/b.sh", "b.sh")])
def test_a_file_is_copied_out_of_a_workspace_with_its_mode(
    sessionctl: Sessionctl, tmp_path: Path, target: str, name: str
) -> None:
    api = Api(listed(entry("bin/a.sh", mode="700")), content_of(b"#!/bin/sh\n"))
    ended = sessionctl(api, "cp", f"{UUID}:bin/a.sh", f"{tmp_path}{target}", "--json")
    made = tmp_path / name
    assert (ended.code, json.loads(ended.out)) == (0, {"path": str(made)})
    assert (made.read_bytes(), made.stat().st_mode & 0o777) == (b"#!/bin/sh\n", 0o700)
    assert asked(api) == [f"GET {HERE}?path=bin%2Fa.sh&depth=0&wake=true", f"GET {HERE}/bin/a.sh?wake=true"]


def test_what_a_link_leads_to_has_the_mode_of_a_new_file(sessionctl: Sessionctl, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.touch()
    api = Api(listed(entry("l", type="link", mode="777", target="a")), content_of(b"x"))
    assert sessionctl(api, "cp", f"{UUID}:l", str(tmp_path)).code == 0
    assert (tmp_path / "l").stat().st_mode == new.stat().st_mode


def test_a_file_is_copied_to_standard_output_alone(sessionctl: Sessionctl) -> None:
    api = Api(listed(entry()), content_of(b"\xc3\xbc\x1b\r\n"))
    ended = sessionctl(api, "cp", f"{UUID}:a.py", "-")
    assert (ended.code, ended.out, ended.err) == (0, "ü\x1b\r\n", "")


@pytest.mark.parametrize("target", ["a.py", "none/"])
def test_a_copy_that_fails_leaves_nothing(sessionctl: Sessionctl, tmp_path: Path, target: str) -> None:
    broken = httpx.Response(200, stream=Body(b"x"), headers={"Content-Length": "2", "ETag": '"v1"'})
    api = Api(listed(entry()), broken, problem(412, "file_changed", "It changed."))
    ended = sessionctl(api, "cp", f"{UUID}:a.py", f"{tmp_path}/{target}")
    assert ended.code == FAILED
    assert [*tmp_path.iterdir()] == []


def test_a_file_that_is_not_there_has_its_exit_code(sessionctl: Sessionctl) -> None:
    assert sessionctl(Api(problem(404, "file_not_found")), "cp", f"{UUID}:a", "-").code == NOT_FOUND


def test_a_device_is_not_replaced(sessionctl: Sessionctl, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert sessionctl(Api(listed(entry())), "cp", f"{UUID}:a.py", str(tmp_path / "pipe")).code == USAGE


# Between workspaces


def test_a_file_is_copied_from_one_workspace_to_another(sessionctl: Sessionctl) -> None:
    api = Api(listed(entry("src/a.py", mode="600")), content_of(b"x" * 99), wrote())
    ended = sessionctl(api, "cp", f"{UUID}:src/a.py", "other:lib/", "--json")
    assert json.loads(ended.out)["path"] == "a.py"
    assert asked(api)[2] == "PUT /session/other/files/lib/a.py?mode=600&wake=true"
    assert api.requests[2].content == b"x" * 99
    assert api.requests[2].headers["Transfer-Encoding"] == "chunked"


# Folders


@pytest.mark.parametrize(
    ("source", "target", "looks", "path"),
    [
        ("project", "", [missing], "project"),
        ("project", "", [lambda: folder("project")], "project"),
        ("project/", "lib/", [missing], "lib%2Fproject"),
        ("project", "lib", [lambda: folder("lib"), missing], "lib%2Fproject"),
        ("project", "lib", [missing], "lib"),
        ("project/.", "", [], "."),
        ("project/.", "lib", [lambda: folder("lib")], "lib"),
        ("project/src/..", "lib", [missing], "lib"),
    ],
)
def test_a_folder_is_copied_into_a_workspace(
    sessionctl: Sessionctl,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    target: str,
    looks: list[Callable[[], httpx.Response]],
    path: str,
) -> None:
    monkeypatch.chdir(project.parent)
    api = Api(*(look() for look in looks), unpacked("project"))
    ended = sessionctl(api, "cp", source, f"{UUID}:{target}", "--json")
    assert (ended.code, json.loads(ended.out)) == (0, {"uuid": UUID, "path": "project", "files": 2, "bytes": 12})
    assert asked(api)[-1] == f"PUT {TREE}?path={path}&wake=true"
    with tarfile.open(fileobj=io.BytesIO(api.requests[-1].content)) as archive:
        assert archive.getnames() == ["l", "src", "src/a b.py"]
    assert len(api.requests) == 1 + len(looks)


@pytest.mark.parametrize(
    ("source", "looked", "target", "made"),
    [
        ("", ".", "new", "new"),
        ("", ".", ".", "."),
        ("lib/project", "lib%2Fproject", "new", "new"),
        ("lib/project", "lib%2Fproject", ".", "project"),
        ("lib/project/", "lib%2Fproject", "new/", "new/project"),
        ("lib/project/.", "lib%2Fproject", ".", "."),
    ],
)
def test_a_folder_is_copied_out_of_a_workspace(
    sessionctl: Sessionctl,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    looked: str,
    target: str,
    made: str,
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    api = Api(folder("project"), archive_of(*packed(project)))
    ended = sessionctl(api, "cp", f"{UUID}:{source}", target, "--no-wake", "--json")
    assert (ended.code, json.loads(ended.out)) == (0, {"path": made})
    assert ((tmp_path / "there" / made / "src/a b.py").read_text(), Path(made, "l").readlink()) == ("x", Path("src"))
    assert asked(api) == [f"GET {HERE}?path={looked}&depth=0&wake=false", f"GET {TREE}?path={looked}&wake=false"]


@pytest.mark.parametrize(
    ("source", "target", "looks", "path"),
    [
        ("src", "", [missing], "src"),
        ("src", "lib", [missing], "lib"),
        ("src/.", "", [], "."),
        ("", "", [], "."),
        ("", "lib/", [], "lib"),
    ],
)
def test_a_folder_is_copied_from_one_workspace_to_another(
    sessionctl: Sessionctl, source: str, target: str, looks: list[Callable[[], httpx.Response]], path: str
) -> None:
    api = Api(folder("src"), *(look() for look in looks), archive_of(b"any", b"thing"), unpacked())
    ended = sessionctl(api, "cp", f"{UUID}:{source}", f"other:{target}", "--json")
    assert (ended.code, json.loads(ended.out)["files"]) == (0, 2)
    assert asked(api)[-1] == f"PUT /session/other/tree?path={path}&wake=true"
    assert api.requests[-1].content == b"anything"


def test_a_folder_goes_to_standard_output_as_an_archive(sessionctl: Sessionctl) -> None:
    api = Api(folder("src"), archive_of(b"tar", b".gz"))
    ended = sessionctl(api, "cp", f"{UUID}:src", "-")
    assert (ended.code, ended.out, ended.err) == (0, "tar.gz", "")
    assert asked(api)[1] == f"GET {TREE}?path=src&wake=true"


@pytest.mark.parametrize(("breaks", "code"), [(True, UNREACHABLE), (False, FAILED)])
def test_a_folder_that_is_not_whole_leaves_nothing(
    sessionctl: Sessionctl, tmp_path: Path, project: Path, breaks: bool, code: int
) -> None:
    cut = b"".join(packed(project))[:-8]
    api = Api(folder("src"), archive_of(cut, breaks=breaks))
    assert sessionctl(api, "cp", f"{UUID}:src", f"{tmp_path}/new/").code == code
    assert [*tmp_path.iterdir()] == [project]


def test_a_refused_folder_is_told(sessionctl: Sessionctl, project: Path) -> None:
    api = Api(missing(), problem(422, "invalid_archive", "A device is in it."))
    ended = sessionctl(api, "cp", str(project), f"{UUID}:")
    assert (ended.code, "A device is in it." in ended.err) == (FAILED, True)


# Wrong usage


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a", "b", "SESSION:PATH"),
        ("-", "-", "SESSION:PATH"),
        ("./a:b", "c/d:e", "SESSION:PATH"),
        ("-", f"{UUID}:src/", "no name"),
    ],
)
def test_what_can_not_be_copied_is_a_usage_error(
    sessionctl: Sessionctl, monkeypatch: pytest.MonkeyPatch, source: str, target: str, words: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    ended = sessionctl(Api(), "cp", source, target)
    assert (ended.code, words in ended.err) == (USAGE, True)


@pytest.mark.parametrize("source", [f"{UUID}:src", "."])
@pytest.mark.parametrize(
    ("target", "looks", "path"),
    [("a.py", [listed(entry())], "a.py"), ("", [listed(entry("src"))], "src"), ("l", [linked()], "l")],
)
def test_a_folder_onto_a_file_of_a_workspace_is_a_usage_error(
    sessionctl: Sessionctl,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    target: str,
    looks: list[httpx.Response],
    path: str,
) -> None:
    monkeypatch.chdir(project)
    api = Api(*([folder("src")] if ":" in source else []), *looks)
    ended = sessionctl(api, "cp", "src" if source == "." else source, f"other:{target}")
    assert (ended.code, f"'{path}' is there, and no folder" in ended.err) == (USAGE, True)
    assert api.turns == []


@pytest.mark.parametrize("target", ["file", "in/", "in"])
def test_a_folder_onto_a_file_or_a_link_of_this_machine_is_a_usage_error(
    sessionctl: Sessionctl, tmp_path: Path, target: str
) -> None:
    """A link in a folder may come from a workspace."""
    (tmp_path / "file").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "in/src").symlink_to(tmp_path / "outside")
    ended = sessionctl(Api(folder("src")), "cp", f"{UUID}:src", f"{tmp_path}/{target}")
    assert (ended.code, "is there, and no folder" in ended.err) == (USAGE, True)


def test_json_and_a_file_do_not_share_standard_output(sessionctl: Sessionctl) -> None:
    assert sessionctl(Api(), "cp", f"{UUID}:a", "-", "--json").code == USAGE
