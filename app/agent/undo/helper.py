"""The process that works on the undo points: `python -I -S helper.py`, then one line, the order:

    {"do": "save"|"stage"|"swap"|"list", "root", "beside", "message_id", "now", "limits", "hidden"}

It answers one JSON object; `error` has a code of `ERRORS`, and `detail` a text. It can do no more than the agent's
commands: what it reads, names and the store itself, may have been made by one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import json
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from app.agent.undo.restoring import NoPoint, discard, stage, swap
from app.agent.undo.saving import Limits, NoRoom, save
from app.agent.undo.store import Store
from app.agent.undo.tree import TooMany
from app.volume.landlock import hide

STORE = "points.sqlite"

NO_POINT, NO_ROOM, TOO_MANY, FAILED = ERRORS = ("no_point", "no_room", "too_many", "failed")

LOCK_SECONDS = 20.0
"""To wait for another helper, which an agent that was killed may have left."""


def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    """The answer to an order."""
    beside = Path(order["beside"])
    try:
        beside.mkdir(mode=0o700, exist_ok=True)
        with _locked(beside):
            return _do(order, Path(order["root"]), beside)
    except NoPoint:
        return {"error": NO_POINT, "detail": "there is no undo point of this prompt"}
    except NoRoom as e:
        return {"error": NO_ROOM, "detail": str(e)}
    except TooMany:
        return {"error": TOO_MANY, "detail": "the project has too many files"}
    except sqlite3.Error as e:
        code = NO_ROOM if "full" in str(e) else FAILED
        if isinstance(e, sqlite3.DatabaseError) and not isinstance(e, sqlite3.OperationalError):
            _set_aside(beside)
        return {"error": code, "detail": f"the undo points can't be used ({e})"}
    except OSError as e:
        code = NO_ROOM if e.errno in (errno.ENOSPC, errno.EDQUOT) else FAILED
        return {"error": code, "detail": f"a file can't be read or written ({e.strerror})"}


def _do(order: dict[str, Any], root: Path, beside: Path) -> dict[str, Any]:
    what, message_id = order["do"], order["message_id"]
    if what == "swap":
        plan = swap(root, beside, message_id)
        _drop(beside, message_id)
        return {"files": plan.files, "lost": plan.lost}
    if what == "list" and not (beside / STORE).exists():
        return {"points": []}
    with contextlib.closing(Store(beside / STORE)) as store:
        if what == "list":
            return {"points": [point[1:] for point in store.points()]}
        if what == "stage":
            plan = stage(root, store, beside, message_id)
            return {"files": plan.files, "lost": plan.lost}
        discard(beside)
        saved = save(root, store, message_id, order["now"], Limits(*order["limits"]))
        return {} if saved is None else saved._asdict()


def _drop(beside: Path, message_id: str) -> None:
    """Drop the points from this prompt's on: their prompts are undone. Points that can't be dropped do no harm."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(Store(beside / STORE)) as store:
        point = store.point(message_id)
        if point is not None:
            store.begin()
            store.drop([each for each in store.points() if each.number >= point.number])
            store.commit()


def _set_aside(beside: Path) -> None:
    """Delete a store that is damaged: the next point begins another."""
    for name in (STORE, f"{STORE}-journal"):
        with contextlib.suppress(OSError):
            (beside / name).unlink()


@contextlib.contextmanager
def _locked(beside: Path) -> Any:
    fd = os.open(beside / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def main() -> None:
    """Carry out the order on standard input."""
    # There are no cycles to find among 50,000 tuples, and looking for them takes a third of the time.
    gc.disable()
    order = json.loads(sys.stdin.readline())
    if order["hidden"]:
        hide(order["hidden"])
    sys.stdout.write(json.dumps(carry_out(order)))


if __name__ == "__main__":
    main()
