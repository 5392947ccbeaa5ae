"""The API without the metrics of its requests, for scripts/bench/counting.py."""

from __future__ import annotations

from flask import Flask

from app import main
from app.api.instruments import INSTRUMENTS
from app.settings import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """The API's WSGI application, which counts no request."""
    app = main.create_app(settings)
    app.extensions[INSTRUMENTS].http.answered = lambda *_: None
    return app
