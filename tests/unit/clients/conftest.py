"""sessionctl on a service that answers as a test says."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest
import typer

from tests.unit.clients.api import KEY, URL
from workspaces.cli.app import app
from workspaces.cli.context import State, run

Sessionctl = Callable[..., "Ended"]
"""Runs sessionctl on a transport with these arguments, as its `main` does; `typed` is what a person answers."""


@dataclass(frozen=True)
class Ended:
    """The exit code of a command, and what it printed."""

    code: object
    out: str
    err: str


@pytest.fixture
def sessionctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sessionctl:
    for name, text in {"API_URL": URL, "API_KEY": KEY, "TERM": "dumb", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, text)

    def ended(transport: httpx.BaseTransport, *arguments: str, typed: str = "") -> Ended:
        if typed:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        command = typer.main.get_command(app)
        code: object
        try:
            code = run(lambda: command.main([*arguments], prog_name="sessionctl", obj=State(None, transport)))
        except SystemExit as ending:
            code = ending.code
        return Ended(code, *capsys.readouterr())

    return ended
