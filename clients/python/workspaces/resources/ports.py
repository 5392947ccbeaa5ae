"""Ports of a workspace."""

from __future__ import annotations

from datetime import datetime

from workspaces.models import PortList, PortOpening
from workspaces.resources.base import Resource, given, operation
from workspaces.resources.sessions import session_path


class Ports(Resource):
    """The calls on the ports of a workspace, at which its programs listen. A port that is opened is shown at an origin
    of its own. What listens is known in the workspace, so `list` and `open` wake a session that sleeps; with
    `wake=False` they raise `Asleep` instead. `WakeLate` is raised if that takes too long: repeat the call then."""

    @operation("listPorts")
    def list(self, uuid: str, *, wake: bool | None = None) -> PortList:
        """The ports where something listens, those of services, and the opened ones, by number."""
        return self._get(PortList, f"{session_path(uuid)}/ports", query={"wake": wake})

    @operation("openPort")
    def open(
        self,
        uuid: str,
        port: int,
        *,
        public_until: datetime | None = None,
        path: str | None = None,
        wake: bool | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> PortOpening:
        """Open a port, and wait while its service starts, `wait` seconds at most (60 or less). Its `url` leads to
        `path` there: by a login link, which works once, within seconds; or with `public_until` for anybody until then.
        A port that was public is private again without it. One where nothing listens, of which `state` tells, is opened
        too. The private port that was opened longest ago makes room; raises `TooManyPorts` if all are public."""
        seconds = None if public_until is None else int(public_until.timestamp())
        return self._post(
            PortOpening,
            f"{_path(uuid, port)}/open",
            query={"wake": wake},
            body=given(public_until=seconds, path=path),
            wait=wait,
            idempotency_key=idempotency_key,
        )

    @operation("closePort", "")
    def close(self, uuid: str, port: int) -> None:
        """Close a port: nobody sees it any more. It wakes nothing, and what listens there goes on."""
        self._http.text("DELETE", _path(uuid, port))


def _path(uuid: str, port: int) -> str:
    return f"{session_path(uuid)}/ports/{port:d}"
