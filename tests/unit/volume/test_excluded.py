"""What is left out of restore points: the walk and restic decide alike (see also test_restoring)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.volume.excluded import CACHES, MOST_BYTES, MOST_LINES, SIGNATURE, TAG, is_cache, matcher, patterns


def of_lines(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "app").mkdir(exist_ok=True)
    (tmp_path / "app/.workspaceignore").write_bytes(os.fsencode(text))
    return patterns(tmp_path)[len(CACHES) :]


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("*.log", "app/**/*.log"),
        ("/dist", "app/dist"),
        ("data/raw", "app/data/raw"),
        ("build/", "app/**/build/*"),
        ("/build/", "app/build/*"),
        ("!keep.log", "!app/**/keep.log"),
        ("a/**/b", "app/a/**/b"),
        ("**/b/c", "app/**/b/c"),
        ("  spaced  ", "app/**/spaced"),
        ("./here/it", "app/here/it"),
        ("bad\udcff", "app/**/bad\udcff"),
    ],
)
def test_a_line_becomes_a_pattern_below_the_project(tmp_path: Path, line: str, pattern: str) -> None:
    assert of_lines(tmp_path, line) == [pattern]


NOTHING_BELOW = ["", "# a comment", "/", "..", "../home", "a/../../b", "**", "a/**", "x\0y"]
FOLDERS_TWICE = ["**/a/**/b", "a/**/**/b", "!**/a/**/b", "**/a/**/b/"]
"""restic would try all ways to pass them."""


@pytest.mark.parametrize("line", NOTHING_BELOW + FOLDERS_TWICE)
def test_a_line_that_names_nothing_below_the_project_or_passes_folders_twice_excludes_nothing(
    tmp_path: Path, line: str
) -> None:
    assert of_lines(tmp_path, line) == []


def test_a_file_that_is_too_long_or_no_file_excludes_nothing(tmp_path: Path) -> None:
    """What is kept needlessly costs room; what is left out by mistake is lost."""
    assert of_lines(tmp_path, "x\n" * (MOST_LINES + 1)) == []
    assert of_lines(tmp_path, "x" * (MOST_BYTES + 1)) == []
    (tmp_path / "app/.workspaceignore").unlink()
    (tmp_path / "app/.workspaceignore").symlink_to("/etc/passwd")
    assert patterns(tmp_path) == list(CACHES)
    (tmp_path / "app/.workspaceignore").unlink()
    os.mkfifo(tmp_path / "app/.workspaceignore")
    assert patterns(tmp_path) == list(CACHES)


def test_caches_are_excluded_and_what_users_made_is_not() -> None:
    excludes = matcher(CACHES)
    caches = [b"home/.cache", b"app/x/__pycache__", b"app/node_modules/.cache", b"home/.local/share/code-server/logs"]
    made = [*(b"app/node_modules", b"app/.cache", b"app/cache", b".session/x"), *(b"home/.local", b"home/.npmrc")]
    assert [path for path in [*caches, *made, b"home/.ssh"] if excludes(path)] == caches


def test_the_last_pattern_that_matches_decides() -> None:
    excludes = matcher(["app/**/*.log", "!app/**/keep.log", "app/deep/keep.log"])
    found = {path: excludes(path) for path in (b"app/a.log", b"app/x/keep.log", b"app/deep/keep.log", b"app/a.txt")}
    assert found == {b"app/a.log": True, b"app/x/keep.log": False, b"app/deep/keep.log": True, b"app/a.txt": False}


def test_stars_stay_within_a_name_and_two_stars_pass_folders() -> None:
    assert matcher(["app/a*b"])(b"app/a\nb")
    assert not matcher(["app/a*b"])(b"app/a/b")
    assert matcher(["app/**/b"])(b"app/b") and matcher(["app/**/b"])(b"app/x/y/b")
    assert not matcher(["app/**/b"])(b"app/xb")
    assert matcher(["app/?"])(b"app/\xff") and not matcher(["app/?"])(b"app/xy")


def translated(pattern: str) -> bytes:
    """What a pattern means, as a regular expression that takes too long."""
    parts = [
        b"**"
        if name == "**"
        else b"".join({"*": b"[^/]*", "?": b"[^/]"}.get(each) or re.escape(os.fsencode(each)) for each in name)
        for name in pattern.split("/")
    ]
    return b"/".join(parts).replace(b"**/", b"(?:[^/]+/)*")


PATTERNS = st.tuples(
    st.lists(st.just("**") | st.text("ab.*?", min_size=1, max_size=6), max_size=5),
    st.text("ab.*?", min_size=1, max_size=6).filter(lambda name: name != "**"),
).map(lambda names: "/".join([*names[0], names[1]]))
PATHS = st.from_regex(rb"[ab.]{1,5}(/[ab.]{1,5}){0,6}", fullmatch=True)


@settings(max_examples=300)
@given(PATTERNS, PATHS)
def test_a_pattern_matches_what_its_translation_does(pattern: str, path: bytes) -> None:
    assert matcher([pattern])(path) == bool(re.compile(translated(pattern), re.DOTALL).fullmatch(path))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("app/**/" + "*a" * 100 + "*b", b"app/" + b"a" * 250),
        ("app/" + "**/a/" * 100 + "b", b"app" + b"/a" * 1_000),
        ("app/" + "**/*a*a/" * 100 + "b", b"app" + b"/aaa" * 1_000),
    ],
)
def test_many_stars_take_no_longer_than_a_walk_can_wait(pattern: str, path: bytes) -> None:
    """Tried in all ways, they would never end."""
    assert not matcher([pattern])(path)
    assert matcher([pattern])(path + b"/b") == ("*b" not in pattern)


@given(st.text(st.characters(exclude_characters="*?/\0\n", codec="utf-8"), min_size=1))
def test_any_other_character_stands_for_itself(name: str) -> None:
    assert matcher([f"app/{name}"])(os.fsencode(f"app/{name}"))


def test_a_folder_is_a_cache_if_its_tag_says_so(tmp_path: Path) -> None:
    tag, folder = tmp_path / TAG, os.fsencode(tmp_path)
    assert not is_cache(folder)
    tag.write_bytes(b"something else")
    assert not is_cache(folder)
    tag.write_bytes(SIGNATURE + b"\nby a program")
    assert is_cache(folder)
    tag.unlink()
    os.mkfifo(tag)
    assert not is_cache(folder)
