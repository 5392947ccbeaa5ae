"""What restore points leave out of a volume: caches, and what the user's .workspaceignore names.

A pattern is a path below the volume in which `*` and `?` stand for characters of a name and `**` for any folders; all
else is literal. The last pattern that matches decides; one that begins with `!` takes back an earlier one. Whatever
lies in an excluded folder is excluded.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from app.editor.code_server import CODE_SERVER

PARTS = ("app", ".session", "home")
"""The folders of a volume that restore points hold: the project, the conversation, HOME."""

IGNORE_FILE = ".workspaceignore"
"""In the project's folder; its lines are those of .gitignore, except that brackets and backslashes are literal."""

MOST_BYTES, MOST_LINES = 65_536, 500
"""Of an ignore file; a longer one is an error of the user, and ignores nothing: what is kept can't be lost."""

MOST_PASSES = 1
"""`**` in a line; one with more ignores nothing. restic tries all ways to spread a path's folders over them: with 100
nested folders and one file to match, four took it 41 s; with 1,000, two took it more than 100 s."""

CACHES = (
    "**/__pycache__",
    "**/node_modules/.cache",
    "home/.cache",
    "home/.npm/_cacache",
    "home/.npm/_logs",
    "home/.yarn/berry/cache",
    "home/.bun/install/cache",
    "home/.local/share/pnpm/store",
    "home/.cargo/registry/cache",
    "home/.cargo/registry/src",
    "home/.gradle/caches",
    "home/go/pkg/mod/cache",
    "home/.local/state/workspace",
    *(f"home/{CODE_SERVER.data}/{name}" for name in (CODE_SERVER.heartbeat, *CODE_SERVER.caches)),
)
"""What programs write again by themselves, and the workspace's activity signals and notices. Besides these, folders
that their program marks as a cache are left out."""

TAG = "CACHEDIR.TAG"
SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
"""By which a program marks a folder as a cache (https://bford.info/cachedir/)."""

PASSING = re.compile(r"(?:^|(?<=/))(?:\*\*/)+")
"""Where a pattern passes any folders."""

Excludes = Callable[[bytes], bool]


def patterns(volume: Path) -> list[str]:
    """All patterns for a volume, the user's last."""
    return [*CACHES, *_of_user(volume / PARTS[0] / IGNORE_FILE)]


def matcher(of: Iterable[str]) -> Excludes:
    """Whether a path below the volume is excluded, for a walk that enters no excluded folder."""
    rules = [(not each.startswith("!"), re.compile(_regex(each.removeprefix("!")), re.DOTALL)) for each in of]
    first = re.compile(b"|".join(rule.pattern for _, rule in rules) or b"(?!)", re.DOTALL)

    def excludes(path: bytes) -> bool:
        if not first.fullmatch(path):
            return False
        return next(wanted for wanted, rule in reversed(rules) if rule.fullmatch(path))

    return excludes


def is_cache(folder: bytes) -> bool:
    """Whether a folder with a file `TAG` is marked as a cache by it; the tag itself is kept."""
    try:
        with open(
            os.open(os.path.join(folder, TAG.encode()), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb"
        ) as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def _of_user(file: Path) -> list[str]:
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            is_file = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
            text = os.fsdecode(stream.read(MOST_BYTES + 1)) if is_file else ""
    except OSError:
        return []
    lines = text.splitlines()
    if len(os.fsencode(text)) > MOST_BYTES or len(lines) > MOST_LINES:
        return []
    return [pattern for line in lines if (pattern := _pattern(line))]


def _pattern(line: str) -> str:
    """The pattern of a line, "" for none."""
    line = line.strip()
    if not line or line.startswith("#") or "\0" in line:
        return ""
    back = "!" if line.startswith("!") else ""
    line = line.removeprefix("!")
    names = [name for name in line.split("/") if name not in ("", ".")]
    if not names or ".." in names or names[-1] == "**" or names.count("**") > MOST_PASSES:
        return ""
    # As in .gitignore: without a slash before its end, a name is excluded wherever it is.
    anywhere = "/" not in line.rstrip("/")
    # Only a folder's: its content goes, and a file of the same name stays.
    content = ["*"] if line.endswith("/") else []
    return back + "/".join([PARTS[0], *(["**"] if anywhere else []), *names, *content])


def _regex(pattern: str) -> bytes:
    return _spaced([_names(names) for names in PASSING.split(pattern)], b"(?:[^/]+/)")


def _names(names: str) -> bytes:
    return b"/".join(_spaced([_text(text) for text in re.split(r"\*+", name)], b"[^/]") for name in names.split("/"))


def _text(text: str) -> bytes:
    return b"".join(b"[^/]" if each == "?" else re.escape(os.fsencode(each)) for each in text)


def _spaced(pieces: list[bytes], space: bytes) -> bytes:
    """An expression for the pieces with any number of `space` between two. Of the places of a piece in the middle only
    the first is tried, since any other leaves less for what follows: the time grows with the product of the lengths of
    pattern and path, however many pieces there are."""
    first, *others = pieces
    if not others:
        return first
    *middle, last = others
    return first + b"".join(b"(?>%b*?%b)" % (space, piece) for piece in middle) + b"%b*%b" % (space, last)
