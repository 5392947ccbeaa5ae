"""Services of a workspace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from workspaces.events import SERVICE_TYPES, Event, StoppedEvent, typed
from workspaces.http import TEXT
from workspaces.models import Service, ServiceList
from workspaces.resources.base import Resource, given, operation, path
from workspaces.sse import STREAM, Stream, follow

Restart = Literal["never", "on_failure", "always"]
"""When a service that ended by itself is started again."""


class Services(Resource):
    """The calls on the services of a workspace: commands with a name that may run on, as a dev server. What is known of
    them is in the workspace, so a call wakes a session that sleeps; with `wake=False` it raises `Asleep` instead.
    `WakeLate` is raised if that takes too long: repeat the call then. `wait` is how long the answer may wait while a
    service starts or is to be started again (s, at most 60). All but `start` and `list` raise `ServiceNotFound`."""

    @operation("startService")
    def start(
        self,
        uuid: str,
        name: str,
        command: str,
        *,
        port: int | None = None,
        cwd: str | None = None,
        restart: Restart | None = None,
        autostart: bool | None = None,
        wake: bool | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> Service:
        """Define a service and start it, and wait until it runs: until it listens on its `port`, if it has one. `cwd`
        is relative to the workspace's folder. `restart` is by default `on_failure`; with `autostart` it is also started
        whenever its workspace is. One with the same definition that runs is left so; one with another definition is
        ended, and this takes its place. Raises `TooManyServices` for a new name."""
        more = given(cwd=cwd, port=port, restart=restart, autostart=autostart)
        return self._post(
            Service,
            path("session", uuid, "services"),
            query={"wake": wake},
            body={"name": name, "command": command, **more},
            wait=wait,
            idempotency_key=idempotency_key,
        )

    @operation("listServices")
    def list(self, uuid: str, *, wake: bool | None = None) -> ServiceList:
        """The services, also those that have ended, by name."""
        return self._get(ServiceList, path("session", uuid, "services"), query={"wake": wake})

    @operation("getService")
    def get(self, uuid: str, name: str, *, wait: float | None = None, wake: bool | None = None) -> Service:
        """A service, at once unless `wait` is given."""
        return self._get(Service, _path(uuid, name), query={"wake": wake}, wait=wait)

    @operation("restartService")
    def restart(
        self,
        uuid: str,
        name: str,
        *,
        wake: bool | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> Service:
        """End a service, if it runs, and start it again; waits as `start`."""
        return self._post(
            Service,
            path("session", uuid, "services", name, "restart"),
            query={"wake": wake},
            wait=wait,
            idempotency_key=idempotency_key,
        )

    @operation("stopService", "")
    def stop(self, uuid: str, name: str, *, wake: bool | None = None) -> None:
        """End a service, and forget it with its log."""
        self._http.text("DELETE", _path(uuid, name), query={"wake": wake})

    @operation("getServiceLog", TEXT)
    def log(self, uuid: str, name: str, *, tail: int | None = None, wake: bool | None = None) -> str:
        """What a service has written, as far as it is kept, or its last `tail` bytes. Bytes that are no UTF-8 are
        U+FFFD."""
        return self._http.text("GET", _log(uuid, name), query={"tail": tail, "wake": wake}, accept=TEXT)

    @operation("getServiceLog", STREAM)
    def follow(
        self,
        uuid: str,
        name: str,
        *,
        after: str | None = None,
        tail: int | None = None,
        wake: bool | None = None,
    ) -> Stream[Event]:
        """Follow a service: a `LogEvent` for what it writes as it comes, and last a `StoppedEvent` once it has ended
        and is not started again. Begins as `log`, or after the event with the id `after`. A connection that breaks is
        resumed where it broke; raises `Asleep` if the session was put to sleep meanwhile, which has ended it."""
        return Stream(self._follow(uuid, name, after, tail, wake))

    def _follow(self, uuid: str, name: str, after: str | None, tail: int | None, wake: bool | None) -> Iterator[Event]:
        """As `Execs.follow`: only its first look may wake the session."""
        if wake is not False:
            self.get(uuid, name, wake=wake)
        for raw in follow(self._http, _log(uuid, name), after, query={"tail": tail, "wake": False}):
            yield (event := typed(raw, SERVICE_TYPES))
            if isinstance(event, StoppedEvent):
                return


def _path(uuid: str, name: str) -> str:
    return path("session", uuid, "services", name)


def _log(uuid: str, name: str) -> str:
    return path("session", uuid, "services", name, "log")
