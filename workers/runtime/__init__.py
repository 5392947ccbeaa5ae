"""The runtimes, which run the workspaces; `load` returns the configured one."""

from __future__ import annotations

from app.core.redis.connections import connect
from app.process.settings import Settings, SettingsError
from workers.runtime.base import Runtime


def load(settings: Settings) -> Runtime:
    """The runtime of `settings.runtime`; imports only that one. Raises `SettingsError`."""
    if settings.runtime == "local":
        from workers.runtime.local.driver import LocalRuntime

        return LocalRuntime(settings, connect(settings.routes_url))
    if settings.runtime == "kubernetes":
        from workers.runtime.kubernetes.driver import KubernetesRuntime

        return KubernetesRuntime(settings, connect(settings.redis_url))
    raise SettingsError(f"RUNTIME is {settings.runtime!r}; it must be local or kubernetes.")
