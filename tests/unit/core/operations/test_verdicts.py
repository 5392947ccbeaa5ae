"""What a diagnosis concludes from what was found: each verdict, and that each bad one says what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.operations.verdicts import (
    FAR_SKEWED,
    MODEL_KNOWN,
    NO_ARCHIVE,
    SKEWED,
    SWEEP_SILENCE,
    WAITS,
    RedisFacts,
    State,
    Verdict,
    of_beat,
    of_clocks,
    of_cluster,
    of_dead_letters,
    of_ingress,
    of_model,
    of_observer,
    of_policies,
    of_processes,
    of_queues,
    of_redis,
    of_storage,
)
from app.core.redis.heartbeats import OBSERVER_SILENCE, Policies
from app.core.redis.memory import Fill
from app.core.redis.model_answers import ModelAnswer
from app.core.redis.processes import Process
from app.core.redis.task_queue import QUEUES

OK, WARNING, FAILED, UNKNOWN = State.OK, State.WARNING, State.FAILED, State.UNKNOWN

GOOD_REDIS = RedisFacts(Fill(10, 100), "7.0.15", "noeviction", "1", "ok")
ANSWER = ModelAnswer(age=12.0, status=200, ms=210)
SEEN, LATE = OBSERVER_SILENCE, OBSERVER_SILENCE + 1


def process(kind: str, *, alive: bool = True, skew: float = 0.0) -> Process:
    return Process(f"{kind}@a:1", kind, "a", 1.0, 2.0, alive=alive, skew=skew)


@pytest.mark.parametrize(
    ("verdict", "status", "found", "remedy"),
    [
        (of_redis(GOOD_REDIS), OK, "Redis 7.0.15 answers, 10% of its memory used.", ""),
        (of_redis(RedisFacts(Fill(10, 0))), OK, "Redis answers, without a limit", ""),
        (of_redis(replace(GOOD_REDIS, fill=Fill(95, 100))), FAILED, "full (95%)", "more memory"),
        (of_redis(replace(GOOD_REDIS, fill=Fill(75, 100))), WARNING, "75%", "more memory"),
        (of_redis(replace(GOOD_REDIS, policy="allkeys-lru")), FAILED, "allkeys-lru", "noeviction"),
        (of_redis(replace(GOOD_REDIS, written="err")), FAILED, "can't write", "disk"),
        (of_redis(replace(GOOD_REDIS, aof="0")), WARNING, "append-only", "appendonly"),
        (of_processes("web", ["web"], [process("web"), process("web")]), OK, "2 alive: web.", ""),
        (of_processes("web", ["web"], [process("web", alive=False)]), FAILED, "web: no process is alive", "Start it"),
        (of_processes("workers", ["worker", "sweeper"], [process("worker")]), FAILED, "sweeper", "Start it"),
        (of_processes("workers", ["worker", "sweeper"], []), FAILED, "worker, sweeper: no process of these", "Start"),
        (of_queues({"wake": 0.0}, {"wake": 0}), OK, "0 tasks wait", ""),
        (of_queues({"backup": 600.0}, {"backup": 3}), OK, "3 tasks wait", ""),
        (of_queues({"wake": 16.0}, {"wake": 3}), FAILED, "wake (3 tasks, the oldest for 16 s)", "workers"),
        (of_beat(True, 1.0, True), OK, "1 s ago", ""),
        (of_beat(False, 1.0, True), FAILED, "Beat is not alive", "Start it"),
        (of_beat(True, SWEEP_SILENCE + 1, True), FAILED, "31 s ago", "the sweeper does not take tasks"),
        (of_beat(True, None, False), FAILED, "never", "Start it"),
        (of_observer(SEEN, True), OK, "10 s ago", ""),
        (of_observer(LATE, True), FAILED, "does not see the workspaces", "cluster"),
        (of_observer(LATE, False), FAILED, "11 s ago", "Start it"),
        (of_observer(None, False), FAILED, "never reported", "Start it"),
        (of_cluster("kubernetes", SEEN, True, 0), OK, "The API server answers.", ""),
        (of_cluster("local", SEEN, True, 0), OK, "this machine", ""),
        (of_cluster("kubernetes", LATE, True, 0), FAILED, "does not reach the API server", "permissions"),
        (of_cluster("local", LATE, True, 0), FAILED, "can't be looked at", "log"),
        (of_cluster("kubernetes", LATE, False, 0), UNKNOWN, "nobody looks", "observer"),
        (of_cluster("kubernetes", SEEN, True, 3), WARNING, "3 sessions wait for room", "machines"),
        (of_ingress("kubernetes", True, None, None, True), OK, "is alive", ""),
        (of_ingress("local", True, True, True, False), OK, "answers", ""),
        (of_ingress("local", True, False, True, False), FAILED, "does not answer", "Start it"),
        (of_ingress("local", True, True, False, False), FAILED, "WORKSPACE_PORT", "Start it"),
        (of_ingress("kubernetes", False, None, None, True), FAILED, "is not alive", "Start it"),
        (of_ingress("kubernetes", True, None, None, False), FAILED, "INGRESS_FORWARD_AUTH", "component"),
        (of_policies("local", Policies.UNKNOWN), OK, "One machine", ""),
        (of_policies("kubernetes", Policies.ENFORCED), OK, "enforces", ""),
        (of_policies("kubernetes", Policies.NOT_ENFORCED), WARNING, "no network policies", "network plugin"),
        (of_policies("kubernetes", Policies.UNKNOWN), UNKNOWN, "tested", "workers"),
        (of_storage({"backups": "", "conversations": ""}), OK, "backups, conversations", ""),
        (of_storage({"backups": "The disk is full.", "conversations": ""}), FAILED, "The disk is full.", "BACKUP_URL"),
        (of_storage({"backups": "", NO_ARCHIVE: ""}), WARNING, "in: backups. Without an ARCHIVE_KEY", "ARCHIVE_KEY"),
        (of_storage(None), UNKNOWN, "No backup worker", "workers"),
        (of_model(True, ANSWER), OK, "answered 12 s ago, in 210 ms", ""),
        (of_model(False, None), WARNING, "No model is configured", "LLM_BASE_URL"),
        (of_model(True, None), UNKNOWN, "not asked", "gateway"),
        (of_model(True, replace(ANSWER, age=MODEL_KNOWN + 1)), UNKNOWN, "not asked", "gateway"),
        (of_model(True, ModelAnswer(3.0, error="NewConnectionError")), FAILED, "NewConnectionError", "LLM_BASE_URL"),
        (of_model(True, replace(ANSWER, status=401)), FAILED, "refused the key", "LLM_API_KEY"),
        (of_model(True, replace(ANSWER, status=503)), FAILED, "503", "provider"),
        (of_model(True, replace(ANSWER, status=429)), WARNING, "429", "limit"),
        (of_model(True, replace(ANSWER, status=404)), OK, "answered", ""),
        (of_dead_letters(0), OK, "No task", ""),
        (of_dead_letters(1), WARNING, "1 task was given up", "GET /dead-letters"),
        (of_dead_letters(2), WARNING, "2 tasks were given up", "GET /dead-letters"),
        (of_clocks([process("web", skew=SKEWED)]), OK, "agree", ""),
        (of_clocks([process("web", skew=-2.5)]), WARNING, "web@a:1 is 2.5 s behind", "NTP"),
        (of_clocks([process("web", skew=FAR_SKEWED + 1)]), FAILED, "31.0 s ahead of", "NTP"),
        (of_clocks([process("web", alive=False, skew=99.0)]), OK, "agree", ""),
    ],
)
def test_each_verdict(verdict: Verdict, status: State, found: str, remedy: str) -> None:
    assert verdict.status is status
    assert found in verdict.found
    assert remedy in verdict.remedy
    assert bool(verdict.remedy) is (status is not OK)


def test_each_queue_has_a_limit_of_its_own() -> None:
    assert set(WAITS) == set(QUEUES)
