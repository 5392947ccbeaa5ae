"""A process that works off two prompts and is killed at the nth write, for every n: `crash_points FOLDER`.

Each run is a fork of this process, which has no threads, so it costs milliseconds. A write is any of the calls by
which the agent changes its files; a run is killed before, in the midst of, or after one. It prints one JSON line
for each crash point: what a clean run after two crashes finds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.agent.model import Reply
from app.agent.model_context import INTERRUPTED, NOT_RUN
from tests.unit.agent.fakes import FakeModel, World, calls, says

PROMPTS = {"m1": "do a and b", "m2": "do a and b again"}
WRITES = ("fsync", "replace", "pwrite", "ftruncate", "mkdir")


def rule(messages: Sequence[dict[str, Any]]) -> Reply:
    """Calls a, then b, then answers, by the results since the prompt; what was interrupted is not done again."""
    results: list[str] = []
    for message in messages:
        results = [] if message["role"] == "user" else results
        if message["role"] == "tool" and message["content"] != NOT_RUN:
            results.append(message["content"])
    if len(results) < 2:
        return calls("ab"[len(results)])
    return says("interrupted" if INTERRUPTED in results else "done")


def work(folder: Path) -> World:
    """What a process does from its start on: the manager puts its prompts again until they are accepted."""
    world = World(folder, FakeModel(rule=rule))
    for id_, text in PROMPTS.items():
        world.prompt(id_, text)
    world.run()
    for id_ in list(world.state.unreported()):
        with (folder / "told").open("a") as file:
            file.write(id_ + "\n")
        world.state.reported([id_])
    world.state.fold()
    return world


def explode_at(point: int) -> None:
    """Kill this process at the nth write; a third of the writes is done half, a third whole before."""
    count = 0

    def armed(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count != point:
                return real(*args, **more)
            if real is pwrite and point % 3 == 1:
                real(args[0], args[1][: len(args[1]) // 2], *args[2:])
            elif point % 3 == 2:
                real(*args, **more)
            os.kill(os.getpid(), signal.SIGKILL)

        return call

    pwrite = os.pwrite
    for name in WRITES:
        setattr(os, name, armed(getattr(os, name)))


def crashed(folder: Path, point: int) -> bool:
    """Work in a fork that is killed at this point; False if it ended before."""
    pid = os.fork()
    if pid == 0:
        explode_at(point)
        work(folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def main(base: Path) -> None:
    """Every point, until a run ends before it is reached."""
    point, more = 0, True
    while more and point < 1000:
        point += 1
        folder = base / str(point)
        folder.mkdir()
        more = crashed(folder, point)
        # Once more, at some point of going on.
        crashed(folder, 2 + point * 5 % 13)
        world = work(folder)
        found = {
            "point": point,
            "history": world.state.history()[0],
            "unreported": list(world.state.unreported()),
            "effects": world.toolbox.done(),
            "told": (folder / "told").read_text().split(),
            "files": sorted(path.name for path in (folder / ".session").iterdir()),
            "empty": (folder / ".session" / "journal").stat().st_size == 0,
        }
        world.state.close()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
