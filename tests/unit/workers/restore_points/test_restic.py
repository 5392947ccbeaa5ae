"""restic is run so that it can't be waited for without end, outlive its caller, or say too much."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.core.errors import ArchiveError, NoSpace, RetryableError, SessionError, Superseded
from app.core.storage.file_store import FileStore
from app.volume import landlock
from tests.unit.landlock import hides
from tests.unit.workers.archive.conftest import overtaken
from tests.unit.workers.restore_points.conftest import UUID, Script
from tests.waiting import wait_for
from workers.restore_points import restic
from workers.restore_points.repository import Repository
from workers.restore_points.restic import Failed, Inside, Restic, Unanswered, location
from workers.runtime.base import Check, never

Made = Callable[..., Restic]


@pytest.fixture
def made(tmp_path: Path, script: Script) -> Made:
    """restic, played by a shell script."""

    def make(text: str, check: Check = never) -> Restic:
        return Restic(Repository(FileStore(f"file://{tmp_path}/store"), UUID, 1), "the-password", check, script(text))

    return make


@pytest.fixture
def overtaken_once_it_runs(tmp_path: Path) -> Check:
    """It says so in a file `runs` with the process that is to end."""
    return lambda: overtaken() if (tmp_path / "runs").exists() else None


def test_its_output_is_read_and_its_arguments_hold_no_secret(made: Made) -> None:
    done = made('echo "$@"; echo {\\"n\\": 1}; echo no json; cat /proc/$$/cmdline').run("check", "--read-data")
    assert done.output.split("\n")[0].endswith("repository-1 -o local.layout=default --no-cache check --read-data")
    assert list(done.documents()) == [{"n": 1}]
    assert "the-password" not in done.output


def test_it_gets_its_password_and_the_stores_credentials_and_nothing_else_of_ours(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ARCHIVE_KEY", "SECRET_KEY", "REDIS_URL", "RESTIC_PASSWORD_COMMAND"):
        monkeypatch.setenv(name, "ours")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-stores")
    names = {line.partition("=")[0] for line in made("env").run("check").output.splitlines()}
    assert {"RESTIC_PASSWORD", "AWS_ACCESS_KEY_ID", "PATH"} <= names
    assert not names & {"ARCHIVE_KEY", "SECRET_KEY", "REDIS_URL", "RESTIC_PASSWORD_COMMAND"}


@pytest.mark.parametrize(
    ("says", "kind", "text"),
    [
        ("write /var/store/x: no space left on device", NoSpace, "The disk is full"),
        ("Fatal: open /var/store/y: permission denied", Failed, "restic failed to check (permission denied)."),
        ("Fatal: /volume/secret-name exploded", Failed, "restic failed to check (for a reason it does not name)."),
    ],
)
def test_an_error_says_what_is_wrong_and_names_no_path(
    made: Made, says: str, kind: type[SessionError], text: str
) -> None:
    with pytest.raises(kind) as raised:
        made(f"echo '{says}' >&2; exit 1").run("check")
    assert text in str(raised.value)
    assert "/" not in str(raised.value)


def test_a_lock_of_another_is_told_apart(made: Made) -> None:
    with pytest.raises(Failed) as raised:
        made("echo 'repository is already locked exclusively by PID 1' >&2; exit 1").run("backup")
    assert raised.value.locked


def test_a_backup_without_unreadable_files_is_no_failure(made: Made) -> None:
    assert made("exit 3").run("backup").complete is False
    assert made("exit 0").run("backup").complete is True


READS = """
for file in "$@"; do
    case $file in /reads/*) cat "${file#/reads}" 2>/dev/null && echo "$file" || echo "not $file" ;; esac
done
"""


@hides
def test_where_it_reads_a_users_files_it_reads_nothing_else_of_the_machine(made: Made, tmp_path: Path) -> None:
    """Not the keys of its caller, nor its own environment, which has a password."""
    place, temporary, repository = tmp_path / "volume", tmp_path / "ours", tmp_path / f"store/{UUID}/repository-1"
    for folder in (place / "app", place / "other", temporary, repository, tmp_path / "run"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (place / "home").symlink_to(tmp_path / "run")
    open_to_it = [place / "app/file", temporary / "file", repository / "file", "/etc/passwd", "/dev/null"]
    closed = [place / "other/file", place / "home/file", tmp_path / "run/file", "/proc/self/environ", "/etc/shadow"]
    read = [f"/reads{each}" for each in (*open_to_it, *closed)]
    done = made(READS).run("backup", *read, inside=Inside(place, ["app", "home"], temporary))
    told = [line for line in done.output.splitlines() if "/reads/" in line]
    assert told == [f"/reads{each}" for each in open_to_it] + [f"not /reads{each}" for each in closed]


def test_where_the_kernel_cant_do_that_it_runs_and_the_log_says_so_once(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An older one, or a sandbox that has no such thing."""
    monkeypatch.setattr(landlock, "version", lambda: 0)
    restic._warn_of_readable_machine.cache_clear()
    for _ in range(2):
        assert made("pwd").run("backup", inside=Inside(tmp_path, [], tmp_path)).output == f"{tmp_path}\n"
    assert ["Landlock" in record.getMessage() for record in caplog.records] == [True]


def test_work_nobody_wants_any_more_is_ended_with_all_it_started(
    made: Made, tmp_path: Path, overtaken_once_it_runs: Check
) -> None:
    """It is asked to end, and killed when it does not."""
    text = f"trap 'echo asked > {tmp_path}/asked; exit' TERM; sleep 1000 & echo $! > {tmp_path}/runs; wait"
    with pytest.raises(Superseded):
        made(text, overtaken_once_it_runs).run("backup")
    assert (tmp_path / "asked").exists()
    wait_for(lambda: not alive(int((tmp_path / "runs").read_text())), "its child to end")


@pytest.mark.slow
def test_who_does_not_end_when_asked_is_killed(
    made: Made, tmp_path: Path, overtaken_once_it_runs: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restic, "GRACE", 0.2)
    text = f"trap '' TERM; echo $$ > {tmp_path}/runs; while :; do sleep 0.1; done"
    with pytest.raises(Superseded):
        made(text, overtaken_once_it_runs).run("backup")
    assert not alive(int((tmp_path / "runs").read_text()))


@pytest.mark.slow
def test_it_dies_with_its_caller(tmp_path: Path, script: Script) -> None:
    """Also when that is killed."""
    program = script(f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; exec sleep 1000")
    code = f"""
from app.core.storage.file_store import FileStore
from workers.restore_points.repository import Repository
from workers.restore_points.restic import Restic
Restic(Repository(FileStore("file://{tmp_path}/store"), "{UUID}", 1), "x", lambda: None, "{program}").run("backup")
"""
    caller = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for((tmp_path / "pid").exists, "restic to run")
    finally:
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())), "restic to die")


def test_what_it_says_is_heard_while_it_runs_and_may_end_it(made: Made) -> None:
    """Line by line, however it is written."""
    heard: list[int] = []

    def told(said: Mapping[str, Any]) -> None:
        heard.append(said["n"])
        if said["n"] == 2:
            raise ArchiveError("That is enough.")

    with pytest.raises(ArchiveError):
        made('printf "{\\"n\\": 1}\\n{\\"n\\""; sleep 0.3; echo ": 2}"; exec sleep 1000').run("backup", told=told)
    assert heard == [1, 2]


def test_what_takes_too_long_is_ended(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restic, "LIMIT", 0.0)
    with pytest.raises(RetryableError, match="within 0 s"):
        made("exec sleep 1000").run("backup")


def test_a_store_that_does_not_answer_is_given_up(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """restic itself would go on for 15 minutes."""
    monkeypatch.setattr(restic, "STORE_PATIENCE", 0.0)
    with pytest.raises(Unanswered):
        made("echo 'Load(x) returned error, retrying after 1s: connection refused' >&2; exec sleep 1000").run("check")


@pytest.mark.parametrize(
    "says",
    [
        'service.Objects.Get: Get "https://storage.googleapis.com/storage/v1/b/bucket/o/x": dial tcp: no such host',
        'Stat: Head "http://127.0.0.1:9/bucket/config": dial tcp 127.0.0.1:9: connect: connection refused',
    ],
)
def test_a_store_that_is_away_is_no_failure_of_what_it_holds(made: Made, says: str) -> None:
    """A `Failed` would make its caller look for damage."""
    with pytest.raises(Unanswered):
        made(f"echo 'Fatal: unable to open config file: {says}' >&2; exit 1").run("restore")


def test_a_file_that_is_not_there_is_not_looked_for_again(made: Made) -> None:
    says = "Load(<data/8e97196d7c>) returned error, retrying after 3s: open /x: no such file or directory"
    with pytest.raises(Failed) as raised:
        made(f"echo '{says}' >&2; exec sleep 1000").run("restore")
    assert raised.value.missing


def test_a_store_is_named_in_restics_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:5000/")
    # Without it Google's library looks for the credentials of a machine at Google, for 15 s.
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    named = {
        url: location(Repository(FileStore(url), UUID, 2))
        for url in ("file:///var/store", "/var/store", "s3://bucket/below", "gs://bucket")
    }
    assert named == {
        "file:///var/store": f"/var/store/{UUID}/repository-2",
        "/var/store": f"/var/store/{UUID}/repository-2",
        "s3://bucket/below": f"s3:http://127.0.0.1:5000/bucket/below/{UUID}/repository-2",
        "gs://bucket": f"gs:bucket:/{UUID}/repository-2",
    }


def alive(pid: int) -> bool:
    # A zombie that its parent has not waited for is dead.
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
