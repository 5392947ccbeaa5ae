"""sessionctl recover, and how far it is."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.unit.clients.api import TIME, Api, answer
from tests.unit.clients.conftest import Sessionctl
from workspaces.cli.context import FAILED, TIMED_OUT


def shown(status: str, code: int = 200, **more: Any) -> httpx.Response:
    """A recovery in an answer."""
    nothing: dict[str, Any] = dict.fromkeys(("dry_run", "requested_at", "ended_at", "found", "damaged", "error"))
    return answer({**nothing, "status": status, "recovered": 0, **more}, code)


def test_it_asks_first_then_waits_for_the_end(sessionctl: Sessionctl, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = sessionctl(Api(), "recover")
    assert (refused.code, "out of sight" in refused.err) == (FAILED, True)
    end = shown("done", found=3, recovered=2, damaged=1, requested_at=TIME, ended_at=TIME)
    api = Api(shown("running", 202, requested_at=TIME), end)
    ended = sessionctl(api, "recover", "--yes")
    assert (ended.code, api.bodies[0]) == (0, {"dry_run": False})
    assert [line.split() for line in ended.out.splitlines() if "asked" not in line] == [
        ["recovery", "done"],
        ["found", "3"],
        ["recovered", "2"],
        ["damaged", "1"],
    ]


def test_a_dry_run_asks_nothing(sessionctl: Sessionctl) -> None:
    api = Api(shown("running", 202, dry_run=True), shown("done", dry_run=True, found=3, damaged=0))
    ended = sessionctl(api, "recover", "--dry-run", "--json")
    assert (ended.code, json.loads(ended.out)["found"], api.bodies[0]) == (0, 3, {"dry_run": True})


def test_a_wait_that_runs_out_says_how_to_look(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(shown("running", 202), shown("running")), "recover", "--yes", "--timeout", "0", "--json")
    assert (ended.code, json.loads(ended.out)["status"]) == (TIMED_OUT, "running")
    assert "sessionctl recovery" in ended.err
    assert sessionctl(Api(shown("running", 202)), "recover", "--yes", "--no-wait").code == 0


def test_how_far_it_is(sessionctl: Sessionctl) -> None:
    ended = sessionctl(Api(shown("running", recovered=7, error="The store is away.")), "recovery")
    assert [line.split() for line in ended.out.splitlines()] == [
        ["recovery", "running"],
        ["error", "The", "store", "is", "away."],
        ["recovered", "7"],
    ]


def test_the_client_looks_until_it_is_done() -> None:
    api = Api(shown("running"), shown("running", recovered=1), shown("done", recovered=2))
    assert api.client().recovery.wait().recovered == 2
    assert len(api.slept) == 2
