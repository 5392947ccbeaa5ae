"""What a caller's address is shown and counted as."""

from __future__ import annotations

import pytest

from app.core.access.addresses import address_of, counted_as


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("203.0.113.7", "ip:203.0.113.7"),
        ("::ffff:203.0.113.7", "ip:203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "ip:2001:db8:1:2::/64"),
        ("[2001:DB8:1:2::9]", "ip:2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "ip:2001:db8:1:3::/64"),
        ("::1", "ip:::/64"),
        ("fe80::1%eth0", "ip:fe80::/64"),
        ("unix", "ip:unix"),
        ("", "ip:local"),
        (None, "ip:local"),
    ],
)
def test_an_address_counts_as_what_its_caller_can_not_choose(text: str | None, name: str) -> None:
    assert counted_as(text) == name


@pytest.mark.parametrize(
    ("text", "address"),
    [("[2001:DB8::0009]", "2001:db8::9"), (" 203.0.113.7", "203.0.113.7"), ("unknown", ""), ("", "")],
)
def test_it_is_shown_in_full(text: str, address: str) -> None:
    assert address_of(text) == address
