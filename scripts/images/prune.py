"""Removes the parts of code-server that no workspace needs, more than half of it.

    python prune.py NODE_MODULES

Source maps, programs for other systems, what the compilation of native modules left behind, and the
parts that talk to services which an account would be needed for.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

EDITOR = Path("code-server", "lib", "vscode")

UNUSED = (
    # Copilot's extension, its agent and the sandbox of that agent.
    "extensions/copilot",
    "node_modules/@github",
    "node_modules/@microsoft/mxc-sdk",
    # Signs in to Microsoft through a native library; the editor's settings sync, which needs it, is off.
    "extensions/microsoft-authentication",
    # Sources of native modules that are built by now.
    "node_modules/@vscode/sqlite3/deps",
    "node_modules/node-pty/third_party",
    "node_modules/node-pty/src",
)
"""Folders below EDITOR."""

LEFT_OVERS = {"obj", "obj.target", ".deps"}
"""Files that node-gyp leaves in `build/Release` beside the built module."""

SUFFIXES = {".map", ".pdb", ".exe", ".dll", ".a", ".o"}

SYSTEMS = ("linux", "darwin", "win32", "alpine", "freebsd")
MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


def is_foreign(name: str, own: str) -> bool:
    """Whether a folder's name, like `darwin-arm64`, names another system than `own`, like `linux-x64`."""
    return name.partition("-")[0] in SYSTEMS and "-" in name and name != own


def unneeded(modules: Path, own: str) -> Iterator[Path]:
    """Every file and folder to remove; a folder may precede its content."""
    yield from (modules / EDITOR / name for name in UNUSED)
    for path in modules.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            foreign = path.parent.name in ("bin", "prebuilds") and is_foreign(path.name, own)
            if foreign or (path.name in LEFT_OVERS and path.parent.name == "Release"):
                yield path
        elif path.suffix in SUFFIXES:
            yield path


def remove(path: Path) -> None:
    """Remove a file or a folder, which may have been removed with another."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: prune.py NODE_MODULES", file=sys.stderr)
        return 2
    modules = Path(arguments[0])
    own = f"linux-{MACHINES[platform.machine()]}"
    before = size(modules)
    for path in list(unneeded(modules, own)):
        remove(path)
    print(f"pruned {modules}: {before / 1e6:.0f} MB to {size(modules) / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
