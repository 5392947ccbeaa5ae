"""The watch of a real API server is cut, or too old to go on: what happened meanwhile is told all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from app.process.settings import Settings
from tests.cluster.proxy import Proxy, proxied
from tests.contract.cluster import TIMEOUT, own_namespace, settings_for
from tests.contract.runtimes import identity, watching
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.api_server import ApiServer, Expired, WatchStream
from workers.runtime.kubernetes.driver import KubernetesRuntime

A = "aaaa0001"
LONG_AGO = "1"
"""A version that every cluster is past, and that none has kept."""


class Forgetful(ApiServer):
    """Has each next watch of a kind begin too long ago, for as often as it is told to; the server answers that."""

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self.forget: set[str] = set()
        self.expired: list[str] = []

    def watch(self, kind: str, selector: str, version: str, seconds: int) -> WatchStream:
        if kind not in self.forget:
            return super().watch(kind, selector, version, seconds)
        self.forget.discard(kind)
        with pytest.raises(Expired) as refused:
            list(super().watch(kind, selector, LONG_AGO, seconds))
        self.expired.append(kind)
        raise refused.value


@pytest.fixture
def through(settings: Settings) -> Iterator[tuple[Proxy, Forgetful, Settings]]:
    with own_namespace() as namespace, proxied() as (proxy, configuration):
        yield proxy, Forgetful(namespace, TIMEOUT, configuration), settings_for(settings, namespace)


@pytest.mark.parametrize("too_old", [False, True])
def test_a_watch_that_was_cut_catches_up(
    through: tuple[Proxy, Forgetful, Settings], redis_client: redis.Redis, too_old: bool
) -> None:
    """From where it was; or, where the server has forgotten that (410), from a new list: scaled down, and deleted."""
    proxy, cluster, chosen = through
    direct = KubernetesRuntime(chosen, redis_client)
    for uuid in (A, "bbbb0002"):
        direct.provision(identity(uuid), 1)
        direct.start(uuid, 2)
    with watching(KubernetesRuntime(chosen, redis_client, cluster)) as seen:
        up = {seen.until(lambda each: each.ready).identity.uuid for _ in range(2)}
        assert up == {A, "bbbb0002"}
        proxy.cut()
        if too_old:
            cluster.forget |= {"deployments", "pods"}
        other = ApiServer(chosen.workspace_namespace, TIMEOUT)
        other.patch("deployments", names.workspace(A), {"spec": {"replicas": 0}})
        other.delete("deployments", names.workspace("bbbb0002"))
        proxy.release()
        down = [seen.until(lambda each: not each.running) for _ in range(2)]
        assert {(each.identity.uuid, each.failure, each.deleted) for each in down} == {
            (A, "", False),
            ("bbbb0002", "", True),
        }
        direct.start(A, 3)
        seen.until(lambda each: each.ready and each.generation == 3)
    assert sorted(cluster.expired) == (["deployments", "pods"] if too_old else [])
