"""What Celery's processes are called."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from workers.celery.process_reports import kind_of


@pytest.mark.parametrize(
    ("node", "kind"), [("sweeper@host", "sweeper"), ("delivery-worker@a.b", "delivery-worker"), ("celery@host", "")]
)
def test_a_worker_is_of_the_kind_that_its_name_says(node: str, kind: str) -> None:
    assert kind_of(node) == kind


def test_each_worker_is_started_with_a_name_that_says_its_kind() -> None:
    lines = [line for line in (ROOT / "Procfile").read_text().splitlines() if "workers.celery.app worker" in line]
    assert len(lines) == 4
    for line in lines:
        name = line.partition(":")[0]
        assert f" -n {name}@%h " in line
        assert kind_of(f"{name}@host") == name
