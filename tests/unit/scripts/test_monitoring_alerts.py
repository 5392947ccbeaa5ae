"""Each alert fires when its fault is there and is gone after it, judged by promtool; and each leads to what to do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.utils import floatToGoString

from app.core.redis.counters import START_BUCKETS
from app.main import create_app
from app.process.settings import Settings
from scripts.monitoring import write
from scripts.monitoring.alerts import ALERTS, PROCESSES
from scripts.monitoring.objectives import FAST, OBJECTIVES, SLOW, WINDOWS
from scripts.monitoring.rules import RUNBOOK
from tests import promtool

ROOT = Path(__file__).resolve().parents[3]
RULES = write.FOLDER / "plain" / "rules.yaml"

STEP = 1
"""Minutes between two samples, unless a case says otherwise."""

NAMES = [each.name for each in ALERTS]


def gauge(*spans: tuple[int, float]) -> str:
    """Samples: for each span its number of steps and the value."""
    return " ".join(f"{value}" for steps, value in spans for _ in range(steps))


def counter(*spans: tuple[int, float]) -> str:
    """Samples: for each span its number of steps and how much is added in each."""
    added = (value for steps, value in spans for _ in range(steps))
    return " ".join(f"{value}" for value in itertools.accumulate(added))


def gone(*spans: tuple[int, str]) -> str:
    """Samples: for each span its number of steps and the value, `_` for none, `stale` for a target that went."""
    return " ".join(value for steps, value in spans for _ in range(steps))


@dataclass(frozen=True)
class Case:
    """The series of a fault. The alert is silent at `quiet`, fires at `fires`, is gone at `cleared`: in steps."""

    alert: str
    series: Mapping[str, str]
    quiet: int
    fires: int
    cleared: int
    step: int = STEP


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
        quiet=59,
        fires=70,
        cleared=125,
    ),
    # Of 10 minutes each: 0.5 % of errors for two days, then none.
    Case(
        "SessionsApiBurnSlow",
        {
            WEB + ',status="200"}': counter((144, 1000), (288, 995), (60, 1000)),
            WEB + ',status="503"}': counter((144, 0), (288, 5), (60, 0)),
        },
        quiet=143,
        fires=400,
        cleared=480,
        step=10,
    ),
    Case(
        "SessionsWakeBurnFast",
        THERE
        | {
            f"sessions_start_seconds_count{{{READY}}}": counter((60, 10), (20, 10), (60, 10)),
            f'sessions_start_seconds_bucket{{{READY},le="5.0"}}': counter((60, 10), (20, 5), (60, 10)),
        },
        quiet=59,
        fires=75,
        cleared=125,
    ),
    Case(
        "SessionsWakeBurnSlow",
        THERE
        | {
            f"sessions_start_seconds_count{{{READY}}}": counter((144, 100), (288, 100), (60, 100)),
            f'sessions_start_seconds_bucket{{{READY},le="5.0"}}': counter((144, 100), (288, 98), (60, 100)),
            f'{FAILURES}"wake"}}': counter((144, 0), (288, 1), (60, 0)),
        },
        quiet=143,
        fires=400,
        cleared=480,
        step=10,
    ),
    Case(
        "SessionsBackupFailed",
        {f'{FAILURES}"backup"}}': counter((10, 0), (1, 1), (120, 0))},
        quiet=9,
        fires=15,
        cleared=80,
    ),
    Case(
        "SessionsBackupsFailing",
        {f'{FAILURES}"backup"}}': counter((10, 0), (5, 1), (120, 0))},
        quiet=9,
        fires=25,
        cleared=90,
    ),
    Case(
        "SessionsRestorePointsLate",
        {'sessions_points_oldest_seconds{namespace="s"}': gauge((10, 600), (10, 1200), (10, 0))},
        quiet=9,
        fires=18,
        cleared=25,
    ),
    Case(
        "SessionsBackupsOld",
        {
            'sessions_backups_oldest_seconds{namespace="s"}': gauge((10, 600), (10, 1200), (10, 0)),
            'sessions_points_overdue_seconds{namespace="s"}': gauge((30, 0)),
        },
        quiet=9,
        fires=18,
        cleared=25,
    ),
    Case(
        "SessionsBackupsOld",
        {
            'sessions_backups_oldest_seconds{namespace="s"}': gauge((30, 0)),
            'sessions_points_overdue_seconds{namespace="s"}': gauge((10, 60), (10, 1200), (10, 0)),
        },
        quiet=9,
        fires=18,
        cleared=25,
    ),
    Case(
        "SessionsFailed",
        {'sessions_failed_total{namespace="s"}': counter((10, 0), (1, 1), (120, 0))},
        quiet=9,
        fires=15,
        cleared=80,
    ),
    # The model's API answers no question.
    Case(
        "SessionsModelDown",
        {'sessions_model_up{namespace="s",pod="w-1"}': gauge((10, 1), (10, 0), (10, 1))},
        quiet=9,
        fires=15,
        cleared=25,
    ),
    # It answers that question, and no request of an agent.
    Case(
        "SessionsModelDown",
        {
            'sessions_model_up{namespace="s",pod="w-1"}': gauge((60, 1)),
            ASKED + '"200"}': counter((10, 20), (20, 2), (30, 20)),
            ASKED + '"502"}': counter((10, 0), (20, 20), (30, 0)),
        },
        quiet=9,
        fires=25,
        cleared=45,
    ),
    Case(
        "SessionsModelErrors",
        {
            ASKED + '"200"}': counter((60, 20), (60, 18), (60, 20)),
            ASKED + '"502"}': counter((60, 0), (60, 2), (60, 0)),
        },
        quiet=59,
        fires=100,
        cleared=170,
    ),
    Case(
        "SessionsPromptsFailing",
        {
            PROMPTS + '"model_unavailable"}': counter((20, 0), (20, 1), (40, 0)),
            PROMPTS + '"internal"}': counter((20, 0), (20, 1), (40, 0)),
            ANSWERED: counter((80, 2)),
        },
        quiet=19,
        fires=38,
        cleared=70,
    ),
    Case(
        "SessionsVolumeFull",
        {
            f'kubelet_volume_stats_available_bytes{{namespace="w",{CLAIM}}}': gauge((10, 50), (30, 2), (10, 50)),
            f'kubelet_volume_stats_capacity_bytes{{namespace="w",{CLAIM}}}': gauge((50, 100)),
        },
        quiet=9,
        fires=30,
        cleared=45,
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
        quiet=9,
        fires=30,
        cleared=45,
    ),
    Case(
        "SessionsServiceVolumeFull",
        {
            f"kubelet_volume_stats_available_bytes{{{OF_REDIS}}}": gauge((10, 50), (20, 5), (10, 50)),
            f"kubelet_volume_stats_capacity_bytes{{{OF_REDIS}}}": gauge((40, 100)),
        },
        quiet=9,
        fires=20,
        cleared=35,
    ),
    # Renewed too late, as cert-manager's own chart and the scrape of a pod label it. Of an hour each.
    Case(
        "SessionsCertificateLate",
        {f'{ENDS}{{namespace="fresh-system",name="workspaces"}}': gauge((72, 16 * DAYS), (24, 90 * DAYS))},
        quiet=46,
        fires=60,
        cleared=80,
        step=60,
    ),
    Case(
        "SessionsCertificateExpires",
        {
            f'{ENDS}{{namespace="cert-manager",exported_namespace="fresh-system",name="api"}}': gauge(
                (72, 4 * DAYS), (24, 90 * DAYS)
            )
        },
        quiet=46,
        fires=60,
        cleared=80,
        step=60,
    ),
    Case(
        "SessionsDrillFailed",
        {'sessions_drills_failed_total{namespace="s"}': counter((10, 0), (1, 1), (120, 0))},
        quiet=9,
        fires=15,
        cleared=80,
    ),
    Case(
        "SessionsDrillsLate",
        {'sessions_drills_late{namespace="s"}': gauge((10, 0), (10, 3), (10, 0))},
        quiet=9,
        fires=18,
        cleared=25,
    ),
    Case(
        "SessionsDeadLetters",
        {'sessions_dead_letters_kept{namespace="s"}': gauge((10, 0), (10, 1), (10, 0))},
        quiet=9,
        fires=15,
        cleared=25,
    ),
    Case(
        "SessionsObserverSilent",
        {'sessions_observer_age_seconds{namespace="s"}': gauge((10, 1), (10, 120), (10, 1))},
        quiet=9,
        fires=15,
        cleared=25,
    ),
    # No observer ever reported, then one does.
    Case(
        "SessionsObserverSilent",
        THERE | {'sessions_observer_age_seconds{namespace="s"}': gone((10, "1"), (1, "stale"), (14, "_"), (10, "1"))},
        quiet=9,
        fires=20,
        cleared=30,
    ),
    Case(
        "SessionsObserverLag",
        {'observer_lag_seconds{namespace="s",pod="o-1"}': gauge((10, 1), (10, 300), (10, 1))},
        quiet=9,
        fires=15,
        cleared=25,
    ),
    Case(
        "SessionsQueueOld",
        {'sessions_queue_oldest_seconds{namespace="s",queue="wake"}': gauge((10, 0), (10, 90), (10, 0))},
        quiet=9,
        fires=15,
        cleared=25,
    ),
    Case(
        "SessionsBackgroundQueueOld",
        {'sessions_queue_oldest_seconds{namespace="s",queue="backup"}': gauge((10, 600), (10, 1200), (10, 0))},
        quiet=9,
        fires=15,
        cleared=25,
    ),
    Case(
        "SessionsRedisFilling",
        {
            'sessions_redis_used_bytes{namespace="s"}': gauge((10, 60), (20, 75), (10, 60)),
            'sessions_redis_max_bytes{namespace="s"}': gauge((40, 100)),
        },
        quiet=9,
        fires=20,
        cleared=35,
    ),
    Case(
        "SessionsRedisFull",
        {
            'sessions_redis_used_bytes{namespace="s"}': gauge((10, 85), (10, 95), (10, 85)),
            'sessions_redis_max_bytes{namespace="s"}': gauge((40, 100)),
        },
        quiet=9,
        fires=15,
        cleared=25,
    ),
    Case(
        "SessionsForwardAuthErrors",
        {
            'forward_auth_decisions_total{namespace="s",decision="let_in"}': counter((40, 100)),
            'forward_auth_decisions_total{namespace="s",decision="error"}': counter((10, 1), (10, 30), (20, 1)),
        },
        quiet=9,
        fires=18,
        cleared=30,
    ),
    Case(
        "SessionsProcessDown",
        {
            'up{job="sessions-gateway",namespace="s",pod="g-1"}': gauge((10, 1), (10, 0), (10, 1)),
            'up{job="sessions-gateway",namespace="s",pod="g-2"}': gauge((5, 1), (15, 0), (10, 1)),
        },
        quiet=9,
        fires=15,
        cleared=25,
    ),
    Case(
        "SessionsReplicaDown",
        {
            'up{job="sessions-gateway",namespace="s",pod="g-1"}': gauge((60, 1)),
            'up{job="sessions-gateway",namespace="s",pod="g-2"}': gauge((10, 1), (20, 0), (30, 1)),
        },
        quiet=9,
        fires=28,
        cleared=35,
    ),
    Case(
        "SessionsScrapeMissing",
        UPS
        | {'up{job="sessions-beat",namespace="s",pod="beat-1"}': gone((10, "1"), (1, "stale"), (20, "_"), (20, "1"))},
        quiet=9,
        fires=25,
        cleared=40,
    ),
    Case(
        "SessionsBeatSilent",
        {'beat_last_sent_timestamp_seconds{namespace="s"}': gauge((10, 600), (10, 600), (10, 1800))},
        quiet=9,
        fires=18,
        cleared=25,
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
        quiet=59,
        fires=64,
        cleared=125,
    ),
    Case(
        "SessionsApiBurnFast",
        {
            WEB.replace("sessions.wake", "probes.readyz") + ',status="503"}': counter((60, 0), (20, 50), (60, 0)),
            WEB + ',status="200"}': counter((140, 100)),
        },
        quiet=59,
        fires=70,
        cleared=125,
    ),
    Case(
        "SessionsWakeBurnFast",
        THERE
        | {
            f"sessions_start_seconds_count{{{READY}}}": counter((60, 0), (2, 1), (60, 0)),
            f'sessions_start_seconds_bucket{{{READY},le="5.0"}}': counter((122, 0)),
        },
        quiet=59,
        fires=63,
        cleared=120,
    ),
    Case(
        "SessionsRedisFull",
        {
            'sessions_redis_used_bytes{namespace="s"}': gauge((30, 75)),
            'sessions_redis_max_bytes{namespace="s"}': gauge((40, 100)),
        },
        quiet=5,
        fires=15,
        cleared=25,
    ),
    Case(
        "SessionsModelDown",
        {ASKED + '"200"}': counter((40, 0)), ASKED + '"502"}': counter((10, 0), (3, 1), (27, 0))},
        quiet=9,
        fires=15,
        cleared=35,
    ),
    Case(
        "SessionsPromptsFailing",
        {
            PROMPTS + '"user"}': counter((20, 0), (20, 5), (40, 0)),
            PROMPTS + '"budget_exceeded"}': counter((20, 0), (20, 5), (40, 0)),
            PROMPTS + '"internal"}': counter((20, 0), (2, 1), (58, 0)),
            ANSWERED: counter((80, 1)),
        },
        quiet=19,
        fires=38,
        cleared=70,
    ),
    Case(
        "SessionsScrapeMissing",
        UPS,
        quiet=11,
        fires=25,
        cleared=40,
    ),
)
"""What must wake nobody: few errors in a quiet night, probes that say no, two slow wakes, Redis at three quarters, few
failed requests to the model, prompts that their users stopped or whose budgets are used up."""


def judged(case: Case, folder: Path, *, fires: bool) -> str:
    """What promtool says against the case, empty if all is as it should be."""
    name = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}}) or vector(0)'
    at = {case.quiet: 0, case.fires: int(fires), case.cleared: 0}
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{case.step}m",
        # Else promtool takes them in any order, and the alerts may see figures of the step before.
        "group_eval_order": ["sessions-objectives", "sessions-alerts"],
        "tests": [
            {
                "interval": f"{case.step}m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "promql_expr_test": [
                    {
                        "expr": name,
                        "eval_time": f"{step * case.step}m",
                        "exp_samples": [{"labels": "{}", "value": value}],
                    }
                    for step, value in at.items()
                ],
            }
        ],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    done = promtool.run("test", "rules", file)
    return "" if done.returncode == 0 else done.stdout + done.stderr


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


def test_the_files_are_those_that_the_tables_make():
    """Rules, the operator's object and the dashboards; mended with `python -m scripts.monitoring.write`."""
    made = write.files()

    assert {path.name: path.read_text() for path in made} == {path.name: text for path, text in made.items()}
    assert {path.name for path in made} >= {"rules.yaml", "prometheus-rule.yaml", "sessions-lifecycle.json"}


def test_the_operators_object_has_the_same_rules():
    """Both are read by a Prometheus."""
    plain = yaml.safe_load(RULES.read_text())
    operators = yaml.safe_load((write.FOLDER / "prometheus-rule.yaml").read_text())

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


def test_the_objective_of_the_api_counts_every_call_but_probes_and_metrics():
    """Those answer 503 on purpose, and nobody waits for them."""
    [left_out] = set(re.findall(r'endpoint!~"([^"]+)"', RULES.read_text()))
    rules = create_app(Settings(api_key="a-key-for-nothing")).url_map.iter_rules()

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
