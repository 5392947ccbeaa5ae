"""The tools that read and change files: list, read, write, patch, delete, move."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

from app.agent.tools.sandbox_path import SandboxPath, ToolError, Workspace, reason
from app.volume.deletion import delete

READ_LINES = 2000
READ_CHARACTERS = 30_000
"""Of one result: about 8,000 tokens."""

LINE_CHARACTERS = 2000
"""Of one line; minified files have lines of megabytes."""

EDIT_BYTES = 10 * 1024 * 1024
"""Size limit of a patched file, which is held in memory."""

LISTED = 500
SKIPPED_FOLDERS = frozenset({".git", "node_modules", "__pycache__", ".venv"})
"""Listed, but not entered."""


def list_files(workspace: Workspace, path: str = ".", depth: int = 1) -> str:
    """A folder's entries, `depth` levels deep: one name a line, folders with a slash, files with their size."""
    with workspace.resolve(path) as place:
        status = place.status()
        if status is None or not stat.S_ISDIR(status.st_mode):
            raise ToolError(f"{path} is not a folder")
        fd = place.open(os.O_RDONLY | os.O_DIRECTORY)
        try:
            lines: list[str] = []
            for line in _entries(fd, "", max(1, min(depth, 10))):
                if len(lines) == LISTED:
                    lines.append(f"[… more than {LISTED} entries; list a folder below]")
                    break
                lines.append(line)
        finally:
            os.close(fd)
    return "\n".join(lines) or "(empty)"


def _entries(fd: int, prefix: str, depth: int) -> Iterator[str]:
    with os.scandir(fd) as scan:
        # Bounded: a folder of a million names is not sorted for the 500 listed.
        names = sorted(entry.name for entry, _ in zip(scan, range(20 * LISTED), strict=False))
    for name in names:
        shown = _printable(prefix + name)
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode):
            yield f"{shown}/"
            if depth > 1 and name not in SKIPPED_FOLDERS:
                yield from _below(fd, name, prefix, depth)
        elif stat.S_ISLNK(status.st_mode):
            yield f"{shown} -> {_printable(os.readlink(name, dir_fd=fd))}"
        elif stat.S_ISREG(status.st_mode):
            yield f"{shown} ({status.st_size} bytes)"
        else:
            yield f"{shown} (not a regular file)"


def _below(fd: int, name: str, prefix: str, depth: int) -> Iterator[str]:
    try:
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    except OSError as e:
        yield f"{_printable(prefix + name)}/ ({reason(e)})"
        return
    try:
        yield from _entries(below, f"{prefix}{name}/", depth - 1)
    finally:
        os.close(below)


def _printable(name: str) -> str:
    """A name as one line of text, whatever its bytes."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")


def read_file(workspace: Workspace, path: str, first: int = 1, last: int = 0) -> str:
    """Lines `first` to `last` (0: as many as fit), numbered."""
    first = max(1, first)
    last = min(last or first + READ_LINES - 1, first + READ_LINES - 1)
    lines: list[str] = []
    size = 0
    with workspace.resolve(path) as place, _open_file(place, path) as fd:
        with open(fd, "rb", closefd=False) as file:
            number = 0
            for number, line in enumerate(_lines(file), start=1):
                if number < first:
                    continue
                if number > last or size >= READ_CHARACTERS:
                    lines.append(f"[… the file goes on; read from line {number}]")
                    break
                lines.append(f"{number}\t{_decoded(line, path, number)}")
                size += len(lines[-1]) + 1
        if not lines:
            return f"(the file has {number} lines)" if number else "(empty file)"
    return "\n".join(lines)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines without their line ends; long ones are cut."""
    limit = 4 * LINE_CHARACTERS
    while line := file.readline(limit):
        rest = 0
        whole = line.endswith(b"\n") or len(line) < limit
        while not whole:
            more = file.readline(1024 * 1024)
            rest += len(more)
            whole = more.endswith(b"\n") or not more
        if rest:
            # The cut may have split a character.
            line = line.decode("utf-8", "ignore").encode() + f" [… {rest} bytes more]".encode()
        yield line.rstrip(b"\r\n")


def _decoded(line: bytes, path: str, number: int) -> str:
    if b"\0" in line:
        raise ToolError(f"{path} is a binary file (a NUL in line {number})")
    try:
        return line.decode()
    except UnicodeDecodeError as e:
        raise ToolError(
            f"{path} is not valid UTF-8: byte 0x{line[e.start]:02x} in line {number}; use a command to convert it"
        ) from None


@contextlib.contextmanager
def _open_file(place: SandboxPath, path: str) -> Iterator[int]:
    """A regular file, open for reading. Raises ToolError."""
    status = place.status()
    if status is None:
        raise ToolError(f"{path}: no such file")
    if stat.S_ISDIR(status.st_mode):
        raise ToolError(f"{path} is a folder")
    fd = place.open(os.O_RDONLY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ToolError(f"{path} is not a regular file")
        yield fd
    finally:
        os.close(fd)


def write_file(workspace: Workspace, path: str, content: str) -> str:
    """Write a whole file, new or replaced; missing folders are created."""
    data = content.encode("utf-8", "replace")
    if len(data) > EDIT_BYTES:
        raise ToolError(f"the content has {len(data)} bytes; at most {EDIT_BYTES} are written at once")
    with workspace.resolve(path, make=True) as place:
        existed = _replaceable(place, path)
        _replace(place, data, None if existed is None else stat.S_IMODE(existed.st_mode))
        verb = "wrote" if existed is None else "replaced"
        return f"{verb} {place.path} ({len(data)} bytes)"


def patch_file(workspace: Workspace, path: str, old: str, new: str, all: bool = False) -> str:
    """Replace `old` by `new`; `old` must match exactly, and occur once unless `all`."""
    if not old:
        raise ToolError("`old` is empty; use write_file to write a file")
    with workspace.resolve(path) as place:
        with _open_file(place, path) as fd:
            status = os.fstat(fd)
            if status.st_size > EDIT_BYTES:
                raise ToolError(f"{path} has {status.st_size} bytes; at most {EDIT_BYTES} can be patched")
            text = _whole_text(fd, path)
        found = text.count(old)
        if found == 0:
            raise ToolError(f"`old` is not in {path}; it must match exactly, white space included")
        if found > 1 and not all:
            raise ToolError(f"`old` occurs {found} times in {path}; include more of the lines around it, or set `all`")
        data = text.replace(old, new).encode("utf-8", "replace")
        if len(data) > EDIT_BYTES:
            raise ToolError(f"{path} would have {len(data)} bytes; at most {EDIT_BYTES} are written at once")
        _replace(place, data, stat.S_IMODE(status.st_mode))
        return f"replaced {found} place{'s' if found > 1 else ''} in {place.path}"


def _whole_text(fd: int, path: str) -> str:
    with open(fd, "rb", closefd=False) as file:
        data = file.read(EDIT_BYTES + 1)
    if b"\0" in data:
        raise ToolError(f"{path} is a binary file")
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        raise ToolError(f"{path} is not valid UTF-8: byte 0x{data[e.start]:02x} at {e.start}") from None


def _replaceable(place: SandboxPath, path: str) -> os.stat_result | None:
    status = place.status()
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise ToolError(f"{path} is a folder" if stat.S_ISDIR(status.st_mode) else f"{path} is not a regular file")
    return status


def _replace(place: SandboxPath, data: bytes, mode: int | None) -> None:
    """Write atomically: no reader, crash or full disk leaves half a file."""
    temporary = f".{secrets.token_hex(8)}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=place.folder)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        os.rename(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=place.folder)
        raise


def delete_path(workspace: Workspace, path: str) -> str:
    """Delete a file, a link (not its target), or a folder with its content."""
    with workspace.resolve(path, follow=False) as place:
        status = place.status()
        if place.is_root:
            raise ToolError("the workspace's folder can't be deleted")
        if status is None:
            raise ToolError(f"{path}: no such file or folder")
        if stat.S_ISDIR(status.st_mode):
            delete(place.name, place.folder)
            return f"deleted the folder {place.path}"
        os.unlink(place.name, dir_fd=place.folder)
        return f"deleted {place.path}"


def move_path(workspace: Workspace, source: str, target: str) -> str:
    """Move or rename a file or folder; nothing is overwritten. A target folder is moved into."""
    with workspace.resolve(source, follow=False) as here:
        if here.is_root:
            raise ToolError("the workspace's folder can't be moved")
        if here.status() is None:
            raise ToolError(f"{source}: no such file or folder")
        name = here.name
        with contextlib.ExitStack() as held:
            there = held.enter_context(workspace.resolve(target, make=True))
            status = there.status()
            if status is not None and stat.S_ISDIR(status.st_mode):
                there = held.enter_context(workspace.resolve(f"{there.path}/{name}"))
                status = there.status()
            if status is not None:
                raise ToolError(f"{there.path} exists already")
            os.rename(name, there.name, src_dir_fd=here.folder, dst_dir_fd=there.folder)
            return f"moved {here.path} to {there.path}"
