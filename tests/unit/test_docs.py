"""The documentation says what is there: settings, calls, files and variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.main import create_app
from app.settings import Settings
from scripts.lib import settings_table

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNBOOKS = [path for path in DOCUMENTS if path.parent.name != "adr"]

METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
CALL = re.compile(rf"`({'|'.join(sorted(METHODS))}) (/[^`?]*)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
READ_OR_PRINTED = re.compile(rf"(?:\$\{{?|[\"']|^(?=\w+=))({VARIABLE.pattern})", re.MULTILINE)

NOT_OURS = {"REDISCLI_AUTH"}
"""Variables of other programs that the runbook sets."""

LOCAL = {"NEW_KEY"}
"""Shell variables of the runbook's own."""

CONSTANTS = {"TRANSITIONS"}

EARLIER = {"USER_POD_IMAGE"}
"""A variable of earlier versions, of which docs/coming-from-v3.md says what became of it."""


def routes() -> set[tuple[str, str]]:
    """Every call the app answers, with the parameters written as the documents do."""
    app = create_app(Settings(api_key="a-key-for-nothing"))
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & METHODS
    }


def api_table() -> set[tuple[str, str]]:
    """The calls in the first column of README's table of the API."""
    section = (ROOT / "README.md").read_text().split("\n## The API\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {call for cell in cells for call in CALL.findall(cell)}


def anchors(path: Path) -> set[str]:
    """What a link may name in a document, as GitHub makes it from the headings."""
    headings = HEADING.findall(FENCE.sub("", path.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def known_variables() -> set[str]:
    """The settings, and what the scripts read or print besides."""
    scripts = [path for path in (ROOT / "scripts").rglob("*") if path.is_file() and path.suffix in ("", ".py", ".sh")]
    more = {name for path in scripts for name in READ_OR_PRINTED.findall(path.read_text())}
    return set(Settings.variables()) | more | NOT_OURS | LOCAL | CONSTANTS | EARLIER


def test_the_table_of_settings_is_that_of_the_code():
    """A setting added, removed or changed in app/settings.py must reach README.md."""
    text = (ROOT / "README.md").read_text()

    assert settings_table.replaced(text) == text, f"README.md is out of step; mend it with: {settings_table.COMMAND}"


def test_the_table_has_every_setting_and_its_default():
    """One row for each; a number of seconds is written as a number, an empty default as nothing."""
    rows = settings_table.table().splitlines()

    assert len(rows) == len(Settings.variables()) + 2
    assert any(row.startswith("| `IDLE_TIMEOUT` | `900` | s |") for row in rows)
    assert any(row.startswith("| `BACKUP_URL` |  | URL |") for row in rows)


def test_a_bar_in_a_setting_ends_no_cell():
    """`local | kubernetes` stays one cell, so every row has four."""
    cells = [len(re.findall(r"(?<!\\)\|", row)) for row in settings_table.table().splitlines()]

    assert set(cells) == {5}


@pytest.mark.parametrize(
    "text",
    [
        "no marker at all",
        settings_table.BEGIN,
        f"{settings_table.END}\n{settings_table.BEGIN}",
        f"{settings_table.BEGIN}\n{settings_table.END}\n{settings_table.END}",
    ],
)
def test_a_readme_without_a_place_for_the_table_is_refused(text):
    """Rather than writing the table somewhere, or twice."""
    with pytest.raises(settings_table.MarkersMissing):
        settings_table.replaced(text)


def test_what_stands_around_the_table_is_kept():
    """Only what is between the markers is replaced."""
    text = f"before\n{settings_table.BEGIN}\nold\n{settings_table.END}\nafter\n"

    replaced = settings_table.replaced(text)

    assert replaced.startswith(f"before\n{settings_table.BEGIN}\n| Variable |")
    assert replaced.endswith(f" |\n{settings_table.END}\nafter\n")
    assert "old" not in replaced.split(settings_table.END)[0].split("| Variable |")[0]


def test_every_call_of_the_app_is_in_the_api_table():
    """A route nobody reads about does not exist for its users."""
    assert routes() - api_table() == set()


def test_the_api_table_promises_nothing_that_is_not_there():
    """What comes later is said below the table, not in it."""
    assert api_table() - routes() == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path):
    """To a file or folder of this tree, and to a heading in it where one is named."""
    links = [link for link in LINK.findall(FENCE.sub("", path.read_text())) if "://" not in link]

    for link in links:
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{path.name} links out of the tree: {link}"
        assert not anchor or anchor in anchors(target), f"{path.name} links to a heading that is not there: {link}"


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_a_document_names_exists(path):
    """A setting that was renamed must not live on in the documents."""
    assert set(VARIABLE.findall(path.read_text())) - known_variables() == set()


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_source_file_a_document_names_exists(path):
    """Paths such as `app/settings.py` in the running text."""
    named = re.findall(r"`((?:app|workers|scripts|tests|docs|manifests)/[\w./-]*)`", path.read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []
