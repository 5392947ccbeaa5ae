"""Where editors are installed: what one checkout adds to a build is its own, whoever else installs."""

from __future__ import annotations

import os
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from app.editor.code_server import CODE_SERVER
from tests.conftest import ROOT

PAGE = """<html><head><script nonce="{{WORKBENCH_SCRIPT_NONCE}}">first()</script></head>
<body aria-label=""></body><script type="module" src="workbench.js"></script></html>"""
"""VS Code's page, as far as our script's place in it goes."""


@pytest.fixture
def install() -> Any:
    """The module of app/editor/install."""
    loader = SourceFileLoader("editor_install", str(ROOT / "app" / "editor" / "install"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def built(install: Any, tmp_path: Path) -> Path:
    """A build that an older checkout has put its launcher into."""
    folder = tmp_path / "editor-1"
    (folder / install.EXTENSION).mkdir(parents=True)
    (folder / install.COMMANDS).mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "node").write_text("node")
    (folder / "bin" / "code-server").write_text("the older one")
    (folder / "launch.js").write_text("the older one")
    (folder / install.PAGE).parent.mkdir(parents=True)
    (folder / install.PAGE).write_text(PAGE)
    return folder


def test_what_a_checkout_adds_stands_in_a_folder_of_its_own(install: Any, built: Path, tmp_path: Path) -> None:
    target = tmp_path / "editor-1-2"
    install.link(built, tmp_path, target)
    install.place_programs(target)
    own = (ROOT / "app" / "editor" / "launch.js").read_text()
    assert (target / "launch.js").read_text() == own
    assert str(target / "launch.js") in (target / "bin" / "code-server").read_text()
    assert (built / "launch.js").read_text() == (built / "bin" / "code-server").read_text() == "the older one"
    assert (target / "bin" / "node").samefile(built / "bin" / "node")
    keep = target / install.COMMANDS / "keep"
    assert keep.read_text() == (ROOT / "app" / "editor" / "keep").read_text()
    assert os.access(keep, os.X_OK) and not (built / install.COMMANDS / "keep").exists()


def test_the_editors_page_has_our_script_once_and_before_vscodes(install: Any, built: Path, tmp_path: Path) -> None:
    """In the copy alone, and with nothing that VS Code's server would replace."""
    target = tmp_path / "editor-1-2"
    install.link(built, tmp_path, target)
    for _ in range(2):
        install.place_programs(target)
    own = (ROOT / "app" / "editor" / "page.js").read_text()
    before, after = (target / install.PAGE).read_text().split(own)
    health = f'data-health="{CODE_SERVER.health}"'
    assert before.endswith(f'<script nonce="{{{{WORKBENCH_SCRIPT_NONCE}}}}" {health}>\n')
    assert "workbench.js" in after
    assert "{{" not in own and "</script" not in own
    assert (built / install.PAGE).read_text() == PAGE


def test_a_page_without_the_place_for_our_script_is_an_error(install: Any, built: Path) -> None:
    (built / install.PAGE).write_text("<html></html>")
    with pytest.raises(SystemExit):
        install.place_programs(built)


def test_an_older_checkout_takes_nobodys_guard_away(install: Any, built: Path, tmp_path: Path) -> None:
    """It puts its own launcher into the build by the name it always had."""
    target = tmp_path / "editor-1-2"
    install.link(built, tmp_path, target)
    install.place_programs(target)
    for name in ("launch.js", "bin/code-server"):
        draft = built / "draft"
        draft.write_text("once more")
        draft.rename(built / name)
    assert "guard" in (target / "launch.js").read_text()
    assert "launch.js" in (target / "bin" / "code-server").read_text()


def test_a_link_that_was_broken_off_leaves_nothing(
    install: Any, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: str) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(install.os, "link", full)
    with pytest.raises(OSError, match="No space"):
        install.link(built, tmp_path, tmp_path / "editor-1-2")
    assert {each.name for each in tmp_path.iterdir()} == {built.name}


def test_another_launcher_is_another_folder(install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = install.programs_fingerprint()
    assert before == install.programs_fingerprint()
    for source in [*install.PROGRAMS, install.PAGE_SCRIPT, install.KEEP, "extension"]:
        (tmp_path / source).symlink_to(ROOT / "app" / "editor" / source)
    (tmp_path / "guard.js").unlink()
    (tmp_path / "guard.js").write_text("// Lets everybody in.")
    monkeypatch.setattr(install, "HERE", tmp_path)
    assert install.programs_fingerprint() != before
