"""What running commands say of the workspace's use."""

from __future__ import annotations

from app.agent.activity_reporter import Signal
from app.agent.execs.exec import Exec
from app.agent.execs.execs import Execs

DETAIL = 64
"""Characters of a command."""


def signals(execs: Execs, now: float) -> dict[str, Signal]:
    """A command whose caller waits is use. A detached one is quiet work, as a job in a terminal is. A terminal of its
    own is use when something is typed or written there: one that is only left open holds nothing."""
    running = execs.running()
    found = {}
    used = [each.active_at if each.tty else now for each in running if not each.asked["detached"]]
    if used:
        found["exec"] = Signal(max(used))
    detached = [each for each in running if each.asked["detached"]]
    if detached:
        newest = max(detached, key=lambda each: each.active_at)
        found["detached_command"] = Signal(now, _name(newest), newest.active_at)
    return found


def _name(found: Exec) -> str:
    command = found.asked["command"]
    return (command if isinstance(command, str) else " ".join(command))[:DETAIL]
