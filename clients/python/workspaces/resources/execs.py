"""Commands in a workspace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from workspaces.decoding import decode
from workspaces.errors import ConnectionFailed, WaitTimedOut
from workspaces.events import EXEC_TYPES, Event, ExitEvent, typed
from workspaces.kept_bytes import OCTETS, read_bytes
from workspaces.models import Exec, ExecInput, ExecList, Window
from workspaces.resources.base import MOST_WAIT, Resource, given, new_id, operation, path
from workspaces.sse import SILENCE, STREAM, Raw, Stream, follow, read

Command = str | list[str]
"""A text for the shell, or a program and its arguments."""

PAUSE = 0.5
"""s between two calls of a wait: a service may be set up to wait for nothing."""


class Execs(Resource):
    """The calls on commands. Each command has an `id`: the same id and command again are the same run. It is generated
    if left out. What is known of a command is in its workspace, so a call wakes a session that sleeps; with
    `wake=False` it raises `Asleep` instead. `WakeLate` is raised if that takes too long: repeat the call then. `wait`
    is how long the service may wait for a command's end (s, at most 60): None as long as it does by default, 0 not at
    all."""

    @operation("exec")
    def run(
        self,
        uuid: str,
        command: Command,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        tty: Window | None = None,
        timeout: float | None = None,
        detach: bool | None = None,
        id: str | None = None,
        wake: bool | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> Exec:
        """Run a command, and wait for its end; else it is `running`, and `wait_until_ended` waits on. `cwd` is relative
        to the workspace's folder; after `timeout` seconds it is ended. With `detach` it is not waited for. With `tty`
        it has a terminal of this size, for `write_input`, and no `stdin`; all it writes is `stdout`. Raises
        `TooManyAtOnce`, and `KeyReused` for the id of another command."""
        body = _order(command, id, cwd=cwd, env=env, stdin=stdin, tty=tty, timeout=timeout, detach=detach)
        return self._post(
            Exec,
            path("session", uuid, "exec"),
            query={"wake": wake},
            body=body,
            wait=wait,
            idempotency_key=idempotency_key,
        )

    @operation("exec", STREAM)
    def stream(
        self,
        uuid: str,
        command: Command,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        tty: Window | None = None,
        timeout: float | None = None,
        detach: bool | None = None,
        id: str | None = None,
        wake: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Stream[Event]:
        """Run a command as `run` does, and follow it: a `StdoutEvent` or `StderrEvent` for its output as it comes, and
        last an `ExitEvent`. A connection that breaks is resumed where it broke; raises `Asleep` if the session was put
        to sleep meanwhile, which has ended the command."""
        body = _order(command, id, cwd=cwd, env=env, stdin=stdin, tty=tty, timeout=timeout, detach=detach)
        return Stream(self._stream(uuid, body, wake, idempotency_key))

    @operation("listExecs")
    def list(self, uuid: str, *, wake: bool | None = None) -> ExecList:
        """The commands that run, and the last hundred that ran, newest first."""
        return self._get(ExecList, path("session", uuid, "exec"), query={"wake": wake})

    @operation("getExec")
    def get(self, uuid: str, exec_id: str, *, wait: float | None = None, wake: bool | None = None) -> Exec:
        """A command with its output so far, at once unless `wait` is given; raises `ExecNotFound`."""
        return self._get(Exec, _path(uuid, exec_id), query={"wake": wake}, wait=wait)

    @operation("getExec", STREAM)
    def follow(self, uuid: str, exec_id: str, *, after: str | None = None, wake: bool | None = None) -> Stream[Event]:
        """A command's output from its beginning, or after the event with the id `after`, as it comes; as `stream`."""
        return Stream(self._follow(uuid, exec_id, after, wake))

    @operation("getExec", OCTETS)
    def output(
        self, uuid: str, exec_id: str, stream: Literal["stdout", "stderr"], *, wake: bool | None = None
    ) -> Stream[bytes]:
        """The bytes that a command has written so far, as far as they are kept, in pieces. A connection that breaks is
        resumed where it broke."""
        return Stream(read_bytes(self._http, _path(uuid, exec_id), {"wake": wake, "stream": stream}))

    @operation("endExec")
    def end(
        self,
        uuid: str,
        exec_id: str,
        *,
        signal: str | None = None,
        wait: float | None = None,
        wake: bool | None = None,
    ) -> Exec:
        """End a command with all that it started, or send it a `signal`, as SIGINT, and wait for its end. One that has
        ended stays as it is."""
        query = {"signal": signal, "wake": wake}
        return decode(Exec, self._http.json("DELETE", _path(uuid, exec_id), query=query, wait=wait))

    @operation("writeExecInput")
    def write_input(self, uuid: str, exec_id: str, content: bytes, *, at: int) -> ExecInput:
        """Type `content`, 64 KiB at most, into a command's terminal, `at` so many bytes of input. As much is taken as
        there is room for, by the answer's `input_bytes`: send the rest again, after a pause if that is `at` itself. The
        same call again types nothing twice. It wakes nothing; raises `Asleep`, `NoTerminal`, and
        `InputMoved` if somebody else typed as well."""
        where = f"{_path(uuid, exec_id)}/input"
        sent = {"Content-Type": OCTETS}
        return decode(ExecInput, self._http.json("PUT", where, query={"at": at}, content=content, headers=sent))

    @operation("setExecWindow", "")
    def set_window(self, uuid: str, exec_id: str, rows: int, columns: int) -> None:
        """Set the size of a command's terminal, of which its program is told. It wakes nothing; raises `Asleep` and
        `NoTerminal`."""
        self._http.text("PUT", f"{_path(uuid, exec_id)}/window", body={"rows": rows, "columns": columns})

    def wait_until_ended(self, uuid: str, exec_id: str, *, timeout: float = 600.0) -> Exec:
        """Wait until a command has ended, and answer it with its output. Wakes nothing. Raises `WaitTimedOut` after
        `timeout` seconds, and `Asleep` if the session sleeps, which has ended the command."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            found = self.get(uuid, exec_id, wait=min(left, MOST_WAIT), wake=False)
            if not found.running:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimedOut(f"The command {exec_id} still runs after {timeout:.0f} s.")
            self._http.sleep(min(left, PAUSE))

    def _stream(
        self, uuid: str, body: dict[str, Any], wake: bool | None, idempotency_key: str | None
    ) -> Iterator[Event]:
        begun, after = False, None
        try:
            with self._http.stream(
                "POST",
                path("session", uuid, "exec"),
                query={"wake": wake},
                body=body,
                accept=STREAM,
                idempotency_key=idempotency_key,
                read_timeout=SILENCE,
            ) as response:
                begun = True
                for raw in read(self._http, response):
                    if raw is None:
                        continue
                    after = raw.id
                    yield (event := _typed(raw))
                    if isinstance(event, ExitEvent):
                        return
        except ConnectionFailed:
            if not begun:
                raise
        yield from self._follow(uuid, body["id"], after, wake=False)

    def _follow(self, uuid: str, exec_id: str, after: str | None, wake: bool | None) -> Iterator[Event]:
        """The events about a command until its end. Only its first look may wake the session: one that falls asleep
        while it is followed is left so."""
        if wake is not False:
            self.get(uuid, exec_id, wake=wake)
        for raw in follow(self._http, _path(uuid, exec_id), after, query={"wake": False}):
            yield (event := _typed(raw))
            if isinstance(event, ExitEvent):
                return


def _order(command: Command, id: str | None, *, tty: Window | None, **more: Any) -> dict[str, Any]:
    """The body of a call that runs a command."""
    window = {"rows": tty.rows, "columns": tty.columns} if tty else None
    return {"command": command, "id": id or new_id(), **given(tty=window, **more)}


def _path(uuid: str, exec_id: str) -> str:
    return path("session", uuid, "exec", exec_id)


def _typed(raw: Raw) -> Event:
    return typed(raw, EXEC_TYPES)
