"""The clients of object stores: what bounds their calls, and by which errors they fail.

Each URL's client is an fsspec file system; one that isn't the operating system's raises errors that are no `OSError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

# Read when gcsfs is first imported. Else it asks another API, for which the bucket's role is not enough, what kind of
# bucket each is; ours are plain ones.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "gs": {"requests_timeout": 60},
    "gcs": {"requests_timeout": 60},
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}},
}
"""What bounds a call to a remote store, in seconds; their clients would otherwise wait for very long."""

GOOGLE = ("gcsfs.retry:HttpError", "aiohttp:ClientError", "google.auth.exceptions:GoogleAuthError")
ERRORS: Mapping[str, tuple[str, ...]] = {
    "gs": GOOGLE,
    "gcs": GOOGLE,
    "s3": ("botocore.exceptions:BotoCoreError", "botocore.exceptions:ClientError"),
}
"""By module and name, as importing a client takes half a second, and most processes use none."""


def protocol_of(url: str) -> str:
    """What stands before `://`; `file` for a path."""
    return url.partition("://")[0] if "://" in url else "file"


def is_remote(url: str) -> bool:
    """Whether a URL leads to another machine, so that its client needs a network and threads."""
    return protocol_of(url) not in LocalFileSystem.protocol


def filesystem(url: str) -> Any:
    """The client for a URL, made anew in the process that uses it: clients of remote stores do not survive a fork.
    Their cached listings would hide what other processes wrote."""
    return fsspec.url_to_fs(url, use_listings_cache=False, **OPTIONS.get(protocol_of(url), {}))[0]


def errors(url: str) -> tuple[type[Exception], ...]:
    """What a call of the client for a URL raises when the store can't be reached or refuses."""
    names = (each.split(":") for each in ERRORS.get(protocol_of(url), ()))
    return (OSError, *(getattr(import_module(module), name) for module, name in names))
