"""Reports what makes a test of the presubmit fail by the weather, in its source and in that of the modules it imports.

- A wait, a program or a request of the test's own that gives up in under 30 s: on a busy machine all take their time.
- `time.sleep`, but in tests/waiting.py: a test waits for a condition.
- A count of all threads or processes, which are others' too.
- A `detail` or `title` compared with a sentence: what is promised of an error is its `error`.

What the product under test is told may be short. A line that is meant so says why after `# meant:`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests import shards

ROOT = Path(__file__).resolve().parents[2]
LEAST = 30.0
"""s that a test gives anything."""

MEANT = "# meant:"

SLEEPS_HERE = "tests/waiting.py"

LIMITED = ("requests", "subprocess", "httpx", "urllib.request", "socket.create_connection")
"""Whose calls take the test's own `timeout`, by how the call begins."""

PATIENT: Mapping[str, int] = {"wait": 0, "join": 0, "result": 0, "communicate": 1, "wait_for": 3}
"""Methods and functions that wait, and the position of their seconds among the arguments."""

NAMED = ("timeout", "seconds")

ALL = ("threading.enumerate()", "psutil.process_iter(", "psutil.pids()")
"""What must not be counted."""

PROSE = ("detail", "title")


def sources() -> list[Path]:
    """The files of the presubmit's tests, and all modules of tests/ that they import."""
    listed = [shard for shard in shards.read(shards.LIST.read_text(), shards.present()) if shard.presubmit]
    files = [shards.TESTS / name for name in shards.present() if any(shard.has(name) for shard in listed)]
    waiting = files + sorted(shards.TESTS.rglob("conftest.py"))
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported(ast.parse(path.read_text()))
    return sorted(found)


def imported(tree: ast.Module) -> Iterator[Path]:
    """The files of the modules of tests/ that are imported."""
    for node in ast.walk(tree):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
        for name in names:
            path = ROOT / (name.replace(".", "/") + ".py")
            if name.startswith("tests.") and path.exists():
                yield path


def faults(text: str, name: str) -> Iterator[tuple[int, str]]:
    """The lines of a source with what is wrong there."""
    tree, lines = ast.parse(text), text.splitlines()
    numbers = constants(tree)
    for node in ast.walk(tree):
        told = fault(node, numbers, name)
        if told and MEANT not in lines[node.lineno - 1]:  # type: ignore[attr-defined]
            yield node.lineno, told  # type: ignore[attr-defined]


def constants(tree: ast.Module) -> dict[str, float]:
    """The numbers that a module's names stand for."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            number = number_of(node.value, {})
            if number is not None:
                found[node.targets[0].id] = number
    return found


def number_of(node: ast.expr, numbers: Mapping[str, float]) -> float | None:
    if isinstance(node, ast.Name):
        return numbers.get(node.id)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    return None


def fault(node: ast.AST, numbers: Mapping[str, float], name: str) -> str:
    """What is wrong with a node of the source; "" if nothing is."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        if any(map(is_told, sides)) and any(map(is_sentence, sides)):
            return "compares what an error says: compare its `error`"
    if not isinstance(node, ast.Call):
        return ""
    called = ast.unparse(node.func)
    if called == "time.sleep" and name != SLEEPS_HERE:
        return "sleeps: wait for a condition, by tests/waiting.py"
    if called == "threading.active_count" or (called == "len" and any(each in ast.unparse(node) for each in ALL)):
        return "counts what is others' too: look for what the test started"
    seconds = limit(node, called, numbers)
    if seconds is not None and seconds < LEAST:
        return f"gives up after {seconds:g} s: give it {LEAST:g} s or more"
    return ""


def is_told(node: ast.expr) -> bool:
    """Whether it is what an error says, in words."""
    if not isinstance(node, ast.Subscript):
        return False
    return isinstance(node.slice, ast.Constant) and node.slice.value in PROSE


def is_sentence(node: ast.expr) -> bool:
    """Whether it is a text of several words; names of settings and headers may be looked for."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value


def limit(node: ast.Call, called: str, numbers: Mapping[str, float]) -> float | None:
    """The seconds that a call of the test's own is given; None for another, or where they are not told."""
    last = called.rpartition(".")[2]
    if not called.startswith(LIMITED) and last not in PATIENT:
        return None
    given = [each.value for each in node.keywords if each.arg in NAMED]
    position = PATIENT.get(last, len(node.args))
    given += node.args[position : position + 1]
    return number_of(given[0], numbers) if given else None


def main() -> int:
    found = 0
    for path in sources():
        name = str(path.relative_to(ROOT))
        for line, told in sorted(faults(path.read_text(), name)):
            print(f"{name}:{line}: {told}", file=sys.stderr)
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
