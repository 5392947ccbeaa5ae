"""The manager's client of the agent in a workspace.

The workspace's user controls the agent, so nothing it returns is trusted: its address must be one a workspace can have,
each request ends by a deadline however slowly the response trickles, no more than so many bytes of a response are read,
and no redirect is followed.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import json
import math
import re
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Timer
from typing import Any
from urllib.parse import urlsplit

from app.agent.protocol import AGENT_PORT
from app.core.access.agent_credentials import AgentCredentials
from app.core.access.revocation import DisconnectOrder
from app.core.byte_budget import Account, ByteBudget
from app.core.errors import AgentNotReady, AgentRefused, AgentUnavailable, InvalidRequest
from app.core.limit_errors import NoRoom
from app.core.sessions.unsaved_work import read_unsaved_work
from app.core.untrusted_json import LARGE, SMALL, VALUE_BYTES, count_values, parse, without_lone_surrogates
from app.process import tracing
from app.process.settings import Settings

REFUSAL_STATUSES = frozenset({400, 413, 415, 422})
"""The statuses by which an agent rejects the request itself. Any other error is the agent's own and may pass."""

NOTHING_NOTED = frozenset({404})
"""The status by which an agent says that it noted nothing before a prompt."""

NAME_LENGTH = 128

SMALL_RESPONSE = 65_536
"""Bytes of a response that only confirms something."""

CHAT_RESPONSE = 1_048_576
"""Bytes of the response to a prompt, which may hold its result: a model's longest text is half of that."""

PAGE_RESPONSE = 9_437_184
"""Bytes of a page of a conversation: one message may have 8 MiB."""

FRAMING = 16_384
"""Bytes of a response besides its content: status line, headers, sizes of chunks. An agent sends 200. The parser of
headers takes up to 0.5 s for so many, and minutes for the megabytes that http.client accepts."""

NO_RESPONSE = (OSError, http.client.HTTPException, ValueError, OverflowError, RecursionError)
"""What http.client raises, by what it is sent: an OverflowError for the size of a chunk, for one."""

PIECE = 65_536
"""Bytes read at a time."""

PAGE_BYTES = 1_048_576
"""Bytes asked for in a page of a conversation; a longer message comes alone."""

FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")
"""The form of a fingerprint: the record holds it."""

AGENT_TIMEOUT = 10.0
"""s for any request to an agent. None of them waits for a model."""

UNSAVED_WORK_TIMEOUT = 6.0
"""s to report unsaved work; an agent takes 4 at most, and a stop must not wait longer."""

MIN_TIMEOUT = 0.001
"""s: a timeout of 0 would make the socket non-blocking."""


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Where a session's agent listens. `boot` is new with each of its processes. `at` is when it registered, `retry_at`
    when it may be tried again after a failure (seconds since the epoch). `epoch` is that of the session's record."""

    uuid: str
    address: str
    name: str = ""
    boot: str = ""
    at: float = 0.0
    retry_at: float = 0.0
    epoch: int = 0

    @classmethod
    def at_address(cls, uuid: str, address: str, settings: Settings, name: str = "", boot: str = "") -> Agent:
        """An agent at the address it reported. Raises `InvalidRequest` for an address that no workspace can have:
        otherwise a workspace could make the manager send requests inside the cluster on its behalf."""
        try:
            url = urlsplit(address)
            given, port = ipaddress.ip_address(url.hostname or ""), url.port
        except ValueError as error:
            raise InvalidRequest("An agent's address must be http://, an IP address, and a port.") from error
        host = getattr(given, "ipv4_mapped", None) or given
        more = url.path.strip("/") or url.query or url.fragment or "@" in url.netloc or getattr(given, "scope_id", None)
        if settings.runtime == "local":
            place, possible = "a loopback IP address, and a port", host.is_loopback and port is not None
        else:
            special = host.is_loopback or host.is_link_local or host.is_multicast or host.is_unspecified
            place = f"a pod's IP address, and the port {AGENT_PORT}"
            possible = not special and not host.is_global and port == AGENT_PORT
        if url.scheme != "http" or more or not possible:
            raise InvalidRequest(f"An agent's address must be http://, {place}, and nothing more.")
        literal = f"[{given}]" if given.version == 6 else str(given)
        return cls(uuid=uuid, address=f"http://{literal}:{port}", name=name[:NAME_LENGTH], boot=boot[:NAME_LENGTH])

    @classmethod
    def from_hash(cls, uuid: str, hashed: Mapping[str, str], epoch: int = 0) -> Agent | None:
        """The agent in a Redis hash, None when that has no address."""
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
    """Messages of a conversation as the agent keeps them, and their number in all."""

    messages: Sequence[Mapping[str, Any]]
    total: int


@dataclass(frozen=True)
class FoundCheckpoint:
    """What an agent noted before a prompt, `restored` if that was restored before."""

    restored: bool


@dataclass(frozen=True)
class RestoredCheckpoint:
    """What an agent restored: so many files were written or removed, and these prompts are in the conversation no
    more."""

    files: int
    messages_cut: Sequence[str]


class CheckpointIncomplete(AgentUnavailable):
    """The agent could not store its conversation in time."""

    code = "checkpoint_left"

    def __init__(self, uuid: str) -> None:
        super().__init__(
            f"The agent of session {uuid} could not store all of its conversation in time; its volume has it."
        )


class AgentClient:
    """Requests to agents, each ended after `timeout` seconds. The process's `budget` bounds the bytes of all responses.
    A request that an agent rejects with 401 is repeated with the secrets of the epoch before and of older keys.

    Every method raises `AgentUnavailable`, `AgentRefused` where the agent rejects the request itself, and
    `SettingsError` where no SECRET_KEY is set.
    """

    def __init__(self, secrets: AgentCredentials, timeout: float, budget: ByteBudget) -> None:
        self._secrets = secrets
        self._timeout = timeout
        self._budget = budget

    def chat(self, agent: Agent, message_id: str, text: str) -> Mapping[str, Any]:
        """Hand over a prompt; on return the agent has it on its disk. In the response `status` is `accepted`, or the
        result of an earlier delivery of the same prompt."""
        return self._request(agent, "POST", "/chat", {"id": message_id, "message": text}, most=CHAT_RESPONSE)

    def cancel(self, agent: Agent, reason: str, generation: int = 0, seconds: float = math.inf) -> None:
        """Cancel the running turn, and wait until it has ended. For a sleep or a delete the agent begins no other turn
        for a while, unless the stop of that `generation` was broken off before."""
        said = {"reason": reason} | ({"generation": generation} if generation else {})
        self._request(agent, "POST", "/cancel", said, timeout=seconds)

    def resume(self, agent: Agent, generation: int) -> None:
        """Let the agent begin turns again: the stop of `generation`, or an earlier one, was broken off."""
        self._request(agent, "POST", "/resume", {"generation": generation})

    def notice(self, agent: Agent, seconds: float) -> None:
        """Announce in the editor that the workspace sleeps in so many seconds unless it is used."""
        self._request(agent, "POST", "/notice", {"seconds": round(seconds, 1)})

    def tell_files(self, agent: Agent, files_of: float) -> None:
        """Tell in the editor that the files are those of this time (seconds since the epoch): their volume was lost."""
        self._request(agent, "POST", "/notice", {"files_of": round(files_of)})

    def disconnect(self, agent: Agent, access_epoch: int, seconds: float = math.inf) -> None:
        """End the connections to the workspace made before this access epoch, and all event streams; who still has
        access reconnects. Raises `AgentUnavailable` too where the editor itself does not confirm it in time."""
        order = DisconnectOrder(self._secrets.disconnect_secrets(agent.uuid), access_epoch)
        said = self._request(agent, "POST", "/disconnect", {"order": str(order)}, timeout=seconds)
        if not order.confirmed_by(said.get("confirmation")):
            raise AgentUnavailable(f"The editor of session {agent.uuid} did not confirm that it ended connections.")

    def unsaved_work(self, agent: Agent, seconds: float = math.inf) -> Mapping[str, Any]:
        """The unsaved work a stop would put at risk, as app/core/sessions/unsaved_work.py reads it; empty for none."""
        return read_unsaved_work(
            self._request(agent, "POST", "/unsaved-work", {}, timeout=min(UNSAVED_WORK_TIMEOUT, seconds))
        )

    def fingerprint(self, agent: Agent, seconds: float = math.inf) -> str:
        """A text that changes with the workspace's files, "" when the agent did not see all of them in time."""
        limit = min(UNSAVED_WORK_TIMEOUT, seconds)
        wanted = {"seconds": round(0.8 * limit, 3)}
        said = self._request(agent, "POST", "/fingerprint", wanted, timeout=limit)
        text = said.get("fingerprint")
        return text if isinstance(text, str) and FINGERPRINT.fullmatch(text) else ""

    def checkpoint(self, agent: Agent, seconds: float = math.inf) -> None:
        """Have the agent write its conversation to its disk and send the gateway what the history store lacks. Raises
        `CheckpointIncomplete` too."""
        seconds = min(self._timeout, seconds)
        wanted = {"seconds": round(0.8 * seconds, 3)}
        if self._request(agent, "POST", "/checkpoint", wanted, timeout=seconds).get("saved") is not True:
            raise CheckpointIncomplete(agent.uuid)

    def find_checkpoint(self, agent: Agent, message_id: str) -> FoundCheckpoint | None:
        """What the agent can restore of before this prompt; None if it noted nothing."""
        said = self._request(agent, "GET", f"/checkpoints/{message_id}", ignored=NOTHING_NOTED)
        return FoundCheckpoint(said.get("restored") is True) if said else None

    def restore_checkpoint(self, agent: Agent, message_id: str) -> RestoredCheckpoint | None:
        """Have the agent restore files and conversation as they were before this prompt began; None if it did not note
        that. Raises `AgentNotReady` while a turn runs."""
        path = f"/checkpoints/{message_id}/restore"
        said = self._request(agent, "POST", path, {}, ignored=NOTHING_NOTED, busy=(409,), values=LARGE)
        if not said:
            return None
        files, cut = said.get("files"), said.get("messages_cut")
        if not isinstance(files, int) or not isinstance(cut, list) or not all(isinstance(each, str) for each in cut):
            raise AgentUnavailable(f"The agent of session {agent.uuid} did not say what it restored.")
        return RestoredCheckpoint(files, cut)

    def history(self, agent: Agent, after: int, limit: int) -> History:
        """The conversation from message number `after` on: at most `limit` messages."""
        path = f"/history?after={after}&limit={limit}&bytes={PAGE_BYTES}"
        said = self._request(agent, "GET", path, most=PAGE_RESPONSE, values=LARGE)
        messages, total = said.get("messages"), said.get("total")
        if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
            raise AgentUnavailable(f"The agent of session {agent.uuid} returned an invalid history.")
        return History(messages, total if isinstance(total, int) else after + len(messages))

    def _request(
        self,
        agent: Agent,
        method: str,
        path: str,
        body: object = None,
        timeout: float = math.inf,
        ignored: Collection[int] = (),
        busy: Collection[int] = (),
        most: int = SMALL_RESPONSE,
        values: int = SMALL,
    ) -> Mapping[str, Any]:
        """The JSON object in the response, of at most so many bytes and values; empty for a status in `ignored`."""
        status, content = 401, b""
        deadline = time.monotonic() + min(timeout, self._timeout)
        sent = None if body is None else json.dumps(body).encode()
        try:
            with self._budget.account() as account:
                known = self._secrets.agent_secrets(agent.uuid, agent.epoch)
                # The first once more: the agent may have read its new file between the two requests.
                for agent_secret in (*known, known[0]):
                    status, content = self._exchange(agent, method, path, sent, agent_secret, deadline, most, account)
                    if status != 401:
                        break
                if status in ignored:
                    return {}
                if status in busy:
                    raise AgentNotReady(f"The agent of session {agent.uuid} is busy.")
                _check_status(agent, status)
                if len(content) > most:
                    raise AgentUnavailable(f"The agent of session {agent.uuid} returned more than {most} bytes.")
                if (counted := count_values(content, values)) > values:
                    raise AgentUnavailable(
                        f"The agent of session {agent.uuid} returned more than {values} JSON values."
                    )
                account.take(VALUE_BYTES * counted)
                return _parsed(agent, content, values)
        except NoRoom as error:
            text = f"The response of the agent of session {agent.uuid} was not read. {error}"
            raise AgentUnavailable(text) from error

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
