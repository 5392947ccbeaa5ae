"""Prints the part of a lock file that some packages need, so that an image contains only that.

    python part_of_lock.py LOCK [NAME…]    without names, all of it

What needs what is read from the `# via` comments that scripts/lock has written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path


def entries(lock: str) -> list[tuple[str, set[str], str]]:
    """Each entry of a lock file: its package, the packages that need it, its text. A package may have
    several, for different versions of Python."""
    found = []
    for text in re.split(r"^(?=\w)", lock, flags=re.MULTILINE):
        if match := re.match(r"[\w.-]+(?=[\[=])", text):
            _, _, via = text.partition("# via")
            parents = {word for word in re.findall(r"[\w.-]+", via) if word != "#"}
            found.append((match.group(), parents, text))
    return found


def part(lock: str, names: Iterable[str]) -> str:
    """The entries of these packages and of everything they need; raises `KeyError` for an unknown package."""
    known = entries(lock)
    wanted = set(names)
    if missing := wanted - {name for name, _, _ in known}:
        raise KeyError(f"not in the lock: {', '.join(sorted(missing))}")
    # Each round adds a level of the tree of needs; it can't be deeper than there are packages.
    for _ in known:
        needed = {name for name, parents, _ in known if parents & wanted}
        if needed <= wanted:
            break
        wanted |= needed
    return "".join(text for name, _, text in known if name in wanted)


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: part_of_lock.py LOCK [NAME…]", file=sys.stderr)
        return 2
    lock = Path(arguments[0]).read_text()
    print(part(lock, arguments[1:]) if arguments[1:] else lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
