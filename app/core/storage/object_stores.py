"""The fsspec clients of stores: the limits of their calls, and their errors.

Clients of remote stores raise errors other than `OSError`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from app.core.errors import ArchiveError, NoSpace, RetryableError, SessionError

# Read when gcsfs is first imported. Otherwise it asks another API for each bucket's kind, which our role for the bucket
# does not permit; ours are plain buckets.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "gs": {"requests_timeout": 60},
    "gcs": {"requests_timeout": 60},
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}},
}
"""Limits of a call to a remote store, in seconds; without them the clients wait very long."""

GOOGLE = ("gcsfs.retry:HttpError", "aiohttp:ClientError", "google.auth.exceptions:GoogleAuthError")
ERRORS: Mapping[str, tuple[str, ...]] = {
    "gs": GOOGLE,
    "gcs": GOOGLE,
    "s3": ("botocore.exceptions:BotoCoreError", "botocore.exceptions:ClientError"),
}
"""By module and name: importing a client takes half a second, and most processes use none."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
HOPELESS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EFBIG, errno.EINVAL}
)
"""Errors an operator must repair; a retry does not help. Any other error may pass."""


def protocol_of(url: str) -> str:
    """The part before `://`; `file` for a path."""
    return url.partition("://")[0] if "://" in url else "file"


def is_google(url: str) -> bool:
    """Whether a URL is of a bucket of Google's."""
    return protocol_of(url) in ("gs", "gcs")


def s3_endpoint() -> str:
    """The address of the S3 server as the AWS tools read it, "" for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def is_remote(url: str) -> bool:
    """Whether a URL is of a remote store, whose client needs a network and threads."""
    return protocol_of(url) not in LocalFileSystem.protocol


def filesystem(url: str) -> Any:
    """A client for a URL. Make it in the process that uses it: clients of remote stores do not survive a fork. Cached
    listings would hide files of other processes."""
    options = OPTIONS.get(protocol_of(url), {})
    return fsspec.url_to_fs(url, use_listings_cache=False, **options, **_given_token(url))[0]


def _given_token(url: str) -> Mapping[str, Any]:
    """The option with a token for Google's store in GOOGLE_ACCESS_TOKEN, which restic knows by itself. As an object: of
    a text gcsfs would ask Google first, in an address."""
    token = os.environ.get("GOOGLE_ACCESS_TOKEN")
    if not is_google(url) or not token:
        return {}
    from google.oauth2.credentials import Credentials

    return {"token": Credentials(token)}


def whole_writes(url: str, size: int) -> Mapping[str, Any]:
    """Options by which `pipe_file` writes `size` bytes as they are. gcsfs' upload in a single request puts them between
    lines, as of a mail: a carriage return at their end is taken for a part of the next line's, and a line like its
    boundary for the end. So they are a chunk of an upload in chunks."""
    return {"chunksize": max(1, size)} if is_google(url) else {}


def errors(url: str) -> tuple[type[Exception], ...]:
    """The errors of a URL's client when the store is unreachable or refuses."""
    names = (each.split(":") for each in ERRORS.get(protocol_of(url), ()))
    return (OSError, *(getattr(import_module(module), name) for module, name in names))


def file_error(error: Exception, failed: str, full: str) -> SessionError:
    """Our error for one of a file system or a store's client: `NoSpace` saying `full`, else `ArchiveError` or
    `RetryableError` saying `failed` and the system's reason, without any path."""
    number = getattr(error, "errno", None)
    if number in FULL:
        return NoSpace(full)
    reason = os.strerror(number) if number else f"the store's client raised {type(error).__name__}"
    kind = ArchiveError if number in HOPELESS else RetryableError
    return kind(f"{failed} ({reason}).")
