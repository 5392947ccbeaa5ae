"""How long a command takes that a call runs in a workspace, against the same by hand.

By hand means: a login shell of the same user's in the same folder, as in a terminal that is open. Both run a command
that does nothing and is known to have ended.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.bench.servers import percentile
from scripts.bench.table import Row
from scripts.bench.wake import call, service

COMMAND = "true"
OVER_BY_HAND = 15.0
"""ms that an awake workspace may take longer than by hand, at the median."""

PAUSE = 0.05
"""s between two commands, in which the agent gets ready for the next one; a person or a model takes longer."""

AWAKE_ROUNDS, OTHER_ROUNDS = 100, 10


def run() -> list[Row]:
    """Measure in rounds that alternate; rows of label, value and target."""
    by_hand, awake, at_once, asleep, created = [], [], [], [], []
    with tempfile.TemporaryDirectory(prefix="bench-execs-") as folder, service(Path(folder) / "data") as url:
        uuid = call(url, "POST", "/session/create", {"user_id": "bench"}, "wait=30")["uuid"]
        files = Path(folder) / "data" / "workspaces" / uuid
        for _ in range(AWAKE_ROUNDS):
            by_hand.append(timed(lambda: in_a_login_shell(files)))
            time.sleep(PAUSE)
            awake.append(timed(lambda: ran(url, uuid)))
            at_once.append(timed(lambda: ran(url, uuid)))
            time.sleep(PAUSE)
        for _ in range(OTHER_ROUNDS):
            call(url, "POST", f"/session/{uuid}/scale-down")
            asleep.append(timed(lambda: ran(url, uuid)))
            began = time.perf_counter()
            made = call(url, "POST", "/session/create", {"user_id": "bench"})["uuid"]
            ran(url, made)
            created.append((time.perf_counter() - began) * 1000)
            call(url, "DELETE", f"/session/{made}?backup=false")
        call(url, "DELETE", f"/session/{uuid}?backup=false")
    return [
        ("by hand, p50 / p95 (ms)", shown(by_hand), ""),
        ("in an awake workspace, p50 / p95 (ms)", shown(awake), ""),
        ("  longer than by hand, p50 (ms)", f"{longer(awake, by_hand):.1f}", f"< {OVER_BY_HAND:.0f}"),
        ("at once after another one, p50 / p95 (ms)", shown(at_once), ""),
        ("  longer than by hand, p50 (ms)", f"{longer(at_once, by_hand):.1f}", f"< {OVER_BY_HAND:.0f}"),
        ("in a sleeping one, p50 / p95 (ms)", shown(asleep), ""),
        ("create to the first command's end, p50 / p95 (ms)", shown(created), ""),
    ]


def longer(ours: list[float], by_hand: list[float]) -> float:
    """ms that a command takes longer, at the median of the rounds."""
    return statistics.median(mine - hand for mine, hand in zip(ours, by_hand, strict=True))


def shown(taken: list[float]) -> str:
    return f"{statistics.median(taken):.1f} / {percentile(taken, 95):.1f}"


def timed(act: Callable[[], Any]) -> float:
    """ms that it takes."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def ran(url: str, uuid: str) -> None:
    """Run the command, to its end."""
    told = call(url, "POST", f"/session/{uuid}/exec", {"command": COMMAND}, "wait=60")
    if told["exit_code"] != 0:
        raise RuntimeError(f"the command ended with {told}")


def in_a_login_shell(workspace: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(workspace / "home")}
    subprocess.run(["bash", "-lc", COMMAND], cwd=workspace / "app", env=environment, check=True, timeout=60)
