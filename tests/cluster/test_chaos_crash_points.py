"""A worker killed by SIGKILL after each call it makes to the API server or Redis, in every step of a session's manager.

One session shows how many calls a step takes; then there is one for each of them, or for each of a sample
(tests/sampling.py), all at the same time. The workers are the service's own and come back, with nobody but the sweeps
to tell them what was left undone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.restore_points.index import RestorePoints
from app.core.storage.archive_keys import new_key
from tests import sampling
from tests.cluster.keda import let_in
from tests.cluster.manager import PATIENCE, Manager, store_of, together
from tests.contract.cluster import own_namespace
from tests.waiting import wait_for

MANY = 1_000
"""Calls that no step makes."""

POINTS, FEW = 5, 2
"""Calls of each step that a sample has; of those that take long."""

SPARE = sampling.times(12, 0)
"""Sessions beside those that a creation's calls make: calls that a sleep may take more, at most."""

WAKES_MORE = sampling.times(8, 0)
"""Calls that a wake takes more than a sleep, at most."""


@pytest.fixture
def manager(redis_server: str, redis_client: redis.Redis, tmp_path: Path) -> Iterator[Manager]:
    with own_namespace() as namespace:
        let_in(namespace)
        manager = Manager(namespace, redis_server, tmp_path)
        with manager.web():
            yield manager


@pytest.fixture
def saving_manager(redis_server: str, redis_client: redis.Redis, tmp_path: Path) -> Iterator[Manager]:
    """One that makes restore points when it is asked to, and those of sleeps."""
    with saving(redis_server, tmp_path) as manager:
        yield manager


@pytest.fixture
def proving_manager(redis_server: str, redis_client: redis.Redis, tmp_path: Path) -> Iterator[Manager]:
    """The same, which looks for drills that were asked for every 10 s, and asks for none by itself for 300 s."""
    with saving(redis_server, tmp_path, DRILL_CYCLE="400") as manager:
        yield manager


@contextmanager
def saving(redis_url: str, folder: Path, **more: str) -> Iterator[Manager]:
    with own_namespace(folder=store_of(folder)) as namespace:
        let_in(namespace)
        points = {"ARCHIVE_KEY": new_key(), "RESTORE_POINT_INTERVAL": "86400", "RESTORE_POINTS_AT_ONCE": "16"}
        manager = Manager(namespace, redis_url, folder, **points, ARCHIVES_AT_ONCE="64", **more)
        with manager.web():
            yield manager


class Killed:
    """Does something to sessions while the workers at it die. `act` asks for it, `reached` waits until it is done."""

    def __init__(self, manager: Manager, sample: int = POINTS) -> None:
        self.manager = manager
        self.sample = sample
        self.fates: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.calls: dict[str, int] = {}
        self.points: dict[str, list[int]] = {}

    def creating(self, step: str, make: Callable[[], str]) -> list[str]:
        """A new session for each call that making one takes, and one more."""
        self.manager.plan_new([MANY])
        first = make()
        points = self._left(step, self._calls(first))
        self.manager.plan_new(points)
        made = together(lambda _: make(), [step] * len(points))
        self._note(step, made)
        return [first, *made]

    def acting(
        self,
        step: str,
        sessions: Sequence[str],
        act: Callable[[str], object],
        more: Callable[[int], list[str]] | None = None,
        method: str = "",
    ) -> list[str]:
        """Do it to as many sessions as it takes calls, and one more; answers which. Calls that were a worker's last
        before are passed over; `more` makes the sessions that are missing: what waits for a pod to end has a call for
        each look. `method` is the one to die in, where what is asked for takes several."""
        first, *others = sessions
        self.manager.plan(first, MANY, method)
        act(first)
        points = self._left(step, self._calls(first))
        missing = len(points) - len(others)
        if more and missing > 0:
            others += more(missing)
        chosen = others[: len(points)]
        for uuid, call in zip(chosen, points, strict=False):
            self.manager.plan(uuid, call, method)
        together(act, chosen)
        self._note(step, chosen)
        return [first, *chosen]

    def at_every_call_of(self, *steps: str) -> None:
        """Each call of these steps, or of their sample, was a worker's last. A run that met another's change may have
        fewer calls than the one that was counted, and ended then before its own came."""
        for step in steps:
            fates = self.fates[step]
            assert sorted(each["planned"] for each in fates) == self.points[step], step
            assert len(fates) == min(self.calls[step], sampling.times(MANY, self.sample)), step
            passed = [each for each in fates if each["outcome"] == "passed"]
            assert [each for each in passed if each["made"] >= each["planned"]] == [], step
        # In a sample of one step chance may decide.
        for judged in [[step] for step in steps] if sampling.FULL else [steps]:
            fates = [each for step in judged for each in self.fates[step]]
            assert len([each for each in fates if each["outcome"] == "passed"]) < len(fates) / 2, judged

    def _left(self, step: str, calls: int) -> list[int]:
        """The calls of the step, or of its sample, that no worker had as its last yet."""
        had = {each["planned"] for each in self.fates[step]}
        # Where some were passed over, those before them may have had a call more.
        self.calls[step] = max(calls, self.calls.get(step, 0))
        if sampling.FULL or step not in self.points:
            self.points[step] = sampling.some(range(1, self.calls[step] + 1), self.sample, step)
        return [each for each in self.points[step] if each not in had]

    def _calls(self, uuid: str) -> int:
        fate = wait_for(lambda: self.manager.fate(uuid), f"a worker to act on {uuid}", seconds=PATIENCE)
        assert fate["outcome"] == "passed"
        return int(fate["made"])

    def _note(self, step: str, sessions: Sequence[str]) -> None:
        def told() -> bool:
            return all(map(self.manager.fate, sessions))

        wait_for(told, f"the workers to die in {step}", seconds=PATIENCE)
        self.fates[step] += map(self.manager.fate, sessions)


def nothing_is_left(manager: Manager, uuids: Iterable[str]) -> None:
    """Of these sessions, which were deleted. The lease of a killed worker ends by itself."""
    assert [each for uuid in uuids for each in manager.objects(uuid)] == []
    wait_for(lambda: not manager.redis.keys("lease:????????*"), "the leases to end")
    assert manager.redis.keys("queue:*") == []
    assert manager.redis.llen("dead_letters") == 0


@pytest.mark.timeout(1_200)
def test_what_was_asked_for_happens_whatever_call_was_a_workers_last(manager: Manager) -> None:
    """Create, sleep, wake, backup, delete and restore: each ends as asked, with one pod for each start and no more,
    the files there, and nothing left of what was deleted."""
    killed = Killed(manager)
    with manager.workers(backup_workers=4), manager.counting_pods() as pods:
        alive = killed.creating("create", manager.create)
        manager.wait_status(alive, "active", 1)
        # A stop looks until the pod is gone: some have more calls than a creation.
        alive += manager.awake(SPARE)
        together(manager.write, alive)

        slept = killed.acting("sleep", alive, manager.sleep)
        manager.wait_status(slept, "sleeping", 0)
        slept += alive[len(slept) : len(slept) + WAKES_MORE]
        together(manager.sleep, slept)
        manager.wait_status(slept, "sleeping", 0)
        woken = killed.acting("wake", slept, manager.wake)
        manager.wait_status(woken, "active", 1)
        assert all(together(manager.holds, woken))

        saved = killed.acting("backup", alive, manager.back_up)
        manager.wait_backups(saved)
        starts = {uuid: 1 + (uuid in woken) for uuid in alive}
        assert {uuid: len(pods[uuid]) for uuid in alive} == starts

        gone = killed.acting("delete", alive, manager.delete)
        manager.wait_status(gone, "terminated", 0)
        backup = manager.session(gone[0])["session"]["backup"]
        restored = killed.creating("restore", lambda: manager.restore(backup))
        manager.wait_status(restored, "active", 1)
        assert all(together(lambda uuid: manager.holds(uuid, whose=gone[0]), restored))
        assert {len(pods[uuid]) for uuid in restored} == {1}

        gone += killed.acting("delete", restored, manager.delete, more=manager.awake)
        manager.wait_status(gone, "terminated", 0)
        manager.wait_backups(gone)
        left = set(alive + restored) - set(gone)
        together(manager.delete_unsaved, left)
        manager.wait_status(left, "terminated", 0)
    killed.at_every_call_of("create", "sleep", "wake", "backup", "delete", "restore")
    everyone = {*alive, *restored, *gone}
    nothing_is_left(manager, everyone)


@pytest.mark.timeout(1_200)
def test_files_are_saved_and_come_back_whatever_call_was_a_workers_last(saving_manager: Manager) -> None:
    """A restore point, and a lost volume's restore from it."""
    manager, killed = saving_manager, Killed(saving_manager)
    with manager.workers(backup_workers=4):
        saved = killed.acting("point", manager.awake(1), manager.save, more=manager.awake)
        together(manager.sleep, saved)
        manager.wait_status(saved, "sleeping", 0)
        wait_for(lambda: not any(map(manager.saving, saved)), "no point to be made", seconds=PATIENCE)
        lost = killed.acting("restore", saved, manager.lose)
        together(lambda uuid: manager.wait_restored(uuid, "sleeping", 0), lost)
        together(manager.wake, saved)
        manager.wait_status(saved, "active", 1)
        assert all(together(manager.holds, saved))
        together(manager.delete_unsaved, saved)
        manager.wait_status(saved, "terminated", 0)
    killed.at_every_call_of("point", "restore")
    nothing_is_left(manager, saved)


@pytest.mark.timeout(1_200)
def test_restore_points_are_proven_whatever_call_was_a_workers_last(proving_manager: Manager) -> None:
    """No point is taken for a broken one, and each is proven in the end."""
    manager, killed = proving_manager, Killed(proving_manager)

    def with_point(count: int) -> list[str]:
        made = manager.awake(count)
        together(manager.save, made)
        return made

    with manager.workers(backup_workers=4):
        proven = killed.acting("drill", with_point(1), manager.prove, more=with_point)
        wait_for(lambda: all(manager.store.get(each).last_proven for each in proven), "drills", seconds=PATIENCE)
        points = [each for uuid in proven for each in RestorePoints(manager.redis).of(uuid)]
        assert [each for each in points if each.broken or not each.proven_at] == []
        together(manager.delete_unsaved, proven)
        manager.wait_status(proven, "terminated", 0)
    killed.at_every_call_of("drill")
    nothing_is_left(manager, proven)


@pytest.mark.timeout(1_800)
def test_sessions_are_archived_and_go_back_whatever_call_was_a_workers_last(saving_manager: Manager) -> None:
    """A rollback, a fork, the archive, and a wake from there: files as asked, and nothing left of what is archived."""
    manager, killed = saving_manager, Killed(saving_manager, FEW)

    def with_points(count: int) -> list[str]:
        """New sessions, each with a restore point that holds its file, and without the file."""
        made = manager.awake(count)
        together(manager.save, made)
        together(lambda uuid: manager.inside(uuid, "rm /app/kept"), made)
        return made

    with manager.workers(backup_workers=4):
        gone_back = killed.acting("rollback", with_points(1), manager.roll_back, more=with_points)
        wait_for(lambda: not any(manager.store.get(each).rollback_to for each in gone_back), "them", seconds=PATIENCE)
        manager.wait_status(gone_back, "active", 1)
        assert all(together(manager.holds, gone_back))

        origin = gone_back[0]
        manager.save(origin)
        forks = killed.creating("fork", lambda: manager.fork(origin))
        manager.wait_status(forks, "active", 1)
        assert all(together(lambda uuid: manager.holds(uuid, whose=origin), forks))

        def asleep(count: int) -> list[str]:
            made = manager.awake(count)
            together(manager.sleep, made)
            manager.wait_status(made, "sleeping", 0)
            return made

        archived = killed.acting("archive", asleep(1), manager.unused, more=asleep, method="carry_out")
        manager.wait_archived(archived)
        # After more calls than an archived session's end took.
        archived += asleep(spare := sampling.times(60, FEW))
        together(manager.unused, archived[-spare:])
        manager.wait_archived(archived)
        woken = killed.acting("wake", archived, manager.wake)
        manager.wait_status(woken, "active", 1)
        assert all(together(manager.holds, woken))
        everyone = gone_back + forks + archived
        together(manager.delete_unsaved, everyone)
        manager.wait_status(everyone, "terminated", 0)
    killed.at_every_call_of("rollback", "fork", "archive", "wake")
    nothing_is_left(manager, everyone)
