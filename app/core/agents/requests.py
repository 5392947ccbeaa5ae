"""Requests to the agent in a workspace.

The workspace's user controls the agent, so nothing it returns is trusted: its address must be one a workspace can have,
each request ends by a deadline however slowly the response trickles, no more than so many bytes of a response are read,
and no redirect is followed.
"""

from __future__ import annotations

import http.client
import io
import json
import math
import socket
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, suppress
from threading import Timer
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from app.core.access.agent_credentials import AgentCredentials
from app.core.agents.agent import Agent
from app.core.byte_budget import Account, ByteBudget
from app.core.errors import AgentNotReady, AgentRefused, AgentUnavailable, SessionError
from app.core.limit_errors import NoRoom
from app.core.untrusted_json import SMALL, VALUE_BYTES, count_values, parse, without_lone_surrogates
from app.process import tracing

REFUSAL_STATUSES = frozenset({400, 413, 415, 422})
"""The statuses by which an agent rejects the request itself. Any other error is the agent's own and may pass."""

SMALL_RESPONSE = 65_536
"""Bytes of a response that only confirms something."""

FRAMING = 16_384
"""Bytes of a response besides its content: status line, headers, sizes of chunks. An agent sends 200. The parser of
headers takes up to 0.5 s for so many, and minutes for the megabytes that http.client accepts."""

NO_RESPONSE = (OSError, http.client.HTTPException, ValueError, OverflowError, RecursionError)
"""What http.client raises, by what it is sent: an OverflowError for the size of a chunk, for one."""

PIECE = 65_536
"""Bytes read at a time."""

AGENT_TIMEOUT = 10.0
"""s for any request to an agent. None of them waits for a model."""

MARGIN = 2.0
"""s that an agent may take for its answer, beside what it is asked to wait."""

MIN_TIMEOUT = 0.001
"""s: a timeout of 0 would make the socket non-blocking."""

DETAIL_LENGTH = 500
"""Characters of an agent's own words in an error."""

Refusals = Mapping[int, Callable[[str], SessionError]]
"""What an agent's refusals mean, by their status: made of its own words, which are a stranger's."""


class AgentRequests:
    """Requests to agents, each ended after `timeout` seconds. The process's `budget` bounds the bytes of all responses.
    A request that an agent rejects with 401 is repeated with the secrets of the epoch before and of older keys.

    Every method raises `AgentUnavailable`, `AgentRefused` where the agent rejects the request itself, and
    `SettingsError` where no SECRET_KEY is set.
    """

    def __init__(self, secrets: AgentCredentials, timeout: float, budget: ByteBudget) -> None:
        self._secrets = secrets
        self._timeout = timeout
        self._budget = budget

    @property
    def longest_wait(self) -> float:
        """s that one request can wait at the agent."""
        return max(0.0, self._timeout - MARGIN)

    def bounded(self, wait: float) -> float:
        """So many seconds, or as many as one request can wait."""
        return round(max(0.0, min(wait, self.longest_wait)), 3)

    def json(
        self,
        agent: Agent,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout: float = math.inf,
        ignored: Collection[int] = (),
        busy: Collection[int] = (),
        refusals: Refusals = MappingProxyType({}),
        most: int = SMALL_RESPONSE,
        values: int = SMALL,
    ) -> Mapping[str, Any]:
        """The JSON object in the response, of at most so many bytes and values; empty for a status in `ignored`. A body
        is sent as JSON, but for bytes, which are sent as they are. Raises `AgentNotReady` for a status in `busy`, and
        what `refusals` make of one of theirs."""
        try:
            with self._budget.account() as account:
                status, content = self._answer(agent, method, path, body, timeout, most, account)
                if status in ignored:
                    return {}
                if status in busy:
                    raise AgentNotReady(f"The agent of session {agent.uuid} is busy.")
                if status in refusals:
                    raise refusals[status](_detail(content))
                _check_status(agent, status)
                _check_size(agent, content, most)
                if (counted := count_values(content, values)) > values:
                    raise AgentUnavailable(
                        f"The agent of session {agent.uuid} returned more than {values} JSON values."
                    )
                account.take(VALUE_BYTES * counted)
                return _parsed(agent, content, values)
        except NoRoom as error:
            raise _not_read(agent, error) from error

    def content(
        self, agent: Agent, path: str, *, refusals: Refusals = MappingProxyType({}), most: int = SMALL_RESPONSE
    ) -> bytes:
        """The bytes of the response, at most so many; `refusals` as for `json`."""
        try:
            with self._budget.account() as account:
                status, content = self._answer(agent, "GET", path, None, math.inf, most, account)
                if status in refusals:
                    raise refusals[status](_detail(content))
                _check_status(agent, status)
                _check_size(agent, content, most)
                return content
        except NoRoom as error:
            raise _not_read(agent, error) from error

    def _answer(
        self, agent: Agent, method: str, path: str, body: object, timeout: float, most: int, account: Account
    ) -> tuple[int, bytes]:
        status, content = 401, b""
        deadline = time.monotonic() + min(timeout, self._timeout)
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        known = self._secrets.agent_secrets(agent.uuid, agent.epoch)
        # The first once more: the agent may have read its new file between the two requests.
        for agent_secret in (*known, known[0]):
            status, content = self._exchange(agent, method, path, sent, agent_secret, deadline, most, account)
            if status != 401:
                break
        return status, content

    def _exchange(
        self,
        agent: Agent,
        method: str,
        path: str,
        body: bytes | None,
        agent_secret: str,
        deadline: float,
        most: int,
        account: Account,
    ) -> tuple[int, bytes]:
        """The status, and the content as `_read` returns it. Raises `AgentUnavailable` and `NoRoom`."""
        try:
            url = urlsplit(agent.address)
            left = max(MIN_TIMEOUT, deadline - time.monotonic())
            with closing(http.client.HTTPConnection(url.hostname or "", url.port, timeout=left)) as connection:
                connection.connect()
                # A socket's timeout applies to each read: a response that trickles would never end.
                end = Timer(max(0.0, deadline - time.monotonic()), _shut_down, [connection.sock])
                end.daemon = True
                end.start()
                try:
                    connection.request(method, path, body, _headers(agent_secret))
                    return _read(connection.sock, method, most, account)
                finally:
                    end.cancel()
        except NO_RESPONSE as error:
            raise _unreachable(agent, error) from error


class _Received(io.RawIOBase):
    """What an agent sends on a connection: raises `HTTPException` after `FRAMING` bytes and those allowed since.
    http.client itself accepts endless headers and trailers, and reads a chunk of the size -1 to the connection's end.
    """

    def __init__(self, source: io.RawIOBase, account: Account) -> None:
        self._source = source
        self._account = account
        self._left = FRAMING

    def allow(self, count: int) -> None:
        self._left += count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._source.readinto(buffer) or 0
        self._left -= count
        if self._left < 0:
            raise http.client.HTTPException("The response has too many bytes.")
        self._account.take(count)
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


def _read(connection: socket.socket, method: str, most: int, account: Account) -> tuple[int, bytes]:
    """The status and the content of the response, or its beginning where it has more than `most` bytes."""
    with http.client.HTTPResponse(connection, method=method) as response:
        received = _Received(response.fp.detach(), account)
        response.fp = io.BufferedReader(received)
        response.begin()
        received.allow(most)
        content = io.BytesIO()
        # Not `read`, which holds all of a chunk with a negative size at once.
        while (left := most + 1 - content.tell()) > 0 and (piece := response.read1(min(PIECE, left))):
            content.write(piece)
        return response.status, content.getvalue()


def _check_status(agent: Agent, status: int) -> None:
    if status in REFUSAL_STATUSES:
        raise AgentRefused(f"The agent of session {agent.uuid} rejected the request with status {status}.")
    if status == 503:
        raise AgentNotReady(f"The agent of session {agent.uuid} is not ready.")
    if not 200 <= status < 300:
        raise AgentUnavailable(f"The agent of session {agent.uuid} returned status {status}.")


def _check_size(agent: Agent, content: bytes, most: int) -> None:
    if len(content) > most:
        raise AgentUnavailable(f"The agent of session {agent.uuid} returned more than {most} bytes.")


def _not_read(agent: Agent, error: NoRoom) -> AgentUnavailable:
    return AgentUnavailable(f"The response of the agent of session {agent.uuid} was not read. {error}")


def _detail(content: bytes) -> str:
    """What a problem document says, in one line."""
    try:
        said = without_lone_surrogates(parse(content, SMALL))
    except ValueError:
        return ""
    detail = said.get("detail") if isinstance(said, dict) else None
    return "".join(each for each in str(detail or "")[:DETAIL_LENGTH] if each.isprintable())


def _parsed(agent: Agent, content: bytes, values: int) -> Mapping[str, Any]:
    try:
        said = without_lone_surrogates(parse(content, values))
    except ValueError as error:
        raise AgentUnavailable(f"The agent of session {agent.uuid} returned invalid JSON.") from error
    if not isinstance(said, dict):
        raise AgentUnavailable(f"The agent of session {agent.uuid} returned JSON that is not an object.")
    return said


def _unreachable(agent: Agent, error: Exception) -> AgentUnavailable:
    if isinstance(error, ConnectionError):
        return AgentNotReady(f"The agent of session {agent.uuid} refuses connections.")
    if isinstance(error, OSError):
        return AgentUnavailable(f"The agent of session {agent.uuid} did not answer in time.")
    return AgentUnavailable(f"The agent of session {agent.uuid} sent no valid response ({type(error).__name__}).")


def _headers(agent_secret: str) -> dict[str, str]:
    parent = tracing.traceparent()
    return {
        **({tracing.HEADER: parent} if parent else {}),
        "Authorization": f"Bearer {agent_secret}",
        "Content-Type": "application/json",
        "Prefer": "respond-async",
        "Connection": "close",
    }


def _shut_down(connection: socket.socket) -> None:
    """Wake the thread that reads from this connection, which closing it would not."""
    with suppress(OSError):  # already closed
        connection.shutdown(socket.SHUT_RDWR)
