"""The product as people know it: its name, mark, colour, and the way back to it."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from app.look.color import ink, readable
from app.process.settings import Settings, SettingsError

LOGO_BYTES = 32_768
"""The largest logo: it is part of every page."""

LOGO_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}

_DATA = re.compile(r"data:(image/svg\+xml|image/png);base64,([A-Za-z0-9+/]+=*)")

LIGHT, DARK = ("#ffffff", "#fbfbfc"), ("#17171d", "#0f0f13")
"""`--surface` and `--bg` of tokens.css, by scheme."""


@dataclass(frozen=True)
class Product:
    """`url` is the way back, "" for none; `logo` a `data:` URL, "" for the built-in mark; `color` `#rrggbb`, "" for the
    built-in accent."""

    name: str = "Workspaces"
    url: str = ""
    logo: str = ""
    color: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Product:
        """The product of these settings; reads the logo. SettingsError for a logo that can't be shown."""
        return cls(settings.product_name, settings.product_url, _logo(settings.product_logo), settings.product_color)

    def style(self) -> str:
        """The custom properties of tokens.css as CSS, in the product's colour if it has one: `--accent` fills buttons
        and the mark, `--on-accent` is the text on it, and `--link` the nearest shade that can be read on the page: for
        text, lines and what moves."""
        tokens = _read("tokens.css")
        if not self.color:
            return tokens
        light, dark = readable(self.color, LIGHT), readable(self.color, DARK)
        return (
            f"{tokens}:root {{ --accent: {self.color}; --on-accent: {ink(self.color)}; --link: {light}; }}\n"
            f"@media (prefers-color-scheme: dark) {{ :root {{ --link: {dark}; }} }}\n"
        )

    def icon(self) -> tuple[bytes, str]:
        """The icon of the product's pages, and its type: the logo, else the built-in mark in the product's colour."""
        if self.logo:
            kind, _, content = self.logo.removeprefix("data:").partition(";base64,")
            return base64.b64decode(content), kind
        # In a picture of its own, the mark has no custom properties but these.
        opening, _, drawing = mark().partition(">")
        opening = opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"')
        return f"{opening}><style>{self.style()}</style>{drawing}".encode(), LOGO_TYPES[".svg"]


def mark() -> str:
    """The built-in mark as an `svg` element, in the product's colour."""
    return _read("mark.svg").strip()


def _logo(given: str) -> str:
    """The logo as a `data:` URL, from such a URL or a file's path."""
    if not given:
        return ""
    if given.startswith("data:"):
        content, kind = _from_url(given)
    else:
        content, kind = _from_file(Path(given))
    if len(content) > LOGO_BYTES:
        raise SettingsError(f"PRODUCT_LOGO is larger than {LOGO_BYTES} bytes, and part of each page: make it smaller.")
    if not _is(kind, content):
        raise SettingsError("PRODUCT_LOGO is neither a PNG nor an SVG image, whatever its name or type says.")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _from_url(url: str) -> tuple[bytes, str]:
    found = _DATA.fullmatch(url)
    if found is None:
        raise SettingsError(
            "PRODUCT_LOGO: a data: URL looks like data:image/svg+xml;base64,… or data:image/png;base64,…; "
            "`base64 -w0 logo.svg` makes the last part."
        )
    try:
        return base64.b64decode(found[2], validate=True), found[1]
    except ValueError as error:
        raise SettingsError("PRODUCT_LOGO: the base64 of its data: URL is cut off or damaged.") from error


def _from_file(path: Path) -> tuple[bytes, str]:
    kind = LOGO_TYPES.get(path.suffix.lower())
    if kind is None:
        raise SettingsError("PRODUCT_LOGO must be a file that ends in .svg or .png, or a data: URL of such an image.")
    try:
        with path.open("rb") as file:
            return file.read(LOGO_BYTES + 1), kind
    except OSError as error:
        raise SettingsError(f"PRODUCT_LOGO: the file {path} can't be read: {error.strerror}.") from error


def _is(kind: str, content: bytes) -> bool:
    if kind == "image/png":
        return content.startswith(b"\x89PNG\r\n\x1a\n")
    return b"<svg" in content


@cache
def _read(name: str) -> str:
    return files("app.look").joinpath(name).read_text(encoding="utf-8")
