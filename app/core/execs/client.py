"""Requests to agents about commands."""

from __future__ import annotations

import math
from collections.abc import Mapping

from app.agent.protocol import EXEC_ID, NO_TERMINAL, Window
from app.core.access.agent_credentials import AgentCredentials
from app.core.agents.agent import Agent
from app.core.agents.answers import checked, invalid, whole
from app.core.agents.requests import AgentRequests, Refusals
from app.core.byte_budget import ByteBudget
from app.core.errors import ExecIdReused, ExecNotFound, InputMoved, InvalidRequest, NoTerminal
from app.core.execs.model import Exec, NewExec, Piece, exec_of, piece_of
from app.core.limit_errors import Owner, TooManyExecs
from app.core.untrusted_json import LARGE

ABOUT = "commands"

EXEC_RESPONSE = 2_097_152
"""Bytes of an answer with a command's output: 64 KiB of each stream, of which JSON may write six for one, a long
command, and what stands beside them."""

LIST_RESPONSE = 2_097_152
"""Bytes of all that are known: a hundred, of which each has 2,000 characters of its command at most."""

READ_MOST = 1_048_576
"""Bytes of output that an agent answers at once."""


class ExecClient(AgentRequests):
    """Requests about commands, of which an agent runs `at_once` at a time. Every method raises as all `AgentRequests`,
    and `ExecNotFound` for an unknown id."""

    def __init__(self, secrets: AgentCredentials, timeout: float, budget: ByteBudget, at_once: int) -> None:
        super().__init__(secrets, timeout, budget)
        self._at_once = at_once

    def begin(self, agent: Agent, wanted: NewExec, wait: float) -> Exec:
        """Run a command, and wait for its end. The same id again answers the same command. Raises `InvalidRequest`,
        `ExecIdReused` and `TooManyExecs`."""
        body = {name: value for name, value in vars(wanted).items() if value is not None}
        refusals: Refusals = {
            400: lambda said: InvalidRequest(f"The workspace's agent refused the command: {said}"),
            422: lambda _: ExecIdReused(wanted.id),
            429: lambda _: TooManyExecs(Owner.SESSION, agent.uuid, most=self._at_once),
        }
        return self._exec(agent, "POST", "/execs", {**body, "wait": self.bounded(wait)}, refusals)

    def show(self, agent: Agent, id_: str, wait: float) -> Exec:
        """A command with its output, once it has ended or after so many seconds."""
        path = f"{_path(id_)}?wait={math.floor(self.bounded(wait))}"
        return self._exec(agent, "GET", path, None, _unknown(id_))

    def piece(self, agent: Agent, id_: str, seen: Mapping[str, int], wait: float) -> Piece:
        """The output after so many bytes of each stream, once there is some, or the command has ended."""
        offsets = "&".join(f"{name}={offset}" for name, offset in seen.items())
        path = f"{_path(id_)}?wait={math.floor(self.bounded(wait))}&{offsets}"
        said = self.json(agent, "GET", path, refusals=_unknown(id_), most=EXEC_RESPONSE, values=LARGE)
        return checked(agent, ABOUT, lambda: piece_of(agent.uuid, said))

    def known(self, agent: Agent) -> list[Exec]:
        """All commands that the workspace knows, newest first, without output; of long ones the beginning."""
        said = self.json(agent, "GET", "/execs", most=LIST_RESPONSE, values=LARGE)
        listed = said.get("execs")
        if not isinstance(listed, list):
            raise invalid(agent, ABOUT)
        return checked(agent, ABOUT, lambda: [exec_of(agent.uuid, each) for each in listed])

    def read(self, agent: Agent, id_: str, stream: str, offset: int, most: int) -> bytes:
        """Bytes of a stream; fewer where it ends."""
        path = f"{_path(id_)}/{stream}?offset={offset}&bytes={min(most, READ_MOST)}"
        return self.content(agent, path, refusals=_unknown(id_), most=READ_MOST)

    def kill(self, agent: Agent, id_: str, signal: str | None, wait: float) -> Exec:
        """Send a command a signal, or have it end; then as `show`."""
        body = {"wait": self.bounded(wait)} | ({"signal": signal} if signal else {})
        return self._exec(agent, "POST", f"{_path(id_)}/kill", body, _unknown(id_))

    def type_in(self, agent: Agent, id_: str, at: int, data: bytes) -> int:
        """Type data into a command's terminal after `at` bytes of input; returns how many bytes came by then, which
        are fewer where there is no more room. The last piece again types nothing. Raises `InputMoved`, `NoTerminal`."""
        refusals: Refusals = {409: lambda _: InputMoved(id_), **_without_terminal(id_)}
        said = self.json(agent, "PUT", f"{_path(id_)}/input?at={at}", data, refusals=refusals)
        return checked(agent, ABOUT, lambda: whole(said.get("input_bytes"), at, at + len(data)))

    def resize(self, agent: Agent, id_: str, window: Window) -> None:
        """Give a command's terminal another size. Raises `NoTerminal`."""
        self.json(agent, "PUT", f"{_path(id_)}/window", vars(window), refusals=_without_terminal(id_))

    def _exec(self, agent: Agent, method: str, path: str, body: object, refusals: Refusals) -> Exec:
        said = self.json(agent, method, path, body, refusals=refusals, most=EXEC_RESPONSE, values=LARGE)
        return checked(agent, ABOUT, lambda: exec_of(agent.uuid, said))


def _path(id_: str) -> str:
    """Where the agent has the command. Raises `ExecNotFound` for an id that none has: it comes from a caller's path."""
    if not EXEC_ID.fullmatch(id_):
        raise ExecNotFound(id_)
    return f"/execs/{id_}"


def _without_terminal(id_: str) -> Refusals:
    return {NO_TERMINAL: lambda _: NoTerminal(id_), **_unknown(id_)}


def _unknown(id_: str) -> Refusals:
    return {404: lambda _: ExecNotFound(id_)}
