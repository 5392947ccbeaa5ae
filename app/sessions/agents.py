"""How the manager speaks to the agent in a workspace: where it is, and the few requests made of it.

What runs in a workspace is its user's, so nothing it says is trusted: its address must be one where a
workspace can be, every request ends by a deadline however slowly it is answered, answers are bounded in size,
and no redirect is followed.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import json
import math
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Timer
from typing import Any
from urllib.parse import urlsplit

from app.sessions.archive_store import Checkpoint
from app.sessions.byte_budget import Account, ByteBudget, NoRoom
from app.sessions.errors import AgentNotReady, AgentRefused, AgentUnavailable, InvalidRequest
from app.sessions.foreign_json import LARGE, SMALL, VALUE_BYTES, count_values, parse
from app.sessions.risk import read_risk
from app.sessions.secrets import SessionSecrets
from app.settings import Settings

ITS_FAULT = frozenset({400, 413, 415, 422})
"""The statuses by which an agent refuses a message for what it is. Any other error is the agent's own, and may pass."""

UNKNOWN = frozenset({404, 405})
"""The statuses by which an agent of an earlier release says that it has no such request."""

NAME_LENGTH = 128

SMALL_ANSWER = 65_536
"""Bytes of an answer that says little more than that something was done."""

CHAT_ANSWER = 1_048_576
"""Bytes of the answer to a prompt, which may be how it ended: what a model writes at once is half of it."""

PAGE_ANSWER = 9_437_184
"""Bytes of an answer with a page of a conversation: of one message, that is, of 8 MiB at most."""

WHOLE_ANSWER = 67_108_864
"""Bytes: an agent of an earlier release hands its conversation over whole."""

PIECE = 65_536
"""Bytes read at a time."""

PAGE_BYTES = 1_048_576
"""Of a page of a conversation; a longer message comes alone."""

RISK_TIMEOUT = 6.0
"""s to say what is at risk; an agent takes 4 at most, and a stop is not to wait for more."""


SHORTEST = 0.001
"""s a connection is given at least: no time at all would mean that it needn't come about at once."""


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Where a session's agent listens. `boot` is new with each of its processes; `at` when it called, `retry_at` when
    it may be tried again after it failed to answer (seconds since the epoch). `epoch` is that of the session's
    record."""

    uuid: str
    address: str
    name: str = ""
    boot: str = ""
    at: float = 0.0
    retry_at: float = 0.0
    epoch: int = 0

    @classmethod
    def at_address(cls, uuid: str, address: str, settings: Settings, name: str = "", boot: str = "") -> Agent:
        """An agent at the address it gave; raises `InvalidRequest` when no workspace can be there. Otherwise a
        workspace could have the manager make requests inside the cluster on its behalf."""
        try:
            url = urlsplit(address)
            given, port = ipaddress.ip_address(url.hostname or ""), url.port
        except ValueError as error:
            raise InvalidRequest("An agent's address is http://, an IP address, and a port.") from error
        host = getattr(given, "ipv4_mapped", None) or given
        bare = url.scheme == "http" and not (url.path.strip("/") or url.query or url.fragment or url.username)
        if settings.runtime == "local":
            possible = host.is_loopback and port is not None
        else:
            special = host.is_loopback or host.is_link_local or host.is_multicast or host.is_unspecified
            possible = not special and not host.is_global and port == settings.user_pod_port
        if not bare or not possible:
            raise InvalidRequest("No workspace's agent can be at that address.")
        return cls(uuid=uuid, address=f"http://{url.netloc}", name=name[:NAME_LENGTH], boot=boot[:NAME_LENGTH])

    @classmethod
    def from_hash(cls, uuid: str, hashed: Mapping[str, str], epoch: int = 0) -> Agent | None:
        """The agent in a Redis hash, None when that doesn't say where it is."""
        if "address" not in hashed:
            return None
        return cls(
            uuid=uuid,
            address=hashed["address"],
            name=hashed.get("name", ""),
            boot=hashed.get("boot", ""),
            at=float(hashed.get("at") or 0),
            retry_at=float(hashed.get("retry_at") or 0),
            epoch=epoch,
        )


@dataclass(frozen=True)
class History:
    """Messages of a conversation as the agent keeps them, and how many there are in all."""

    messages: Sequence[Mapping[str, Any]]
    total: int


class CheckpointLeft(AgentUnavailable):
    """The agent could not store its conversation in the time there was."""

    code = "checkpoint_left"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"The agent of session {uuid} could not store all of its conversation; its volume has it.")


class AgentClient:
    """Requests of agents, each ended `timeout` seconds after it began; how much an answer may have is each request's
    own, and all of it comes out of the process's `budget`. One that an agent doesn't let in is made again with what the
    epoch before, or an older key, says.

    Every method raises `AgentUnavailable`, `AgentRefused` where the agent says that the request itself is
    wrong, and `SettingsError` where no SECRET_KEY is set.
    """

    def __init__(self, secrets: SessionSecrets, timeout: float, budget: ByteBudget) -> None:
        self._secrets = secrets
        self._timeout = timeout
        self._budget = budget

    def chat(self, agent: Agent, message_id: str, text: str) -> Mapping[str, Any]:
        """Hand over a prompt; on return the agent has it on its disk. Answers what it said: `status` is
        `accepted`, or how an earlier delivery of the same prompt ended."""
        return self._request(agent, "POST", "/chat", {"id": message_id, "message": text}, most=CHAT_ANSWER)

    def cancel(self, agent: Agent, reason: str, generation: int = 0, seconds: float = math.inf) -> None:
        """End the turn that runs, and wait until it has. For a sleep or a delete it begins no other for a while,
        unless a stop of that `generation` was broken off before."""
        said = {"reason": reason} | ({"generation": generation} if generation else {})
        self._request(agent, "POST", "/cancel", said, timeout=seconds)

    def resume(self, agent: Agent, generation: int) -> None:
        """Have it begin turns again: the stop of `generation`, or one before it, was broken off. An agent of an
        earlier release knows no such request, and waits its time."""
        self._request(agent, "POST", "/resume", {"generation": generation}, unless=UNKNOWN)

    def notice(self, agent: Agent, seconds: float) -> None:
        """Have it announced in the editor that the workspace sleeps in so many seconds, unless it is used."""
        self._request(agent, "POST", "/notice", {"seconds": round(seconds, 1)})

    def lock_out(self, agent: Agent) -> None:
        """Have every connection to the workspace ended: those who still have a good pass come back."""
        self._request(agent, "POST", "/lockout", {})

    def risk(self, agent: Agent, seconds: float = math.inf) -> Mapping[str, Any]:
        """What a stop of the workspace would put at risk, as app/sessions/risk.py reads it; empty for nothing."""
        return read_risk(self._request(agent, "POST", "/risk", {}, timeout=min(RISK_TIMEOUT, seconds)))

    def checkpoint(self, agent: Agent, seconds: float = math.inf) -> Checkpoint | None:
        """Have the agent write its conversation to its disk, and hand over to the gateway what that has not: then
        None. An agent of an earlier release answers with all of it. Raises `CheckpointLeft` too."""
        seconds = min(self._timeout, seconds)
        wanted = {"push": True, "seconds": round(0.8 * seconds, 3)}
        said = self._request(agent, "POST", "/checkpoint", wanted, timeout=seconds, most=WHOLE_ANSWER, values=LARGE)
        if "saved" in said:
            if said["saved"] is not True:
                raise CheckpointLeft(agent.uuid)
            return None
        try:
            return Checkpoint.from_json(said)
        except InvalidRequest as error:
            raise AgentUnavailable("The agent's checkpoint is none.") from error

    def history(self, agent: Agent, after: int, limit: int) -> History:
        """The conversation from its message number `after` on: `limit` messages, or fewer if the agent gives fewer."""
        path = f"/history?after={after}&limit={limit}&bytes={PAGE_BYTES}"
        said = self._request(agent, "GET", path, most=PAGE_ANSWER, values=LARGE)
        messages, total = said.get("messages"), said.get("total")
        if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
            raise AgentUnavailable("The agent's history is none.")
        return History(messages, total if isinstance(total, int) else after + len(messages))

    def _request(
        self,
        agent: Agent,
        method: str,
        path: str,
        body: object = None,
        timeout: float = math.inf,
        unless: Collection[int] = (),
        most: int = SMALL_ANSWER,
        values: int = SMALL,
    ) -> Mapping[str, Any]:
        """What it says, in so many bytes and values; nothing where its status is one of `unless`."""
        status, content = 401, b""
        deadline = time.monotonic() + min(timeout, self._timeout)
        sent = None if body is None else json.dumps(body).encode()
        try:
            with self._budget.account() as account:
                for door in self._secrets.doors(agent.uuid, agent.epoch):
                    status, content = self._answer(agent, method, path, sent, door, deadline, most, account)
                    if status != 401:
                        break
                if status in unless:
                    return {}
                _check_status(agent, status)
                if len(content) > most:
                    raise AgentUnavailable(f"The agent of session {agent.uuid} answers with more than {most} bytes.")
                if (counted := count_values(content, values)) > values:
                    raise AgentUnavailable(f"The agent of session {agent.uuid} answers with more than {values} values.")
                account.take(VALUE_BYTES * counted)
                return _understood(agent, content, values)
        except NoRoom as error:
            raise AgentUnavailable(f"There is no room now for what the agent of session {agent.uuid} says.") from error

    def _answer(
        self,
        agent: Agent,
        method: str,
        path: str,
        body: bytes | None,
        door: str,
        deadline: float,
        most: int,
        account: Account,
    ) -> tuple[int, bytes]:
        url = urlsplit(agent.address)
        left = max(SHORTEST, deadline - time.monotonic())
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=left)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise _unreachable(agent, error) from error
        # The timeout of a socket is that of one read: an answer that trickles would never end.
        end = Timer(max(0.0, deadline - time.monotonic()), _cut, [connection.sock])
        end.daemon = True
        end.start()
        try:
            connection.request(method, path, body, _headers(door))
            response = connection.getresponse()
            return response.status, _read(response, most, account)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(agent, error) from error
        finally:
            end.cancel()
            connection.close()


def _read(response: http.client.HTTPResponse, most: int, account: Account) -> bytes:
    """The answer, or its beginning where it has more than `most` bytes."""
    content = io.BytesIO()
    while (left := most + 1 - content.tell()) and (piece := response.read(min(PIECE, left))):
        account.take(len(piece))
        content.write(piece)
    return content.getvalue()


def _check_status(agent: Agent, status: int) -> None:
    if status in ITS_FAULT:
        raise AgentRefused(f"The agent refused it with status {status}.")
    if status == 503:
        raise AgentNotReady(f"The agent of session {agent.uuid} is not ready.")
    if not 200 <= status < 300:
        raise AgentUnavailable(f"The agent of session {agent.uuid} answers with status {status}.")


def _understood(agent: Agent, content: bytes, values: int) -> Mapping[str, Any]:
    try:
        said = parse(content, values)
    except ValueError as error:
        raise AgentUnavailable(f"The agent of session {agent.uuid} answers with something else than JSON.") from error
    if not isinstance(said, dict):
        raise AgentUnavailable(f"The agent of session {agent.uuid} answers with something else than an object.")
    return said


def _unreachable(agent: Agent, error: Exception) -> AgentUnavailable:
    if isinstance(error, ConnectionError):
        return AgentNotReady(f"The agent of session {agent.uuid} takes no connection.")
    return AgentUnavailable(f"The agent of session {agent.uuid} does not answer.")


def _headers(door: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {door}",
        "Content-Type": "application/json",
        "Prefer": "respond-async",
        "Connection": "close",
    }


def _cut(connection: socket.socket) -> None:
    """Wake a thread that reads from this connection; closing alone would not. http.client forgets the socket of one
    that is closed after its answer, and reads on."""
    with suppress(OSError):  # it ended by itself
        connection.shutdown(socket.SHUT_RDWR)
