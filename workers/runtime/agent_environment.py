"""The part of the agent's environment that both runtimes share; app/agent/settings.py reads it."""

from __future__ import annotations

from app.process.settings import Settings

PASSED_ON = (
    "prompt_max_bytes",
    "agent_program",
    "agent_turn_timeout",
    "agent_max_steps",
    "agent_max_tokens",
    "agent_command_timeout",
    "exec_timeout",
    "execs_at_once",
    "services_per_session",
    "exec_output_bytes",
    "checkpoint_interval",
    "undo_points",
    "undo_max_bytes",
)
"""Settings of the service that the agent reads under the same names."""

MAPPED = "131072"
"""Bytes from which glibc gives memory back at once: pieces of files pass through 32 threads, and what it keeps for each
grew by 50 MB with each archive of 180 MB."""


def agent_environment(
    settings: Settings, *, host: str, port: int, editor_port: int, stop_grace: float
) -> dict[str, str]:
    """Variables for an agent that listens on `host` and `port`, beside an editor on `editor_port`, and gets
    `stop_grace` seconds to end."""
    return {
        "AGENT_HOST": host,
        "AGENT_PORT": str(port),
        "EDITOR_PORT": str(editor_port),
        "GATEWAY_URL": settings.gateway_location(),
        "AGENT_STOP_GRACE": str(stop_grace),
        "MALLOC_MMAP_THRESHOLD_": MAPPED,
        **{name.upper(): str(getattr(settings, name)) for name in PASSED_ON},
    }
