"""The dashboard, as a browser without a screen sees it."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask

from tests.unit.api.helpers import ADMIN_KEY

ORIGIN = "http://dashboard.localhost:8000"


class Visitor:
    """A browser at the dashboard: keeps cookies, and sends what the dashboard's own pages send."""

    def __init__(self, app: Flask) -> None:
        self.client: Any = app.test_client()
        self.csrf = ""

    def get(self, path: str, **options: Any) -> Any:
        answer = self.client.get(path, base_url=ORIGIN, **options)
        if found := re.search(r"X-CSRF-Token&#34;: &#34;|X-CSRF-Token\": \"([\w-]+)", answer.get_data(as_text=True)):
            self.csrf = found[1] or self.csrf
        return answer

    def post(self, path: str, data: dict[str, str] | None = None, *, origin: str = ORIGIN, **options: Any) -> Any:
        headers = {"Origin": origin, "X-CSRF-Token": self.csrf, **options.pop("headers", {})}
        return self.client.post(path, data=data or {}, base_url=ORIGIN, headers=headers, **options)

    def sign_in(self, key: str = ADMIN_KEY) -> Any:
        answer = self.post("/sign-in", {"key": key})
        self.get("/")
        return answer
