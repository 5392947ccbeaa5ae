"""The promises of `Runtime`, held against every runtime and against the fake the other tests rely on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from app.core.access.agent_credentials import AgentCredentials
from app.core.backups.store import backup_name
from app.core.errors import (
    BackupNotFound,
    FilesGone,
    PermanentError,
    RetryableError,
    Superseded,
    WorkspaceConflict,
)
from tests.contract.runtimes import (
    SECRET_KEY,
    A,
    AgentHarness,
    B,
    Harness,
    identity,
    status_of_agent,
    stop,
    wait_for_agent,
    watching,
)
from tests.waiting import wait_for
from workers.runtime.base import Runtime, Snapshot


def test_a_provisioned_workspace_is_down_and_remembers_whose_it_is(runtime: Runtime) -> None:
    """Provisioning makes the volume, not the processes; the whole identity is kept with it."""
    wanted = identity(A)
    runtime.provision(wanted, 1)
    seen = runtime.observe(A)
    assert seen is not None
    assert (seen.identity, seen.generation, seen.running, seen.failure) == (wanted, 1, False, "")


def test_provisioning_again_adopts_what_is_there(harness: Harness) -> None:
    """A task that runs twice finds its own workspace, files and all, and takes over a changed identity."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "kept.txt", b"kept")
    harness.again().provision(replace(identity(A), ttl=60.0), 2)
    seen = harness.runtime.observe(A)
    assert seen is not None
    assert (seen.identity.ttl, seen.generation) == (60.0, 2)
    assert harness.read(A, "kept.txt") == b"kept"


def test_another_users_workspace_is_never_adopted(runtime: Runtime) -> None:
    """What stands there is somebody else's: it is refused, and stays as it was."""
    runtime.provision(identity(A), 1)
    with pytest.raises(WorkspaceConflict):
        runtime.provision(identity(A, "eve@example.com"), 2)
    seen = runtime.observe(A)
    assert seen is not None
    assert (seen.identity.user_id, seen.generation) == ("ada@example.com", 1)


def test_a_started_workspace_becomes_ready(harness: Harness) -> None:
    """Start returns at once; the watch tells when the editor answers."""
    harness.runtime.provision(identity(A), 1)
    with watching(harness.again()) as seen:
        assert seen.snapshot().workspaces == ()
        harness.runtime.start(A, 2)
        harness.answer(A)
        ready = seen.until(lambda each: each.ready)
    assert (ready.identity, ready.generation, ready.running, ready.failure) == (identity(A), 2, True, "")
    assert ready.pod_name
    observed = harness.again().observe(A)
    assert observed == ready
    assert observed.began > 0


def test_starting_without_a_volume_is_hopeless(runtime: Runtime) -> None:
    """There is nothing to start, and there won't be by trying again."""
    with pytest.raises(PermanentError):
        runtime.start(A, 1)


def test_starting_twice_changes_nothing_but_the_generation(harness: Harness) -> None:
    """The same processes go on, and are now those of the newer intent, whoever asks; whoever asks is told."""
    with watching(harness.again()) as seen:
        harness.runtime.provision(identity(A), 1)
        assert harness.runtime.start(A, 1) is False
        harness.answer(A)
        first = seen.until(lambda each: each.ready)
        assert harness.again().start(A, 2) is True
        second = seen.until(lambda each: each.generation == 2)
    assert second == replace(first, generation=2)


def test_a_stopped_workspace_is_down_and_stopping_again_is_fine(harness: Harness) -> None:
    """The watch tells of an orderly stop as such, with the generation that asked for it."""
    harness.runtime.provision(identity(A), 1)
    with watching(harness.again()) as seen:
        harness.runtime.start(A, 1)
        harness.answer(A)
        seen.until(lambda each: each.ready)
        stop(harness.runtime, A, 2)
        down = seen.until(lambda each: not each.ready)
    assert (down.running, down.failure, down.generation) == (False, "", 2)
    stop(harness.runtime, A, 3)
    again = harness.runtime.observe(A)
    assert again is not None
    assert (again.running, again.ready, again.generation) == (False, False, 3)


def test_stopping_what_is_not_there_succeeds(runtime: Runtime) -> None:
    """A teardown repeated after it was done finds nothing to do."""
    stop(runtime, A, 1)
    assert runtime.observe(A) is None


def test_a_stopped_workspace_starts_again_with_its_files(harness: Harness) -> None:
    """What sleep and wake are made of."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "work.txt", b"unsaved? no.")
    with watching(harness.again()) as seen:
        for generation in (2, 4):
            assert harness.runtime.start(A, generation) is False
            harness.answer(A)
            seen.until(lambda each, wanted=generation: each.ready and each.generation == wanted)  # type: ignore[misc]
            stop(harness.runtime, A, generation + 1)
    assert harness.read(A, "work.txt") == b"unsaved? no."


def test_a_removed_workspace_leaves_nothing_and_removing_again_is_fine(harness: Harness) -> None:
    """Running or not, all of it goes."""
    harness.runtime.provision(identity(A), 1)
    harness.runtime.start(A, 1)
    harness.runtime.remove(A, 2)
    assert harness.again().observe(A) is None
    assert list(harness.again().observe_all()) == []
    harness.runtime.remove(A, 2)


@pytest.mark.parametrize("call", ["provision", "start", "stop", "remove", "restore"])
def test_an_older_intent_is_refused_and_changes_nothing(harness: Harness, call: str) -> None:
    """Whoever lost its lease can't undo what a newer intent did."""
    harness.runtime.provision(identity(A), 5)
    harness.runtime.start(A, 5)
    stale = harness.again()
    subject = identity(A) if call in ("provision", "restore") else A
    with pytest.raises(Superseded):
        getattr(stale, call)(subject, 4)
    seen = harness.runtime.observe(A)
    assert seen is not None
    assert (seen.running, seen.generation) == (True, 5)


@pytest.mark.parametrize("call", ["provision", "restore"])
def test_an_older_intent_does_not_bring_back_what_was_removed(harness: Harness, call: str) -> None:
    """A task that hung since before the teardown creates no workspace that nobody owns."""
    harness.runtime.provision(identity(A), 1)
    harness.runtime.remove(A, 3)
    with pytest.raises(Superseded):
        getattr(harness.again(), call)(identity(A), 2)
    assert harness.runtime.observe(A) is None


def test_a_dead_editor_is_a_failure_with_its_last_words_and_can_be_started_again(harness: Harness) -> None:
    """The watch tells why, and the next start makes it well."""
    harness.runtime.provision(identity(A), 1)
    with watching(harness.again()) as seen:
        harness.runtime.start(A, 1)
        harness.answer(A)
        seen.until(lambda each: each.ready)
        harness.crash(A)
        failed = seen.until(lambda each: bool(each.failure))
        assert (failed.running, failed.ready, failed.generation) == (False, False, 1)
        assert "SIGKILL" in failed.failure
        assert harness.runtime.start(A, 2) is False
        harness.answer(A)
        seen.until(lambda each: each.ready and each.generation == 2)


def test_a_new_watch_finds_what_ran_and_what_failed_before_it(harness: Harness) -> None:
    """The snapshot comes first and tells all that is up or broken; what sleeps is not in it."""
    with watching(harness.again()) as seen:
        for uuid in (A, B):
            harness.runtime.provision(identity(uuid), 1)
            harness.runtime.start(uuid, 1)
            harness.answer(uuid)
            seen.until(lambda each, wanted=uuid: each.ready and each.identity.uuid == wanted)  # type: ignore[misc]
        harness.crash(B)
        seen.until(lambda each: bool(each.failure))
    harness.runtime.provision(identity("cccc0003"), 1)
    with watching(harness.again()) as seen:
        by_uuid = {each.identity.uuid: each for each in seen.snapshot().workspaces}
    harness.runtime.remove("cccc0003", 2)
    assert set(by_uuid) == {A, B}
    assert by_uuid[A].ready and not by_uuid[A].failure
    assert by_uuid[B].failure and not by_uuid[B].running


def test_every_workspace_can_be_listed(harness: Harness) -> None:
    """This is what the records are rebuilt from when Redis was lost."""
    harness.runtime.provision(identity(A), 1)
    harness.runtime.provision(identity(B, "bob@example.com"), 7)
    harness.runtime.start(B, 7)
    listed = {each.identity.uuid: each for each in harness.again().observe_all()}
    assert {uuid: each.identity.user_id for uuid, each in listed.items()} == {
        A: "ada@example.com",
        B: "bob@example.com",
    }
    assert [listed[A].running, listed[B].running] == [False, True]
    assert [listed[A].generation, listed[B].generation] == [1, 7]


def test_a_backup_gives_the_files_back_to_a_new_workspace(harness: Harness) -> None:
    """Backup, remove, restore: the files are there, and nothing is left to restore."""
    name = backup_name(A, 1_763_625_600.0)
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "naïve 文.txt", b"content")
    summary = harness.runtime.backup(A, name)
    assert (summary.files, summary.content_bytes, summary.changed) == (1, 7, ())
    harness.runtime.remove(A, 2)
    harness.runtime.restore(identity(B, restore_from=name), 1)
    assert harness.read(B, "naïve 文.txt") == b"content"
    seen = harness.again().observe(B)
    assert seen is not None
    assert (seen.identity, seen.running) == (identity(B), False)


def test_restoring_again_takes_no_later_work_back(harness: Harness) -> None:
    """A restore delivered twice must not undo what the user did in between."""
    name = backup_name(A, 1_763_625_600.0)
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"from the backup")
    harness.runtime.backup(A, name)
    harness.runtime.restore(identity(B, restore_from=name), 1)
    harness.write(B, "file", b"edited since")
    harness.again().restore(identity(B, restore_from=name), 1)
    assert harness.read(B, "file") == b"edited since"
    seen = harness.runtime.observe(B)
    assert seen is not None
    assert seen.identity.restore_from == ""


def test_a_restore_that_fails_leaves_the_files_and_stays_due(harness: Harness) -> None:
    """All or nothing: without the backup, what is there stays, and still names what it waits for."""
    missing = backup_name(A, 1.0)
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"precious")
    with pytest.raises(BackupNotFound):
        harness.runtime.restore(identity(A, restore_from=missing), 2)
    assert harness.read(A, "file") == b"precious"
    seen = harness.runtime.observe(A)
    assert seen is not None
    assert seen.identity.restore_from == missing


def test_a_backup_of_nothing_is_hopeless(runtime: Runtime) -> None:
    """No files, no backup, no name taken."""
    with pytest.raises(PermanentError):
        runtime.backup(A, backup_name(A, 1.0))


class Turn:
    """A check that does something, once, at its call `at`."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self.calls, self.at, self.act = 0, at, act

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.act()


def overtaken() -> None:
    raise Superseded("Intent 1 was overtaken by 2.")


def is_nothing_or_whole(harness: Harness, name: str) -> bool:
    """Whether no backup has that name, or one that was done already when the word to break off came: a Job asks no
    more often than its worker looks."""
    try:
        harness.runtime.restore(identity(B, restore_from=name), 1)
    except BackupNotFound:
        return True
    return harness.read(B, "file") == b"content"


@pytest.mark.parametrize("at", [1, 2])
def test_a_backup_nobody_wants_any_more_is_broken_off_and_leaves_nothing(harness: Harness, at: int) -> None:
    """Nothing half done, and the files as they were; no backup either, if it was not done before."""
    name = backup_name(A, 1_763_625_610.0 + at)
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"content")
    with pytest.raises(Superseded):
        harness.runtime.backup(A, name, check=Turn(at, overtaken))
    assert harness.leftovers() == []
    assert harness.read(A, "file") == b"content"
    assert is_nothing_or_whole(harness, name)
    assert harness.runtime.backup(A, name, check=Turn(1, lambda: None)).files == 1


@pytest.mark.parametrize("at", [1, 2])
def test_a_restore_nobody_wants_any_more_is_broken_off_and_stays_due(harness: Harness, at: int) -> None:
    """Nothing is half done: the files are as they were, or all from the backup; the next one does it all."""
    name = backup_name(A, 1_763_625_620.0 + at)
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"from the backup")
    harness.runtime.backup(A, name)
    harness.write(A, "file", b"edited since")
    with pytest.raises(Superseded):
        harness.runtime.restore(identity(A, restore_from=name), 2, check=Turn(at, overtaken))
    assert harness.leftovers() == []
    assert harness.read(A, "file") in (b"edited since", b"from the backup")
    seen = harness.runtime.observe(A)
    assert seen is not None
    assert seen.identity.restore_from == name
    harness.runtime.restore(identity(A, restore_from=name), 3)
    assert harness.read(A, "file") == b"from the backup"


def test_a_forced_removal_waits_for_no_backup(harness: Harness) -> None:
    """The backup that runs fails, though every file may have been read: what was taken away under it can't be told."""
    name = backup_name(A, 1_763_625_630.0)
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"content")
    remove = Turn(2, lambda: harness.again().remove(A, 2, force=True))
    with pytest.raises((FilesGone, RetryableError)):
        harness.runtime.backup(A, name, check=remove)
    assert harness.runtime.observe(A) is None
    assert harness.leftovers() == []
    assert is_nothing_or_whole(harness, name)


def test_a_started_workspace_has_an_agent_that_knows_only_its_own_sessions_secret(agents: AgentHarness) -> None:
    """It listens where the watch says, lets the manager in, and nobody with another session's secrets."""
    with watching(agents.again()) as seen:
        for uuid in (A, B):
            agents.runtime.provision(identity(uuid), 1)
            agents.runtime.start(uuid, 1)
        ready = seen.until(lambda each: each.ready and each.identity.uuid == A)
    address = wait_for_agent(agents, A)
    assert ready.agent == address
    secrets = AgentCredentials([SECRET_KEY])
    for secret in (secrets.token(A, 0), secrets.agent_secrets(B, 0)[0], secrets.token(B, 0), ""):
        assert status_of_agent(address, secret) == 401


def test_a_stopped_workspace_has_no_agent_and_a_started_one_has_it_again(agents: AgentHarness) -> None:
    """Nothing answers at the address it had."""
    agents.runtime.provision(identity(A), 1)
    agents.runtime.start(A, 1)
    address = wait_for_agent(agents, A)
    stop(agents.runtime, A, 2)
    assert status_of_agent(address, "") == 0
    seen = agents.runtime.observe(A)
    assert seen is not None
    assert seen.agent == ""
    agents.runtime.start(A, 3)
    wait_for_agent(agents, A)


def test_a_dead_agent_comes_back_and_the_editor_notices_nothing(agents: AgentHarness) -> None:
    """Killed, and killed again; the workspace is ready all the time."""
    agents.runtime.provision(identity(A), 1)
    with watching(agents.again()) as seen:
        agents.runtime.start(A, 1)
        agents.answer(A)
        seen.until(lambda each: each.ready)
        for _ in range(2):
            wait_for_agent(agents, A)
            before = agents.agent_life(A)
            agents.crash_agent(A)
            wait_for(partial(_lives_again, agents, before), "another life of the agent")
            wait_for_agent(agents, A)
        assert all(each.ready for each in list(seen.all.queue) if not isinstance(each, Snapshot))


def _lives_again(agents: AgentHarness, before: object) -> bool:
    return agents.agent_life(A) != before
