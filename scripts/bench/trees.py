"""How fast a folder passes through the API as an archive, against `tar` on the same folder.

The sizes of the web processes and of the agent are read while it passes.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from scripts.bench.backup import make_tree
from scripts.bench.execs import timed
from scripts.bench.files import WEB, WEB_PROCESS, curl, memory_of
from scripts.bench.table import Row
from scripts.bench.wake import call, service

GZIP = "gzip -1"
"""What `tar` compresses with: as fast a level as the agent's."""

AGENT_PROCESS = "app.agent"
"""An argument that only an agent has."""


def run(megabytes: int = 300, files: int = 10_000, rounds: int = 3) -> list[Row]:
    """Measure in rounds that alternate; rows of label, value and target."""
    taken: dict[str, list[float]] = {each: [] for each in ("out", "in", "zip out", "zip in", "tar out", "tar in")}
    with tempfile.TemporaryDirectory(prefix="bench-trees-") as name, service(Path(name) / "data") as url:
        folder = Path(name)
        make_tree(folder / "mine", megabytes * 1_000_000, files)
        uuid = call(url, "POST", "/session/create", {"user_id": "bench"}, "wait=30")["uuid"]
        tree, paths = f"{url}/session/{uuid}/tree", f"{url}/session/{uuid}/files"
        archive, zipped = str(folder / "mine.tar.gz"), str(folder / "mine.zip")
        with memory_of(WEB_PROCESS) as web, memory_of(AGENT_PROCESS) as agent:
            for number in range(rounds):
                by_hand, there = folder / f"hand-{number}", f"{tree}?path={number}"
                by_hand.mkdir()
                for what, act in {
                    "tar out": partial(shell, f"tar -c -C {folder}/mine . | {GZIP} > {archive}"),
                    "tar in": partial(shell, f"tar -xzf {archive} -C {by_hand}"),
                    "in": partial(curl, "-T", archive, there),
                    "out": partial(curl, "-o", archive, there),
                    "zip out": partial(curl, "-o", zipped, f"{there}&format=zip"),
                    "zip in": partial(curl, "-T", zipped, f"{there}/zip&format=zip"),
                }.items():
                    taken[what].append(timed(act))
                curl("-X", "DELETE", f"{paths}/{number}")
                shell(f"rm -r {by_hand}")
        call(url, "DELETE", f"/session/{uuid}?backup=false")
    seconds = {each: statistics.median(values) / 1000 for each, values in taken.items()}
    size = f"{megabytes} MB in {files:,} files"
    return [
        *(
            (f"{label} (s, x of tar)", f"{seconds[each]:.1f}, {seconds[each] / seconds[by_hand]:.1f}x", "")
            for label, each, by_hand in (
                (f"{size} into a workspace, as tar.gz", "in", "tar in"),
                ("  as zip", "zip in", "tar in"),
                ("out of it, as tar.gz", "out", "tar out"),
                ("  as zip", "zip out", "tar out"),
            )
        ),
        ("largest web process meanwhile (MB)", f"{max(web):.0f}", f"< {WEB}"),
        ("largest agent meanwhile (MB)", f"{max(agent):.0f}", ""),
    ]


def shell(command: str) -> None:
    subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], check=True, timeout=900)
