"""Generated files and parts of the docs are what the code says today."""

from __future__ import annotations

import ast
import dataclasses

import pytest

from app.core.redis import keys
from app.core.sessions.model import Record
from app.core.signal_kinds import SIGNALS
from app.process.settings import Settings
from scripts.generate import reference
from scripts.generate.files import REDIS_USERS, files
from scripts.generate.marked import COMMAND, MarkersMissing, Part, table
from scripts.generate.reference import Undocumented, documented
from tests.conftest import ROOT
from tests.documents import cells

PART = Part("page.md", "figures", lambda: "new")


def test_what_is_generated_is_up_to_date():
    """A setting, key, field, signal, right, price, alert or panel that changes must reach the docs and the cluster."""
    made = files()

    assert REDIS_USERS in made
    assert {path.name for path in made} >= {"settings.md", "state.md", "rules.yaml", "sessions-lifecycle.json"}
    old = [str(path.relative_to(ROOT)) for path, text in made.items() if path.read_text() != text]
    assert old == [], f"mend them with: {COMMAND}"


@pytest.mark.parametrize(
    "text", ["", "no comment at all", PART.begin, f"{PART.end}\n{PART.begin}", f"{PART.begin}\n{PART.end}\n{PART.end}"]
)
def test_a_page_without_a_place_for_the_part_is_refused(text):
    """Rather than writing the part somewhere, or twice."""
    with pytest.raises(MarkersMissing):
        PART.replaced(text)


def test_what_stands_around_the_part_is_kept():
    """Only what is between the comments is replaced."""
    replaced = PART.replaced(f"before\n{PART.begin}\nold\n{PART.end}\nafter\n")

    assert replaced == f"before\n{PART.begin}\n\nnew\n\n{PART.end}\nafter\n"


def test_a_text_does_not_end_its_cell():
    """`local | kubernetes` stays one cell."""
    made = table(("A", "B"), [("`a | b`", "c")])

    assert made == "| A | B |\n| --- | --- |\n| `a \\| b` | c |"
    assert cells(made.splitlines()[-1]) == ["`a | b`", "c"]


def test_the_tables_have_every_row():
    """Every setting, key, field of a record and signal, by its name."""
    names = {
        reference.settings: set(Settings.variables()),
        reference.redis_keys: {text for name, text in vars(keys).items() if name.isupper()},
        reference.record: {field.name for field in dataclasses.fields(Record)},
        reference.signals: set(SIGNALS),
    }
    for write, expected in names.items():
        made = [cells(row) for row in write().splitlines()[2:]]
        assert {row[0].strip("`") for row in made} == expected
        assert len(made) == len(expected)
        assert len({len(row) for row in made}) == 1


def test_a_name_without_a_docstring_is_refused():
    """The table would not say what it is."""
    told = '"""Of a module."""\nA = "a"\n"""hash: what\nit is"""\nb: int = 1\n"""a count"""\n'

    assert [*documented(ast.parse(told).body)] == [("A", "hash: what it is"), ("b", "a count")]
    with pytest.raises(Undocumented, match="C has no docstring"):
        [*documented(ast.parse(f'{told}C = "c"\n').body)]
