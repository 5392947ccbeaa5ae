"""The landing path: where in a workspace a login link leads. A path with its query, never a host.

The product gets it (`return_to`), hands it back (`POST /session/{uuid}/open`), and may append it to a host itself.
So a browser must not be able to take it for a host, and it carries none of our own parameters.
"""

from __future__ import annotations

import re
from urllib.parse import urlencode

from app.process.settings import Settings

PARAMETER = "workspace-link="
"""The query parameter with a login link's secret, which needs no escapes."""

ENTERED = "workspace-entered"
"""The query parameter that says: a login link was followed and a cookie was set. A browser that comes without the
cookie did not keep it."""

LONGEST = 2_048
"""Characters; VS Code's own addresses have some hundred."""

LANDING_REGEX = r'^/(?![/\\])[!"$-\[\]-~]*$'
"""Printable ASCII without `#` and `\\`. A browser takes a path that begins with two slashes, of either kind, for a
host."""

WHOLE = re.compile(LANDING_REGEX.removeprefix("^").removesuffix("$"))


def is_landing(text: str) -> bool:
    """Whether a text is a landing path."""
    return len(text) <= LONGEST and WHOLE.fullmatch(text) is not None and not any(map(is_ours, _parts(text)))


def landing(path: str, query: str) -> str:
    """The path and query without our parameters; `/` if that is no landing path."""
    found = without_ours(path, query)
    return found if is_landing(found) else "/"


def without_ours(path: str, query: str) -> str:
    """Path and query as written, without our parameters."""
    kept = "&".join(part for part in query.split("&") if not is_ours(part))
    return path + (f"?{kept}" if kept else "")


def with_parameter(path: str, parameter: str) -> str:
    """The path with one more parameter in its query."""
    return f"{path}{'&' if '?' in path else '?'}{parameter}"


def is_ours(part: str) -> bool:
    """Whether a part of a query is one of our parameters."""
    return part == ENTERED or part.startswith(PARAMETER)


def login_location(settings: Settings, uuid: str, path: str) -> str:
    """The product's sign-in page, told which workspace and path to open afterwards."""
    return with_parameter(settings.login_url, urlencode({"workspace": uuid, "return_to": path}))


def _parts(text: str) -> list[str]:
    return text.partition("?")[2].split("&")
