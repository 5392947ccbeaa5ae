"""Resolves paths so that they can't leave the workspace.

A path is walked name by name, each opened in the folder before it without following a link. A link is read and its
target walked in the same way, including "..", absolute targets and links to links. Walked folders are held open, so
nothing can be swapped between a check and its use. `openat2` with RESOLVE_BENEATH would do this in the kernel, but
sandboxes (gVisor, seccomp profiles) lack it, and it refuses absolute links within the folder, which tools create.

A link in the place of the workspace's folder is not followed either, nor resolved at a start: the folder above is the
workspace's too, so a command can put one there, and end the agent. What is above that is the machine's own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LINKS = 40
"""Links followed in one path, as in Linux."""

DEPTH = 100
"""Levels of folders in one path."""

HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class ToolError(Exception):
    """Why a tool failed; the text is for the model."""


@dataclass(frozen=True)
class SandboxPath:
    """A resolved path: `name` in the open folder `folder`. `name` is "." for the workspace itself."""

    folder: int
    name: str
    path: str
    """From the workspace's folder, links resolved; "." for itself."""

    @property
    def is_root(self) -> bool:
        return self.path == "."

    def status(self) -> os.stat_result | None:
        """The status (links are not followed), None if there is no such file."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, flags: int, mode: int = 0o666) -> int:
        """A descriptor. Never follows a link, never waits for a pipe's other end."""
        extra = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self.name, flags | extra, mode, dir_fd=self.folder)


class Workspace:
    """The folder whose files tools may use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def resolve(self, path: str, *, follow: bool = True, make: bool = False) -> Iterator[SandboxPath]:
        """Resolve a path and hold it open. ToolError if it leaves the workspace.

        `follow`: follow a link at the end. `make`: create missing folders.
        """
        with contextlib.ExitStack() as owned:
            try:
                walk = _Walk(self.folder, owned, make=make)
                yield walk.to(self._relative(path), follow=follow)
            except OSError as e:
                raise ToolError(f"{path}: {reason(e)}") from e

    def _relative(self, path: str) -> str:
        if "\0" in path:
            raise ToolError("a path must not contain a NUL")
        if not path.startswith("/"):
            return path
        inside = beneath(path, self.folder)
        if inside is None:
            raise ToolError(f"{path} is outside the workspace; paths are relative to its folder")
        return inside


def beneath(path: str, folder: Path) -> str | None:
    """An absolute path relative to the folder, by its given or its real path; None if it isn't below it."""
    for root in (str(folder), os.path.join(os.path.realpath(folder.parent), folder.name)):
        if path == root:
            return "."
        if path.startswith(root.rstrip("/") + "/"):
            return path[len(root.rstrip("/")) + 1 :]
    return None


def open_root(folder: Path) -> int:
    """A handle of a workspace's folder, as `dir_fd` or to work in. Raises ToolError, also for a link to a folder."""
    try:
        return os.open(folder, HANDLE | os.O_DIRECTORY)
    except OSError as e:
        raise ToolError(f"the workspace's folder can't be opened: {reason(e)}") from None


def reason(error: OSError) -> str:
    """An error's text, without paths of the machine."""
    if error.errno == errno.ELOOP:
        return "too many links, or it became one while it was used"
    return (os.strerror(error.errno) if error.errno else "can't be used").lower()


class _Walk:
    """A stack of open folders, the workspace at the bottom."""

    def __init__(self, folder: Path, owned: contextlib.ExitStack, *, make: bool) -> None:
        self._root = folder
        self._owned = owned
        self._make = make
        self._folders = [self._own(open_root(folder))]
        self._names: list[str] = []

    def to(self, path: str, *, follow: bool) -> SandboxPath:
        """Walk a relative path to its end."""
        ahead = deque(path.split("/"))
        links = 0
        while ahead:
            name = ahead.popleft()
            if name in ("", "."):
                continue
            if name == "..":
                self._up()
                continue
            if len(self._names) >= DEPTH:
                raise ToolError("the path is too deep")
            last = not any(part not in ("", ".") for part in ahead)
            handle = self._handle(name, last)
            if handle is None:
                return self._place(name)
            mode = os.fstat(handle).st_mode
            if stat.S_ISLNK(mode) and (follow or not last):
                links += 1
                if links > LINKS:
                    raise OSError(errno.ELOOP, "links")
                ahead.extendleft(reversed(self._target(handle).split("/")))
            elif stat.S_ISDIR(mode) and not (last and not follow):
                self._folders.append(handle)
                self._names.append(name)
            elif last:
                return self._place(name)
            else:
                raise OSError(errno.ENOTDIR, "not a folder")
        return self._end()

    def _handle(self, name: str, last: bool) -> int | None:
        """The name, open; None if it is missing and may be created."""
        folder = self._folders[-1]
        try:
            return self._own(os.open(name, HANDLE, dir_fd=folder))
        except FileNotFoundError:
            if last:
                return None
            if not self._make:
                raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        return self._own(os.open(name, HANDLE, dir_fd=folder))

    def _target(self, handle: int) -> str:
        """A link's target as a path from here. An absolute one restarts at the workspace's folder."""
        target = os.readlink("", dir_fd=handle)
        if not target.startswith("/"):
            return target
        inside = beneath(target, self._root)
        if inside is None:
            raise ToolError("a link on this path leads out of the workspace")
        del self._folders[1:], self._names[:]
        return inside

    def _up(self) -> None:
        if not self._names:
            raise ToolError("the path leads out of the workspace")
        self._folders.pop()
        self._names.pop()

    def _place(self, name: str) -> SandboxPath:
        return SandboxPath(self._folders[-1], name, "/".join([*self._names, name]))

    def _end(self) -> SandboxPath:
        """The last folder entered, as a name in its parent."""
        if not self._names:
            return SandboxPath(self._folders[0], ".", ".")
        return SandboxPath(self._folders[-2], self._names[-1], "/".join(self._names))

    def _own(self, fd: int) -> int:
        self._owned.callback(os.close, fd)
        return fd
