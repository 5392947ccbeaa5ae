"""A project's folder, and beside it the one of its undo points."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    return tmp_path / "app"


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    return tmp_path / ".undo"
