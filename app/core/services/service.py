"""The use cases of services of workspaces: start one, wait for it, restart it, follow its log, stop it.

A workspace keeps what it knows of its services on its volume, so each call needs it awake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from app.core.ahead import begun
from app.core.reach import Reach, WaitingAsk, Workspaces
from app.core.services.client import ServiceClient
from app.core.services.model import LogPiece, NewService, Service

LOG_KEPT = 4_194_304
"""Bytes that a workspace keeps of a log."""


class Services:
    """The services of all sessions. Every method raises as `Workspaces.ask`, and all but `start` and `known` raise
    `ServiceNotFound`."""

    def __init__(self, workspaces: Workspaces, client: ServiceClient) -> None:
        self._workspaces = workspaces
        self._client = client

    def start(self, uuid: str, wanted: NewService, reach: Reach, wait: float) -> tuple[Service, bool]:
        """Define a service and start it, and wait so long (s) until it is up; whether it is new. Raises
        `InvalidRequest`, `TooManyServices` and `FileRefused` too."""

        def further(found: tuple[Service, bool]) -> WaitingAsk[tuple[Service, bool]] | None:
            service, new = found
            look = self._until_it_is_up(service)
            return look and (lambda agent, left: (look(agent, left), new))

        return self._workspaces.awaited(
            uuid, reach, wait, lambda agent, left: self._client.start(agent, wanted, left), further
        )

    def show(self, uuid: str, name: str, reach: Reach, wait: float = 0.0) -> Service:
        """A service, once its state does not pass by itself or after so many seconds."""
        return self._awaited(uuid, reach, wait, lambda agent, left: self._client.show(agent, name, left))

    def restart(self, uuid: str, name: str, reach: Reach, wait: float) -> Service:
        """End a service and start it again, once at most; then as `show`."""
        restart = partial(self._client.restart, name=name)
        return self._awaited(uuid, reach, wait, lambda agent, left: restart(agent, wait=left), again=False)

    def known(self, uuid: str, reach: Reach) -> Sequence[Service]:
        """All services, by name."""
        return sorted(self._workspaces.ask(uuid, reach, self._client.known), key=lambda each: each.name)

    def stop(self, uuid: str, name: str, reach: Reach) -> None:
        """End a service, and forget it with its log."""
        self._workspaces.ask(uuid, reach, lambda agent: self._client.stop(agent, name), again=False)

    def log(self, uuid: str, name: str, tail: int | None, reach: Reach) -> Iterator[str]:
        """The log as it is now, or its last `tail` bytes, in pieces, of which the first is there."""
        return begun(self._texts(uuid, name, tail, reach))

    def follow(
        self, uuid: str, name: str, seen: int | None, tail: int | None, reach: Reach, seconds: float, quiet: float
    ) -> Iterator[LogPiece]:
        """The log after the position `seen`, or its last `tail` bytes, or all that is kept, as it comes, until the
        service has ended for good or for so long; after `quiet` seconds without any a piece without text. The session
        is not woken for the next piece."""
        at = _beginning(tail) if seen is None else f"offset={seen}"
        wait = min(quiet, self._client.longest_wait)
        return self._workspaces.follow(
            uuid,
            reach,
            seconds,
            partial(self._client.piece, name=name, at=at, wait=0.0),
            lambda piece: partial(self._client.piece, name=name, at=_after(piece), wait=wait),
        )

    def _texts(self, uuid: str, name: str, tail: int | None, reach: Reach) -> Iterator[str]:
        ask = partial(self._client.piece, name=name, wait=0.0)
        piece = self._workspaces.ask(uuid, reach, partial(ask, at=_beginning(tail)))
        yield piece.text
        size, left = piece.size, LOG_KEPT
        # What an agent says of the size is not trusted.
        while not piece.empty and piece.following < size and (left := left - len(piece.text)) > 0:
            piece = self._workspaces.ask(uuid, reach, partial(ask, at=_after(piece)))
            yield piece.text

    def _awaited(
        self, uuid: str, reach: Reach, wait: float, ask: WaitingAsk[Service], *, again: bool = True
    ) -> Service:
        return self._workspaces.awaited(uuid, reach, wait, ask, self._until_it_is_up, again=again)

    def _until_it_is_up(self, found: Service) -> WaitingAsk[Service] | None:
        """What waits while the service's state passes by itself; None if it does not."""
        return (lambda agent, left: self._client.show(agent, found.name, left)) if found.coming else None


def _beginning(tail: int | None) -> str:
    return "" if tail is None else f"tail={tail}"


def _after(piece: LogPiece) -> str:
    return f"offset={piece.following}"
