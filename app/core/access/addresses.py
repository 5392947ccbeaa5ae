"""Addresses of callers: as the audit shows them, and as limits count them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

ADDRESS = "ip:"
"""What the name of an address begins with."""

HOST_BITS = 64
"""The part of an IPv6 address that a caller chooses: a network has a /64 or more (RFC 4291, 2.5.4)."""


def address_of(text: str) -> str:
    """An IP address in its canonical form, "" for an invalid one."""
    found = _parsed(text)
    return "" if found is None else str(found)


def counted_as(text: str | None) -> str:
    """The name under which limits count an address: the address itself for IPv4, also within IPv6 (`::ffff:`), its /64
    for IPv6. Without this, whoever has a /64 would have no limit. A text that is no address counts as it is, and
    none as `local`: the caller came by a Unix socket."""
    found = _parsed(text or "")
    if isinstance(found, IPv6Address):
        return ADDRESS + (str(found.ipv4_mapped) if found.ipv4_mapped else _network(found))
    return ADDRESS + (str(found) if found else text or "local")


def _network(address: IPv6Address) -> str:
    return f"{IPv6Address(int(address) >> HOST_BITS << HOST_BITS)}/{128 - HOST_BITS}"


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.strip().strip("[]"))
    except ValueError:
        return None
