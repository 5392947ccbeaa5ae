"""What runs the workspaces; `load` gives the one the settings name."""

from __future__ import annotations

from app.sessions.connections import connect
from app.settings import Settings, SettingsError
from workers.runtime.base import Runtime


def load(settings: Settings) -> Runtime:
    """The runtime of `settings.runtime`; only its own libraries are imported. Raises `SettingsError`."""
    if settings.runtime == "local":
        from workers.runtime.local import LocalRuntime

        return LocalRuntime(settings, connect(settings.routes_url, settings.redis_timeout))
    if settings.runtime == "kubernetes":
        from workers.runtime.kubernetes import KubernetesRuntime

        return KubernetesRuntime(settings, connect(settings.redis_url, settings.redis_timeout))
    raise SettingsError(f"RUNTIME is {settings.runtime!r}; it is one of: local, kubernetes.")
