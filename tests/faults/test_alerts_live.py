"""Alerts by their real faults on a running service: a bounded sample of `python -m tests.faults alerts`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from scripts.monitoring.alerts import ALERTS
from scripts.monitoring.rules import rules_file
from tests import promtool
from tests.faults.alarm_faults import FAULTS, OF_A_CLUSTER
from tests.faults.alarming import Fault, Scene, scene, see
from tests.faults.watching import FACTOR, SECONDS, shortened

SAMPLE = ("process", "target", "observer", "store", "failed", "refusals")
"""Those that take a minute at most: a process, what Prometheus knows of it, a gauge, counters."""

DURATION = re.compile(r"(?<=\[)(\d+)([a-z]+)(?=\])")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> Iterator[Scene]:
    """A service with sessions, watched by the shipped rules."""
    promtool.promtool()
    with scene(tmp_path_factory.mktemp("service"), code_server) as there:
        yield there


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", [each for each in FAULTS if each.name in SAMPLE], ids=lambda fault: fault.name)
def test_an_alert_fires_for_its_real_fault_and_clears_after_it(watched: Scene, fault: Fault) -> None:
    """And none fired before."""
    seen = see(watched, fault)

    assert set(seen.fired) == set(seen.cleared) == set(fault.alerts)


def test_every_alert_has_a_fault() -> None:
    """One, or its figures are a cluster's; and each of the sample is there."""
    shown = [name for fault in FAULTS for name in fault.alerts]
    assert sorted([*shown, *OF_A_CLUSTER]) == sorted(each.name for each in ALERTS)
    assert set(SAMPLE) <= {fault.name for fault in FAULTS}


def test_time_is_all_that_differs_from_the_shipped_rules() -> None:
    """Windows, and the seconds by which a rate is a count again; thresholds are as shipped."""
    shipped = {rule["expr"]: rule for group in rules_file()["groups"] for rule in group["rules"]}
    faster = [rule for group in shortened(rules_file())["groups"] for rule in group["rules"]]

    def longer(expr: str) -> str:
        back = DURATION.sub(lambda found: str(int(found[1]) * FACTOR), expr)
        return re.sub(r"\* (\d+) >= ", lambda found: f"* {int(found[1]) * FACTOR} >= ", back)

    def in_ms(expr: str) -> str:
        return DURATION.sub(lambda found: str(int(found[1]) * SECONDS[found[2]] * 1000), expr)

    assert [longer(rule["expr"]) for rule in faster] == [in_ms(expr) for expr in shipped]
    for rule, original in zip(faster, shipped.values(), strict=True):
        assert {**rule, "expr": "", "for": ""} == {**original, "expr": "", "for": ""}
