"""Tests that need a cluster, and are there only where KUBECONFIG names one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from scripts.cluster import layout as layouts
from tests.browser import browser
from tests.cluster.product import Api
from tests.cluster.prompting import model_for_the_gateway
from tests.conversation import Host, chat
from tests.dashboard_browser import page
from tests.looks import context, look
from tests.model_server import ModelServer

__all__ = ["browser", "chat", "context", "look", "page"]

WITH_PRODUCT = [
    "test_agent_on_cluster.py",
    "test_backups_on_cluster.py",
    "test_browser_access_on_cluster.py",
    "test_dashboard_on_cluster.py",
    "test_execs_on_cluster.py",
    "test_services_on_cluster.py",
    "test_falling_asleep_on_cluster.py",
    "test_files_on_cluster.py",
    "test_fuzz_on_cluster.py",
    "test_monitoring_on_cluster.py",
    "test_own_agent_on_cluster.py",
    "test_ports_on_cluster.py",
    "test_scalers_on_cluster.py",
    "test_smoke.py",
    "test_stolen_tokens_on_cluster.py",
    "test_ways_in_on_cluster.py",
]
"""Only where the whole product runs, as after `scripts/cluster/cluster demo`. The other tests have a namespace, a Redis
and processes of the manager of their own."""

collect_ignore_glob = [] if os.environ.get("KUBECONFIG") else ["test_*.py"]
if not os.environ.get("API_URL"):
    collect_ignore_glob += WITH_PRODUCT
if os.environ.get("KUBECONFIG") != str(layouts.from_environment().kubeconfig):
    # Only where the cluster is that of scripts/cluster: its parts may be stopped, its folders and network are here.
    collect_ignore_glob += [
        "test_agent_on_cluster.py",
        "test_chaos_full_volume.py",
        "test_chaos_node.py",
        "test_fuzz_on_cluster.py",
        "test_own_agent_on_cluster.py",
        "test_provisioner.py",
        "test_smoke.py",
        "test_stolen_tokens_on_cluster.py",
    ]


class OneProduct(LoadScopeScheduling):
    """One after another go the tests of a file, and all those with the product, as some of them stop its parts or
    change their settings. Each of the others, those of the contract, goes by itself.

    pytest-xdist's own way to say so, a mark and `--dist loadgroup`, does nothing with pytest 9.2:
    https://github.com/pytest-dev/pytest-xdist/issues/1386
    """

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.partition("::")[0])
        if path.parent.name != "cluster":
            return nodeid
        return "product" if path.name in WITH_PRODUCT else path.name


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneProduct:
    return OneProduct(config, log)


@pytest.fixture(scope="session")
def api() -> Api:
    """That of the whole product."""
    return Api()


@pytest.fixture(scope="session")
def host(api: Api) -> Host:
    return api


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    """The one that the gateway is told of."""
    with model_for_the_gateway() as running:
        yield running
