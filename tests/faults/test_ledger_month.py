"""A month of 50 sessions whose workers and whose Redis are killed in between: the ledger equals a log that the runtime
kept for itself of what really began and ended, and of what was stored."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from app.core.costs.usage import DAY, bill, day_number, month_name, month_start
from app.core.errors import SessionError
from app.core.prompts.token_usage import Tokens, TokenUsage
from app.core.redis import keys
from app.core.redis.connections import connect
from app.core.service import NewSession
from app.core.sessions.model import GONE, SIZES, Identity, Status
from app.core.storage.archive_keys import new_key
from tests import sampling
from tests.fakes import FakeRuntime, FakeWorkspace
from tests.faults.dying import Fate, Killed
from tests.integration.serving import OwnRedis
from tests.world import World
from workers.lifecycle.ended import STARTING
from workers.runtime.base import PATIENCE, BackupSummary, Check, PointOrder, PointSummary, never

BEGIN = 1_833_753_600.0
"""2028-02-10T00:00:00Z: the month has a leap day and another month's beginning."""

END = BEGIN + 30 * DAY
SESSIONS, USERS = 50, 10
STEPS = 1_200
MOST_TRIES = 40
NEAR = 0.001
"""The share by which the ledger may differ."""


class BookkeepingRuntime(FakeRuntime):
    """The fake runtime, whose starts and stops take time, and which notes in `costs`, by session and kind, what ran and
    existed: by hand, apart from all that the ledger does."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None], dice: random.Random) -> None:
        super().__init__(clock)
        self._sleep, self._dice = sleep, dice
        self.ran: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.existed: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.stored: dict[str, tuple[str, float, int]] = {}
        self.kept: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self._since: dict[tuple[str, str], float] = {}

    def start(self, uuid: str, generation: int, epoch: int = 0) -> bool:
        self._sleep(self._dice.uniform(0.1, 3.0))
        ran = super().start(uuid, generation, epoch)
        self._since.setdefault(("ran", uuid), self._clock())
        self.workspaces[uuid].began = self._since["ran", uuid]
        return ran

    def backup(self, uuid: str, name: str, *, partial: bool = False, check: Check = never) -> BackupSummary:
        made = super().backup(uuid, name, partial=partial, check=check)
        self.stored[name] = (uuid, made.created_at, made.size)
        return made

    def make_point(self, uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        made = super().make_point(uuid, order, check=check)
        if not made.unchanged:
            own = [point for name, point in self.points.items() if uuid in name]
            size = sum(10_240 + sum(map(len, point.files.values())) for point in own)
            self.kept[uuid].append((order.at, size))
        return made

    def points_used(self, uuid: str) -> int:
        """KiB * s of the session's points, which end with its volume."""
        told = self.kept[uuid]
        ends = [*(since for since, _ in told[1:]), max((end for _, end in self.existed[uuid]), default=0.0)]
        pairs = zip(told, ends, strict=False)
        return round(sum(-(-size // 1024) * (end - since) for (since, size), end in pairs))

    def crash(self, uuid: str, text: str) -> None:
        super().crash(uuid, text)
        self._ended("ran", uuid)

    def close(self) -> None:
        """What runs and exists still."""
        for kind, uuid in list(self._since):
            self._ended(kind, uuid)

    def remove(self, uuid: str, generation: int, *, force: bool = False) -> None:
        super().remove(uuid, generation, force=force)
        self._ended("existed", uuid)

    def _provision(self, identity: Identity, generation: int) -> None:
        super()._provision(identity, generation)
        self._since.setdefault(("existed", identity.uuid), self._clock())

    def _stop(self, uuid: str, workspace: FakeWorkspace) -> None:
        self._sleep(self._dice.uniform(0.1, PATIENCE))
        super()._stop(uuid, workspace)
        self._ended("ran", uuid)

    def _ended(self, kind: str, uuid: str) -> None:
        since = self._since.pop((kind, uuid), None)
        if since is not None:
            log = self.ran if kind == "ran" else self.existed
            log[uuid].append((since, self._clock()))


class Month:
    """The world of the month, what is done in it, and what its sessions used by hand."""

    def __init__(self, seed: int, server: OwnRedis, folder: Path) -> None:
        self.dice = random.Random(seed)
        client = connect(server.url, 5.0)
        self.world = World(client, folder, max_sessions_per_user=SESSIONS, archive_key=new_key())
        self.world.now = BEGIN
        self.fate = Fate(self.dice, server, client, worker=0.25, store=0.04)
        self.runtime = BookkeepingRuntime(self.world.clock, self.pass_time, self.dice)
        for part in (
            self.world.lifecycle,
            self.world.lifecycle._steps,
            self.world.points._making,
            self.world.observer,
            self.world.sweeps,
            self.world,
        ):
            vars(part).update({name: self.runtime for name in ("_runtime", "runtime") if name in vars(part)})
        self.tokens: Counter[tuple[str, str]] = Counter()
        self.sizes: dict[str, str] = {}
        self.users: dict[str, str] = {}

    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    def play(self) -> None:
        """Do something every half hour or so, at random."""
        while self.world.now < END - DAY / 2:
            self.pass_time(self.dice.expovariate(STEPS / (END - BEGIN)))
            if len(self.sizes) < SESSIONS and self.dice.random() < 0.3:
                self.create()
            elif self.sizes:
                self.act(self.dice.choice([*self.sizes]))
            if self.dice.random() < 0.03:
                self.delete_backup()
        self.world.now = END
        self.runtime.close()

    def create(self) -> None:
        user_id, size = f"user{self.dice.randrange(USERS)}", self.dice.choice(SIZES)
        name = f"call{len(self.sizes)}"
        made: list[str] = []
        wanted = NewSession(user_id=user_id, size=size)
        self.do(lambda: made.append(self.world.sessions.create(wanted, "r", name, made_by="backend").uuid))
        self.sizes[made[-1]], self.users[made[-1]] = size, user_id
        self.settle(made[-1])

    def act(self, uuid: str) -> None:
        world, drawn = self.world, self.dice.random()
        status = world.get(uuid).status
        if status in GONE:
            return
        if drawn < 0.03:
            self.do(lambda: world.sessions.delete(uuid, backup=drawn < 0.02))
        elif drawn < 0.12 and world.get(uuid).provisioned:
            self.work_a_little(uuid, 2_000_000)
            self.do(lambda: world.sessions.request_backup(uuid))
        elif status is not Status.ACTIVE:
            self.do(lambda: world.sessions.wake(uuid))
        elif drawn < 0.35:
            self.spend(uuid)
        elif drawn < 0.40:
            self.runtime.crash(uuid, "boom")
            self.pass_time(self.dice.uniform(0, 1))
            self.do(lambda: world.look(uuid))
        else:
            if self.dice.random() < 0.7:
                self.work_a_little(uuid, 300_000)
            self.do(lambda: world.sessions.sleep(uuid))
        self.settle(uuid)

    def work_a_little(self, uuid: str, most: int) -> None:
        if uuid in self.runtime.workspaces:
            self.runtime.workspaces[uuid].files["a"] = bytes(self.dice.randrange(most))

    def spend(self, uuid: str) -> None:
        """A call of the model, whose count may be lost with the process: then it was not booked, or it was."""
        model = self.dice.choice(["gpt-5", "other"])
        counted = Tokens(self.dice.randrange(50_000), self.dice.randrange(3_000))
        before = self.booked_tokens()
        with suppress(Killed, SessionError), self.fate.threatened():
            TokenUsage(self.world.core.redis).add(uuid, self.users[uuid], counted, self.world.now, model)
        if self.booked_tokens() != before:
            self.tokens[uuid, f"p:{model}"] += counted.prompt
            self.tokens[uuid, f"t:{model}"] += counted.completion

    def booked_tokens(self) -> int:
        """The other count of tokens, for the limit of a day."""
        read = self.world.core.redis
        return sum(int(read.get(name) or 0) for name in read.scan_iter("tokens:*"))

    def delete_backup(self) -> None:
        names = self.world.core.redis.zrange(keys.BACKUPS, 0, -1)
        if names:
            name = self.dice.choice(names)
            with suppress(SessionError):
                self.do(lambda: self.world.core.backups.retire(name, self.world.now, keep="living"))

    def do(self, call: Callable[[], object]) -> None:
        """Carry out a call, again and again until no death comes in between."""
        for _ in range(MOST_TRIES):
            try:
                with self.fate.threatened():
                    call()
                return
            except Killed:
                self.recover()
            except SessionError as error:
                if error.code != "state_unavailable":
                    raise
                self.recover()
        raise AssertionError("it never came to its end")

    def settle(self, uuid: str) -> None:
        """What workers, sweeps and the observer do until the session's intent is carried out."""
        for _ in range(MOST_TRIES):
            record = self.world.get(uuid)
            if record.settled >= record.generation and not self.waits(uuid) and not self.world.tasks.sent:
                self.world.sweeps.reconcile()
                return
            try:
                with self.fate.threatened():
                    self.world.work()
                    self.observe(uuid)
            except (Killed, SessionError):
                self.recover()
            else:
                if self.world.get(uuid).settled < record.generation or self.waits(uuid):
                    self.recover()
        raise AssertionError(f"never settled: {self.world.get(uuid)}")

    def waits(self, uuid: str) -> bool:
        """Whether a backup or a restore point is still to be made."""
        return any(self.world.core.store.pending(each, uuid) for each in (keys.BACKUP_REQUESTS, keys.POINT_REQUESTS))

    def observe(self, uuid: str) -> None:
        record, workspace = self.world.get(uuid), self.runtime.workspaces.get(uuid)
        if workspace and workspace.running and record.status in STARTING:
            workspace.ready = True
        self.world.look(uuid)

    def recover(self) -> None:
        """A dead worker's lease ends, and the sweep finds what it left."""
        client = self.world.core.redis
        self.pass_time(self.world.settings.stale_after + 1)
        if leases := client.keys("lease:*"):
            client.delete(*leases)
        self.world.tasks.lose_all()
        self.world.sweeps.stale()
        self.world.points.sweep()

    def by_hand(self) -> dict[str, Counter[str]]:
        """What each session used: from the runtime's log, and the backups and points that exist or were retired."""
        found: dict[str, Counter[str]] = {uuid: Counter() for uuid in self.sizes}
        for uuid, size in self.sizes.items():
            found[uuid][f"c:{size}"] = round(1000 * sum(end - since for since, end in self.runtime.ran[uuid]))
            found[uuid][f"d:{size}:5120"] = round(sum(end - since for since, end in self.runtime.existed[uuid]))
            found[uuid]["r"] = self.runtime.points_used(uuid)
        client = self.world.core.redis
        gone = dict(client.zrange(keys.RETIRED, 0, -1, withscores=True))
        indexed = set(client.zrange(keys.BACKUPS, 0, -1))
        for name, (uuid, created, length) in self.runtime.stored.items():
            if name in gone or name in indexed:
                found[uuid]["b"] += round(-(-length // 1024) * (gone.get(name, END) - created))
        for (uuid, kind), count in self.tokens.items():
            found[uuid][kind] += count
        return found


@pytest.mark.slow
@pytest.mark.real_redis
@pytest.mark.parametrize("seed", sampling.seeds(sampling.times(2, 1), "month"))
def test_the_ledger_of_a_month_equals_one_by_hand(tmp_path: Path, seed: int) -> None:
    """In each kind, in dollars, and for each session; with workers killed at any line, and Redis with SIGKILL."""
    with OwnRedis(tmp_path) as server:
        month = Month(seed, server, tmp_path)
        month.play()
        first, last = day_number(BEGIN), day_number(END)
        ledger = month.world.core.ledger
        found = list(ledger.read(sorted(month.sizes), first, last, END))
        read = {each.payer.uuid: each.days.total(first, last) for each in found}
        hand = month.by_hand()
        print(f"deaths: {month.fate.deaths}")
        assert month.fate.deaths["worker"] > 50 and month.fate.deaths["redis"] > 10
        assert len(month.sizes) == SESSIONS

        sums, by_hand = sum(read.values(), Counter()), sum(hand.values(), Counter())
        differences = {kind: sums[kind] / by_hand[kind] - 1 for kind in by_hand if by_hand[kind]}
        print({kind: f"{share:+.6%}" for kind, share in differences.items()})
        assert sums.keys() == by_hand.keys()
        assert all(abs(share) < NEAR for share in differences.values()), differences

        cost, exact = (bill(amounts, ledger.prices) for amounts in (sums, by_hand))
        print(f"{float(cost.total):.4f} $ in the ledger, {float(exact.total):.4f} $ by hand")
        assert abs(cost.total - exact.total) < exact.total / 1000
        assert abs(cost.saved - exact.saved) < exact.saved / 1000
        for uuid, amounts in hand.items():
            one, same = (float(bill(each, ledger.prices).total) for each in (amounts, read[uuid]))
            assert same == pytest.approx(one, rel=NEAR, abs=0.001), uuid

        # The running totals of the last month, kept apart, and of all time.
        owners = [keys.USER_COSTS.format(user_id=f"user{n}") for n in range(USERS)]
        by_key = [keys.KEY_COSTS.format(key="backend")]
        of_month = [each.days.total(month_start(month_name(last)), last) for each in found]
        assert +sum(ledger.running_totals(owners, END), Counter()) == +sum(of_month, Counter())
        assert +sum(ledger.running_totals(by_key, END), Counter()) == +sum(of_month, Counter())
        assert ledger.totals(END).dollars == pytest.approx({kind: float(each) for kind, each in cost.dollars.items()})
