"""Sessions for the pages about one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.sessions.model import Status
from tests.unit.api.helpers import ADMIN_KEY, keyed, move, new_session
from tests.unit.api.real_agent import Workspace

HOSTILE = '<img src=x onerror=alert(1)>"><script>alert(2)</script>'
"""Markup as a tenant may write it into each text of theirs."""


@pytest.fixture
def uuid(app: Flask, core: Core) -> str:
    """An active session with a hostile label."""
    made = new_session(keyed(app, ADMIN_KEY), "ada@example.com", labels={"note": HOSTILE})
    move(core, made, Status.ACTIVE, provisioned=True, event=("state", {"status": "active"}))
    return made


@pytest.fixture
def workspace(core: Core, uuid: str, tmp_path: Path) -> Iterator[Workspace]:
    """The session's workspace, with a real agent."""
    running = Workspace(core, uuid, tmp_path)
    running.start()
    yield running
    running.stop()
