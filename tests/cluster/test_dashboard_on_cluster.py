"""The dashboard of the product on a real cluster, through the ingress (the suite is tests/suites/dashboard.py); and
what the doctor finds there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cluster.product import Api
from tests.cluster.prompting import secrets_of_the_manager
from tests.suites.dashboard import TheDashboard
from workspaces import Workspaces
from workspaces.cli.doctor import examine


@pytest.fixture(scope="module")
def secrets() -> Sequence[str]:
    return tuple(secrets_of_the_manager().values())


class TestDashboardOnCluster(TheDashboard):
    """The whole product, as the overlay `dev` puts it there."""


def test_the_doctor_finds_the_product_well(api: Api) -> None:
    findings = examine(lambda: Workspaces(api.url, api.key))
    assert [each for each in findings if each.status == "failed"] == []
    assert {each.check for each in findings} >= {"api", "clock", "key", "redis", "cluster", "ingress_from_here"}
