"""The programs of a run: the lines of the Procfile, each with its environment."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from scripts.lib.processes import BEATING, MANAGER
from scripts.lib.supervisor import Program

PROMETHEUS = "prometheus"

MEASURED = tuple(name for name in MANAGER if name != "web")
"""The processes with a port for Prometheus; web has its own."""

SEVERAL = frozenset({"web", *MEASURED[:-2]})
"""The programs of several processes, which count together."""


def metrics_port_of(name: str) -> str:
    """The variable with a process' port for Prometheus."""
    return f"METRICS_PORT_{name.upper().replace('-', '_')}"


def commands(text: str) -> dict[str, list[str]]:
    """The words of each line's command, by its name. A line is `NAME: COMMAND ARGUMENT…`."""
    lines = (line.partition(":") for line in text.splitlines() if line.strip())
    return {name.strip(): shlex.split(command) for name, _, command in lines}


def environment(name: str, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process: the run's, the path of its heartbeat, where it counts and shows its metrics, and
    the model's key for the gateway only."""
    kept = {key: text for key, text in given.items() if name == "gateway" or key != "LLM_API_KEY"}
    heartbeat = Path(given["DATA_DIR"], "pids", f"{name}.heartbeat")
    own = {"PROCESS_NAME": name, "HEARTBEAT_FILE": str(heartbeat)}
    own["METRICS_PORT"] = kept.get(metrics_port_of(name), "0")
    if name in SEVERAL:
        own["PROMETHEUS_MULTIPROC_DIR"] = str(Path(given["DATA_DIR"], "metrics", name))
    return kept | own


def programs(text: str, given: Mapping[str, str], heartbeat_limit: float) -> list[Program]:
    """The programs that a run with this environment has of this Procfile: Prometheus only where it has a port."""
    watched = given.get("MONITORING") == "1" and given.get("PROMETHEUS_PORT")
    return [
        Program(name, command, environment(name, given), heartbeat_limit if name in BEATING else None)
        for name, command in commands(text).items()
        if watched or name != PROMETHEUS
    ]
