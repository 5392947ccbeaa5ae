"""Unpacks an archive: first into a folder beside the workspace, then, once it is known to be whole, into its place.

No link is followed in either, so that nothing gets outside of them, whatever the archive and the workspace hold.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from io import FileIO

from app.agent.files.archives import Kind, Member, members, refused
from app.agent.files.entries import EARLIEST, LATEST
from app.agent.files.faults import FileError
from app.agent.protocol import ArchiveFormat, FileFault
from app.agent.tools.sandbox_path import DEPTH
from app.volume.descent import FOLDER_FLAGS

KEPT_FREE = 16_777_216
"""Bytes of the volume that an archive does not fill."""

TAKEN = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
"""What the system says where a member's place, or a folder on the way to it, is something else."""

Names = Sequence[str]


class Unpacking:
    """Takes an archive apart into `folder`, which is open and empty. `files` (with links) and `bytes` are what is there
    so far. Raises FileError."""

    def __init__(self, folder: int) -> None:
        self.files = 0
        self.bytes = 0
        self._folder = folder
        self._closed: list[tuple[Names, int]] = []

    def steps(self, file: FileIO, how: ArchiveFormat) -> Iterator[None]:
        """Yields from time to time; whoever goes on to the end has checked the whole archive."""
        with closing(members(file, how)) as found:
            for member in found:
                yield from self._take(member)

    def place(self, target: int) -> None:
        """Move what is there into the open folder `target`: what has the same name there is replaced, but no folder by
        a file, nor the reverse, which is seen before anything is moved."""
        _check(self._folder, target, "")
        _merge(self._folder, target)
        for names, mode in reversed(self._closed):
            # One that was there before keeps its permissions: it was merged into, so ours is still here.
            if not _is_folder(self._folder, names):
                with _opened(target, names) as folder:
                    os.fchmod(folder, mode)

    def _take(self, member: Member) -> Iterator[None]:
        names = _names(member.name)
        try:
            if member.kind is Kind.FOLDER:
                self._make_folder(names, member.mode)
            elif not names:
                raise refused("it has a file without a name")
            else:
                with _opened(self._folder, names[:-1], make=True) as folder:
                    yield from self._make(member, names[-1], folder)
                self.files += 1
        except OSError as e:
            if e.errno not in TAKEN:
                raise
            raise refused(f"{member.name} has the place of something else in it") from e
        yield

    def _make_folder(self, names: Names, mode: int) -> None:
        with _opened(self._folder, names, make=True) as folder:
            if mode & stat.S_IRWXU == stat.S_IRWXU and names:
                os.fchmod(folder, mode)
            elif names:
                # Nothing could be put into it, nor could it be moved.
                self._closed.append((names, mode))

    def _make(self, member: Member, name: str, folder: int) -> Iterator[None]:
        with suppress(FileNotFoundError):
            # The later one of two counts.
            os.unlink(name, dir_fd=folder)
        times = (min(max(EARLIEST, member.modified_at), LATEST),) * 2
        if member.kind is Kind.LINK:
            if not member.target or "\0" in member.target:
                raise refused(f"{member.name} is a link without a target")
            os.symlink(member.target, name, dir_fd=folder)
            os.utime(name, times, dir_fd=folder, follow_symlinks=False)
        elif member.kind is Kind.HARD_LINK:
            self._link(member, name, folder)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(name, flags, 0o600, dir_fd=folder), "wb", buffering=0) as file:
                yield from self._fill(member, file.fileno())
                os.fchmod(file.fileno(), member.mode)
                os.utime(file.fileno(), times)

    def _link(self, member: Member, name: str, folder: int) -> None:
        of = _names(member.target)
        try:
            with _opened(self._folder, of[:-1]) as beside:
                os.link(of[-1], name, src_dir_fd=beside, dst_dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, IndexError, PermissionError) as e:
            raise refused(f"{member.name} is a link to a file that did not come before") from e

    def _fill(self, member: Member, file: int) -> Iterator[None]:
        free = os.fstatvfs(file)
        if member.size > free.f_bavail * free.f_frsize - KEPT_FREE:
            raise FileError(FileFault.WORKSPACE_FULL, f"the disk has no room for {member.name}")
        for block in member.content():
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(file, rest) :]
            self.bytes += len(block)
            yield


def _names(path: str) -> Names:
    """The names on a path of an archive, which must lead down."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if path.startswith("/") or ".." in names or "\0" in path:
        raise refused(f"{path} leads out of the folder")
    if len(names) > DEPTH:
        raise refused("an entry in it is too deep")
    return tuple(names)


@contextmanager
def _opened(root: int, names: Names, *, make: bool = False) -> Iterator[int]:
    """The folder that these names lead to, open; with `make` missing ones are made."""
    folder = os.dup(root)
    try:
        for name in names:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
            below = os.open(name, FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def _is_folder(root: int, names: Names) -> bool:
    try:
        with _opened(root, names):
            return True
    except OSError:
        return False


def _check(source: int, target: int, prefix: str) -> None:
    """Whether each folder meets a folder, and each file none; and whether they may be put there."""
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=target, effective_ids=True):
        raise FileError(FileFault.FILE_DENIED, f"nothing may be put into {prefix or 'the folder'}")
    for name, is_folder in _entries(source):
        there = _status(name, target)
        if there is None:
            continue
        if stat.S_ISDIR(there.st_mode) is not is_folder:
            what = "no folder, as it is in the archive" if is_folder else "a folder, and none in the archive"
            raise FileError(FileFault.FILE_EXISTS, f"{prefix}{name} is {what}")
        if is_folder:
            with _opened(source, (name,)) as ours, _opened(target, (name,)) as theirs:
                _check(ours, theirs, f"{prefix}{name}/")


def _merge(source: int, target: int) -> None:
    for name, is_folder in _entries(source):
        if is_folder and _status(name, target) is not None:
            with _opened(source, (name,)) as ours, _opened(target, (name,)) as theirs:
                _merge(ours, theirs)
        else:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _entries(folder: int) -> Sequence[tuple[str, bool]]:
    """The names in a folder, and which are folders."""
    with os.scandir(folder) as scan:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in scan]


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
