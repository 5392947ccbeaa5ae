"""The service itself."""

from __future__ import annotations

from typing import Any

from workspaces.decoding import decode
from workspaces.http import TEXT
from workspaces.models import Diagnosis, Health, History, Keys, Metrics, Processes, Settings
from workspaces.resources.base import Resource, operation


class System(Resource):
    """Health and metrics of the service."""

    @operation("health")
    def health(self) -> Health:
        """The state of the service's parts; an unhealthy service is an answer too."""
        return decode(Health, self._http.json("GET", "/health", also=(503,)))

    @operation("metrics")
    def metrics(self) -> Metrics:
        """The service's figures."""
        return self._get(Metrics, "/metrics")

    @operation("metrics", TEXT)
    def metrics_text(self) -> str:
        """The figures in Prometheus' text format."""
        return self._http.text("GET", "/metrics", accept=TEXT)

    @operation("diagnose")
    def diagnose(self) -> Diagnosis:
        """What is wrong with the service, and what to do. As the next four for admin and read keys that are bound to no
        users."""
        return self._get(Diagnosis, "/diagnosis")

    @operation("listProcesses")
    def processes(self) -> Processes:
        """Each process of the service, and whether it is alive."""
        return self._get(Processes, "/processes")

    @operation("listSettings")
    def settings(self) -> Settings:
        """The settings as they are in force, without secrets."""
        return self._get(Settings, "/settings")

    @operation("listKeys")
    def keys(self) -> Keys:
        """The API keys by name and role, never a key itself."""
        return self._get(Keys, "/keys")

    @operation("overviewHistory")
    def history(self, *, hours: int | None = None) -> History:
        """The service over time: a sample a minute for up to 24 hours, one an hour for up to 720."""
        return self._get(History, "/overview/history", query={"hours": hours})

    @operation("live", TEXT)
    def live(self) -> bool:
        """Whether the API answers; raises `ConnectionFailed` if it can't be reached."""
        return self._http.whole("GET", "/livez", accept=TEXT, also=(503,)).is_success

    @operation("ready", TEXT)
    def ready(self) -> bool:
        """Whether the API can serve requests."""
        return self._http.whole("GET", "/readyz", accept=TEXT, also=(503,)).is_success

    @operation("openapi")
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of the service."""
        document: dict[str, Any] = self._http.json("GET", "/openapi.json")
        return document
