"""Each alert fires when its fault is there and is gone after it, judged by promtool; and each leads to what to do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from flask import Flask
from prometheus_client.utils import floatToGoString

from app.core.redis.counters import START_BUCKETS
from scripts.monitoring import files
from scripts.monitoring.alerts import ALERTS, PROCESSES
from scripts.monitoring.objectives import FAST, OBJECTIVES, SLOW, WINDOWS
from scripts.monitoring.rules import RUNBOOK
from tests import promtool
from tests.conftest import ROOT
from tests.unit.scripts import expressions

RULES = files.FOLDER / "plain" / "rules.yaml"

NAMES = [each.name for each in ALERTS]


def gauge(*spans: tuple[int, float]) -> str:
    """Samples: for each span its number of steps and the value."""
    return " ".join(f"{value}" for steps, value in spans for _ in range(steps))


def tens(*values: float) -> str:
    """Samples: ten of each value."""
    return gauge(*((10, value) for value in values))


def counter(*spans: tuple[int, float]) -> str:
    """Samples: for each span its number of steps and how much is added in each."""
    added = (value for steps, value in spans for _ in range(steps))
    return " ".join(f"{value}" for value in itertools.accumulate(added))


def gone(*spans: tuple[int, str]) -> str:
    """Samples: for each span its number of steps and the value, `_` for none, `stale` for a target that went."""
    return " ".join(value for steps, value in spans for _ in range(steps))


@dataclass(frozen=True)
class Case:
    """The series of a fault. At the three moments `at` the alert is silent, fires, and is gone, in steps of so many
    minutes."""

    alert: str
    series: Mapping[str, str]
    at: tuple[int, int, int] = (9, 15, 25)
    step: int = 1


WEB = 'http_requests_total{namespace="s",process="web",endpoint="sessions.wake",method="POST"'
READY = 'kind="wake",phase="ready",namespace="s"'
THERE = {'sessions_redis_used_bytes{namespace="s"}': gauge((900, 1))}
FAILURES = 'sessions_action_failures_total{namespace="s",action='
ASKED = 'gateway_requests_total{namespace="s",endpoint="llm.chat_completions",status='
PROMPTS = 'sessions_prompts_failed_total{namespace="s",reason='
ANSWERED = 'sessions_prompt_seconds_count{namespace="s"}'
OF_REDIS = 'namespace="fresh-system",persistentvolumeclaim="data-redis-0"'
CLAIM = 'persistentvolumeclaim="user-abcd1234"'
ENDS = "certmanager_certificate_expiration_timestamp_seconds"
DAYS = 24 * 3_600
UPS = {f'up{{job="sessions-{name}",namespace="s",pod="{name}-1"}}': gauge((60, 1)) for name in PROCESSES}

CASES = (
    Case(
        "SessionsApiBurnFast",
        {
            WEB + ',status="200"}': counter((60, 100), (20, 50), (60, 100)),
            WEB + ',status="500"}': counter((60, 0), (20, 50), (60, 0)),
        },
        at=(59, 70, 125),
    ),
    # Of 10 minutes each: 0.5 % of errors for two days, then none.
    Case(
        "SessionsApiBurnSlow",
        {
            WEB + ',status="200"}': counter((144, 1000), (288, 995), (60, 1000)),
            WEB + ',status="503"}': counter((144, 0), (288, 5), (60, 0)),
        },
        at=(143, 400, 480),
        step=10,
    ),
    Case(
        "SessionsWakeBurnFast",
        THERE
        | {
            f"sessions_start_seconds_count{{{READY}}}": counter((60, 10), (20, 10), (60, 10)),
            f'sessions_start_seconds_bucket{{{READY},le="5.0"}}': counter((60, 10), (20, 5), (60, 10)),
        },
        at=(59, 75, 125),
    ),
    Case(
        "SessionsWakeBurnSlow",
        THERE
        | {
            f"sessions_start_seconds_count{{{READY}}}": counter((144, 100), (288, 100), (60, 100)),
            f'sessions_start_seconds_bucket{{{READY},le="5.0"}}': counter((144, 100), (288, 98), (60, 100)),
            f'{FAILURES}"wake"}}': counter((144, 0), (288, 1), (60, 0)),
        },
        at=(143, 400, 480),
        step=10,
    ),
    Case("SessionsBackupFailed", {f'{FAILURES}"backup"}}': counter((10, 0), (1, 1), (120, 0))}, at=(9, 15, 80)),
    Case("SessionsBackupsFailing", {f'{FAILURES}"backup"}}': counter((10, 0), (5, 1), (120, 0))}, at=(9, 25, 90)),
    Case(
        "SessionsRestorePointsLate",
        {'sessions_points_oldest_seconds{namespace="s"}': tens(600, 1200, 0)},
        at=(9, 18, 25),
    ),
    Case(
        "SessionsBackupsOld",
        {
            'sessions_backups_oldest_seconds{namespace="s"}': tens(600, 1200, 0),
            'sessions_points_overdue_seconds{namespace="s"}': gauge((30, 0)),
        },
        at=(9, 18, 25),
    ),
    Case(
        "SessionsBackupsOld",
        {
            'sessions_backups_oldest_seconds{namespace="s"}': gauge((30, 0)),
            'sessions_points_overdue_seconds{namespace="s"}': tens(60, 1200, 0),
        },
        at=(9, 18, 25),
    ),
    Case(
        "SessionsFailed", {'sessions_failed_total{namespace="s"}': counter((10, 0), (1, 1), (120, 0))}, at=(9, 15, 80)
    ),
    # The model's API answers no question.
    Case("SessionsModelDown", {'sessions_model_up{namespace="s",pod="w-1"}': tens(1, 0, 1)}),
    # It answers that question, and no request of an agent.
    Case(
        "SessionsModelDown",
        {
            'sessions_model_up{namespace="s",pod="w-1"}': gauge((60, 1)),
            ASKED + '"200"}': counter((10, 20), (20, 2), (30, 20)),
            ASKED + '"502"}': counter((10, 0), (20, 20), (30, 0)),
        },
        at=(9, 25, 45),
    ),
    Case(
        "SessionsModelErrors",
        {
            ASKED + '"200"}': counter((60, 20), (60, 18), (60, 20)),
            ASKED + '"502"}': counter((60, 0), (60, 2), (60, 0)),
        },
        at=(59, 100, 170),
    ),
    Case(
        "SessionsPromptsFailing",
        {
            PROMPTS + '"model_unavailable"}': counter((20, 0), (20, 1), (40, 0)),
            PROMPTS + '"internal"}': counter((20, 0), (20, 1), (40, 0)),
            ANSWERED: counter((80, 2)),
        },
        at=(19, 38, 70),
    ),
    Case(
        "SessionsVolumeFull",
        {
            f'kubelet_volume_stats_available_bytes{{namespace="w",{CLAIM}}}': gauge((10, 50), (30, 2), (10, 50)),
            f'kubelet_volume_stats_capacity_bytes{{namespace="w",{CLAIM}}}': gauge((50, 100)),
        },
        at=(9, 30, 45),
    ),
    # No more files, though there is room.
    Case(
        "SessionsVolumeFull",
        {
            f'kubelet_volume_stats_available_bytes{{namespace="w",{CLAIM}}}': gauge((50, 50)),
            f'kubelet_volume_stats_capacity_bytes{{namespace="w",{CLAIM}}}': gauge((50, 100)),
            f'kubelet_volume_stats_inodes_free{{namespace="w",{CLAIM}}}': gauge((10, 50), (30, 2), (10, 50)),
            f'kubelet_volume_stats_inodes{{namespace="w",{CLAIM}}}': gauge((50, 100)),
        },
        at=(9, 30, 45),
    ),
    Case(
        "SessionsServiceVolumeFull",
        {
            f"kubelet_volume_stats_available_bytes{{{OF_REDIS}}}": gauge((10, 50), (20, 5), (10, 50)),
            f"kubelet_volume_stats_capacity_bytes{{{OF_REDIS}}}": gauge((40, 100)),
        },
        at=(9, 20, 35),
    ),
    # Renewed too late, as cert-manager's own chart and the scrape of a pod label it. Of an hour each.
    Case(
        "SessionsCertificateLate",
        {f'{ENDS}{{namespace="fresh-system",name="workspaces"}}': gauge((72, 16 * DAYS), (24, 90 * DAYS))},
        at=(46, 60, 80),
        step=60,
    ),
    Case(
        "SessionsCertificateExpires",
        {
            f'{ENDS}{{namespace="cert-manager",exported_namespace="fresh-system",name="api"}}': gauge(
                (72, 4 * DAYS), (24, 90 * DAYS)
            )
        },
        at=(46, 60, 80),
        step=60,
    ),
    Case(
        "SessionsDrillFailed",
        {'sessions_drills_failed_total{namespace="s"}': counter((10, 0), (1, 1), (120, 0))},
        at=(9, 15, 80),
    ),
    Case("SessionsDrillsLate", {'sessions_drills_late{namespace="s"}': tens(0, 3, 0)}, at=(9, 18, 25)),
    Case("SessionsDeadLetters", {'sessions_dead_letters_kept{namespace="s"}': tens(0, 1, 0)}),
    Case("SessionsObserverSilent", {'sessions_observer_age_seconds{namespace="s"}': tens(1, 120, 1)}),
    # No observer ever reported, then one does.
    Case(
        "SessionsObserverSilent",
        THERE | {'sessions_observer_age_seconds{namespace="s"}': gone((10, "1"), (1, "stale"), (14, "_"), (10, "1"))},
        at=(9, 20, 30),
    ),
    Case("SessionsObserverLag", {'observer_lag_seconds{namespace="s",pod="o-1"}': tens(1, 300, 1)}),
    Case("SessionsQueueOld", {'sessions_queue_oldest_seconds{namespace="s",queue="wake"}': tens(0, 90, 0)}),
    Case(
        "SessionsBackgroundQueueOld",
        {'sessions_queue_oldest_seconds{namespace="s",queue="backup"}': tens(600, 1200, 0)},
    ),
    Case(
        "SessionsRedisFilling",
        {
            'sessions_redis_used_bytes{namespace="s"}': gauge((10, 60), (20, 75), (10, 60)),
            'sessions_redis_max_bytes{namespace="s"}': gauge((40, 100)),
        },
        at=(9, 20, 35),
    ),
    Case(
        "SessionsRedisFull",
        {
            'sessions_redis_used_bytes{namespace="s"}': tens(85, 95, 85),
            'sessions_redis_max_bytes{namespace="s"}': gauge((40, 100)),
        },
    ),
    Case(
        "SessionsForwardAuthErrors",
        {
            'forward_auth_decisions_total{namespace="s",decision="let_in"}': counter((40, 100)),
            'forward_auth_decisions_total{namespace="s",decision="error"}': counter((10, 1), (10, 30), (20, 1)),
        },
        at=(9, 18, 30),
    ),
    Case(
        "SessionsProcessDown",
        {
            'up{job="sessions-gateway",namespace="s",pod="g-1"}': tens(1, 0, 1),
            'up{job="sessions-gateway",namespace="s",pod="g-2"}': gauge((5, 1), (15, 0), (10, 1)),
        },
    ),
    Case(
        "SessionsReplicaDown",
        {
            'up{job="sessions-gateway",namespace="s",pod="g-1"}': gauge((60, 1)),
            'up{job="sessions-gateway",namespace="s",pod="g-2"}': gauge((10, 1), (20, 0), (30, 1)),
        },
        at=(9, 28, 35),
    ),
    Case(
        "SessionsScrapeMissing",
        UPS
        | {'up{job="sessions-beat",namespace="s",pod="beat-1"}': gone((10, "1"), (1, "stale"), (20, "_"), (20, "1"))},
        at=(9, 25, 40),
    ),
    Case(
        "SessionsBeatSilent",
        {'beat_last_sent_timestamp_seconds{namespace="s"}': tens(600, 600, 1800)},
        at=(9, 18, 25),
    ),
)
"""A row for each alert: it is quiet, its fault makes it fire, and it is gone when the fault is."""

QUIET = (
    Case(
        "SessionsApiBurnFast",
        {
            WEB + ',status="200"}': counter((60, 1), (10, 0), (60, 1)),
            WEB + ',status="500"}': counter((60, 0), (3, 1), (67, 0)),
        },
        at=(59, 64, 125),
    ),
    Case(
        "SessionsApiBurnFast",
        {
            WEB.replace("sessions.wake", "probes.readyz") + ',status="503"}': counter((60, 0), (20, 50), (60, 0)),
            WEB + ',status="200"}': counter((140, 100)),
        },
        at=(59, 70, 125),
    ),
    Case(
        "SessionsWakeBurnFast",
        THERE
        | {
            f"sessions_start_seconds_count{{{READY}}}": counter((60, 0), (2, 1), (60, 0)),
            f'sessions_start_seconds_bucket{{{READY},le="5.0"}}': counter((122, 0)),
        },
        at=(59, 63, 120),
    ),
    Case(
        "SessionsRedisFull",
        {
            'sessions_redis_used_bytes{namespace="s"}': gauge((30, 75)),
            'sessions_redis_max_bytes{namespace="s"}': gauge((40, 100)),
        },
        at=(5, 15, 25),
    ),
    Case(
        "SessionsModelDown",
        {ASKED + '"200"}': counter((40, 0)), ASKED + '"502"}': counter((10, 0), (3, 1), (27, 0))},
        at=(9, 15, 35),
    ),
    Case(
        "SessionsPromptsFailing",
        {
            PROMPTS + '"user"}': counter((20, 0), (20, 5), (40, 0)),
            PROMPTS + '"budget_exceeded"}': counter((20, 0), (20, 5), (40, 0)),
            PROMPTS + '"internal"}': counter((20, 0), (2, 1), (58, 0)),
            ANSWERED: counter((80, 1)),
        },
        at=(19, 38, 70),
    ),
    Case("SessionsScrapeMissing", UPS, at=(11, 25, 40)),
)
"""What must wake nobody: few errors in a quiet night, probes that say no, two slow wakes, Redis at three quarters, few
failed requests to the model, prompts that their users stopped or whose budgets are used up."""


def judged(case: Case, folder: Path, *, fires: bool) -> str:
    """What promtool says against the case, empty if all is as it should be."""
    name = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}}) or vector(0)'
    firing = zip(case.at, (0, int(fires), 0), strict=True)
    expected = {(name, f"{step * case.step}m"): value for step, value in firing}
    return expressions.refuted(expected, case.series, f"{case.step}m", folder, rules=RULES)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_for_its_fault_and_clears_after_it(case, tmp_path):
    """Counted among the alerts that Prometheus has at these moments."""
    assert judged(case, tmp_path, fires=True) == ""


@pytest.mark.slow
@pytest.mark.parametrize("case", QUIET, ids=lambda case: case.alert)
def test_what_is_no_fault_wakes_nobody(case, tmp_path):
    """See the table."""
    assert judged(case, tmp_path, fires=False) == ""


def test_the_table_of_faults_has_every_alert():
    """An alert that never fired in a test may never fire."""
    assert {each.alert for each in CASES} == set(NAMES)


def test_the_operators_object_has_the_same_rules():
    """Both are read by a Prometheus."""
    plain = yaml.safe_load(RULES.read_text())
    operators = yaml.safe_load((files.FOLDER / "prometheus-rule.yaml").read_text())

    assert operators["spec"] == plain


def test_promtool_accepts_the_rules():
    """Expressions, templates and names."""
    done = promtool.run("check", "rules", "--lint-fatal", RULES)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_leads_to_a_section_of_its_own():
    """A heading that is there once, with what it means, a command or query to look at, and what to do."""
    text = (ROOT / RUNBOOK).read_text().partition("\n## What to do\n")[2]
    _, *sections = re.split(r"^### ", text, flags=re.MULTILINE)
    headings = [section.partition("\n")[0] for section in sections]
    urls = {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }

    assert headings == NAMES
    # A heading of one word: a link names it in small letters.
    assert urls == {name: f"{RUNBOOK}#{name.lower()}" for name in NAMES}
    for section in sections:
        parts = re.fullmatch(
            r"(\w+)\n\n\*\*What it means\.\*\* .+\*\*Look at\.\*\*(.+)\*\*Do\.\*\*(.+)", section, re.DOTALL
        )
        assert parts is not None, section
        assert re.search(r"^```(sh|promql)\n", parts[2], re.MULTILINE), f"{parts[1]} has nothing to look at"


def test_the_runbooks_table_has_every_alert_with_its_severity():
    """In the order of the rules."""
    rows = re.findall(r"^\| \[`(Sessions\w+)`\]\(#(\w+)\) \| (\w+) \|", (ROOT / RUNBOOK).read_text(), re.MULTILINE)

    assert rows == [(each.name, each.name.lower(), each.severity) for each in ALERTS]


def test_every_alert_says_what_users_notice():
    """In a sentence; and how urgent it is."""
    assert {each.severity for each in ALERTS} == {"page", "warning"}
    assert [each.name for each in ALERTS if not each.summary.endswith((".", "(507)."))] == []
    assert len(set(NAMES)) == len(NAMES)


def test_the_recording_rules_have_every_window_that_an_alert_looks_at():
    """A window without a rule would be an alert that never fires."""
    looked_at = {window for long, short, _ in (*FAST, *SLOW) for window in (long, short)}

    assert looked_at == set(WINDOWS)
    assert {each.name for each in OBJECTIVES} == {"sessions_api", "sessions_wake"}


def test_the_objective_of_the_api_counts_every_call_but_probes_and_metrics(uncalled_app: Flask):
    """Those answer 503 on purpose, and nobody waits for them."""
    [left_out] = set(re.findall(r'endpoint!~"([^"]+)"', RULES.read_text()))
    rules = uncalled_app.url_map.iter_rules()

    assert {rule.rule for rule in rules if re.fullmatch(left_out, rule.endpoint)} == {
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
    }


def test_the_objective_of_wakes_has_its_bucket():
    """A bound that no bucket has would make every wake a bad one."""
    [bound] = set(re.findall(r'le="([^"]+)"', RULES.read_text()))

    assert bound in {floatToGoString(each) for each in START_BUCKETS}
