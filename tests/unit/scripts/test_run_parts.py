"""The parts of scripts/run: what a data folder remembers, what is recognised as left behind, what is checked."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from app.core.prompts.history_store import Checkpoint, HistoryStore
from app.core.storage.archive_keys import ArchiveKeys, new_key
from app.process.settings import Settings, SettingsError
from scripts.lib import check_lock, check_tree, leftovers, procfile, serve
from scripts.lib.data_dir import StartError, only_run, remembered_secret
from scripts.lib.locks import only_one
from scripts.lib.redis_server import RedisServer, outdated, warnings
from scripts.lib.serve import check_archive_keys, dangerous_user
from tests.conftest import ROOT
from tests.ports import free_port


def test_a_secret_is_made_once_and_is_its_owners_only(tmp_path):
    """The API key of a second run is that of the first."""
    file = tmp_path / "deep" / "api-key"
    first = remembered_secret(file)
    assert len(first) >= 32
    assert remembered_secret(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_run_has_a_secret_key_and_a_gateway_that_stay_the_same(tmp_path, make_environment):
    """Workspaces that outlive a run still hold good tokens, and find the gateway where it was."""
    first, second = make_environment(), make_environment()
    assert Settings(secret_key=first["SECRET_KEY"]).checked().secret_keys()
    assert first["SECRET_KEY"] != first["API_KEY"]
    for name in ("SECRET_KEY", "ARCHIVE_KEY", "GATEWAY_PORT"):
        assert first[name] == second[name]
    assert ArchiveKeys(first["ARCHIVE_KEY"])
    for name in ("archive-key", "secret-key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_one_machine_has_one_process_of_web_unless_more_are_asked_for(make_environment, monkeypatch):
    """It answers hundreds of calls a second, and each takes 66 MB."""
    monkeypatch.delenv("WEB_WORKERS", raising=False)
    assert make_environment()["WEB_WORKERS"] == "1"
    monkeypatch.setenv("WEB_WORKERS", "4")
    assert make_environment()["WEB_WORKERS"] == "4"


def test_a_secret_key_of_the_users_own_is_taken(tmp_path, make_environment):
    """Nothing is made then."""
    assert make_environment(secret_key="s" * 32)["SECRET_KEY"] == "s" * 32
    assert not (tmp_path / "secret-key").exists()


def test_a_run_without_an_archive_key_of_its_stores_does_not_start(tmp_path):
    """It would find backups and conversations unreadable, one by one."""
    stored = HistoryStore(f"file://{tmp_path}/archive", keys=ArchiveKeys(new_key()))
    stored.write("abcd1234", Checkpoint())
    with pytest.raises(SettingsError, match=stored.key_ids()[0]):
        check_archive_keys(Settings(data_dir=tmp_path, archive_key=new_key()))


def test_a_data_folder_has_one_run(tmp_path):
    """A second run in the same folder is refused with the process that holds it; after it, one may start."""
    with only_run(tmp_path), pytest.raises(StartError, match=str(psutil.Process().pid)), only_run(tmp_path):
        pytest.fail("two runs at once")
    with only_run(tmp_path):
        assert (tmp_path / "run.lock").read_text().strip() == str(psutil.Process().pid)


HERE = Path("/srv/data")


@pytest.mark.parametrize(
    ("environment", "mark"),
    [
        ({"DATA_DIR": "/srv/data"}, None),
        ({"DATA_DIR": "/srv/other", "SUPERVISED": "1"}, None),
        ({"SUPERVISED": "1"}, None),
        ({"DATA_DIR": "/srv/data", "SUPERVISED": "1"}, leftovers.SUPERVISED),
        ({"DATA_DIR": "/srv/data", "WORKSPACE_UUID": "a"}, leftovers.WORKSPACE),
        ({"DATA_DIR": "/srv/data", "WORKSPACE_UUID": "a", "SUPERVISED": "1"}, leftovers.WORKSPACE),
    ],
)
def test_only_marked_processes_of_the_folder_are_its_own(environment, mark):
    """A shell with DATA_DIR set is nobody's leftover, and a workspace is never taken for a worker."""
    assert leftovers.mark_of(environment, HERE) == mark


def test_leftovers_are_found_and_ended_and_others_left_alone(tmp_path):
    """What a killed run left is ended; a workspace and a bystander live on."""
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    environments = [
        {"DATA_DIR": str(tmp_path), "SUPERVISED": "1"},
        {"DATA_DIR": str(tmp_path), "WORKSPACE_UUID": "abcd1234"},
        {"DATA_DIR": str(tmp_path)},
    ]
    started = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE) for env in environments]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
        found = leftovers.find(tmp_path, leftovers.SUPERVISED)
        assert [process.pid for process in found] == [started[0].pid]
        leftovers.end(found, grace=10)
        assert [process.poll() is None for process in started] == [False, True, True]
    finally:
        for process in started:
            process.kill()
            process.communicate()


SETUP = """
[options]
python_requires = >=3.11
install_requires =
    flask
    redis>=7
[options.extras_require]
dev =
    pytest
"""


def test_the_lock_digest_follows_the_requirements_and_nothing_else():
    """Order is no change; a requirement more is."""
    same = SETUP.replace("    flask\n    redis>=7\n", "    redis>=7\n    flask\n")
    assert check_lock.digest(same) == check_lock.digest(SETUP)
    assert check_lock.digest(SETUP.replace("pytest", "pytest\n    ruff")) != check_lock.digest(SETUP)


def test_a_lock_out_of_step_or_bound_to_a_host_is_refused():
    """Both are found in the text of the lock file."""
    wanted = check_lock.digest(SETUP)
    assert check_lock.faults(f"# made for {wanted}\nflask==3 \\\n    --hash=sha256:00\n", wanted) == []
    assert len(check_lock.faults("# made for something else\nflask==3\n", wanted)) == 1
    assert len(check_lock.faults(f"# {wanted}\n--index-url https://example.org/\nflask==3\n", wanted)) == 1


def test_machine_paths_and_package_hosts_are_found_in_a_text():
    """Addresses of the service's own world are not."""
    pattern = check_tree.forbidden({"packages.example.org"})
    assert pattern.search("see https://packages.example.org/simple/flask")
    assert pattern.search("cp /ho" + "me/someone/x .")
    assert pattern.search(f"cd {ROOT / 'app'}")
    assert not pattern.search("the folder $DATA_DIR/workspaces/abcd1234/home/user and https://example.org/home/x")


def test_a_foreign_redis_that_may_lose_sessions_is_warned_of(redis_client: redis.Redis, redis_server: str) -> None:
    """The tests' own has no limit and writes no file; each wrong setting is named, with what comes of it."""
    told = warnings(redis_server)
    assert len(told) == 2
    assert any("no maxmemory" in text for text in told)
    assert any("appendonly no" in text for text in told)
    redis_client.config_set("maxmemory", 1_000_000_000)
    redis_client.config_set("notify-keyspace-events", "")
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        told = warnings(redis_server)
    finally:
        redis_client.config_set("notify-keyspace-events", "KEA")
        redis_client.config_set("maxmemory-policy", "noeviction")
        redis_client.config_set("maxmemory", 0)
    assert len(told) == 3
    assert any("maxmemory-policy allkeys-lru" in text for text in told)
    assert any("notify-keyspace-events unset" in text for text in told)


def test_the_service_s_own_redis_loses_no_session(tmp_path: Path) -> None:
    """It has every setting that a foreign one is asked for."""
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis", free_port(), tmp_path / "redis.log", most=1_000_000_000)
    server.start(dict(os.environ))
    try:
        assert warnings(server.url) == []
    finally:
        server.stop()


def test_what_one_holds_another_does_not_get(tmp_path):
    """It is told so after the limit; when the first lets go, the next gets it at once."""
    with (
        only_one(tmp_path / "lock", 0.0, StartError),
        pytest.raises(StartError, match="lock"),
        only_one(tmp_path / "lock", 0.0, StartError),
    ):
        pytest.fail("both hold it")
    with only_one(tmp_path / "lock", 0.0, StartError):
        pass


def test_the_introduction_tells_of_the_model_and_none_of_its_secrets() -> None:
    """By host and name; or how to set one."""
    given = {"LLM_BASE_URL": "https://me:password@models.example/v1", "LLM_MODEL": "m", "LLM_API_KEY": "k"}
    assert serve.prompts(given) == "Prompts go to m at models.example."
    assert "docs/tutorial.md" in serve.prompts({})


def test_the_introduction_names_the_folder_to_delete_to_start_anew(tmp_path: Path) -> None:
    service = serve.Service.__new__(serve.Service)
    service.data_dir, service.log, service.api_url = tmp_path, tmp_path / "log", "http://127.0.0.1:8000"
    service.environment = {"API_KEY": "k", "FLOWER_PORT": "1"}
    assert f"To start anew, stop it and delete {tmp_path}." in serve.introduction(service)


def test_only_the_gateway_is_given_the_models_key() -> None:
    """Every process gets everything else, and its name."""
    given = {"DATA_DIR": "/data", "LLM_API_KEY": "the key", "LLM_MODEL": "m"}
    assert procfile.environment("gateway", given)["LLM_API_KEY"] == "the key"
    web = procfile.environment("web", given)
    assert "LLM_API_KEY" not in web
    assert (web["LLM_MODEL"], web["PROCESS_NAME"]) == ("m", "web")


def test_processes_show_metrics_where_they_were_given_a_port() -> None:
    """Each at its own, and the programs of several processes count in a folder of their own."""
    given = {"DATA_DIR": "/data", "METRICS_PORT": "1", "METRICS_PORT_BACKUP_WORKER": "9104"}
    told = {name: procfile.environment(name, given) for name in ("web", "backup-worker", "beat")}
    ports = {name: each["METRICS_PORT"] for name, each in told.items()}
    assert ports == {"web": "0", "backup-worker": "9104", "beat": "0"}
    folders = {name: each.get("PROMETHEUS_MULTIPROC_DIR") for name, each in told.items()}
    assert folders == {"web": "/data/metrics/web", "backup-worker": "/data/metrics/backup-worker", "beat": None}


def test_each_process_has_a_metrics_port_of_its_own(
    make_environment: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in the next run, unless it is given."""
    names = [procfile.metrics_port_of(name) for name in procfile.MEASURED]
    assert not make_environment().keys() & set(names)
    monkeypatch.setenv("MONITORING", "1")
    first = {name: make_environment()[name] for name in names}
    assert len(set(first.values())) == len(procfile.MEASURED)
    monkeypatch.setenv("METRICS_PORT_BEAT", str(port := free_port()))
    assert {name: make_environment()[name] for name in names} == first | {"METRICS_PORT_BEAT": str(port)}


def test_processes_count_in_memory_and_leave_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(serve, "IN_MEMORY", memory)
    for _ in range(2):
        # The second run finds what a killed one left.
        serve.make_metrics_folder(tmp_path)
        assert (tmp_path / "metrics").resolve().parent == memory
        (tmp_path / "metrics" / "web").mkdir()
    assert len(list(memory.iterdir())) == 1
    serve.drop_metrics_folder(tmp_path)
    assert list(memory.iterdir()) == []
    monkeypatch.setattr(serve, "IN_MEMORY", tmp_path / "nowhere")
    serve.make_metrics_folder(tmp_path)
    assert not (tmp_path / "metrics").is_symlink()


@pytest.mark.parametrize(
    ("folder", "version", "warned"),
    [(Path(sys.executable).parent, (6, 2, 14), True), (Path(sys.executable).parent, (6, 2, 20), False)]
    + [(Path("/usr/bin"), (6, 2, 14), False)],
)
def test_a_bundled_redis_without_a_mend_is_told_of(folder: Path, version: tuple[int, ...], warned: bool) -> None:
    """A system's own Redis has mends that its version does not show."""
    told = outdated(str(folder / "redis-server"), version)
    assert [("CVE-2025-49844" in text, "6.2.14" in text) for text in told] == [(True, True)] * warned


def test_a_root_shell_for_everybody_is_told_of() -> None:
    assert dangerous_user(1000) == []
    [told] = dangerous_user(0)
    assert "as another user" in told
