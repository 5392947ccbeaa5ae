"""Where within a workspace somebody lands: a path with its query, and never a host.

The product is told it (`return_to`), hands it back (`POST /session/{uuid}/open`), and may put it behind a host itself.
So it is nothing that a browser could take for a host, and it carries none of the parameters by which people get in.
"""

from __future__ import annotations

import re
from urllib.parse import urlencode

from app.settings import Settings

PARAMETER = "workspace-link="
"""Of a URL: what carries a link's secret, which needs no escapes."""

ENTERED = "workspace-entered"
"""Of a URL: somebody came by a good link and was given a cookie. Who is there without one has a browser that kept
none."""

LONGEST = 2_048
"""Characters: what VS Code writes into its address has some hundred."""

LANDING_REGEX = r'^/(?![/\\])[!"$-\[\]-~]*$'
"""Printable ASCII without `#` and `\\`; a browser takes what begins with two slashes, of either kind, for a host."""

WHOLE = re.compile(LANDING_REGEX.removeprefix("^").removesuffix("$"))


def is_landing(text: str) -> bool:
    """Whether a text is a path in this sense."""
    return len(text) <= LONGEST and WHOLE.fullmatch(text) is not None and not any(map(is_ours, _parts(text)))


def landing(path: str, query: str) -> str:
    """The path and query of an address without our parameters; `/` where they are no path in this sense."""
    found = without_ours(path, query)
    return found if is_landing(found) else "/"


def without_ours(path: str, query: str) -> str:
    """Path and query as they were written, our parameters aside."""
    kept = "&".join(part for part in query.split("&") if not is_ours(part))
    return path + (f"?{kept}" if kept else "")


def with_parameter(path: str, parameter: str) -> str:
    """The path with one more parameter in its query."""
    return f"{path}{'&' if '?' in path else '?'}{parameter}"


def is_ours(part: str) -> bool:
    """Whether a part of a query is one of our parameters."""
    return part == ENTERED or part.startswith(PARAMETER)


def login_location(settings: Settings, uuid: str, path: str) -> str:
    """Where the product asks who somebody is, and which workspace and path to open for them."""
    return with_parameter(settings.login_url, urlencode({"workspace": uuid, "return_to": path}))


def _parts(text: str) -> list[str]:
    return text.partition("?")[2].split("&")
