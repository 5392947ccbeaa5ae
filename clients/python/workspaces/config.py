"""Where the service is and which key opens it: from the environment, or else from a file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workspaces.errors import ConfigError

URL, KEY, FILE = "API_URL", "API_KEY", "WORKSPACES_CONFIG"
"""The variables; the file's names are `api_url` and `api_key`."""


@dataclass(frozen=True)
class Config:
    """The service's URL, and an API key."""

    api_url: str
    api_key: str = field(repr=False)


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The file: what WORKSPACES_CONFIG names, else workspaces/config.toml in the folder for settings."""
    if named := environ.get(FILE):
        return Path(named).expanduser()
    folder = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "workspaces" / "config.toml"


def load_config(path: Path | str | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration; a variable has precedence over the file. Raises `ConfigError`."""
    file = Path(path) if path is not None else config_path(environ)
    kept = _read(file, must_exist=path is not None or bool(environ.get(FILE)))
    api_url, api_key = (environ.get(name) or kept.get(name.lower(), "") for name in (URL, KEY))
    missing = [name for name, text in ((URL, api_url), (KEY, api_key)) if not text]
    if missing:
        text = f"Set {' and '.join(missing)}, or write {' and '.join(map(str.lower, missing))} into {file}."
        raise ConfigError(text)
    return Config(api_url, api_key)


def _read(file: Path, *, must_exist: bool) -> Mapping[str, str]:
    try:
        kept = tomllib.loads(file.read_text())
    except FileNotFoundError as error:
        if must_exist:
            raise ConfigError(f"{file} does not exist.") from error
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} can't be read: {error}") from error
    wrong = [name for name in (URL.lower(), KEY.lower()) if not isinstance(kept.get(name, ""), str)]
    if wrong:
        raise ConfigError(f"{wrong[0]} in {file} must be a text in quotes.")
    return kept
