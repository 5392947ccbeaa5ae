"""The environment of processes beside a workspace's files, which are a stranger's.

What each kind of them inherits is listed here, so that nothing of the service's reaches it; and processes are found by
marks in it, which all that they start inherits. Libraries look for settings
in HOME too: for programs to run for a credential, and for addresses to send one to. So a process that holds a
credential of ours has a HOME that does not exist.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping

INHERITED = ("PATH", "LANG", "SHELL", "TERM", "USER")
"""What a workspace's editor and agent inherit from the process that starts them: none of these may hold a secret."""

AGENTS_OWN = ("AGENT_", "GATEWAY_", "LLM_", "MALLOC_MMAP_THRESHOLD_", "PYTHON")
"""Prefixes of the agent's own variables, which nothing that it runs for a workspace inherits: commands, git, undo
points. The others are those of the workspace's image, as in the editor's terminals."""

TO_STORES = re.compile(
    r"PATH|TMPDIR|LANG|(AWS|GOOGLE|CLOUDSDK)_\w+|STORAGE_EMULATOR_HOST|SSL_CERT_(FILE|DIR)|(HTTPS?|NO)_PROXY|GCE_METADATA_HOST",
    re.IGNORECASE,
)
"""What restic inherits: to find programs and folders, and to reach the store."""

NOWHERE, EMPTY = "/nonexistent", "/dev/null"

ALONE: Mapping[str, str] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": NOWHERE,
    "XDG_CONFIG_HOME": NOWHERE,
    "XDG_CACHE_HOME": NOWHERE,
    "NETRC": EMPTY,
    "FSSPEC_CONFIG_DIR": NOWHERE,
    "AWS_CONFIG_FILE": EMPTY,
    "AWS_SHARED_CREDENTIALS_FILE": EMPTY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "BOTO_CONFIG": EMPTY,
    "CLOUDSDK_CONFIG": NOWHERE,
    "GOOGLE_API_USE_CLIENT_CERTIFICATE": "false",
    "NO_GCE_CHECK": "true",
}
"""The whole environment of a process that holds a credential of ours, besides that credential. HOME is what keeps its
libraries from a stranger's settings; each library's own variable does so again, and no cloud is asked who this is."""


LOOKS, PAUSE = 20, 0.002
"""How many looks are taken at a process that shows no environment, and the seconds between two: one that begins another
program (execve) shows none for a moment, which is longer on a busy machine."""


def inherited(environment: Mapping[str, str], programs: str = "") -> dict[str, str]:
    """What the editor and the agent of a workspace inherit of an environment. `programs` is the folder of the service's
    own, which is left out of PATH: what a workspace installs must not change the service."""
    kept = {name: environment[name] for name in INHERITED if name in environment}
    if programs and "PATH" in kept:
        own = os.path.realpath(programs)
        kept["PATH"] = os.pathsep.join(each for each in kept["PATH"].split(os.pathsep) if os.path.realpath(each) != own)
    return kept


def of_commands(environment: Mapping[str, str], token: str) -> dict[str, str]:
    """What the agent's commands inherit of its environment: not its own variables, and none with its token."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(AGENTS_OWN) and not (token and token in value)
    }


def to_stores(environment: Mapping[str, str]) -> dict[str, str]:
    """What restic inherits of an environment."""
    return {name: value for name, value in environment.items() if TO_STORES.fullmatch(name)}


def started_with(fits: Callable[[bytes], bool], among: Iterable[int] | None = None) -> set[int]:
    """The ids of the other processes, or of those among these, whose environment fits: each `NAME=value` between two
    NULs. That of another user's process can't be read."""
    found: set[int] = set()
    if among is None:
        among = (int(name) for name in os.listdir("/proc") if name.isdigit())
    unsure = [pid for pid in among if pid != os.getpid()]
    for look in range(LOOKS):
        if look:
            time.sleep(PAUSE)
        shown = {pid: _shown(pid) for pid in unsure}
        found |= {pid for pid, environment in shown.items() if environment and fits(environment)}
        unsure = [pid for pid, environment in shown.items() if environment == b""]
        if not unsure:
            break
    return found


def _shown(pid: int) -> bytes | None:
    """The environment that a process shows, which may be empty; None for one that has none: it has ended, or is the
    kernel's or another user's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
        os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None
    return b"\0" + environment if environment else b""
