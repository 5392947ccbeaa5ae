"""Whoever ends something waits longer than that may take to end: each sum, from the figures where they stand."""

from __future__ import annotations

import re
import runpy
from typing import Any

import pytest

from app.agent import service as agent
from app.agent.settings import AgentSettings
from app.agent.tools import command, runner
from app.core.agents.requests import AGENT_TIMEOUT
from app.core.prompts.agent_client import UNSAVED_WORK_TIMEOUT
from app.core.redis import task_queue
from app.process.settings import Settings
from scripts.lib import redis_server, serve, supervisor
from tests.conftest import ROOT
from tests.manifests import MANIFESTS, OVERLAYS, pods, render, settings_of
from workers import observer, tasks
from workers.runtime.kubernetes import api_server, informer, job_objects, jobs
from workers.runtime.kubernetes import driver as kubernetes
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.local import driver as local
from workers.runtime.local import processes
from workers.runtime.local.launcher import Launcher
from workers.runtime.local.storage import WorkspaceStorage

DEFAULT = Settings()

LEAVE = UNSAVED_WORK_TIMEOUT + 2 * AGENT_TIMEOUT
"""s: workers/agents/shutdown.py asks for the risk, cancels, and has the conversation stored."""

LOCAL_STOP = local.ROUTE_PATIENCE + DEFAULT.stop_grace + processes.KILL_LIMIT
CLUSTER_STOP = DEFAULT.stop_grace + kubernetes.GOING_LIMIT


def gunicorn(config: str, monkeypatch: pytest.MonkeyPatch, **settings: str) -> float:
    """The graceful timeout of that configuration."""
    for name in Settings.variables():
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return float(runpy.run_path(str(ROOT / config))["graceful_timeout"])


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[dict[str, Any], ...]:
    return render(MANIFESTS / "overlays" / request.param)


@pytest.mark.parametrize("grace", [1.5, DEFAULT.stop_grace, 30.0])
def test_an_agent_is_told_how_long_it_has(tmp_path, grace):
    """By both runtimes; a pod has no less than its agent was told."""
    settings = Settings(
        runtime="kubernetes", workspace_image="w:1", secret_key="k" * 32, stop_grace=grace, data_dir=tmp_path
    )
    choices = KubernetesConfig.of(settings)
    launched = Launcher(settings, WorkspaceStorage(tmp_path))._agent_settings("abcd1234", 1111, 8080)

    assert choices.agent is not None
    assert grace <= float(choices.agent["AGENT_STOP_GRACE"]) == choices.stop_grace
    assert float(launched["AGENT_STOP_GRACE"]) == grace


@pytest.mark.parametrize("grace", [1.5, DEFAULT.stop_grace, 30.0])
def test_an_agent_ends_within_the_grace(tmp_path, grace):
    """However much of it hangs: what it allows each of its steps leaves a tenth for the disk."""
    allowed: list[float] = []

    class Hangs:
        def __init__(self, name: str) -> None:
            setattr(self, name, allowed.append)

    settings = AgentSettings(
        "u1",
        tmp_path,
        tmp_path / ".session",
        tmp_path / "token",
        tmp_path,
        gateway_url="http://127.0.0.1:9",
        stop_grace=grace,
    )
    ending = agent.Agent(settings, {}, model=object())  # type: ignore[arg-type]
    ending.state.open(lambda: None)
    ending._threads = [Hangs("join")]  # type: ignore[list-item]
    ending._reports = Hangs("stop")  # type: ignore[assignment]
    ending._keeper = Hangs("save")  # type: ignore[assignment]

    ending.stop()

    assert len(allowed) == 3
    assert sum(allowed) <= 0.9 * grace


def test_a_command_is_ended_before_the_agent_gives_up_on_it():
    assert runner.KILLING_SECONDS < command.GRACE


def test_a_sleep_in_which_all_hangs_is_no_task_that_hangs():
    """Taking leave and the stop, in either runtime; another call at the same workspace waits for the stop."""
    limit = tasks.SHORT["soft_time_limit"]
    lock_wait = DEFAULT.stop_grace + processes.KILL_LIMIT + local.LOCK_SLACK

    assert limit > LEAVE + CLUSTER_STOP
    assert limit > LEAVE + lock_wait + LOCAL_STOP
    assert lock_wait > LOCAL_STOP


def test_a_worker_waits_longer_for_a_job_than_that_may_last():
    """To its end, and to that of one that is broken off."""
    job = KubernetesConfig.of(Settings(runtime="kubernetes", workspace_image="w:1")).job_deadline

    assert job + jobs.MARGIN < tasks.LONG["soft_time_limit"]
    assert job_objects.BACKUP_GRACE < jobs.END_LIMIT


def test_local_processes_end_before_they_are_killed(monkeypatch):
    """gunicorn, then scripts/run, which waits longer for what another run left."""
    for config in ("app/gunicorn.conf.py", "app/gateway/gunicorn.conf.py"):
        assert gunicorn(config, monkeypatch) < supervisor.GRACE
    assert supervisor.GRACE < serve.LEFTOVERS_GRACE


def test_local_workspaces_end_before_the_run_gives_up_on_them():
    """What one may take that hangs, and time for Python to start."""
    assert serve.WORKSPACES_SLACK > 2.0
    assert serve.workspaces_limit(DEFAULT) == LOCAL_STOP - local.ROUTE_PATIENCE + serve.WORKSPACES_SLACK


def test_systemd_waits_longer_than_the_run_may_take_to_end():
    """Processes, workspaces, Redis; between them it kills what is left, for 3 s each time."""
    unit = (ROOT / "docs/operations.md").read_text()
    [given] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    run = supervisor.GRACE + supervisor.KILL_LIMIT + serve.workspaces_limit(DEFAULT) + redis_server.STOP_GRACE + 2 * 3.0

    assert run < int(given)


def test_a_pod_outlasts_what_its_process_may_finish(overlay, monkeypatch):
    """The backup worker's alone does not outlast its tasks, and says so: a rollout would take an hour."""
    found, given = pods(overlay), settings_of(overlay)
    grace = {name: pod.spec["terminationGracePeriodSeconds"] for name, pod in found.items()}
    before = {
        name: found[name].containers[0]["lifecycle"]["preStop"]["sleep"]["seconds"] for name in ("web", "gateway")
    }

    assert grace["web"] > before["web"] + gunicorn("app/gunicorn.conf.py", monkeypatch, **given)
    assert grace["gateway"] > before["gateway"] + gunicorn("app/gateway/gunicorn.conf.py", monkeypatch, **given)
    for name in ("worker", "delivery-worker"):
        assert grace[name] > task_queue.SHORT_TASK_LIMIT
    kinds = 4
    assert grace["observer"] > api_server.KUBE_TIMEOUT + kinds * informer.END_LIMIT + observer.BEAT
    assert grace["backup-worker"] > job_objects.BACKUP_GRACE
