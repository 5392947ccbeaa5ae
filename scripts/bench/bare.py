"""The least a Flask app can do: what the API's speed is measured against."""

from __future__ import annotations

from flask import Flask


def create_app() -> Flask:
    """One route that returns a small JSON object; no key, no limits, no store."""
    app = Flask("bare")

    @app.get("/session/<uuid>")
    def get(uuid: str) -> dict[str, str]:
        return {"uuid": uuid}

    return app
