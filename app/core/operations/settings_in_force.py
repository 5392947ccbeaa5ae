"""The settings as they are in force, to be shown to operators: no secret, and no credentials of a URL."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.process.settings import Settings

SET, NOT_SET = "set", "not set"
"""What is shown of a secret."""

HIDDEN = "***"

VALUE_OF_QUERY = re.compile(r"=[^&]*")

Value = str | int | float


@dataclass(frozen=True)
class Shown:
    """A setting by the name of its environment variable; `changed` if it is not at its default. Of a `secret` the value
    and the default say whether there is one."""

    name: str
    value: Value
    unit: str
    default: Value
    reason: str
    changed: bool
    secret: bool


def in_force(settings: Settings) -> list[Shown]:
    """All settings of this process, in the order of their definition."""
    return [_shown(settings, spec) for spec in dataclasses.fields(settings)]


def _shown(settings: Settings, spec: dataclasses.Field[object]) -> Shown:
    value, secret, unit = getattr(settings, spec.name), bool(spec.metadata["secret"]), str(spec.metadata["unit"])

    def told(given: object) -> Value:
        if secret:
            return SET if given not in ("", "[]") else NOT_SET
        if isinstance(given, int | float):
            return given
        return without_credentials(str(given)) if unit == "URL" else str(given)

    return Shown(
        name=spec.name.upper(),
        value=told(value),
        unit=unit,
        default=told(spec.default),
        reason=str(spec.metadata["why"]),
        changed=value != (Path(str(spec.default)) if isinstance(value, Path) else spec.default),
        secret=secret,
    )


def without_credentials(url: str) -> str:
    """A URL without its user, password and the values of its query, any of which may let somebody in."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    host = parts.netloc.rpartition("@")[2]
    where = f"{HIDDEN}@{host}" if "@" in parts.netloc else host
    query = VALUE_OF_QUERY.sub(f"={HIDDEN}", parts.query)
    return parts._replace(netloc=where, query=query, fragment="").geturl()
