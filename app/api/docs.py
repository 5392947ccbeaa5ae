"""The OpenAPI document and the docs page. All assets are served from here, so the page works offline."""

from __future__ import annotations

from importlib.resources import files

from flask import Response, current_app, request
from werkzeug.exceptions import NotFound

from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.openapi import TITLE, api_of
from app.core.access.forwarded_request import target

blp = Blueprint("docs", __name__, description="This document.")

ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
OWN_SCRIPT = "docs.js"
DAY = 86_400

# The page's styles are set by script on elements, which needs 'unsafe-inline' for styles alone.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{TITLE}: API</title>
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<noscript>This page needs JavaScript; the document itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/{OWN_SCRIPT}"></script>
</body>
</html>
"""


@blp.route("/", methods=["GET"])
@blp.response(302, description="To the docs page.")
@blp.operation("root", 404, anonymous=True, without_redis=True)
def root() -> Response:
    """Redirect to the docs page; a workspace's host has none."""
    if target(request.url, core().settings):
        raise NotFound
    return Response(status=302, headers={"Location": "/docs"})


@blp.route("/openapi.json", methods=["GET"])
@blp.response(200, {"type": "object"}, description="This document.")
@blp.operation("openapi", anonymous=True, without_redis=True)
def openapi() -> Response:
    """This document."""
    return Response(api_of(current_app).document_text(), mimetype="application/json")


@blp.route("/docs", methods=["GET"])
@blp.response(200, {"type": "string"}, content_type="text/html", description="The page.")
@blp.operation("docs", anonymous=True, without_redis=True)
def page() -> Response:
    """Show the docs page: this document, and forms to try the calls."""
    headers = {"Content-Security-Policy": PAGE_POLICY, "Referrer-Policy": "no-referrer"}
    return Response(PAGE, mimetype="text/html", headers=headers)


@blp.route("/docs/assets/<asset>", methods=["GET"])
@blp.response(200, {"type": "string"}, content_type="*/*", description="The asset.")
@blp.operation("docsAsset", 404, anonymous=True, without_redis=True)
def asset(asset: str) -> Response:
    """Serve an asset of the docs page."""
    content, kind = read_asset(asset)
    return Response(content, mimetype=kind, headers={"Cache-Control": f"public, max-age={DAY}"})


def read_asset(name: str) -> tuple[bytes, str]:
    """An asset and its type; raises `NotFound` for any file that the page does not use."""
    if name == OWN_SCRIPT:
        return files("app.api").joinpath("static", OWN_SCRIPT).read_bytes(), "text/javascript"
    if name not in ASSETS:
        raise NotFound
    return files("flask_swagger_ui").joinpath("dist", name).read_bytes(), ASSETS[name]
