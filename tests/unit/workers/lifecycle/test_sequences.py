"""Sessions in any order of requests, tasks, sweeps and faults: no step breaks a promise. When nothing goes wrong
any more, each is as it was last asked to be, with its files, its prompts and its copies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.core.errors import IllegalState, RestorePointNotFound, RetryableError, RuntimeUnavailable, SessionError
from app.core.redis import keys, task_queue
from app.core.restore_points.names import reference
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.core.sessions.model import GONE, Record, Status
from app.core.storage.archive_keys import new_key
from tests import sampling
from tests.fakes import FakeWorkspace
from tests.world import World

MOST = 2
"""Sessions at a time: few, so that steps meet."""

TTL = 1_000.0
"""s that a sleeping session is unused until it is archived."""

REQUESTS = (
    *("create", "sleep", "wake", "prompt", "delete", "delete at once", "back up", "save", "save"),
    *("roll back", "roll back far", "sleep", "wake"),
)

"""What somebody asks for; some of it more often, so that more meets what is up, asleep and saved."""

AMID = ("look", "next", "same")
"""What else happens amid a worker's step: the observer looks, another worker takes the next message, or the same."""

BY_ITSELF = ("answer", "look", "idle", "expired", "stale", "reconcile", "retention", "expire")
"""What happens without a request: workspaces answer, the observer looks, a sweep comes; or nobody uses any for long."""

FAULTS = ("crash", "busy", "away", "kill before", "kill after", "lose")

ERRORS = {"busy": RetryableError("Busy."), "away": RuntimeUnavailable("Away.")}

STEPS = ("provision", "start", "stop", "discard", "remove", "backup", "make_point", "restore", "renew", "observe")
"""What a worker asks of the runtime."""

ROUNDS = 40
"""Of quiet after which everything has come to its end: more than a task is tried."""

MOST_MESSAGES = 100
"""Worked on in a row: those that are sent anew by each other never end."""

Files = dict[str, bytes]
Message = tuple[str, tuple[Any, ...]]

which, message = st.integers(0, MOST - 1), st.integers(0, 5)
request = st.tuples(st.just("request"), which, st.sampled_from(REQUESTS), st.sampled_from(["", "work", "answer"]))
steps = st.one_of(
    request,
    request,
    st.tuples(st.just("work"), message, st.sampled_from(["once", "once", "twice", "lost"])),
    st.tuples(st.just("meet"), message, st.sampled_from(STEPS), st.sampled_from([*REQUESTS, *AMID])),
    st.tuples(st.just("go_on"), st.sampled_from([1.0, 400.0]), st.sampled_from(BY_ITSELF)),
    st.tuples(st.just("fail"), which, st.sampled_from(STEPS), st.sampled_from(FAULTS)),
)


class Killed(BaseException):
    """The worker's process ended there."""


@dataclass
class Wanted:
    """What a session was last asked to be, and what must be kept of it."""

    status: Status
    files: Files = field(default_factory=dict)
    backup: bool = False
    before: Files | None = None
    """What a rollback that is under way leaves."""
    left: list[Files] = field(default_factory=list)
    """What rollbacks have left: each must be in a restore point."""
    prompts: list[str] = field(default_factory=list)
    undone: set[str] = field(default_factory=set)
    """Prompts that a rollback may have ended."""
    generation: int = 0
    crashed: bool = False
    archived: bool = False
    """Whether it was in the archive, which lists one of its restore points, and no other before the store is read."""
    over: bool = False
    """Whether it was seen to be terminated."""


class Sequences(RuleBasedStateMachine):
    """Random steps in a world of its own, which begins with a session that is up and has a file.

    They are one rule: hypothesis leaves some rules out of each sequence, and then too little meets."""

    def __init__(self, client: redis.Redis, folder: Path) -> None:
        super().__init__()
        client.flushall()
        self.world = World(client, folder, archive_key=new_key(), idle_timeout=0.0, session_ttl=TTL)
        self.runtime = self.world.runtime
        # The points of the fake are not in the store, with which a new Redis is compared.
        self.world.core.store.first_sight(self.world.now)
        self.wanted: dict[str, Wanted] = {}
        self.number = self.troubles = 0
        self.create()
        self.work_all()
        self.answer_all()
        # Which remembers the place of the workspaces: lost files are restored to no other.
        self.world.sweeps.reconcile()

    @rule(step=steps)
    def step(self, step: tuple[Any, ...]) -> None:
        """One of the methods below, with what it is given. No two are at the same moment."""
        self.world.pass_time(0.01)
        name, *given = step
        getattr(self, name)(*given)

    def request(self, at: int, what: str, then: str) -> None:
        """Somebody asks for something; `then` workers do all there is, and workspaces answer, or only the first, or
        nothing yet."""
        self.ask(self.at(at), what)
        if then:
            self.work_all()
        if then == "answer":
            self.answer_all()

    def work(self, at: int, how: str) -> None:
        """A worker takes a message: any, as there are several workers. The broker may bring it again, or forget it."""
        taken = self.taken(at, keep=how == "twice")
        if taken and how != "lost":
            self.do(taken)

    def meet(self, at: int, name: str, what: str) -> None:
        """Amid such a step of a worker somebody asks for something, the observer looks, another worker takes the next
        message, or does the same, since the lease ended unnoticed."""
        taken = self.taken(at)
        if taken is None or not taken[1]:
            return
        uuid = str(taken[1][0])
        deeds: dict[str, Callable[[], object]] = {
            "look": lambda: self.world.look(uuid),
            "next": lambda: self.work(0, "once"),
            "same": lambda: self.take_over(taken),
        }
        self.runtime.meanwhile[name] = deeds.get(what, lambda: self.ask(uuid, what))
        self.do(taken)
        self.runtime.meanwhile.clear()

    def go_on(self, seconds: float, what: str) -> None:
        """Time passes, and what runs of itself does."""
        self.world.pass_time(seconds)
        if what == "answer":
            self.answer_all()
        elif what == "look":
            self.look_at_all()
        elif what == "expire":
            self.expire()
        else:
            getattr(self.world.sweeps, what)()

    def fail(self, at: int, name: str, what: str) -> None:
        """A workspace crashes, the runtime refuses the next step of this kind, a worker dies before or after it, or a
        volume is lost."""
        if what == "crash":
            self.crash(self.at(at))
        elif what == "lose":
            self.lose_volume(self.at(at))
        elif what in ERRORS:
            self.runtime.errors[name] = ERRORS[what]
            self.troubles += 1
        else:
            self.kill(at, name, after=what == "kill after")

    # What must be so after every step

    @invariant()
    def promises_hold(self) -> None:
        assert self.runtime.workspaces.keys() <= self.wanted.keys()
        for record in self.world.core.store.find(self.wanted):
            wanted, workspace = self.wanted[record.uuid], self.runtime.workspaces.get(record.uuid)
            if workspace:
                self.check_workspace(record, workspace)
            wanted.archived = wanted.archived or bool(record.archived_at)
            if not wanted.over:
                self.check_intent(record, wanted)
                self.check_prompts(record, wanted)
                self.check_files(record, wanted)
            wanted.over = record.status is Status.TERMINATED

    def check_workspace(self, record: Record, workspace: FakeWorkspace) -> None:
        """What runs is wanted, and billed."""
        assert record.status is not Status.TERMINATED
        if workspace.running:
            assert record.provisioned and (record.compute_since or record.stopping)
            assert record.status is not Status.SLEEPING or record.settled < record.generation
        if record.status is Status.ACTIVE and record.settled == record.generation:
            assert workspace.generation == record.generation

    def check_intent(self, record: Record, wanted: Wanted) -> None:
        assert wanted.generation <= record.generation
        assert record.settled <= record.generation
        wanted.generation = record.generation

    def check_prompts(self, record: Record, wanted: Wanted) -> None:
        """They wait in the order they came, and none is lost."""
        waiting = [each.id for each in self.world.core.inbox.unfinished(record.uuid)]
        assert record.waiting == len(waiting)
        if record.status not in GONE:
            assert [each for each in wanted.prompts if each in waiting] == waiting
            assert set(wanted.prompts) - set(waiting) <= wanted.undone

    def check_files(self, record: Record, wanted: Wanted) -> None:
        """They are somewhere, and so is what a rollback leaves."""
        self.note_rollback(record, wanted)
        copies = self.copies(record.uuid)
        if record.status not in GONE:
            assert all(each in copies for each in [wanted.files, *wanted.left, wanted.before or {}])
        elif wanted.backup:
            # A deletion wins over a rollback that has not begun.
            assert wanted.files in copies or wanted.before in copies

    def teardown(self) -> None:
        """Nothing goes wrong any more: everything comes to its end, as a failure only where something did go wrong.
        Then all that sleeps or failed is woken, and is as it was."""
        self.runtime.errors.clear()
        self.end_leases()
        self.rest()
        for uuid, wanted in self.wanted.items():
            record = self.world.get(uuid)
            if record.status is Status.FAILED:
                assert wanted.crashed or self.troubles >= MAX_ATTEMPTS, record.reason
            else:
                assert record.status is wanted.status
                self.judge(uuid, wanted, record)
        for uuid, wanted in self.wanted.items():
            if wanted.status is Status.TERMINATED:
                self.world.sessions.delete(uuid, backup=wanted.backup)
            else:
                self.world.sessions.wake(uuid)
                wanted.status = Status.ACTIVE
        self.rest()
        for uuid, wanted in self.wanted.items():
            record = self.world.get(uuid)
            assert record.status is wanted.status, record.reason
            self.judge(uuid, wanted, record)
        self.promises_hold()
        # No agent is there to take a prompt: its delivery is tried for ever.
        assert {task for task, _ in self.world.tasks.sent} <= {task_queue.DELIVER}

    def judge(self, uuid: str, wanted: Wanted, record: Record) -> None:
        """Whether it is as it was asked to be, at rest."""
        self.note_rollback(record, wanted)
        workspace = self.runtime.workspaces.get(uuid)
        if wanted.status is Status.TERMINATED:
            assert workspace is None
            if wanted.backup and wanted.files:
                newest = self.world.core.backups.newest_of(uuid)
                assert newest is not None
                assert self.runtime.backups[newest.name] in (wanted.files, wanted.before)
            return
        if record.archived_at:
            assert workspace is None
            assert self.runtime.points[record.restore_from].files == wanted.files
            return
        assert workspace is not None and record.disk_since
        assert bool(record.compute_since) is workspace.running
        if workspace.running:
            assert not self.world.core.redis.exists(keys.HELD.format(uuid=uuid)), "its prompts wait for its agent"
        assert (workspace.running, workspace.ready) == (wanted.status is Status.ACTIVE,) * 2
        assert workspace.files == wanted.files
        for files in wanted.left:
            assert files in self.points_of(uuid)

    # What there is to do

    def ask(self, uuid: str, what: str) -> None:
        """A request; one that is refused changes nothing."""
        sessions = self.world.sessions
        calls: dict[str, tuple[Callable[[str], object], Status | None]] = {
            "create": (lambda _: self.create(), None),
            "sleep": (sessions.sleep, Status.SLEEPING),
            "wake": (sessions.wake, Status.ACTIVE),
            "prompt": (self.prompt, Status.ACTIVE),
            "delete": (lambda uuid: self.delete(uuid, backup=True), Status.TERMINATED),
            "delete at once": (lambda uuid: self.delete(uuid, backup=False), Status.TERMINATED),
            "back up": (sessions.request_backup, None),
            "save": (sessions.request_point, None),
            "roll back": (lambda uuid: self.roll_back(uuid, -1), None),
            "roll back far": (lambda uuid: self.roll_back(uuid, 0), None),
        }
        call, to = calls[what]
        with suppress(IllegalState, RestorePointNotFound):
            call(uuid)
            self.wanted[uuid].status = to or self.wanted[uuid].status

    def create(self) -> None:
        if sum(wanted.status is not Status.TERMINATED for wanted in self.wanted.values()) < MOST:
            self.wanted[self.world.create()] = Wanted(Status.ACTIVE)

    def prompt(self, uuid: str) -> None:
        self.number += 1
        self.world.sessions.prompt(uuid, "go on", f"m{self.number}")
        self.wanted[uuid].prompts.append(f"m{self.number}")

    def delete(self, uuid: str, backup: bool) -> None:
        begun = self.world.get(uuid).status in GONE
        self.world.sessions.delete(uuid, backup=backup)
        # A deletion under way goes on as it was asked for, unless less is demanded of the backup now.
        self.wanted[uuid].backup = backup and (self.wanted[uuid].backup or not begun)

    def write(self, uuid: str) -> None:
        """A file, where the workspace is up and has its files."""
        workspace, record = self.runtime.workspaces[uuid], self.world.get(uuid)
        has_files = not record.restore_from and not record.rollback_to
        if workspace.ready and record.status is Status.ACTIVE and has_files:
            self.number += 1
            workspace.files[f"f{self.number % 3}"] = b"%d" % self.number
            self.wanted[uuid].files = dict(workspace.files)

    def roll_back(self, uuid: str, to: int) -> None:
        points = self.world.core.restore_points.of(uuid)[::-1]
        if points:
            wanted = self.wanted[uuid]
            self.world.core.going_back.roll_back(uuid, points[to].id)
            if wanted.before is None:
                wanted.before = wanted.files
            wanted.files = dict(self.runtime.points[reference(uuid, points[to].id)].files)
            wanted.undone.update(wanted.prompts)

    def expire(self) -> None:
        """Nobody uses them for long: what sleeps goes as far as it gets, to a restore point and into the archive."""
        self.world.pass_time(2 * TTL)
        for _ in range(3):
            self.world.sweeps.expired()
            self.work_all()

    def crash(self, uuid: str) -> None:
        workspace = self.runtime.workspaces.get(uuid)
        if workspace and workspace.running:
            self.runtime.crash(uuid, "out of memory")
            self.wanted[uuid].crashed = True

    def lose_volume(self, uuid: str) -> None:
        """Of a session at rest whose newest copy is a restore point with all its files."""
        self.ask(uuid, "save")
        self.work_all()
        workspace, points = self.runtime.workspaces.get(uuid), self.world.core.restore_points.of(uuid)
        if not workspace or not points or self.points_of(uuid)[-1] != workspace.files:
            return
        record, backup = self.world.get(uuid), self.world.core.backups.newest_of(uuid)
        rests = record.settled == record.generation and record.provisioned and not record.rollback_to
        if rests and (backup is None or backup.created_at < points[0].created_at):
            del self.runtime.workspaces[uuid]

    def kill(self, at: int, name: str, after: bool) -> None:
        """A worker takes a message and dies before or after such a step; its lease ends by itself."""
        taken = self.taken(at)
        if taken is None:
            return
        real = getattr(self.runtime, name)
        with pytest.MonkeyPatch.context() as patched, suppress(Killed):

            def killed(*args: Any, **more: Any) -> None:
                if after:
                    real(*args, **more)
                # A process that is gone sends nothing.
                patched.setattr(self.world.tasks, "send", lambda *_, **__: None)
                raise Killed

            patched.setattr(self.runtime, name, killed)
            self.do(taken)
        self.troubles += 1
        self.end_leases()

    def rest(self) -> None:
        """Sweeps come, workers do all there is, and every workspace that runs answers, until nothing is left to do."""
        for _ in range(ROUNDS):
            self.world.pass_time(self.world.settings.stale_after + 31)
            self.world.sweeps.stale()
            self.world.sweeps.reconcile()
            self.work_all()
            self.answer_all()
            if all(self.rests(self.world.get(uuid)) for uuid in self.wanted):
                return

    def rests(self, record: Record) -> bool:
        gone = record.archived_at or record.status in (*GONE, Status.FAILED)
        there = gone or record.uuid in self.runtime.workspaces
        return record.settled == record.generation and record.status is not Status.WAKING and bool(there)

    def taken(self, at: int, *, keep: bool = False) -> Message | None:
        sent = self.world.tasks.sent
        if not sent:
            return None
        return sent[at % len(sent)] if keep else sent.pop(at % len(sent))

    def do(self, taken: Message) -> None:
        with suppress(SessionError):
            self.world.do(*taken)

    def work_all(self) -> None:
        for _ in range(MOST_MESSAGES):
            if taken := self.taken(0):
                self.do(taken)

    def answer_all(self) -> None:
        """What runs answers, and is used."""
        for uuid, workspace in self.runtime.workspaces.items():
            if workspace.running:
                self.runtime.become_ready(uuid)
        self.look_at_all()
        for uuid in self.runtime.workspaces:
            self.write(uuid)

    def look_at_all(self) -> None:
        for uuid in self.runtime.workspaces:
            self.world.look(uuid)

    def take_over(self, taken: Message) -> None:
        self.end_leases()
        self.do(taken)

    def end_leases(self) -> None:
        for uuid in self.wanted:
            self.world.core.redis.delete(keys.LEASE.format(uuid=uuid), keys.BACKUP_LEASE.format(uuid=uuid))

    # What there is

    def note_rollback(self, record: Record, wanted: Wanted) -> None:
        """One that is over has left its files, or was called off."""
        if wanted.before is not None and not record.rollback_to:
            if record.rolled_back.get("error"):
                wanted.files = wanted.before
            else:
                wanted.left.append(wanted.before)
            wanted.before = None

    def copies(self, uuid: str) -> list[Files]:
        """All there is of its files."""
        workspace = self.runtime.workspaces.get(uuid)
        listed = self.world.core.backups.page(uuid=uuid).items
        backups = [self.runtime.backups[each.name] for each in listed]
        return [{}, *([workspace.files] if workspace else []), *backups, *self.points_of(uuid)]

    def points_of(self, uuid: str) -> list[Files]:
        """The files of its restore points, the oldest first."""
        if self.wanted[uuid].archived:
            return [each.files for name, each in self.runtime.points.items() if name.startswith(reference(uuid, ""))]
        points = self.world.core.restore_points.of(uuid)[::-1]
        return [self.runtime.points[reference(uuid, each.id)].files for each in points]

    def at(self, number: int) -> str:
        """A session that is not deleted yet, a new one where there is none."""
        living = [uuid for uuid, wanted in self.wanted.items() if wanted.status is not Status.TERMINATED]
        if not living:
            self.create()
            return self.at(number)
        return living[number % len(living)]


@pytest.mark.slow
@pytest.mark.timeout(900)  # hypothesis takes up to 300 s to make a sequence that fails short
def test_any_sequence_comes_to_what_was_asked(real_redis_client: redis.Redis, tmp_path: Path) -> None:
    run_state_machine_as_test(
        lambda: Sequences(real_redis_client, tmp_path),  # type: ignore[arg-type]
        settings=settings(
            max_examples=sampling.times(1_000, 100),
            stateful_step_count=40,
            # A sample is the same in each run, so that what it finds is due to the change; a full run is random.
            derandomize=not sampling.FULL,
            suppress_health_check=list(HealthCheck),
            database=None,
            print_blob=False,
        ),
    )
