"""The measurements on a cluster, with small numbers: they run, say what they should, and leave nothing behind.

Needs the product of `scripts/cluster/cluster demo`. No figure is judged here.
"""

from __future__ import annotations

import re

import pytest

from app.core.sessions.model import PHASES
from scripts.bench import cluster, many
from scripts.bench.product import NAMESPACE, TIMEOUT
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.api_server import ApiServer

pytestmark = pytest.mark.alone

FIGURES = re.compile(r"\d[\d.,x/ ;]*")


def test_starts_are_measured_beside_the_floor() -> None:
    """Each kind with its row, the two ratios, and all phases of both kinds of start."""
    rows = {label: value for label, value, _ in cluster.run(rounds=2)}
    assert {f"{kind} → Ready against the floor" for kind in ("create", "wake")} <= rows.keys()
    rows.pop("prompt to a sleeping session", None)
    assert all(FIGURES.fullmatch(value) for value in rows.values()), rows
    for kind in ("create", "wake"):
        phases = [int(rows[f"{kind}: {name} (ms since the request)"]) for name in PHASES]
        assert phases == sorted(phases)
    assert ApiServer(NAMESPACE, TIMEOUT).get("deployments", cluster.FLOOR) is None


def test_many_sessions_are_made_measured_and_taken_away() -> None:
    """All of them by the worker's code, since these are few."""
    rows = {label: value for label, value, _ in many.run(sessions=10, calls=2)}
    assert (rows["sleeping sessions made"], rows["  by the worker's code"]) == ("10", "10")
    for name in ("idle", "expired", "reconcile"):
        assert rows[f"the sweep {name} (ms)"].isdigit()
    left, _ = ApiServer(NAMESPACE, TIMEOUT).list("deployments", f"{names.USER_LABEL}={many.USER}")
    assert left == []
