"""What real gunicorns and real Celery workers show to Prometheus: the sums of all their processes, dead ones too."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import redis
import requests
from prometheus_client.parser import text_string_to_metric_families

from app.core.composition import Core
from app.core.service import NewSession
from app.process.settings import Settings
from app.process.shared_metrics import VARIABLE
from tests.integration.serving import KEY, running_forward_auth, running_gateway, running_web, started
from tests.ports import free_port, listens
from tests.waiting import PATIENCE, wait_for

TEXT = {"Accept": "text/plain"}

Samples = dict[tuple[str, ...], float]


def scraped(url: str, **headers: str) -> Samples:
    """The samples at a URL, by name and label values."""
    answer = requests.get(url, headers=TEXT | headers, timeout=PATIENCE)
    answer.raise_for_status()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def children(folder: Path) -> set[int]:
    """The processes that a program forked whose processes count in this folder."""
    parents = {
        each.pid: each.ppid()
        for each in psutil.process_iter()
        if counts_in(each) == str(folder) and each.status() != psutil.STATUS_ZOMBIE
    }
    return {pid for pid, parent in parents.items() if parent in parents}


def counts_in(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return process.environ().get(VARIABLE, "")
    return ""


def call(url: str, times: int) -> None:
    """Call it on connections of their own, so that any worker may get each."""
    for _ in range(times):
        requests.get(url, headers={"Connection": "close"}, timeout=PATIENCE)


def test_web_counts_in_all_its_processes_and_forgets_no_dead_one(tmp_path: Path, redis_url: str) -> None:
    """Each worker shows the same sums; a killed one's counts stay, its open streams don't."""
    shared = tmp_path / "shared"
    lives = ("http_requests_total", "probes.livez", "GET", "web", "200")
    streams = ("http_streams_open", "web")
    with running_web(tmp_path, redis_url, WEB_WORKERS="2", **{VARIABLE: str(shared)}) as url:
        wait_for(lambda: len(children(shared)) == 2, "both workers")

        def shown() -> Samples:
            return scraped(f"{url}/metrics", **{"X-API-Key": KEY})

        call(f"{url}/livez", 40)
        # A worker counts a moment after it answered.
        wait_for(lambda: shown().get(lives) == 40, "the requests", lambda: str(shown()))
        assert {shown()[lives] for _ in range(10)} == {40}
        assert shown()["http_request_seconds_count", "probes.livez", "GET", "web"] == 40

        new = {"headers": {"X-API-Key": KEY}, "json": {"user_id": "ada"}, "timeout": PATIENCE}
        uuid = requests.post(f"{url}/session/create", **new).json()["uuid"]  # type: ignore[arg-type]
        follow = {"headers": {"X-API-Key": KEY}, "stream": True, "timeout": PATIENCE}
        held = [requests.get(f"{url}/session/{uuid}/events", **follow) for _ in range(4)]  # type: ignore[arg-type]
        assert shown()[streams] == 4
        assert ("http_request_seconds_count", "sessions.events", "GET", "web") not in shown()

        before = children(shared)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(children(shared) - before) == 2, "new workers")
        call(f"{url}/livez", 10)
        wait_for(lambda: shown()[lives] == 50, "the other requests", lambda: str(shown()))
        assert shown()[streams] == 0
        for each in held:
            each.close()
        assert len(list(shared.glob("*.db"))) == 3 * (1 + 2 * 2 + 2)


def test_a_program_begins_at_zero(tmp_path: Path, redis_url: str) -> None:
    given = {"WEB_WORKERS": "1", VARIABLE: str(tmp_path / "shared")}
    lives = ("http_requests_total", "probes.livez", "GET", "web", "200")
    for _ in range(2):
        with running_web(tmp_path, redis_url, **given) as url:
            call(f"{url}/livez", 3)
            assert scraped(f"{url}/metrics", **{"X-API-Key": KEY})[lives] == 3


@pytest.mark.parametrize("process", ["forward-auth", "gateway"])
def test_those_whose_callers_are_strangers_answer_at_another_port(tmp_path: Path, redis_url: str, process: str) -> None:
    """Their main process does, so a slow scraper holds no worker, and the workers' own port shows nothing."""
    port = free_port()
    shared = tmp_path / "shared"
    given = {VARIABLE: str(shared), "METRICS_PORT": str(port)}
    running = running_forward_auth if process == "forward-auth" else running_gateway
    given[f"{process.upper().replace('-', '_')}_WORKERS"] = "2"
    with running(tmp_path, redis_url, **given) as url:
        wait_for(lambda: len(children(shared)) == 2, "both workers")
        wait_for(lambda: listens(port), "the metrics' port")
        call(f"{url}/livez", 20)
        endpoint = "probes.livez" if process == "forward-auth" else "system.livez"
        # Slow ones hold a thread each, until they are cut off.
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        counted = ("http_requests_total", endpoint, "GET", process, "200")
        wait_for(lambda: scraped(f"http://127.0.0.1:{port}/metrics").get(counted) == 20, "the requests")
        assert requests.get(f"{url}/metrics", timeout=PATIENCE).status_code == 404
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE).status_code == 404
        for each in slow:
            each.close()


@pytest.fixture
def redis_url(settings: Settings, redis_client: redis.Redis) -> str:
    """Of an empty Redis."""
    return settings.redis_url


@pytest.fixture
def core(settings: Settings, redis_client: redis.Redis) -> Core:
    return Core(settings)


@contextmanager
def pool(core: Core, folder: Path, poison: str) -> Iterator[str]:
    """The URL of the metrics of a worker with two processes, whose tasks go wrong."""
    port = free_port()
    environ = {
        "REDIS_URL": core.settings.redis_url,
        "DATA_DIR": str(core.settings.data_dir),
        "POISON": poison,
        VARIABLE: str(folder / "shared"),
        "METRICS_PORT": str(port),
    }
    command = [sys.executable, "-m", "celery", "-A", "tests.integration.poison", "worker"]
    command += ["-Q", "wake", "-c", "2", "--without-gossip", "--without-mingle", "-l", "INFO"]
    with started(command, environ, folder / "worker.log"):
        wait_for(lambda: listens(port), "the metrics' port", (folder / "worker.log").read_text, seconds=60)
        yield f"http://127.0.0.1:{port}/metrics"


def test_a_pool_counts_in_all_its_processes_and_forgets_no_dead_one(core: Core, tmp_path: Path) -> None:
    done = ("worker_tasks_total", "deferred", "sessions.provision")
    with pool(core, tmp_path, "busy") as url:

        def settled(count: int) -> Callable[[], bool]:
            return lambda: scraped(url).get(done, 0) == count

        for number in range(8):
            core.sessions.create(NewSession(user_id=f"user{number}"))
        wait_for(settled(8), "the tasks", lambda: str(scraped(url)))
        before = children(tmp_path / "shared")
        assert len(before) == 2
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(children(tmp_path / "shared") - before) == 2, "a new pool")
        for number in range(8, 12):
            core.sessions.create(NewSession(user_id=f"user{number}"))
        wait_for(settled(12), "the other tasks", lambda: str(scraped(url)))
        samples = scraped(url)
        assert samples["worker_task_tries_total", "sessions.provision"] == 12
        assert samples["worker_task_seconds_count", "sessions.provision"] == 12
        assert samples["worker_task_wait_seconds_count", "wake"] == 12
        assert samples["worker_task_wait_seconds_sum", "wake"] < 12 * 60


def test_beat_shows_what_it_sent_and_when(core: Core, tmp_path: Path) -> None:
    port = free_port()
    environ = {
        "REDIS_URL": core.settings.redis_url,
        "DATA_DIR": str(core.settings.data_dir),
        "METRICS_PORT": str(port),
    }
    schedule = str(tmp_path / "schedule")
    command = [sys.executable, "-m", "celery", "-A", "workers.celery.app", "beat", "--schedule", schedule]
    with started(command, environ, tmp_path / "beat.log"):
        wait_for(lambda: listens(port), "the metrics' port", (tmp_path / "beat.log").read_text, seconds=60)
        url = f"http://127.0.0.1:{port}/metrics"
        wait_for(lambda: scraped(url).get(("beat_sent_total", "sweeps.idle"), 0) >= 2, "two sweeps")
        assert abs(scraped(url)["beat_last_sent_timestamp_seconds",] - time.time()) < 60
    message = core.redis.lrange("sweep", -1, -1)[0]
    assert '"enqueued_at"' in message
