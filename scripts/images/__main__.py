"""Builds the images; started by `scripts/images/build` when the needed packages are installed.

An image's archive is named by a digest of its sources. So a second run finds it, a change builds another, and checkouts
can share a cache. Runs at the same time are safe: one builds, the others wait.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from scripts.images import base, inputs, oci
from scripts.lib.locks import only_one

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("manager", "workspace", "redis")
LOCK = ".lock"
NAME = "localhost/{target}:dev"
BUILD_LIMIT = 2_400.0
"""Seconds for one image, and for waiting for another run; both images took 4 min on 2 cores."""

KEPT = 2
"""Archives kept of each image: this one and the one before, for switching between versions."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/images/build", description="Builds the service's images.")
    parser.add_argument("target", nargs="*", choices=[*TARGETS, []], help="default: all of them")
    parser.add_argument("--fresh", action="store_true", help="rebuild the Debian base")
    options = parser.parse_args(arguments)
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with only_one(cache / LOCK, BUILD_LIMIT, oci.BuildError):
            discard_left_overs(cache)
            debian = base.ensure(cache, fresh=options.fresh)
            for target in options.target or TARGETS:
                print(describe(target, ensure(target, cache, debian)))
    except oci.BuildError as error:
        print(f"scripts/images/build: {error}", file=sys.stderr)
        return 1
    return 0


def cache_folder() -> Path:
    """The folder of the archives, outside the checkout, so that they outlive it."""
    found = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(found) / "workspace-session-manager" / "images"


def discard_left_overs(cache: Path) -> None:
    """Remove files of killed builds. The lock of the cache excludes other writers."""
    for path in set(cache.glob(".*")) - {cache / LOCK}:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def ensure(target: str, cache: Path, debian: base.Base) -> Path:
    """The image's archive, built if it is missing; `{target}.tar` in the cache links to it."""
    archive = cache / f"{target}-{inputs.digest(ROOT, target, debian.digest)}.tar"
    if archive.exists():
        os.utime(archive)
    else:
        name = NAME.format(target=target)
        print(f"scripts/images/build: building {name} (minutes, when nothing is cached)", file=sys.stderr)
        oci.load(debian.archive, base.NAME)
        oci.build(ROOT, target, name, BUILD_LIMIT, editor_of_this_machine() if target == "workspace" else {})
        if archive != cache / f"{target}-{inputs.digest(ROOT, target, debian.digest)}.tar":
            raise oci.BuildError(f"sources of {name} were changed during its build; run it again")
        oci.save(name, archive)
    link = cache / f"{target}.tar"
    draft = cache / f".{target}.{os.getpid()}"
    draft.symlink_to(archive.name)
    draft.replace(link)
    discard_old(cache, target)
    return link


def editor_of_this_machine() -> dict[str, Path]:
    """What stands for the stage that builds the editor: the build that local mode and the tests use, where this machine
    has the image's libraries; elsewhere nothing."""
    if f"VERSION_CODENAME={base.SUITE}" not in Path("/etc/os-release").read_text().splitlines():
        return {}
    program = oci.run(
        [sys.executable, str(ROOT / "app" / "editor" / "install"), str(cache_folder().parent)], BUILD_LIMIT
    )
    return {"editor-built": Path(program).parents[1]}


def discard_old(cache: Path, target: str) -> None:
    archives = sorted(cache.glob(f"{target}-*.tar"), key=lambda path: path.stat().st_mtime)
    for path in archives[:-KEPT]:
        path.unlink()


def describe(target: str, archive: Path) -> str:
    """A line for users and scripts: name, path, MB unpacked, and MB of its compressed layers."""
    unpacked, packed = oci.sizes(archive)
    return f"{NAME.format(target=target)} {archive} {unpacked / 1e6:.0f} MB ({packed / 1e6:.0f} MB compressed)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
