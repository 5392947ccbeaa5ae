"""Tests that need a cluster, and are there only where KUBECONFIG names one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from scripts.cluster import layout as layouts
from tests.browser import browser
from tests.cluster.product import Api
from tests.cluster.prompting import Conversation, model_for_the_gateway
from tests.model_server import ModelServer

__all__ = ["browser"]

collect_ignore_glob = [] if os.environ.get("KUBECONFIG") else ["test_*.py"]
if not os.environ.get("API_URL"):
    # Only where the whole product runs, as after `scripts/cluster/cluster demo`.
    collect_ignore_glob += [
        "test_agent_on_cluster.py",
        "test_backups_on_cluster.py",
        "test_bench.py",
        "test_browser_access_on_cluster.py",
        "test_falling_asleep_on_cluster.py",
        "test_fuzz_on_cluster.py",
        "test_monitoring_on_cluster.py",
        "test_scalers_on_cluster.py",
        "test_stolen_tokens_on_cluster.py",
        "test_ways_in_on_cluster.py",
        "test_workspace_on_cluster.py",
    ]
if os.environ.get("KUBECONFIG") != str(layouts.from_environment().kubeconfig):
    # Only where the cluster is that of scripts/cluster: its parts may be stopped, its folders and network are here.
    collect_ignore_glob += [
        "test_agent_on_cluster.py",
        "test_chaos_full_volume.py",
        "test_chaos_node.py",
        "test_fuzz_on_cluster.py",
        "test_monitoring_on_cluster.py",
        "test_provisioner.py",
        "test_stolen_tokens_on_cluster.py",
    ]


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """A namespace of the cluster, of this run's own."""
    from tests.contract.cluster import own_namespace

    with own_namespace() as name:
        yield name


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    """The one that the gateway is told of."""
    with model_for_the_gateway() as running:
        yield running


@pytest.fixture
def chat(model: ModelServer) -> Iterator[Conversation]:
    """A session to send prompts to."""
    made = Conversation(Api())
    try:
        yield made
    finally:
        made.delete()
