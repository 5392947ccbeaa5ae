"""The agent as a process, as the unit tests have it."""

from __future__ import annotations

from tests.unit.agent.conftest import agent, gateway, model

__all__ = ["agent", "gateway", "model"]
