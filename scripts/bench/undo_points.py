"""What an undo point costs, beside a shadow git repository of the same tree in the same run.

Each round makes a point of unchanged files, one after some files changed, and undoes another change of as many. Each
does so in the agent's helper process, as a prompt would; git keeps its index, and stores without compression. A
machine that does other things as well stretches the seconds, so the processor time stands beside them.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from app.agent.undo.points import PROGRAM
from scripts.bench.backup import ROUND_LIMIT
from scripts.bench.table import Row

FOLDERS, CHANGED = 2_000, 3_000
BIG_FILES, BIG_BYTES = 4, 20_000_000

POINT_TARGET, UNDO_TARGET = 0.5, 5.0
"""s: what the service promises."""

Figures = defaultdict[str, list[tuple[float, float]]]


def run(files: int = 50_000, rounds: int = 5) -> list[Row]:
    """Measure; rows of label, value and target."""
    figures: Figures = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-undo-") as folder:
        places = [Path(folder) / "ours", Path(folder) / "git"]
        for place in places:
            texts = make_tree(place / "app", files)
        _ours(places[0], figures, "first", "first")
        _git(places[1], figures, "git first", "init -q", "add -A")
        for number in range(rounds):
            for place in places if number % 2 else reversed(places):
                names = [place / "app" / text for text in texts]
                _round(place, names, number, figures)
    return [
        _row(figures, "first", "first point of {} files", files),
        _row(figures, "unchanged", "point of unchanged files", target=POINT_TARGET),
        _row(figures, "changed", "point after {} files changed", CHANGED, target=POINT_TARGET),
        _row(figures, "undo", "undo of a prompt that changed {} files", CHANGED, target=UNDO_TARGET),
        _row(figures, "git first", "the same by git, first"),
        _row(figures, "git unchanged", "by git, unchanged"),
        _row(figures, "git changed", "by git, {} files changed", CHANGED),
        _row(figures, "git undo", "by git, undo"),
    ]


def make_tree(root: Path, files: int) -> list[str]:
    """A project of small texts in folders of two levels, and some large files; the paths of the texts."""
    dice = random.Random(1)
    words = [f"word{n}" for n in range(5_000)]
    paths = []
    for n in range(FOLDERS):
        folder = f"d{n % 20}/e{n // 20}"
        (root / folder).mkdir(parents=True)
        for each in range(files // FOLDERS):
            paths.append(f"{folder}/f{each}.txt")
            (root / paths[-1]).write_text(" ".join(dice.choices(words, k=dice.randint(100, 1_200))))
    for n in range(BIG_FILES):
        (root / f"big{n}").write_bytes(dice.randbytes(BIG_BYTES))
    return paths


def _round(place: Path, files: list[Path], number: int, figures: Figures) -> None:
    by_git = place.name == "git"
    # The first of two notes what the undo of the round before has written.
    for name in ("after an undo", "unchanged"):
        if by_git:
            _git(place, figures, f"git {name}", "add -A", "write-tree")
        else:
            _ours(place, figures, name, f"{name}{number}")
    _change(files, 2 * number)
    if by_git:
        _git(place, figures, "git changed", "add -A", "write-tree")
    else:
        _ours(place, figures, "changed", f"changed{number}")
    _change(files, 2 * number + 1)
    if by_git:
        _git(place, figures, "git undo", "checkout-index -f -a", "clean -fdxq")
    else:
        _ours(place, figures, "undo", f"changed{number}", ("stage", "swap"))


def _change(files: list[Path], seed: int) -> None:
    for path in random.Random(seed).sample(files, CHANGED):
        with path.open("a") as file:
            file.write(f"changed {seed}\n")


def _ours(place: Path, figures: Figures, name: str, message_id: str, what: tuple[str, ...] = ("save",)) -> None:
    order: dict[str, Any] = {"root": str(place / "app"), "beside": str(place / ".undo"), "message_id": message_id}
    order |= {"now": time.time(), "limits": [20, 100_000_000, 1_000_000_000], "hidden": ""}
    commands = [([sys.executable, "-I", "-S", str(PROGRAM)], json.dumps({"do": do, **order})) for do in what]
    for answer in _timed(figures, name, commands):
        if "error" in (said := json.loads(answer)):
            raise RuntimeError(said["detail"])


def _git(place: Path, figures: Figures, name: str, *arguments: str) -> None:
    git = shutil.which("git") or "git"
    settings = ["core.compression=0", "core.autocrlf=false", "gc.auto=0", "feature.manyFiles=true", "core.fsync=none"]
    common = [git, f"--git-dir={place / '.shadow'}", f"--work-tree={place / 'app'}"]
    common += [word for setting in settings for word in ("-c", setting)]
    _timed(figures, name, [([*common, *each.split()], "") for each in arguments], place / "app")


def _timed(figures: Figures, name: str, commands: list[tuple[list[str], str]], folder: Path | None = None) -> list[str]:
    """Run them one after another, and note seconds and processor seconds."""
    environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    answers = [
        subprocess.run(
            command,
            input=f"{line}\n",
            check=True,
            capture_output=True,
            text=True,
            timeout=ROUND_LIMIT,
            cwd=folder,
            env=environment,
        ).stdout
        for command, line in commands
    ]
    taken, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    figures[name].append((taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return answers


def _row(figures: Figures, name: str, label: str, count: int = 0, target: float = 0.0) -> Row:
    taken, cpu = (statistics.median(each[n] for each in figures[name]) for n in (0, 1))
    return (
        f"{label.format(f'{count:,}')} (s; of a processor)",
        f"{taken:.2f}; {cpu:.2f}",
        f"< {target:g}" if target else "",
    )
