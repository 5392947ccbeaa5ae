"""The Ingress that leads to a workspace's opened ports, on an API server in memory."""

from __future__ import annotations

import re

import pytest

from tests.unit.fake_api import FakeApi
from tests.unit.workers.runtime.kubernetes.samples import GOING, KINDS, NAME, A, MakeRuntime, started
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.driver import KubernetesRuntime

PORTS = f"{NAME}-ports"
LATER = {"ingress_forward_auth": '{"door": "closed"}', "ingress_class": "nginx"}


def hosts(api: FakeApi) -> list[str]:
    return [rule["host"] for rule in api.get("ingresses", PORTS)["spec"]["rules"]]


def test_each_opened_port_has_an_exact_host(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """It goes with the Deployment, as everything else of the session."""
    started(runtime)
    runtime.lead_ports(A, [5173, 3000])
    assert hosts(api) == [f"3000--vs-code-{A}.localhost", f"5173--vs-code-{A}.localhost"]
    made, own = api.get("ingresses", PORTS)["metadata"], api.get("ingresses", NAME)["metadata"]
    assert made["ownerReferences"] == own["ownerReferences"]
    assert made["labels"] == own["labels"]
    runtime.lead_ports(A, [5173])
    assert hosts(api) == [f"5173--vs-code-{A}.localhost"]
    runtime.remove(A, 3)
    assert api.names() == set()


def test_without_opened_ports_there_is_no_ingress_of_them(runtime: KubernetesRuntime, api: FakeApi) -> None:
    started(runtime)
    runtime.lead_ports(A, [])
    runtime.lead_ports(A, [3000])
    runtime.lead_ports(A, [])
    assert api.names() == {(kind, NAME) for kind in KINDS}


@pytest.mark.parametrize("left", ["nothing", "going"])
def test_nothing_is_made_for_a_workspace_that_is_gone(runtime: KubernetesRuntime, api: FakeApi, left: str) -> None:
    if left == "going":
        started(runtime)
        api.change("deployments", NAME, GOING)
    runtime.lead_ports(A, [3000])
    assert ("ingresses", PORTS) not in api.names()


def test_a_change_at_the_same_time_is_made_again(runtime: KubernetesRuntime, api: FakeApi) -> None:
    started(runtime)
    api.answers["PATCH ingresses"] = (409, "the object has been modified")
    api.before["GET deployments"] = lambda: api.before.update({"GET deployments": api.answers.clear})
    runtime.lead_ports(A, [3000])
    assert hosts(api) == [f"3000--vs-code-{A}.localhost"]


def test_what_somebody_deleted_with_the_deployment_is_no_longer_led_to(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    started(runtime)
    runtime.lead_ports(A, [3000])
    api.drop("deployments", NAME)
    runtime.remove(A, 3)
    assert api.names() == set()


def test_other_settings_make_it_again_with_its_ports(
    runtime: KubernetesRuntime, make_runtime: MakeRuntime, api: FakeApi
) -> None:
    """From its metadata alone, and once; the workspace's own stays what it is."""
    started(runtime)
    runtime.lead_ports(A, [3000, 5173])
    before = api.get("ingresses", PORTS)
    later = make_runtime(**LATER)
    later.tidy()
    after = api.get("ingresses", PORTS)
    assert (after["metadata"]["annotations"]["door"], after["spec"]["ingressClassName"]) == ("closed", "nginx")
    assert after["spec"]["rules"] == before["spec"]["rules"]
    assert after["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]
    assert [rule["host"] for rule in api.get("ingresses", NAME)["spec"]["rules"]] == [f"vs-code-{A}.localhost"]
    later.tidy()
    assert api.get("ingresses", PORTS) == after


def test_ports_that_are_opened_meanwhile_stay(
    runtime: KubernetesRuntime, make_runtime: MakeRuntime, api: FakeApi
) -> None:
    """A sweep has looked at the Ingresses; before it writes, others are led to."""
    started(runtime)
    runtime.lead_ports(A, [3000])
    later, other = make_runtime(**LATER), make_runtime(**LATER)
    api.before["PATCH ingresses"] = lambda: other.lead_ports(A, [3000, 8000])
    later.tidy()
    assert hosts(api) == [f"3000--vs-code-{A}.localhost", f"8000--vs-code-{A}.localhost"]


def test_one_without_readable_ports_goes(runtime: KubernetesRuntime, make_runtime: MakeRuntime, api: FakeApi) -> None:
    """It could not be made again."""
    started(runtime)
    runtime.lead_ports(A, [3000])
    api.change("ingresses", PORTS, {"metadata": {"annotations": {names.PORTS: "all"}}})
    make_runtime(**LATER).tidy()
    assert api.names() == {(kind, NAME) for kind in KINDS}


def test_the_name_of_its_ingress_is_a_dns_label() -> None:
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,62}", names.ports(A))
