"""A worker killed by SIGKILL after each call it makes to the API server or Redis, in every step of a session's manager.

One session shows how many calls a step takes; then there is one for each of them, all at the same time. The
workers are the service's own and come back, with nobody but the sweeps to tell them what was left undone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.cluster.keda import let_in
from tests.cluster.manager import PATIENCE, Manager, together
from tests.contract.cluster import own_namespace
from tests.waiting import wait_for

MANY = 1_000
"""Calls that no step makes."""

SPARE = 6
"""Sessions beside those that a creation's calls make: calls that a sleep may take more, at most."""

WAKES_MORE = 8
"""Calls that a wake takes more than a sleep, at most."""


@pytest.fixture
def manager(redis_server: str, redis_client: redis.Redis, tmp_path: Path) -> Iterator[Manager]:
    with own_namespace() as namespace:
        let_in(namespace)
        manager = Manager(namespace, redis_server, tmp_path)
        with manager.web():
            yield manager


class Killed:
    """Does something to sessions while the workers at it die. `act` asks for it, `reached` waits until it is done."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.fates: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.calls: dict[str, int] = {}

    def creating(self, step: str, make: Callable[[], str]) -> list[str]:
        """A new session for each call that making one takes, and one more."""
        self.manager.plan_new([MANY])
        first = make()
        calls = self._calls(first)
        self.manager.plan_new(range(1, calls + 1))
        made = together(lambda _: make(), [step] * calls)
        self._note(step, made, calls)
        return [first, *made]

    def acting(
        self,
        step: str,
        sessions: Sequence[str],
        act: Callable[[str], object],
        skip: int = 0,
        more: Callable[[int], list[str]] | None = None,
    ) -> list[str]:
        """Do it to as many sessions as it takes calls, and one more; answers which. `skip` calls are passed over;
        `more` makes the sessions that are missing: what waits for a pod to end has a call for each look."""
        first, *others = sessions
        self.manager.plan(first, MANY)
        act(first)
        # Where some were passed over, those before them may have had a call more.
        calls = max(self._calls(first), self.calls.get(step, 0))
        missing = calls - skip - len(others)
        if more and missing > 0:
            others += more(missing)
        chosen = others[: calls - skip]
        for call, uuid in enumerate(chosen, skip + 1):
            self.manager.plan(uuid, call)
        together(act, chosen)
        self._note(step, chosen, calls)
        return [first, *chosen]

    def at_every_call_of(self, *steps: str) -> None:
        """Each call of these steps was a worker's last. A run that met another's change may have fewer calls than the
        one that was counted, and ended then before its own came."""
        for step in steps:
            fates = self.fates[step]
            assert sorted(each["planned"] for each in fates) == list(range(1, self.calls[step] + 1)), step
            passed = [each for each in fates if each["outcome"] == "passed"]
            assert [each for each in passed if each["made"] >= each["planned"]] == [], step
            assert len(passed) < len(fates) / 2, step

    def _calls(self, uuid: str) -> int:
        fate = wait_for(lambda: self.manager.fate(uuid), f"a worker to act on {uuid}", seconds=PATIENCE)
        assert fate["outcome"] == "passed"
        return int(fate["made"])

    def _note(self, step: str, sessions: Sequence[str], calls: int) -> None:
        def told() -> bool:
            return all(map(self.manager.fate, sessions))

        wait_for(told, f"the workers to die in {step}", seconds=PATIENCE)
        self.calls[step] = calls
        self.fates[step] += map(self.manager.fate, sessions)


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

        gone += killed.acting("delete", restored, manager.delete, skip=len(gone) - 1, more=manager.awake)
        manager.wait_status(gone, "terminated", 0)
        manager.wait_backups(gone)
        left = set(alive + restored) - set(gone)
        together(manager.delete_unsaved, left)
        manager.wait_status(left, "terminated", 0)
    killed.at_every_call_of("create", "sleep", "wake", "backup", "delete", "restore")
    everyone = {*alive, *restored, *gone}
    assert [each for uuid in everyone for each in manager.objects(uuid)] == []
    assert manager.redis.keys("queue:*") + manager.redis.keys("lease:????????*") == []
    assert manager.redis.llen("dead_letters") == 0
