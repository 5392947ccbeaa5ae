"""The pages forward auth shows to people. Each is one document that loads nothing, under a policy that allows nothing
else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from flask import Response
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from app.look.product import Product, mark

TEMPLATES = ("page.html", "waking.html", "again.html", "onward.html")


@cache
def _read(name: str) -> str:
    return files("app.api.pages").joinpath(name).read_text(encoding="utf-8")


@cache
def _templates() -> Environment:
    loader = DictLoader({name: _read(name) for name in TEMPLATES})
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _digest(text: str) -> str:
    """The source of an inline script or style in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class Pages:
    """The templates, read once, in the look of the product. `embedders` are the origins of the pages that may show them
    in a frame."""

    def __init__(self, product: Product | None = None, embedders: Sequence[str] = ()) -> None:
        product = product or Product()
        style, script = product.style() + _read("page.css"), _read("waking.js")
        self._values = {
            "product": product,
            "mark": Markup(mark()),
            "style": Markup(style),
            "script": Markup(script),
        }
        logo = "img-src data:; " if product.logo else ""
        self._policy = (
            f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; {logo}"
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
        hint: str = "",
        **values: Any,
    ) -> Response:
        """The template `name` with these values; `hint` is for the people who run the service. `by_any_page`: any other
        page may show it in a frame, so it has no link to be clicked on by mistake."""
        text = _templates().get_template(name).render(self._values, hint=hint, leads_back=not by_any_page, **values)
        response = Response(text, status, headers, mimetype="text/html")
        policy = self._policy if by_any_page else f"{self._policy}; frame-ancestors {self._embedders}"
        response.headers["Content-Security-Policy"] = policy
        # With "no-referrer" the button's POST would have the Origin null.
        response.headers["Referrer-Policy"] = "same-origin"
        return response
