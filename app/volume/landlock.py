"""What a process beside a workspace's files gives up to read, by Landlock: landlock(7).

    python -I -S landlock.py PATH... -- COMMAND...

runs the command, named by its path, as one that can read these files, and what is below these folders, and nothing
else. A process that gave something up can't take it back, nor can what it starts; nor can it read the memory of
processes that did not. Only reading is ruled, and no privilege is needed but that none can be gained.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""The system calls' numbers, the same on all processors."""

PR_SET_NO_NEW_PRIVS = 38

READ_FILE, READ_DIR, REFER = 1 << 2, 1 << 3, 1 << 13

OLDEST = 1
"""The first version of Landlock, without moving files between folders (Linux 5.13)."""

MOVING = 2
"""The first version that allows that (Linux 5.19)."""

Rule = tuple[str, int]
"""A path, and what is allowed there and below."""


class PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr"""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The kernel's version of Landlock, 0 for none."""
    try:
        return _call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def hide(folder: str) -> bool:
    """Keep this process and its children from reading files in the folder, and other processes' memory; False if the
    kernel does not support that. Raises OSError."""
    if version() < MOVING:
        return False
    _give_up(READ_FILE | REFER, [("/", REFER), *((each, READ_FILE) for each in beside(folder))])
    return True


def beside(folder: str) -> list[str]:
    """All there is but this folder and what is above it. Links are left out: what they lead to is elsewhere, too."""
    found = []
    above = os.path.realpath(folder)
    while above != "/":
        above, kept = os.path.split(above)
        with os.scandir(above) as entries:
            found += [entry.path for entry in entries if entry.name != kept and not entry.is_symlink()]
    return found


def read_only_below(paths: Iterable[str]) -> None:
    """Let this process and its children read these files, and what is below these folders, only. A link among them
    allows nothing, whoever put it there. Raises OSError, also where the kernel does not support that."""
    _give_up(READ_FILE | READ_DIR, [(path, READ_FILE | READ_DIR) for path in paths])


def _give_up(handled: int, rules: Iterable[Rule]) -> None:
    """Give up what is `handled`, but for what a rule allows; what does not exist needs none."""
    attributes = ctypes.c_uint64(handled)
    ruleset = _call(CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(8), ctypes.c_uint32(0))
    for path, allowed in rules:
        try:
            parent = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        # The kernel refuses rules about folders for anything else.
        here = allowed if stat.S_ISDIR(os.fstat(parent).st_mode) else allowed & READ_FILE
        rule = PathBeneath(here, parent)
        _call(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0))
        os.close(parent)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def _call(number: int, *arguments: object) -> int:
    done = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def main(arguments: list[str]) -> None:
    """Run the command as one that can read only below the paths; its status is 127 if it can't be run."""
    end = arguments.index("--")
    paths, command = arguments[:end], arguments[end + 1 :]
    read_only_below(paths)
    # Nothing is imported from here on: it could not be read.
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
