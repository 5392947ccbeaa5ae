"""Why a call on files failed, by the system's own reason."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import Any

from app.agent.protocol import FileFault
from app.agent.tools.sandbox_path import SandboxPath, ToolError, Workspace, reason

FAULTS: Mapping[int, FileFault] = {
    errno.ENOENT: FileFault.FILE_NOT_FOUND,
    errno.EEXIST: FileFault.FILE_EXISTS,
    errno.ENOTEMPTY: FileFault.FILE_EXISTS,
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ENODEV), FileFault.NOT_A_FILE),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), FileFault.WORKSPACE_FULL),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL), FileFault.INVALID_PATH),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), FileFault.FILE_DENIED),
}


class FileError(Exception):
    """Why a call failed; the text is for people."""

    def __init__(self, fault: FileFault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


@contextlib.contextmanager
def resolved(workspace: Workspace, path: str, **how: Any) -> Iterator[SandboxPath]:
    """`Workspace.resolve`, whose errors, and the block's, are `FileError`s; an OSError that no caller can mend stays
    one."""
    try:
        with workspace.resolve(path, **how) as place:
            yield place
    except ToolError as e:
        if isinstance(e.__cause__, OSError):
            raise _told(e.__cause__, str(e)) from e
        raise FileError(FileFault.INVALID_PATH, str(e)) from e


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """The same, for a block that is about this path, or whose errors begin so."""
    try:
        yield
    except OSError as e:
        raise _told(e, f"{what}: {reason(e)}") from e


def staging() -> contextlib.AbstractContextManager[None]:
    """The same, for what is done beside the workspace."""
    return naming("the file can't be written")


def _told(error: OSError, text: str) -> Exception:
    fault = FAULTS.get(error.errno or 0)
    return error if fault is None else FileError(fault, text)
