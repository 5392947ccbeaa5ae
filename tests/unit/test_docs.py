"""The documentation says what is there: settings, calls, files and variables."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from flask import Flask

from app.agent.program_worker import program_environment
from app.agent.settings import AgentSettings
from app.process.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "manifests/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
GUARANTEES = ROOT / "docs/guarantees.md"
RUNBOOKS = [path for path in DOCUMENTS if path.parent.name != "adr"]

SOURCES = {"app", "manifests", "scripts", "tests", "workers", "Dockerfile", "Procfile", "setup.cfg", ".ci"}

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
CALL = re.compile(rf"`({'|'.join(sorted(METHODS))}) (/[^`?]*)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MENTION = re.compile(r"(?<![\w./])((?:docs|manifests)/[\w/-]+\.md)(?:#([\w-]+))?")
README_LIMIT = 8192
"""Bytes: what somebody reads who only wants to know whether to read on."""

HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
READ_OR_PRINTED = re.compile(rf"(?:\$\{{?|[\"']|^(?=\w+=))({VARIABLE.pattern})", re.MULTILINE)

NOT_OURS = {
    *("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS"),
    *("PYTHONDONTWRITEBYTECODE", "REDISCLI_AUTH"),
}
"""Variables of other programs."""

LOCAL = {"NEW_KEY"}
"""Shell variables of the runbook's own."""

CONSTANTS = {"CORE_ERRORS", "TRANSITIONS"}

NOWHERE = Path("/nowhere")
OF_PROGRAMS = {"USER_ID", *program_environment(AgentSettings("u1", NOWHERE, NOWHERE, NOWHERE, NOWHERE), {})}
"""What an agent of the product's own is told."""

OF_VERSION_3 = {"USER_POD_IMAGE"}
"""Read for those who come from version 3 of the API."""


@pytest.fixture
def routes(uncalled_app: Flask) -> set[tuple[str, str]]:
    """Every call the app answers, with the parameters written as the documents do."""
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in uncalled_app.url_map.iter_rules()
        for method in (rule.methods or set()) & METHODS
    }


def api_table() -> set[tuple[str, str]]:
    """The calls in the first column of the table in docs/api.md."""
    section = (ROOT / "docs/api.md").read_text().split("\n## Calls\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {call for cell in cells for call in CALL.findall(cell)}


def anchors(path: Path) -> set[str]:
    """What a link may name in a document, as GitHub makes it from the headings."""
    headings = HEADING.findall(FENCE.sub("", path.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def known_variables() -> set[str]:
    """The settings, and what the scripts and the tests' samples read or print besides."""
    scripts = [path for path in (ROOT / "scripts").rglob("*") if path.is_file() and path.suffix in ("", ".py", ".sh")]
    scripts += [ROOT / "tests/sampling.py", ROOT / ".ci/run"]
    more = {name for path in scripts for name in READ_OR_PRINTED.findall(path.read_text())}
    modules = [ROOT / "app/process/tracing.py", ROOT / "app/process/tracing_export.py"]
    more |= {name for path in modules for name in re.findall(r"\bOTEL_[A-Z_]+[A-Z]\b", path.read_text())}
    return set(Settings.variables()) | OF_PROGRAMS | more | NOT_OURS | LOCAL | CONSTANTS | OF_VERSION_3


def test_every_call_of_the_app_is_in_the_api_table(routes: set[tuple[str, str]]):
    """A route nobody reads about does not exist for its users."""
    assert routes - api_table() == set()


def test_the_api_table_promises_nothing_that_is_not_there(routes: set[tuple[str, str]]):
    """What comes later is said below the table, not in it."""
    assert api_table() - routes == set()


def test_every_relative_link_leads_somewhere():
    """To a file or folder of this tree, and to a heading in it where one is named."""
    wrong = []
    for path in DOCUMENTS:
        for link in (link for link in LINK.findall(FENCE.sub("", path.read_text())) if "://" not in link):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            there = target.exists() and target.is_relative_to(ROOT)
            if not there or (anchor and anchor not in anchors(target)):
                wrong.append(f"{path.relative_to(ROOT)}: {link}")

    assert wrong == []


def test_an_own_agent_reads_of_every_variable_that_it_has():
    """HOME is told with the others, and is theirs."""
    told = (ROOT / "docs/own-agent.md").read_text().split("| Variable |")[1].split("\n\n")[0]
    named = {name for row in told.splitlines()[2:] for name in VARIABLE.findall(row.split("|")[1])}

    assert named | {"HOME"} == OF_PROGRAMS


def sources() -> list[Path]:
    """The tracked files that are no documents: code, scripts, manifests and tests, whose texts name documents too."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    files = [ROOT / name for name in tracked.stdout.splitlines() if name.partition("/")[0] in SOURCES]
    return [path for path in files if path.is_file() and path.suffix not in (".md", ".json", ".lock", ".png")]


def test_every_document_that_the_code_names_exists():
    """In comments and in errors such as "see docs/settings.md", the heading too where one is named."""
    wrong = []
    for path in sources():
        for name, anchor in MENTION.findall(path.read_text()):
            target = ROOT / name
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append(f"{path.relative_to(ROOT)}: {name}#{anchor}")

    assert wrong == []


def test_the_readme_is_short():
    """What is longer belongs into docs/, to which it leads."""
    assert len((ROOT / "README.md").read_bytes()) <= README_LIMIT


def test_the_index_leads_to_every_page():
    """A page that nobody is led to is not read."""
    linked = {link.partition("#")[0] for link in LINK.findall((ROOT / "docs/README.md").read_text())}
    pages = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".html")}

    assert pages - {"README.md"} - linked == set()


def unknown_names(path: Path) -> Iterator[str]:
    """What a document names that is not there: settings and variables, paths such as `app/process/settings.py` in the
    running text, modules in diagrams."""
    text = path.read_text()
    yield from set(VARIABLE.findall(text)) - known_variables()
    paths = re.findall(r"`((?:app|workers|scripts|tests|docs|manifests)/[\w./-]*)`", text)
    for diagram in re.findall(r"^```mermaid$.*?^```$", text, re.MULTILINE | re.DOTALL):
        paths += re.findall(r"\b(?:app|workers)/[\w/.]*\w", diagram)
    if path == GUARANTEES:
        tests = re.findall(r"`((?:unit|contract|integration|e2e|faults|cluster)/[\w./-]*)`", text)
        assert tests
        paths += [f"tests/{name}" for name in tests]
    yield from (name for name in paths if not (ROOT / name).exists())


def test_what_a_document_names_exists():
    """What was renamed must not live on in the documents."""
    assert {str(path.relative_to(ROOT)): names for path in RUNBOOKS if (names := [*unknown_names(path)])} == {}
