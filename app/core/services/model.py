"""Services of workspaces, as an agent tells of them: with the types of a true answer, and no more than that is known of
it, as the workspace's user controls the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.agent.protocol import COMING, SERVICE_NAME, ExecReason, Restart, ServiceState
from app.core.agents.answers import exit_code, known, matching, moment, port_number, signal_name, text, truth, whole

LOG_PIECE = 65_536
"""Characters of a log in one answer."""


@dataclass(frozen=True, kw_only=True)
class NewService:
    """What a caller asks for, as `POST /session/{uuid}/services` documents it. `port` is None for a service that
    listens nowhere."""

    name: str
    command: str
    cwd: str = "."
    port: int | None = None
    restart: Restart = Restart.ON_FAILURE
    autostart: bool = False


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service, and how its last run ended. Times are seconds since the epoch by the workspace's clock, 0 for none
    yet; `starts` counts the runs since a call or the workspace's start, `log_bytes` all that was written so far."""

    uuid: str
    name: str
    command: str
    cwd: str
    port: int | None
    restart: Restart
    autostart: bool
    state: ServiceState
    exit_code: int | None
    signal: str | None
    reason: ExecReason | None
    starts: int
    started_at: float
    ended_at: float
    log_bytes: int

    @property
    def coming(self) -> bool:
        """Whether its state passes by itself."""
        return self.state in COMING

    @property
    def over(self) -> bool:
        """Whether it has ended, and is not started again."""
        return self.state in (ServiceState.STOPPED, ServiceState.FAILED)


@dataclass(frozen=True)
class LogPiece:
    """The next of a service's log: its text, the position after that, and the bytes that were written so far."""

    about: Service
    text: str
    following: int
    size: int

    @property
    def empty(self) -> bool:
        return not self.text

    @property
    def more(self) -> bool:
        return not self.about.over or (not self.empty and self.following < self.size)


def service_of(uuid: str, told: Any) -> Service:
    """The service in an agent's answer. Raises ValueError for what is none."""
    if not isinstance(told, dict):
        raise ValueError("no object")
    return Service(
        uuid=uuid,
        name=matching(told.get("name"), SERVICE_NAME),
        command=text(told.get("command")),
        cwd=text(told.get("cwd")),
        port=known(told.get("port"), port_number),
        restart=Restart(text(told.get("restart"))),
        autostart=truth(told.get("autostart")),
        state=ServiceState(text(told.get("state"))),
        exit_code=known(told.get("exit_code"), exit_code),
        signal=known(told.get("signal"), signal_name),
        reason=known(told.get("reason"), ExecReason),
        starts=whole(told.get("starts")),
        started_at=known(told.get("started_at"), moment) or 0.0,
        ended_at=known(told.get("ended_at"), moment) or 0.0,
        log_bytes=whole(told.get("log_bytes")),
    )


def piece_of(uuid: str, told: Mapping[str, Any]) -> LogPiece:
    """The piece of a log in an agent's answer. Raises ValueError for what is none, or longer than one may be."""
    said = text(told.get("text"))
    if len(said) > LOG_PIECE:
        raise ValueError("no piece")
    return LogPiece(service_of(uuid, told.get("service")), said, whole(told.get("next")), whole(told.get("size")))
