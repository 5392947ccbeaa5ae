"""Reports files of the project that name a path or a package host of this machine.

Both would be wrong on other machines. The hosts come from the configuration of pip and npm, so mirrors count too.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pip._internal.models.index import PyPI

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 60
IN_IMAGES = ("app", "opt", "srv", "workspace")
"""Folders of the root in which the images have their files."""


def output(*command: str) -> str:
    """A command's output; empty if it fails, as `pip config get` does for unset keys."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def package_hosts() -> set[str]:
    """The package hosts of this machine."""
    urls = [
        output("npm", "config", "get", "registry"),
        *(output(sys.executable, "-m", "pip", "config", "get", f"global.{key}") for key in ("index-url", "find-links")),
    ]
    hosts = {urlsplit(url).hostname for line in urls for url in line.split()}
    return {host for host in hosts if host} | {PyPI.netloc, PyPI.file_storage_domain}


def forbidden(hosts: set[str]) -> re.Pattern[str]:
    """Matches a package host, a path in a home folder, and the path of this checkout."""
    words = [re.escape(host) for host in hosts]
    words.append(r"(?<![\w.~-])/(?:home|Users)/\w+")
    # Short paths such as /app are skipped, and those of the images: they have other meanings in the texts.
    own = [path for path in (ROOT, Path.home()) if len(path.parts) > 2 and path.parts[1] not in IN_IMAGES]
    words += [re.escape(str(path)) + r"\b" for path in own]
    return re.compile("|".join(words))


def texts() -> Iterator[tuple[str, str]]:
    """The name and the text of each file that is tracked or not ignored. SystemExit outside of a git checkout."""
    names = output("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    if not names:
        raise SystemExit("no files: this needs a git checkout")
    for name in names:
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            yield name, path.read_text(errors="replace")


def main() -> int:
    pattern = forbidden(package_hosts())
    found = 0
    for name, text in texts():
        for number, line in enumerate(text.splitlines(), 1):
            if match := pattern.search(line):
                print(f"{name}:{number}: names {match.group()}", file=sys.stderr)
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
