"""Where the addresses of a workspace's ports lead, held against every runtime."""

from __future__ import annotations

from tests.contract.runtimes import A, Harness, identity, stop


def test_the_addresses_of_ports_lead_to_the_workspace(harness: Harness) -> None:
    """Those of the last call, and no others, but where one route takes them all."""
    harness.runtime.provision(identity(A), 1)
    harness.runtime.start(A, 1)
    harness.runtime.lead_ports(A, [3000, 65535])
    harness.runtime.lead_ports(A, [3000, 65535])
    assert harness.leads_to(A, 3000)
    assert harness.leads_to(A, 65535)
    harness.again().lead_ports(A, [65535])
    assert harness.leads_to(A, 65535)
    assert harness.leads_to(A, 3000) == harness.leads_to(A, 4000)
    harness.runtime.lead_ports(A, [])
    assert harness.leads_to(A, 65535) == harness.leads_to(A, 4000)


def test_they_lead_there_again_after_a_sleep(harness: Harness) -> None:
    """Nobody says so again."""
    harness.runtime.provision(identity(A), 1)
    harness.runtime.start(A, 1)
    harness.runtime.lead_ports(A, [3000])
    stop(harness.runtime, A, 2)
    harness.again().start(A, 3)
    assert harness.leads_to(A, 3000)


def test_no_address_leads_to_a_workspace_that_is_not_there(harness: Harness) -> None:
    """Nor is anything made."""
    harness.runtime.lead_ports(A, [3000])
    assert harness.runtime.observe(A) is None
    assert not harness.leads_to(A, 3000)
    harness.runtime.provision(identity(A), 1)
    harness.runtime.start(A, 1)
    harness.runtime.lead_ports(A, [3000])
    harness.runtime.remove(A, 2)
    assert not harness.leads_to(A, 3000)
