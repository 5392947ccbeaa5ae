"""A run of scripts/run, before it starts anything."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.process.settings import Settings
from scripts.lib import serve
from scripts.lib.ports import Ports
from tests.ports import free_port

MakeEnvironment = Callable[..., dict[str, str]]


@pytest.fixture
def make_environment(tmp_path: Path) -> MakeEnvironment:
    """Makes what the processes of a run in this folder are told, with these settings."""

    def make(**settings: Any) -> dict[str, str]:
        with closing(Ports(tmp_path)) as ports:
            return serve.environment(tmp_path, Settings(port=free_port(), **settings), ports)

    return make
