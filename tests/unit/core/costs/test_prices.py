"""Prices come from the settings, each with its source."""

from __future__ import annotations

from dataclasses import fields, replace
from decimal import Decimal

import pytest

from app.core.costs.prices import AGENT_REQUESTS, Prices, quantity
from app.process.settings import Settings, SettingsError
from workers.runtime.kubernetes import objects


def test_a_size_is_priced_by_what_its_pod_requests_and_one_that_is_gone_as_the_largest() -> None:
    """The editor's container and the agent's."""
    prices = Prices.of(replace(Settings(), prices='{"vcpu_hour": 1.0, "gib_hour": 10.0}'))
    assert prices.compute_hour("large") == Decimal("0.52") + 10 * Decimal("1.0625")
    assert prices.compute_hour("one that is gone") == prices.compute_hour("large"), "the largest"
    assert (objects.AGENT_REQUESTS["cpu"], objects.AGENT_REQUESTS["memory"]) == AGENT_REQUESTS


@pytest.mark.parametrize(
    ("text", "number"),
    [("250m", "0.25"), ("1", "1"), ("1.5", "1.5"), ("256Mi", "268435456"), ("5Gi", "5368709120"), ("5G", "5000000000")],
)
def test_quantities_are_kubernetes_own(text: str, number: str) -> None:
    assert quantity(text, "X") == Decimal(number)


def test_a_volume_counts_in_whole_mib() -> None:
    assert Prices.of(replace(Settings(), volume_size="5G")).volume_mib == 4_769


@pytest.mark.parametrize(("storage_class", "price"), [("fast", "0.17"), ("slow", "0.1"), ("", "0.1")])
def test_a_disk_is_priced_by_its_storage_class(storage_class: str, price: str) -> None:
    prices = '{"disk_gib_month": {"fast": 0.17, "*": 0.1}}'
    settings = replace(Settings(), storage_class=storage_class, prices=prices)
    assert Prices.of(settings).disk_gib_month == Decimal(price)


def test_a_storage_class_without_a_price_is_named() -> None:
    """A volume that costs nothing, or another's price, is found on a bill only."""
    settings = replace(Settings(), storage_class="fast", prices='{"disk_gib_month": {"slow": 0.1}}')
    with pytest.raises(SettingsError, match="'fast' of STORAGE_CLASS"):
        Prices.of(settings)


def test_a_model_without_a_price_is_one_of_the_others() -> None:
    """A workspace may name any model; names without end would fill the ledger."""
    prices = Prices.of(replace(Settings(), prices='{"million_tokens": {"big": [2, 4.5], "*": [1, 1]}}'))
    assert [prices.model_name(each) for each in ("big", "made-up", "*", "other")] == ["big", "other", "other", "other"]
    assert prices.of_model("big").completion == Decimal("4.5")
    assert prices.of_model("a model whose price is gone").prompt == 1


@pytest.mark.parametrize(
    ("setting", "text", "named"),
    [
        ("prices", '{"million_tokens": []}', "PRICES: million_tokens"),
        ("prices", '{"million_tokens": {}}', "PRICES: million_tokens"),
        ("prices", '{"million_tokens": {"*": [1]}}', "PRICES: million_tokens"),
        ("prices", '{"million_tokens": {"*": [1, -1]}}', "PRICES: million_tokens"),
        ("prices", '{"million_tokens": {"*": [1, "NaN"]}}', "PRICES: million_tokens"),
        ("prices", '{"million_tokens": {"a:b c": [1, 1], "*": [1, 1]}}', "PRICES: million_tokens"),
        ("prices", '{"million_tokens": {"gpt-5": [1, 1]}}', "PRICES: million_tokens"),
        ("prices", "no JSON", "PRICES is not valid JSON"),
        ("prices", '{"disk_gib_month": 0.1}', "PRICES: disk_gib_month must be a JSON object"),
        ("prices", '{"disk_gib_month": {}}', "PRICES: disk_gib_month"),
        ("prices", '{"disk_gib_month": {"*": -0.1}}', "PRICES: disk_gib_month"),
        ("prices", '{"disk_gib_month": {"*": "NaN"}}', "PRICES: disk_gib_month"),
        ("prices", '{"disk_gib_month": {"fast": 0.17}}', "PRICES: disk_gib_month"),
        ("prices", '{"vcpu_hour": -1}', "PRICES: vcpu_hour"),
        ("prices", '{"gib_hour": "cheap"}', "PRICES: gib_hour must be a number"),
        ("prices", '{"backup_gib_month": NaN}', "PRICES: backup_gib_month must be a number"),
        (
            "prices",
            '{"vcpu": 1}',
            "PRICES has the unknown name 'vcpu'; it may have vcpu_hour, gib_hour, disk_gib_month, ",
        ),
        ("prices", "[]", "PRICES must be a JSON object"),
        ("workspace_sizes", "{}", "WORKSPACE_SIZES"),
        ("workspace_sizes", '{"small": ["a", "1", "1Gi", "1Gi"]}', "WORKSPACE_SIZES"),
        ("volume_size", "five", "VOLUME_SIZE"),
    ],
)
def test_what_is_malformed_is_named_by_its_setting_and_entry(setting: str, text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Prices.of(replace(Settings(), **{setting: text}))  # type: ignore[arg-type]


def test_a_price_that_is_not_named_stays_as_it_is() -> None:
    """A table of classes or models is replaced as a whole: prices of ours must not stand beside theirs."""
    prices, default = Prices.of(replace(Settings(), prices='{"million_tokens": {"*": [1, 2]}}')), Prices.of(Settings())
    assert list(prices.tokens) == ["other"]
    assert replace(prices, tokens=default.tokens) == default


def test_each_price_says_where_it_comes_from() -> None:
    [reason] = [each.metadata["why"] for each in fields(Settings) if each.name == "prices"]
    of_each = {name: text for text in reason.split(". ") for name in Settings().family("prices") if f"`{name}`" in text}
    assert len(of_each) == 5
    assert all("20" in why and "/" in why for why in of_each.values()), of_each
