"""The local runtime where it differs from others: processes, files, routes, and the ways to be killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.access.agent_credentials import AgentCredentials
from app.core.access.tokens import AccessTokens, Kind
from app.core.errors import FilesGone, PermanentError, RetryableError, StillEnding
from app.core.redis.connections import connect
from app.process.settings import Settings
from tests.contract.runtimes import Seen, environment, identity, watching
from tests.deep_tree import DeepTrees
from tests.waiting import PATIENCE, wait_for
from workers.rmtree import delete_tree
from workers.runtime.base import Observation
from workers.runtime.local import launcher, probe, processes, routes, storage
from workers.runtime.local import observer as watch_module
from workers.runtime.local.driver import LocalRuntime
from workers.runtime.local.storage import BrokenMeta, Meta, Running, WorkspaceStorage

A, B = "aaaa0001", "bbbb0002"

ANSWERING = """
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
port = int(sys.argv[sys.argv.index("--bind-addr") + 1].split(":")[1])
print("\\x1b[32mlistening\\x1b[0m", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("ignoring", "w").close()
while True: time.sleep(60)
"""

DYING = """
import sys
print("no room for me"); sys.exit(7)
"""


class Stage:
    """A local runtime whose editor is a few lines of Python, made by `editor`."""

    def __init__(self, settings: Settings, client: redis.Redis, folder: Path) -> None:
        self.settings = replace(settings, stop_grace=5.0)
        self.client = client
        self.folder = folder
        self.folders = WorkspaceStorage(settings.data_dir)
        self.editor(ANSWERING)

    def editor(self, source: str) -> None:
        script = self.folder / "editor.py"
        script.write_text(source)
        program = self.folder / "editor"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
        program.chmod(0o755)
        self.change(code_server=str(program))

    def change(self, **settings: Any) -> None:
        self.settings = replace(self.settings, **settings)

    @property
    def runtime(self) -> LocalRuntime:
        return LocalRuntime(self.settings, self.client)

    @property
    def observer(self) -> watch_module.LocalObserver:
        launch = launcher.Launcher(self.settings, self.folders)
        return watch_module.LocalObserver(
            self.folders, routes.Routes(self.client, self.settings), launch, self.settings
        )

    def up(self, uuid: str, generation: int = 1) -> Running:
        self.runtime.provision(identity(uuid), generation)
        self.runtime.start(uuid, generation)
        return self.running(uuid)

    def running(self, uuid: str) -> Running:
        running = self.folders.read_running(uuid)
        assert running is not None
        return running

    def alive(self, uuid: str) -> set[processes.Process]:
        """Every process of the workspace."""
        return processes.marked([f"WORKSPACE_UUID={uuid}", f"DATA_DIR={self.folders.data_dir}"])


@pytest.fixture
def stage(settings: Settings, redis_client: redis.Redis, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(settings, redis_client, tmp_path)
    yield made
    made.change(stop_grace=0.2)
    made.runtime.stop_all()


def lives(process: processes.Process | None) -> bool:
    assert process is not None
    return processes.alive(process)


def ready(seen: Seen, uuid: str, generation: int = 1) -> None:
    seen.until(lambda each: each.ready and (each.identity.uuid, each.generation) == (uuid, generation))


def test_another_disk_is_another_place(stage: Stage) -> None:
    """One that is not mounted has no name, and what a new process makes there has another. An emptied one keeps it."""
    runtime, disk = stage.runtime, stage.folders.data_dir / "workspaces"
    name = runtime.place()
    runtime.provision(identity(A), 1)
    delete_tree(stage.folders.workspace(A))
    assert runtime.place() == name

    away = disk.rename(disk.with_name("unmounted"))
    assert runtime.place() == ""
    disk.mkdir()
    assert runtime.place() == ""
    assert stage.runtime.place() not in ("", name)

    delete_tree(disk)
    away.rename(disk)
    assert runtime.place() == stage.runtime.place() == name


def test_processes_that_start_at_once_name_the_place_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: WorkspaceStorage(tmp_path).place(), range(8)))
    assert len(set(names)) == 1 and names[0]
    assert [path.name for path in (tmp_path / "workspaces").iterdir()] == [".place"]


@pytest.mark.slow
def test_neither_editor_nor_agent_get_the_workers_secrets_or_its_packages(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace is hostile: only a fixed list of harmless variables reaches it. It has the machine's programs, and a
    `pip install` there must not change the packages that the service runs on."""
    own, key = Path(sys.prefix) / "bin", "a-secret-key-of-more-than-32-characters"
    assert sys.prefix != sys.base_prefix, "tests run in a virtual environment, as the service does"
    monkeypatch.setenv("PATH", f"{own}:/usr/local/bin:{own}/:/usr/bin:/bin")
    for name in ("API_KEY", "REDIS_URL", "AWS_SECRET_ACCESS_KEY", "LLM_API_KEY", "SECRET_KEY", "ARCHIVE_KEY"):
        monkeypatch.setenv(name, f"worker's {key}")
    stage.change(secret_key=key)
    running = stage.up(A)
    got, agents = environment(running.pid), environment(running.agent_pid)
    assert key not in str(got) + str(agents)
    assert set(got) - {"PWD", "SHLVL", "_", "OLDPWD"} <= {
        "PATH", "HOME", "LANG", "SHELL", "TERM", "USER", "DATA_DIR", "WORKSPACE_UUID", "WORKSPACE_SECRET_FILE",
        "USER_ID", "KEEPALIVE_MAX", "VSCODE_PROXY_URI", "WORKSPACE_NETWORK", "WORKSPACE_OWN_PORTS",
    }  # fmt: skip
    assert {name for name in agents if name.split("_")[0] in ("API", "REDIS", "LLM", "SECRET", "ARCHIVE")} == set()
    assert (got["WORKSPACE_UUID"], got["USER_ID"]) == (A, "ada@example.com")
    assert got["DATA_DIR"] == str(stage.settings.data_dir.resolve())
    assert got["HOME"] == str(stage.folders.home(A))
    assert got["PATH"] == "/usr/local/bin:/usr/bin:/bin"


@pytest.mark.slow
def test_an_agent_gets_its_secrets_in_a_file(stage: Stage) -> None:
    """It is its owner's alone, outside of what the user sees, and written anew with each start."""
    stage.change(secret_key="k" * 32)
    told = environment(stage.up(A).agent_pid)
    secrets, file = AgentCredentials(["k" * 32]), Path(told["AGENT_TOKEN_FILE"])
    assert secrets.token(A, 0) not in str(told)
    assert file.read_text() == secrets.token_file(A, 0)
    assert file.stat().st_mode & 0o777 == 0o600
    assert stage.folders.app(A) not in file.parents
    stage.runtime.stop(A, 2)
    stage.change(secret_key=f"{'n' * 32},{'k' * 32}")
    stage.runtime.start(A, 3)
    assert file.read_text() == AgentCredentials(["n" * 32]).token_file(A, 0)


@pytest.mark.slow
def test_an_agent_that_dies_again_and_again_is_started_later_each_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The editor is ready all the same."""
    delays = []

    class NotedTracked(watch_module.Tracked):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "agent_delay":
                delays.append(value)
            super().__setattr__(name, value)

    monkeypatch.setattr(watch_module, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(watch_module, "Tracked", NotedTracked)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    stage.change(secret_key="k" * 32)
    with watching(stage.runtime) as seen:
        first = stage.up(A)
        ready(seen, A)
        wait_for(lambda: len(delays) > 4, "five attempts", interval=0.01)
        assert stage.running(A).process == first.process
    assert delays[:5] == [0.0, 0.01, 0.02, 0.04, 0.08]
    assert all(each.ready for each in list(seen.all.queue) if isinstance(each, Observation))


@pytest.mark.slow
def test_the_agent_of_an_editor_that_died_ends_and_its_turn_rests(stage: Stage) -> None:
    """A failed workspace does nothing, and costs nothing, until it is started again."""
    stage.change(secret_key="k" * 32)
    with watching(stage.runtime) as seen:
        running = stage.up(A)
        ready(seen, A)
        os.kill(running.pid, signal.SIGKILL)
        seen.until(lambda each: bool(each.failure))
        wait_for(lambda: not lives(running.agent), "the agent ended")
    assert stage.alive(A) == set()


@pytest.mark.slow
def test_files_of_the_user_and_of_the_editor_lie_apart(stage: Stage) -> None:
    """Only app/ is backed up; the editor's data, its log and meta.json stay out of it."""
    stage.up(A)
    assert list(stage.folders.app(A).iterdir()) == []
    assert stage.folders.app(A).stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in stage.folders.workspace(A).iterdir()) == [
        "app", "editor-secret", "editor.log", "home", "meta.json",
    ]  # fmt: skip


@pytest.mark.slow
def test_stop_ends_what_a_terminal_left_in_a_session_of_its_own(stage: Stage) -> None:
    """Neither its process group nor its parent leads to it; its environment does."""
    running = stage.up(A)
    stray = subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        env=environment(running.pid),
        cwd=stage.folder,
        start_new_session=True,
    )
    other = stage.up(B)
    wait_for((stage.folder / "ignoring").exists, "it ignores SIGTERM", interval=0.01)
    stage.change(stop_grace=0.2)
    stage.runtime.stop(A, 2)
    assert stray.wait(PATIENCE) == -signal.SIGKILL
    assert stage.alive(A) == set()
    assert other.process in stage.alive(B)


@pytest.mark.slow
def test_stop_ends_the_children_of_an_editor_whose_environment_was_emptied(stage: Stage) -> None:
    """What gave up the marks is found below what has them."""
    stage.editor(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(['/bin/sleep', '600'], env={}, start_new_session=True)\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    stage.up(A)
    note = stage.folders.app(A) / "child"
    wait_for(lambda: note.exists() and note.read_text() != "", "the note", interval=0.01)
    child = processes.identify(int(note.read_text()))
    stage.runtime.stop(A, 2)
    assert not processes.alive(child)


def up_stubborn(stage: Stage, handler: str = "signal.SIG_IGN") -> Running:
    """An editor that does not end at SIGTERM."""
    stage.editor(STUBBORN.replace("signal.SIG_IGN", handler))
    running = stage.up(A)
    wait_for((stage.folders.app(A) / "ignoring").exists, "it ignores SIGTERM", interval=0.01)
    return running


@pytest.mark.slow
def test_an_editor_that_ignores_sigterm_is_killed_after_the_grace(stage: Stage) -> None:
    """A stop is bounded, whatever runs in the workspace."""
    stage.change(stop_grace=0.2)
    running = up_stubborn(stage)
    stage.runtime.stop(A, 2)
    assert not lives(running.process)
    assert stage.folders.read_running(A) is None


@pytest.mark.slow
def test_a_stop_holds_nobody_up_until_the_grace_is_over(stage: Stage) -> None:
    """It can be asked again, does not signal the editor twice, and holds no lock meanwhile; so does a start that finds
    the old processes."""
    stage.change(stop_grace=3600.0)
    running = up_stubborn(stage, "lambda *_: open('told', 'a').write('.') or None")
    for patience in (0.1, 0.0):
        with pytest.raises(StillEnding):
            stage.runtime.stop(A, 2, patience)
    with pytest.raises(StillEnding):
        stage.runtime.start(A, 3)
    assert lives(running.process)
    assert (stage.folders.app(A) / "told").read_text() == "."
    since = stage.running(A)
    stage.folders.write_running(replace(since, stopping_at=since.stopping_at - 3600.0))
    stage.runtime.stop(A, 4, 0.0)
    assert not lives(running.process)
    assert stage.folders.read_running(A) is None


@pytest.mark.slow
def test_a_start_cut_short_leaves_no_orphan(stage: Stage) -> None:
    """A worker killed between starting the process and noting it left only the note of its intent: the next
    start ends that process and takes its place."""
    lost = stage.up(A)
    stage.folders.write_running(replace(lost, pid=0, started=0))
    with watching(stage.runtime) as seen:
        assert seen.snapshot().workspaces == ()
        stage.runtime.start(A, 2)
        ready(seen, A, 2)
    assert not lives(lost.process)
    assert stage.alive(A) == {stage.running(A).process}


@pytest.mark.slow
def test_two_starts_at_once_make_one_process(stage: Stage) -> None:
    """A task delivered twice runs twice, and neither knows of the other."""
    stage.runtime.provision(identity(A), 1)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(stage.runtime.start, A, 1) for _ in range(8)]:
            done.result()
    assert stage.alive(A) == {stage.running(A).process}


@pytest.mark.slow
def test_a_stop_cut_short_is_no_failure_and_is_completed_by_the_next(stage: Stage) -> None:
    """A process that ended because someone stopped it is not reported as dead."""
    running = stage.up(A)
    with watching(stage.runtime) as seen:
        seen.snapshot()
        stage.folders.write_running(replace(running, stopping=True))
        os.kill(running.pid, signal.SIGKILL)
        wait_for(lambda: not lives(running.process), "the editor ended")
        stage.runtime.stop(A, 2)
        end = seen.until(lambda each: not each.running)
    assert (end.failure, end.generation) == ("", 2)


@pytest.mark.slow
def test_a_process_id_that_went_to_another_is_not_mistaken_for_ours(stage: Stage) -> None:
    """A process is its id and its start time: nobody else's is signalled, and ours counts as dead."""
    stranger = subprocess.Popen(["/bin/sleep", "600"])
    try:
        running = stage.up(A)
        stage.runtime.stop(A, 2)
        stage.folders.write_running(replace(running, pid=stranger.pid, started=1))
        seen = stage.runtime.observe(A)
        assert seen is not None and seen.failure
        stage.runtime.stop(A, 3)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.slow
def test_after_a_reboot_a_workspace_is_down_not_failed(stage: Stage) -> None:
    """Nothing went wrong with it; its file and its route are cleared away."""
    running = stage.up(A)
    stage.runtime.stop(A, 2)
    stage.folders.write_running(replace(running, boot="another", stopping=False))
    stage.runtime._routes.put(A, running.port, running.agent_port)
    with watching(stage.runtime) as seen:
        assert seen.snapshot().workspaces == ()
    assert stage.folders.read_running(A) is None
    assert stage.runtime._routes.all() == set()


@pytest.mark.slow
def test_a_failure_tells_the_last_lines_without_terminal_escapes(stage: Stage) -> None:
    """What a person needs to see why, in a shape that can be shown anywhere."""
    stage.editor(DYING)
    with watching(stage.runtime) as seen:
        stage.up(A)
        failed = seen.until(lambda each: bool(each.failure))
    assert failed.code == "editor_ended"
    assert "no room for me" in failed.failure
    assert "exited with status 7" in failed.failure
    assert A not in stage.runtime._routes.all()


def test_an_editor_that_ends_because_its_files_are_gone_has_not_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may see that before the observer looks for them."""
    monkeypatch.setattr(watch_module, "SLOW_TICK", 1_000.0)
    with watching(stage.runtime) as seen:
        running = stage.up(A)
        ready(seen, A)
        delete_tree(stage.folders.workspace(A))
        os.kill(running.pid, signal.SIGKILL)
        lost = seen.until(lambda each: bool(each.failure))
    assert lost.code == FilesGone.code
    assert A not in stage.runtime._routes.all()


def test_a_start_whose_files_are_gone_before_the_first_look_is_told_of(stage: Stage) -> None:
    """Nothing says then whose they were."""
    stage.up(A)
    delete_tree(stage.folders.workspace(A))
    (seen,) = stage.observer._look(time.monotonic())
    assert (seen.identity.uuid, seen.code) == (A, FilesGone.code)


@pytest.mark.parametrize(
    ("part", "step"),
    [(WorkspaceStorage, "make"), (launcher.Launcher, "editor")],
    ids=["folders", "editor"],
)
def test_a_start_that_loses_the_files_says_so(
    stage: Stage, part: type, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No editor that cannot be run, and none that runs in an empty folder, of which nobody knows."""
    runtime = stage.runtime
    runtime.provision(identity(A), 1)
    real = getattr(part, step)

    def loses(*arguments: Any) -> Any:
        delete_tree(stage.folders.workspace(A))
        return real(*arguments)

    monkeypatch.setattr(part, step, loses)
    with pytest.raises(FilesGone):
        runtime.start(A, 1)


def test_the_tail_of_a_log_is_bounded_and_clean(tmp_path: Path) -> None:
    """Fifteen lines, 1500 characters, no escapes, and no log at all is an empty text."""
    log = tmp_path / "log"
    assert watch_module.log_tail(log, tmp_path) == ""
    log.write_text("".join(f"\x1b[31mline {n}\x1b[0m\x07 \x1b]0;title\x07\n" for n in range(100)))
    assert watch_module.log_tail(log, tmp_path).splitlines() == [f"line {n}" for n in range(85, 100)]
    log.write_text("x" * 10_000)
    assert len(watch_module.log_tail(log, tmp_path)) == 1500
    log.write_text(f"at serve (/srv/a/b/launch.js:9) in {tmp_path}/c/d, /tmp/x, http://a/b/c and file:///srv/a/b/e.mjs")
    assert watch_module.log_tail(log, tmp_path) == (
        "at serve (…/launch.js:9) in $DATA_DIR/c/d, /tmp/x, http://a/b/c and file://…/e.mjs"
    )


@pytest.mark.slow
def test_an_editor_that_never_answers_is_a_failure_and_the_next_start_replaces_it(stage: Stage) -> None:
    """Alive is not ready: after the time to start it is given up."""
    stage.editor("import time\ntime.sleep(600)\n")
    stage.change(start_timeout=0.5)
    with watching(stage.runtime) as seen:
        hung = stage.up(A)
        failed = seen.until(lambda each: bool(each.failure))
        assert (failed.failure[:22], failed.code) == ("The editor did not ans", "editor_silent")
        stage.editor(ANSWERING)
        stage.runtime.start(A, 2)
        ready(seen, A, 2)
    assert not lives(hung.process)


@pytest.mark.slow
def test_time_in_which_the_observer_was_held_up_does_not_count_against_an_editor(stage: Stage) -> None:
    """It was stopped, or the machine was busy: at its next look the question is not even asked."""
    running = stage.up(A)
    wait_for(lambda: probe.answers(running.port), "the editor answers", interval=0.01)
    observer, now = stage.observer, time.monotonic()
    seen = [each for late in (0.0, 1_000.0, 2_000.0) for each in observer._look(now + late)]
    # Of an editor on a busy machine there may be two: it was seen before it answered.
    assert {each.failure for each in seen} == {""}


@pytest.mark.slow
def test_an_editors_settings_are_the_users_to_change(stage: Stage) -> None:
    """A new workspace gets some; what the user made of them is left alone."""
    stage.up(A)
    chosen = stage.folders.editor_data(A) / "User" / "settings.json"
    assert json.loads(chosen.read_text())["chat.disableAIFeatures"] is True
    chosen.write_text("{}")
    stage.runtime.stop(A, 2)
    stage.runtime.start(A, 3)
    assert chosen.read_text() == "{}"


@pytest.mark.slow
def test_a_program_that_is_missing_is_hopeless_and_says_which_setting_names_it(stage: Stage) -> None:
    """Trying again would not help; nothing is left that looks like a start."""
    stage.change(code_server="/nowhere/code-server")
    with pytest.raises(PermanentError, match="CODE_SERVER"):
        stage.up(A)
    assert stage.folders.read_running(A) is None


@pytest.mark.slow
def test_routes_come_with_a_start_and_go_with_a_stop(stage: Stage) -> None:
    """Traefik finds the port of this start, and a path of the API's host for an agent, and nothing of a workspace that
    sleeps."""

    def found() -> dict[str, str | None]:
        return {key: stage.client.get(key) for key in stage.client.scan_iter("traefik/*")}

    without = {routes.PERMANENT: "true"} | routes.keys(B, f"vs-code-{B}.localhost", stage.up(B).port)
    assert found() == without
    stage.change(secret_key="k" * 32)
    running = stage.up(A)
    own = routes.keys(A, f"vs-code-{A}.localhost", running.port)
    assert found() == without | own | routes.agent_keys(A, "api.localhost", running.agent_port)
    assert stage.runtime._routes.all() == {A, B}
    stage.runtime.stop(A, 2)
    assert found() == without
    stage.runtime.stop(B, 2)
    assert list(found()) == [routes.PERMANENT]


@pytest.mark.slow
def test_routes_are_written_again_after_redis_lost_them(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workspaces go on while Redis starts empty; so does the way to them."""
    monkeypatch.setattr(watch_module, "SLOW_TICK", 0.05)
    running = stage.up(A)
    with watching(stage.runtime) as seen:
        seen.snapshot()
        stage.client.flushall()
        rule = f"{routes.SERVICE}{A}/loadbalancer/servers/0/url"
        wait_for(lambda: stage.client.get(rule) == f"http://127.0.0.1:{running.port}", "the route", interval=0.01)


def test_a_watch_removes_routes_that_lead_nowhere(stage: Stage) -> None:
    """Left by a stop while Redis was away: the port may be another's by now."""
    stage.runtime._routes.put(A, 20_001, 20_002)
    with watching(stage.runtime) as seen:
        seen.snapshot()
    assert stage.runtime._routes.all() == set()


@pytest.mark.slow
def test_without_redis_a_stop_is_tried_again_and_nothing_was_stopped(stage: Stage) -> None:
    """The URL must lead nowhere before the processes go; else it could lead to the next user of the port."""
    stage.up(A)
    away = LocalRuntime(stage.settings, connect("redis://127.0.0.1:1/0", 0.2))
    with pytest.raises(RetryableError):
        away.stop(A, 2)
    assert stage.alive(A) == {stage.running(A).process}


@pytest.mark.slow
def test_when_the_service_goes_down_every_workspace_does(stage: Stage) -> None:
    """Also with Redis gone already; the intents stay as they were."""
    for uuid in (A, B):
        stage.up(uuid, 3)
    LocalRuntime(stage.settings, connect("redis://127.0.0.1:1/0", 0.2)).stop_all()
    assert stage.alive(A) | stage.alive(B) == set()
    assert [(each.running, each.generation) for each in stage.runtime.observe_all()] == [(False, 3), (False, 3)]


def test_a_folder_without_meta_is_completed(stage: Stage) -> None:
    """Its provision was killed; nobody else can own it."""
    stage.folders.make(A)
    assert stage.runtime.observe(A) is None
    stage.runtime.provision(identity(A), 1)
    assert stage.runtime.observe(A) is not None


def test_a_broken_meta_is_left_out_of_the_list_and_never_overwritten(stage: Stage) -> None:
    """Whose workspace it is can't be told, so it is nobody's to take; the others are listed all the same."""
    for uuid in (A, B):
        stage.runtime.provision(identity(uuid), 1)
    meta = stage.folders.workspace(A) / "meta.json"
    meta.write_text('{"identity": ')
    assert [each.identity.uuid for each in stage.runtime.observe_all()] == [B]
    with pytest.raises(BrokenMeta):
        stage.runtime.provision(identity(A), 2)
    assert meta.read_text() == '{"identity": '


def test_meta_reads_back_as_it_was_written(stage: Stage) -> None:
    """The identity is all that is left of a session when Redis is lost."""
    stage.folders.make(A)
    meta = Meta(
        identity=replace(identity(A), size="large", idle_timeout=3.5, ttl=60.0, restore_from="app-x.zip"),
        generation=12,
        restored="app-y.zip",
    )
    stage.folders.write_meta(meta)
    assert stage.folders.read_meta(A) == meta


@pytest.mark.slow
def test_a_running_file_cut_short_reads_as_a_start_never_completed(stage: Stage) -> None:
    """After a power cut it may be empty; the workspace starts all the same."""
    stage.runtime.provision(identity(A), 1)
    (stage.settings.data_dir / "running" / f"{A}.json").write_text("")
    assert [each.running for each in stage.runtime.observe_all()] == [False]
    stage.runtime.start(A, 2)
    assert stage.alive(A) == {stage.running(A).process}


def test_a_lock_is_waited_for_and_then_given_up(stage: Stage) -> None:
    """Whoever holds a workspace too long makes others come again later."""
    with stage.folders.locked(A, wait=0), pytest.raises(RetryableError), stage.folders.locked(A, wait=0.05):
        pass
    with stage.folders.locked(A, wait=0):
        pass


@pytest.mark.slow
def test_tombstones_have_their_day(stage: Stage) -> None:
    """A removed workspace's lock file refuses late intents for a day, then goes; a living one's stays."""
    for uuid in (A, B):
        stage.runtime.provision(identity(uuid), 1)
    stage.runtime.remove(A, 2)
    locks = stage.settings.data_dir / "locks"
    assert sorted(path.name for path in locks.iterdir()) == [f"{A}.lock", f"{B}.lock"]
    for path in locks.iterdir():
        os.utime(path, (1, 1))
    stage.folders.empty_trash()
    assert [path.name for path in locks.iterdir()] == [f"{B}.lock"]


@pytest.mark.slow
def test_what_a_killed_removal_left_goes_with_the_next(stage: Stage) -> None:
    """A removal is a rename; whoever comes next deletes what was renamed."""
    stage.runtime.provision(identity(A), 1)
    stage.folders.discard(A)
    stage.runtime.remove(B, 1)
    assert list((stage.settings.data_dir / "trash").iterdir()) == []


@pytest.mark.slow
def test_a_removed_workspace_that_cannot_be_deleted_keeps_no_other(
    stage: Stage, deep_trees: DeepTrees, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own removal fails and is tried again; that of another session deletes the rest."""
    protected = stage.settings.data_dir / "trash" / f"{A}-protected"
    protected.mkdir()
    deep_trees(stage.settings.data_dir / "trash" / "cccc0003-deep")

    def delete_unprotected(path: Path) -> None:
        if path == protected:
            raise RetryableError("protected")
        delete_tree(path)

    monkeypatch.setattr(storage, "delete_tree", delete_unprotected)
    stage.runtime.provision(identity(B), 1)
    stage.runtime.remove(B, 2)
    assert list((stage.settings.data_dir / "trash").iterdir()) == [protected]
    assert [record.levelname for record in caplog.records if protected.name in record.getMessage()] == ["WARNING"]
    with pytest.raises(RetryableError, match="protected"):
        stage.runtime.remove(A, 1)


def test_a_tree_is_deleted_whatever_its_modes(tmp_path: Path) -> None:
    """A user may have closed a folder to everyone; links are removed, not followed."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    tree = tmp_path / "tree"
    (tree / "closed" / "deep").mkdir(parents=True)
    (tree / "closed" / "deep" / "file").write_text("x")
    (tree / "link").symlink_to(outside)
    (tree / "closed" / "deep").chmod(0)
    (tree / "closed").chmod(0o500)
    delete_tree(tree)
    delete_tree(tree)
    assert not tree.exists()
    assert outside.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["../etc", "", "AAAA0001", "aaaa00011", "aaaa0001/"])
def test_only_a_workspace_name_leads_to_a_folder(stage: Stage, name: str) -> None:
    """A name is part of a path."""
    with pytest.raises(PermanentError):
        stage.runtime.observe(name)


def test_traefik_gets_the_password_as_it_is_and_listens_on_loopback(settings: Settings) -> None:
    """In a URL it is quoted; Traefik wants it plain. A workspace has no forward auth but its own machine's."""
    made = replace(
        settings, redis_url="redis://user:p%40ss%2Fw@example.org:7000/3", workspace_port=8081, bind="0.0.0.0"
    )
    values = routes.traefik_environment(made, "/file.yml")
    prefix = "TRAEFIK_PROVIDERS_REDIS_"
    assert {name.removeprefix(prefix): text for name, text in values.items() if name.startswith(prefix)} == {
        "ENDPOINTS": "example.org:7000",
        "DB": "4",
        "USERNAME": "user",
        "PASSWORD": "p@ss/w",
    }
    assert values["TRAEFIK_ENTRYPOINTS_WORKSPACES_ADDRESS"] == "127.0.0.1:8081"


def test_the_rule_for_sleeping_workspaces_takes_the_domain_literally() -> None:
    """A dot in the domain is a dot."""
    rule = routes.fixed(Settings(workspace_domain="ws.example.org"))["http"]["routers"]["asleep"]["rule"]
    assert rule == (
        r"HostRegexp(`^([0-9]{1,5}--)?vs-code-[0-9a-z]{8}\.ws\.example\.org$`)"
        " || (Host(`api.ws.example.org`) && PathPrefix(`/chat/`))"
    )


def test_the_router_of_a_workspace_takes_all_its_ports_and_no_other_host() -> None:
    own = f"vs-code-{A}.ws.example.org"
    rule = routes.keys(A, own, 1)[f"{routes.ROUTER}{A}/rule"]
    exact, pattern = re.fullmatch(r"Host\(`(.*?)`\) \|\| HostRegexp\(`(.*?)`\)", rule).groups()  # type: ignore[union-attr]
    assert exact == own
    assert all(re.search(pattern, f"{port}--{own}") for port in (1, 3000, 65535))
    others = [f"{host}--{own}" for host in ("", "web", "3000-3000", "123456", "1--2", "x3000")]
    others += [f"3000--{own}.evil", f"3000--vs-code-{B}.ws.example.org", f"3000--vs-code-{A}xws.example.org"]
    assert not any(re.search(pattern, each) for each in others)


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0", "::"])
def test_every_address_passes_forward_auth_and_then_the_page(bind: str) -> None:
    """Asleep or up, workspace or agent; the page comes second, or it would tell what forward auth does not."""
    http, url = routes.fixed(Settings(bind=bind))["http"], "http://127.0.0.1:8002"
    asked, ours = http["middlewares"]["auth"]["forwardAuth"], ("Cookie", "Authorization", "X-API-Key")
    assert (asked["address"], asked["authResponseHeaders"]) == (f"{url}/auth/verify", (*ours, "X-Workspace-Secret"))
    assert http["middlewares"]["waking"]["errors"]["service"] == "forward-auth"
    assert http["services"]["forward-auth"]["loadBalancer"]["servers"] == [{"url": url}]
    assert http["routers"]["asleep"]["middlewares"] == ["auth", "waking"]
    written = routes.keys(A, f"vs-code-{A}.localhost", 1) | routes.agent_keys(A, "api.localhost", 2)
    passed = [text for key, text in written.items() if "/middlewares/" in key and "stripprefix" not in key]
    assert passed == ["auth@file", "waking@file", "auth@file", "waking@file", f"chat-{A}"]


def test_the_manager_has_a_pass_of_its_own_where_there_is_a_key(stage: Stage) -> None:
    """For the workspace it asks for, and good only as what it is."""
    assert routes.Routes(stage.client, stage.settings).probe_token(A) == ""
    keyed = replace(stage.settings, secret_key="k" * 32)
    shown = routes.Routes(stage.client, keyed).probe_token(A)
    passes = AccessTokens(keyed.secret_keys(), 1.0)
    found = [passes.read(kind, shown, time.time()) for kind in (Kind.PROBE, Kind.TOKEN, Kind.COOKIE)]
    assert [each and each.uuid for each in found] == [A, None, None]


def test_the_editors_lock_file_names_no_registry() -> None:
    """It must install from whatever registry its user has configured."""
    lock = json.loads((Path(__file__).parents[5] / "app" / "editor" / "package-lock.json").read_text())
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []
