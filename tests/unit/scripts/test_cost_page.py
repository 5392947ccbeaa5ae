"""docs/cost.md says what the settings and the manifests come to."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.core.costs.prices import Prices
from app.process.settings import SettingsError
from scripts.generate import cost_page

PRICES = Prices.of(cost_page.gke())


def test_a_user_by_hand() -> None:
    """40 hours of 0.27 vCPU and 0.3125 GiB, 5 GiB of disk, and 40 times ten turns."""
    user = cost_page.a_user(40, PRICES)
    compute = 40 * (Decimal("0.27") * Decimal("0.0445") + Decimal("0.3125") * Decimal("0.0049225"))
    assert user.dollars["compute"] == compute
    assert user.dollars["disk"] == Decimal("0.5")
    assert user.dollars["tokens"] == 40 * (Decimal("0.05") + Decimal("0.02"))
    assert user.saved == compute / 40 * (730 - 40)


def test_each_storage_class_of_the_overlay_has_its_price() -> None:
    assert {name: Prices.of(cost_page.gke(name)).disk_gib_month for name in cost_page.DISKS} == {
        "standard-rwo": Decimal("0.1"),
        "premium-rwo": Decimal("0.17"),
        "standard": Decimal("0.04"),
    }
    assert cost_page.gke().storage_class == "standard-rwo"
    with pytest.raises(SettingsError):
        Prices.of(cost_page.gke("of-ours"))


def test_every_process_of_the_manifests_is_paid_for() -> None:
    names = {each.name for each in cost_page.processes()}
    assert cost_page.GROWING | {"observer", "beat", "flower", "redis", "ingress"} == names
    assert all(each.vcpus > 0 and each.gib > 0 and each.replicas > 0 for each in cost_page.processes())


def test_more_users_awake_need_more_replicas() -> None:
    assert [cost_page.times(users, 40) for users in (1, 1_000, 10_000)] == [1, 1, 5]
    assert cost_page.platform(10_000, 40, PRICES) > cost_page.platform(100, 40, PRICES)


def test_with_the_archive_a_user_stays_below_a_dollar() -> None:
    """40 awake hours on ten days, without tokens, the service's share included."""
    alone = sum(cost_page.with_archive(40, PRICES))
    for users in (1_000, 10_000):
        assert alone + cost_page.platform(users, 40, PRICES) / users < 1
    compute, disk, stored = cost_page.with_archive(0, PRICES)
    assert compute == disk == 0
    assert 0 < stored < Decimal("0.01")
