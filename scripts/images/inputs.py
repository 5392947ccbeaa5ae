"""The sources of an image, read from the Dockerfile so that they are always up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One `FROM … AS …`: its instructions, the sources it copies from the checkout, and the stages it builds on."""

    instructions: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)


def instructions(dockerfile: str) -> Iterator[str]:
    """Each instruction on one line, comments left out."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            yield " ".join(line.split())


def parse(dockerfile: str) -> dict[str, Stage]:
    """The stages by their names; raises `ValueError` for a stage without one."""
    stages: dict[str, Stage] = {}
    name = ""
    for text in instructions(dockerfile):
        words = text.split()
        if words[0] == "FROM":
            if len(words) != 4 or words[2] != "AS":
                raise ValueError(f"every stage needs a name: {text}")
            name = words[3]
            stages[name] = Stage(stages=[words[1]])
        elif words[0] == "COPY":
            flags = [word for word in words[1:] if word.startswith("--")]
            copied = [flag.removeprefix("--from=") for flag in flags if flag.startswith("--from=")]
            stages[name].stages += copied
            if not copied:
                stages[name].sources += words[1 + len(flags) : -1]
        stages[name].instructions.append(text)
    return stages


def needed(stages: dict[str, Stage], target: str) -> list[Stage]:
    """The target and every stage it is built from; raises `KeyError` for an unknown target."""
    found = {target: stages[target]}
    waiting = [target]
    while waiting:
        for name in stages[waiting.pop()].stages:
            if name in stages and name not in found:
                found[name] = stages[name]
                waiting.append(name)
    return list(found.values())


def files(root: Path, sources: list[str]) -> list[Path]:
    """The files that are copied; raises `FileNotFoundError` for a missing source."""
    found: set[Path] = set()
    for source in sources:
        path = root / source
        if path.is_dir():
            found |= {file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
        elif path.is_file():
            found.add(path)
        else:
            raise FileNotFoundError(f"the Dockerfile copies {source}, which does not exist")
    return sorted(found)


def digest(root: Path, target: str, base: str) -> str:
    """Identifies an image by the instructions of its stages, every file they copy with its mode, and the base."""
    total = hashlib.sha256(base.encode())
    stages = needed(parse((root / "Dockerfile").read_text()), target)
    for stage in stages:
        total.update("\n".join(stage.instructions).encode())
    for path in files(root, [source for stage in stages for source in stage.sources]):
        executable = bool(path.stat().st_mode & 0o100)
        total.update(f"\0{path.relative_to(root)}\0{executable}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]
