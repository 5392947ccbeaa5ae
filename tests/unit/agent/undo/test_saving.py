"""A point holds the files as they were when it was made, and a process that is killed leaves the points of before."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
from itertools import count
from pathlib import Path

import pytest

from app.agent.undo import saving
from app.agent.undo.helper import carry_out
from app.agent.undo.saving import NoRoom
from app.agent.undo.store import Store
from tests.unit.agent.undo.trees import LIMITS, change, grow, saved, state_of, store_of, undone


def test_a_second_save_of_a_prompt_keeps_the_first(root: Path, beside: Path) -> None:
    """As after a restart in its midst."""
    saved(root, beside, "m")
    (root / "file").touch()
    assert saved(root, beside, "m") is None


def test_nothing_is_read_again_that_did_not_change(root: Path, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "SETTLED", -1)
    grow(root, random.Random(1), 30)
    saved(root, beside, "m0")
    monkeypatch.setattr(saving, "_content", None)
    point = saved(root, beside, "m1")
    assert point is not None and point.changed == 0


def test_a_file_that_changed_just_before_is_read_again(
    root: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within the same tick of the file system's clock would not be seen."""
    monkeypatch.setattr(saving, "SETTLED", 1 << 62)
    (root / "file").write_text("one")
    saved(root, beside, "m0")
    point = saved(root, beside, "m1")
    assert point is not None and point.changed == 1


def test_too_little_room_is_told_before_anything_is_written(
    root: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "file").write_bytes(b"x" * 10_000)
    monkeypatch.setattr(saving, "RESERVE_BYTES", 1 << 60)
    monkeypatch.setattr(saving, "RESERVE_SHARE", 1)
    with pytest.raises(NoRoom, match="10000"):
        saved(root, beside, "m")


def order(root: Path, what: str, message_id: str) -> dict[str, object]:
    beside = root.parent / ".undo"
    return carry_out(
        {"do": what, "root": str(root), "beside": str(beside), "message_id": message_id, "now": 1.0, "limits": LIMITS}
    )


def listed(root: Path) -> list[str]:
    return [point[0] for point in order(root, "list", "")["points"]]  # type: ignore[attr-defined]


def test_a_damaged_store_is_begun_anew(root: Path) -> None:
    """Its points are lost, and the next prompt has one."""
    order(root, "save", "m0")
    (root.parent / ".undo" / "points.sqlite").write_bytes(b"no database at all" * 500)
    assert order(root, "save", "m1")["error"] == "failed"
    assert order(root, "save", "m1")["files"] == 0
    assert listed(root) == ["m1"]


def test_undoing_drops_the_points_of_what_is_undone(root: Path) -> None:
    for message_id in ("m0", "m1", "m2"):
        order(root, "save", message_id)
        (root / message_id).touch()
    assert order(root, "stage", "m1")["files"] == 2
    assert order(root, "swap", "m1")["files"] == 2
    assert os.listdir(root) == ["m0"]
    assert listed(root) == ["m0"]
    assert order(root, "swap", "m1")["files"] == 2, "a repeated swap finds it done"
    assert order(root, "stage", "m1")["error"] == "no_point"


def test_a_full_disk_leaves_the_points_of_before(root: Path) -> None:
    """Files of this process may not grow beyond a limit, as on a full volume."""
    (root / "small").write_text("x")
    order(root, "save", "m0")
    (root / "large").write_bytes(os.urandom(2_000_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        assert "can't be" in str(order(root, "save", "m1")["detail"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert listed(root) == ["m0"]
    assert order(root, "save", "m1")["files"] == 2


@pytest.mark.slow
def test_a_save_that_is_killed_at_any_statement_leaves_the_points_of_before(root: Path, beside: Path) -> None:
    """Each in a fork that ends at its nth statement; then the older point is restored, and the new one made."""
    rnd = random.Random(3)
    grow(root, rnd, 25)
    saved(root, beside, "first")
    before = state_of(root)
    at, killed = 4, True
    while killed and at < 2_000:
        at += 1
        change(root, rnd, 10)
        changed = state_of(root)
        killed = _killed(root, beside, f"m{at}", at)
        with store_of(beside) as store:
            assert store.point("first") is not None
        saved(root, beside, f"m{at}", LIMITS._replace(points=1_000))
        for message_id, state in ((f"m{at}", changed), ("first", before)):
            undone(root, beside, message_id)
            assert state_of(root) == state, (at, message_id)
    assert at > 20


def _killed(root: Path, beside: Path, message_id: str, at: int) -> bool:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    try:
        saving.BATCH_BYTES = 1_000
        store = Store(beside / "points.sqlite")
        statements = count(1)
        store._db.set_trace_callback(lambda _: os.kill(os.getpid(), 9) if next(statements) == at else None)
        saving.save(root, store, message_id, 2.0, LIMITS._replace(points=1_000))
        store.close()
    except sqlite3.Error:
        os._exit(1)
    os._exit(0)
