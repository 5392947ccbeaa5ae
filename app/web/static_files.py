"""The dashboard's own assets, under names that change with their content, so that browsers keep them for good."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import cast

from flask import Blueprint, Response, current_app
from werkzeug.exceptions import NotFound

from app.look.product import Product

blp = Blueprint("web_static", __name__)

ASSETS = {
    "app.css": "text/css",
    "list.css": "text/css",
    "session.css": "text/css",
    "workspace.css": "text/css",
    "operators.css": "text/css",
    "app.js": "text/javascript",
    "list.js": "text/javascript",
    "chat.js": "text/javascript",
    "files.js": "text/javascript",
    "run.js": "text/javascript",
    "vendor/htmx.min.js": "text/javascript",
    "vendor/htmx-sse.min.js": "text/javascript",
    "vendor/idiomorph-ext.min.js": "text/javascript",
}
YEAR = 31_536_000
PRODUCT = "dashboard_product"
"""The app's extension: the product's name, logo and colours."""


@blp.get("/static/<version>/look.css")
def look(version: str) -> Response:
    """The colours and type, in the product's colour."""
    return _kept(product().style().encode(), "text/css")


@blp.get("/static/<version>/icon")
def icon(version: str) -> Response:
    """The icon of the product."""
    return _kept(*product().icon())


@blp.get("/static/<version>/<path:path>")
def asset(version: str, path: str) -> Response:
    """An asset; its version is only part of its address."""
    if path not in ASSETS:
        raise NotFound
    return _kept(_content(path), ASSETS[path])


def product() -> Product:
    """The product as people know it."""
    return cast(Product, current_app.extensions[PRODUCT])


def look_url() -> str:
    """The address of the colours and type."""
    return f"/static/{_digest(product().style().encode())}/look.css"


def icon_url() -> str:
    """The address of the product's icon."""
    return f"/static/{_digest(product().icon()[0])}/icon"


def _kept(content: bytes, kind: str) -> Response:
    headers = {"Cache-Control": f"public, max-age={YEAR}, immutable"}
    return Response(content, mimetype=kind, headers=headers)


def asset_url(name: str) -> str:
    """The address of an asset; a KeyError for an unknown one is a mistake in a template."""
    return f"/static/{_version(name)}/{name}"


@cache
def _version(name: str) -> str:
    return _digest(_content(name))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


@cache
def _content(name: str) -> bytes:
    if name not in ASSETS:
        raise KeyError(name)
    return files("app.web").joinpath("static", *name.split("/")).read_bytes()
