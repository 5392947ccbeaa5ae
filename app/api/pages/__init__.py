"""The pages forward auth shows to people. Each is one document that loads nothing, under a policy that allows nothing
else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from flask import Response
from jinja2 import DictLoader, Environment, StrictUndefined


def _read(name: str) -> str:
    return files("app.api.pages").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The source of an inline script or style in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Pages:
    """The templates, read once. `embedders` are the origins of the pages that may show them in a frame."""

    def __init__(self, embedders: Sequence[str] = ()) -> None:
        self._style, self._script = _read("page.css"), _read("waking.js")
        loader = DictLoader({name: _read(name) for name in ("page.html", "waking.html", "again.html", "onward.html")})
        self._templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
        self._policy = (
            f"default-src 'none'; style-src {_digest(self._style)}; script-src {_digest(self._script)}; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'"
        )
        self._embedders = " ".join(embedders) or "'none'"

    def show(
        self,
        name: str,
        status: int,
        headers: Mapping[str, str] | None = None,
        *,
        by_any_page: bool = False,
        **values: Any,
    ) -> Response:
        """The template `name` with these values; `by_any_page`: any other page may show it in a frame."""
        text = self._templates.get_template(name).render(style=self._style, script=self._script, **values)
        response = Response(text, status, headers, mimetype="text/html")
        policy = self._policy if by_any_page else f"{self._policy}; frame-ancestors {self._embedders}"
        response.headers["Content-Security-Policy"] = policy
        # With "no-referrer" the button's POST would have the Origin null.
        response.headers["Referrer-Policy"] = "same-origin"
        return response
