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
    PointsBroken,
    RetryableError,
    StillEnding,
    Superseded,
    WorkspaceConflict,
)
from app.core.restore_points.names import new_id, reference
from tests.contract.runtimes import (
    SECRET_KEY,
    A,
    AgentHarness,
    B,
    C,
    Harness,
    identity,
    order,
    status_of_agent,
    stop,
    unused_backup_name,
    wait_for_agent,
    watching,
)
from tests.waiting import wait_for
from workers.runtime.base import ProofOrder, RestoredPoint, Runtime, Snapshot


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
        # On a busy machine it may miss a probe before.
        down = seen.until(lambda each: not each.ready and each.generation == 2)
    assert (down.running, down.failure) == (False, "")
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
    name = unused_backup_name(A)
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


def test_a_restore_brings_the_conversation_to_its_own_user_only(harness: Harness) -> None:
    """A folder of its name in the project is none, and comes back as it was."""
    name = unused_backup_name(A)
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"content")
    harness.write(A, "../.session/metadata.json", b"{}")
    harness.write(A, ".session/metadata.json", b"own")
    harness.runtime.backup(A, name)
    harness.runtime.restore(identity(B, restore_from=name), 1)
    harness.runtime.restore(identity(C, "eve@example.com", restore_from=name), 1)
    for uuid, found in ((B, b"{}"), (C, None)):
        assert harness.read(uuid, "file") == b"content"
        assert harness.read(uuid, "../.session/metadata.json") == found
        assert harness.read(uuid, ".session/metadata.json") == b"own"


def test_restoring_again_takes_no_later_work_back(harness: Harness) -> None:
    """A restore delivered twice must not undo what the user did in between."""
    name = unused_backup_name(A)
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


def test_a_restore_point_gives_the_files_back_to_a_new_workspace(harness: Harness) -> None:
    """Point, remove, restore: the files are there, nothing is left to restore, and it says which point that was."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "naïve 文.txt", b"content")
    made = harness.runtime.make_point(A, order(A))
    assert (made.files >= 1, made.stored > 0, made.unchanged, made.broken) == (True, True, False, ())
    harness.runtime.remove(A, 2)
    restored = harness.runtime.restore(identity(B, restore_from=reference(A, made.id)), 1)
    assert restored == RestoredPoint(made.id, made.created_at)
    assert harness.read(B, "naïve 文.txt") == b"content"
    seen = harness.again().observe(B)
    assert seen is not None
    assert (seen.identity, seen.running) == (identity(B), False)


def test_a_restore_point_that_is_lost_gives_way_to_one_that_is_new_enough(harness: Harness) -> None:
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"content")
    made = harness.runtime.make_point(A, order(A))
    lost = identity(B, restore_from=reference(A, new_id()))
    with pytest.raises(PointsBroken):
        harness.runtime.restore(lost, 1, newer_than=made.created_at)
    restored = harness.runtime.restore(lost, 1, newer_than=made.created_at - 1)
    assert restored == RestoredPoint(made.id, made.created_at, fell_back=True)
    assert harness.read(B, "file") == b"content"


def test_undo_points_stay_on_their_volume(harness: Harness) -> None:
    """They are in no restore point, as in no backup: they double the project, and come anew with the next prompt."""
    name, undo = unused_backup_name(A), "../.undo/points.sqlite"
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"content")
    harness.write(A, undo, b"versions")
    harness.runtime.backup(A, name)
    made = harness.runtime.make_point(A, order(A))
    for uuid, source in ((B, name), (C, reference(A, made.id))):
        harness.runtime.restore(identity(uuid, restore_from=source), 1)
        assert (harness.read(uuid, "file"), harness.read(uuid, undo)) == (b"content", None)


def test_a_restore_point_is_proven_also_without_its_workspace(harness: Harness) -> None:
    """Nothing of the workspace is changed or needed."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "naïve 文.txt", b"content")
    made = harness.runtime.make_point(A, order(A))
    wanted = ProofOrder(uuid=A, id=made.id, files=made.files, size=made.size)
    proof = harness.runtime.prove_point(A, wanted)
    assert (proof.proven, proof.files) == (True, made.files), proof
    assert harness.read(A, "naïve 文.txt") == b"content"
    harness.runtime.remove(A, 2)
    assert harness.runtime.prove_point(A, wanted).proven


def test_an_archived_workspace_comes_back_under_its_own_name(harness: Harness) -> None:
    """Removed, and restored from its own point by a newer intent; as often as it is, and also if the removal was not
    carried out. A late removal deletes nothing."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"content")
    name = reference(A, harness.runtime.make_point(A, order(A)).id)
    for generation in (2, 4):
        harness.runtime.remove(A, generation)
        assert harness.runtime.observe(A) is None
        assert harness.again().restore(identity(A, restore_from=name), generation + 1) is not None
        assert harness.read(A, "file") == b"content"
    with pytest.raises(Superseded):
        harness.runtime.remove(A, 4)
    harness.runtime.restore(identity(A, restore_from=name), 6)
    assert harness.read(A, "file") == b"content"


def test_without_a_change_there_is_no_second_restore_point(harness: Harness) -> None:
    """The next one is made when something changed."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"content")
    first = harness.runtime.make_point(A, order(A))
    again = harness.runtime.make_point(A, order(A, parent=first.id, fingerprint=first.fingerprint))
    assert (again.unchanged, again.id, again.stored) == (True, first.id, 0)
    harness.write(A, "file", b"changed")
    second = harness.runtime.make_point(A, order(A, parent=first.id, fingerprint=first.fingerprint))
    assert (second.unchanged, second.id != first.id) == (False, True)
    for made, content in ((first, b"content"), (second, b"changed")):
        harness.runtime.restore(identity(A, restore_from=reference(A, made.id)), 2)
        assert harness.read(A, "file") == content


def test_restoring_a_point_again_takes_no_later_work_back(harness: Harness) -> None:
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"from the point")
    name = reference(A, harness.runtime.make_point(A, order(A)).id)
    harness.runtime.restore(identity(B, restore_from=name), 1)
    harness.write(B, "file", b"edited since")
    assert harness.again().restore(identity(B, restore_from=name), 1) is None
    assert harness.read(B, "file") == b"edited since"


def test_a_rollback_restores_the_same_point_again(harness: Harness) -> None:
    """The count of rollbacks tells it from a repeated task, which takes nothing back."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"from the point")
    name = reference(A, harness.runtime.make_point(A, order(A)).id)
    for count in (1, 2):
        rolled = replace(identity(A, restore_from=name), rollbacks=count)
        for content in (b"from the point", b"later"):
            harness.runtime.restore(rolled, 1 + count)
            assert harness.read(A, "file") == content
            harness.write(A, "file", b"later")


def test_who_goes_back_is_told_where_the_conversation_ends(harness: Harness) -> None:
    """Where the point begins: what was said while its files were read may be in it. Another user gets none at all."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "../.session/metadata.json", b"{}")
    made = harness.runtime.make_point(A, order(A))
    mark, name = f"../.session/until-{made.created_at:.3f}", reference(A, made.id)
    harness.runtime.restore(identity(B, restore_from=name), 1, going_back=True)
    harness.runtime.restore(identity(C, "eve@example.com", restore_from=name), 1, going_back=True)
    harness.runtime.restore(identity(A, restore_from=name), 2)
    assert [harness.read(uuid, mark) for uuid in (B, C, A)] == [b"", None, None]


def test_another_user_gets_no_conversation_from_a_restore_point(harness: Harness) -> None:
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"content")
    harness.write(A, "../.session/metadata.json", b"{}")
    name = reference(A, harness.runtime.make_point(A, order(A)).id)
    harness.runtime.restore(identity(B, "eve@example.com", restore_from=name), 1)
    assert harness.read(B, "file") == b"content"
    assert harness.read(B, "../.session/metadata.json") is None
    harness.runtime.restore(identity(A, restore_from=name), 2)
    assert harness.read(A, "../.session/metadata.json") == b"{}"


@pytest.mark.parametrize("at", [1, 2])
def test_a_restore_point_nobody_wants_any_more_is_broken_off(harness: Harness, at: int) -> None:
    """The files are as they were, and the next point is made."""
    harness.runtime.provision(identity(A), 1)
    harness.write(A, "file", b"content")
    with pytest.raises(Superseded):
        harness.runtime.make_point(A, order(A), check=Turn(at, overtaken))
    assert harness.leftovers() == []
    assert harness.read(A, "file") == b"content"
    assert harness.runtime.make_point(A, order(A)).files >= 1


def test_the_place_keeps_its_name(harness: Harness) -> None:
    """Without and with workspaces, and for every process."""
    name = harness.runtime.place()
    assert name
    harness.runtime.provision(identity(A), 1)
    assert harness.again().place() == name
    harness.runtime.remove(A, 2)
    assert harness.runtime.place() == name


def test_a_restore_point_of_nothing_is_hopeless(runtime: Runtime) -> None:
    with pytest.raises(FilesGone):
        runtime.make_point(A, order(A))


def test_a_volume_whose_files_are_still_to_be_restored_is_not_saved(harness: Harness) -> None:
    """It holds nothing yet, and would be the newest copy."""
    made = unused_backup_name(B)
    harness.runtime.provision(identity(B), 1)
    harness.write(B, "saved.txt", b"saved")
    harness.runtime.backup(B, made)
    harness.runtime.provision(identity(A, restore_from=made), 1)
    later = unused_backup_name(A)
    with pytest.raises(RetryableError):
        harness.runtime.make_point(A, order(A))
    with pytest.raises(RetryableError):
        harness.runtime.backup(A, later)
    harness.runtime.restore(identity(A, restore_from=made), 1)
    harness.runtime.backup(A, later)
    assert harness.runtime.make_point(A, order(A)).files >= 1


def test_discarding_ends_the_processes_and_deletes_no_volume_that_is_there(harness: Harness) -> None:
    """Whoever believed the volume lost may have been wrong."""
    runtime, own = harness.runtime, identity(A)
    runtime.provision(own, 1)
    harness.write(A, "kept.txt", b"kept")
    runtime.start(A, 2)
    harness.answer(A)

    def discarded() -> bool:
        try:
            return runtime.discard(own, 3) == ""
        except StillEnding:
            return False

    wait_for(discarded, "the processes to end", interval=0.0)
    seen = runtime.observe(A)
    assert seen is not None
    assert not seen.running
    assert harness.read(A, "kept.txt") == b"kept"
    with pytest.raises(Superseded):
        runtime.discard(own, 2)


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
    name = unused_backup_name(A)
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
    name = unused_backup_name(A)
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
    name = unused_backup_name(A)
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
