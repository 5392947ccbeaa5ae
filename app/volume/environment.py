"""The environment of processes beside a workspace's files, which are a stranger's.

What a process inherits is listed here, so that no variable of the service's reaches it. Libraries look for settings in
HOME too: for programs to run for a credential, and for addresses to send one to. So a process that holds a credential
of ours has a HOME that does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping

INHERITED = ("PATH", "LANG", "SHELL", "TERM", "USER")
"""What a workspace's editor and agent inherit from the process that starts them: none of these may hold a secret."""

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


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What the editor and the agent of a workspace inherit of an environment."""
    return {name: environment[name] for name in INHERITED if name in environment}
