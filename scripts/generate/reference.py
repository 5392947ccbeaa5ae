"""Tables of the docs that say what is in the code: settings, keys in Redis, fields of a record, activity signals."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from app.core.redis import keys
from app.core.sessions import model
from app.core.signal_kinds import SIGNALS, Counts, SignalKind
from app.process.settings import Settings
from scripts.generate.marked import Part, table

COUNTS: Mapping[Counts, str] = {
    Counts.IN_WINDOW: "`idle_timeout`",
    Counts.WITH_PROMPTS: "`idle_timeout`; with a prompt unfinished at least 60 s",
    Counts.WITHIN_END: "`idle_timeout`, but not beyond its end",
    Counts.TO_END: "until its end",
    Counts.IN_HOURS: "until the hours end",
}


class Undocumented(Exception):
    """A constant or a field has no docstring below it."""


def settings() -> str:
    """All settings, in the order of app/process/settings.py."""
    return table(
        ("Variable", "Default", "Unit", "Why"),
        (
            (f"`{field.name.upper()}`", shown_default(field.default), field.metadata["unit"], field.metadata["why"])
            for field in dataclasses.fields(Settings)
        ),
    )


def shown_default(default: Any) -> str:
    """A default as one would write it in the environment; nothing for an empty one."""
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return f"`{default}`" if str(default) else ""


def redis_keys() -> str:
    """All keys, in the order of app/core/redis/keys.py. Raises `Undocumented`."""
    module = ast.parse(inspect.getsource(keys))
    return table(
        ("Key", "Type", "What"),
        ((f"`{getattr(keys, name)}`", *doc.split(": ", 1)) for name, doc in documented(module.body)),
    )


def record() -> str:
    """All fields of a record, in the order of app/core/sessions/model.py. Raises `Undocumented`."""
    module = ast.parse(inspect.getsource(model))
    classes = {each.name: each.body for each in module.body if isinstance(each, ast.ClassDef)}
    fields = [*documented(classes["Identity"]), *documented(classes["Record"])]
    return table(("Field", "Meaning"), ((f"`{name}`", doc) for name, doc in fields))


def documented(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The names that a module or a class assigns, each with the docstring below it on one line. Raises
    `Undocumented`."""
    for statement, following in pairwise([*body, ast.Pass()]):
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            continue
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        name = ast.unparse(target)
        match following:
            case ast.Expr(value=ast.Constant(value=str(doc))):
                yield name, " ".join(doc.split())
            case _:
                raise Undocumented(f"{name} has no docstring below it, which the table of the docs would show.")


def signals() -> str:
    """All activity signals, in the order of app/core/signal_kinds.py."""
    return table(("Signal", "Seen by", "Counts for"), map(_signal, SIGNALS.values()))


def _signal(kind: SignalKind) -> tuple[str, str, str]:
    bounded = "" if kind.by_person else " *"
    return f"`{kind.name}`", kind.seen_by, COUNTS[kind.counts] + bounded


PARTS = (
    Part("settings.md", "settings", settings),
    Part("state.md", "keys", redis_keys),
    Part("state.md", "record", record),
    Part("lifecycle.md", "signals", signals),
)
