"""A real Prometheus watches a real run: every process, every rule, and every query of the dashboards has data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from scripts.monitoring.alerts import PROCESSES
from tests.dashboards import CLUSTERS, VARIABLES, Query, queries
from tests.model_server import ModelServer
from tests.promtool import promtool
from tests.service import Service
from tests.waiting import wait_for

SCRAPED = 45.0
"""s until figures of what was done are there: scrapes are 5 s apart, recording rules 30 s."""

NOT_YET = {
    # Counted from the first time that the provider had to be asked again.
    "gateway_llm_retries_total",
}
"""Metrics that have no series before something went wrong."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str) -> Iterator[Service]:
    """One that is watched, and in which something of each kind was done."""
    promtool()
    with ModelServer() as model:
        settings = {"LLM_BASE_URL": model.url, "LLM_MODEL": "stub", "MONITORING": "1"}
        running = Service(tmp_path_factory.mktemp("service"), code_server, **settings)
        running.start()
        try:
            use(running)
            yield running
        finally:
            running.stop()
    assert running.processes() == []


def use(service: Service) -> None:
    """Something of each kind; the second time counts what the first time made known."""
    for _ in range(2):
        session = service.create()
        uuid = session["uuid"]
        service.prompt(uuid, "remember 7", "m1")
        assert service.workspace(session).ok
        service.done("POST", f"/session/{uuid}/backup", headers={"Prefer": "wait=60"})
        to = {"restore_point": service.save(uuid)}
        service.done("POST", f"/session/{uuid}/rollback", to, headers={"Prefer": "wait=60"})
        service.done("POST", f"/session/{uuid}/sleep", headers={"Prefer": "wait=60"})
        # Wakes it, and is handed over by a delivery worker; web hands a prompt to an awake session itself.
        service.prompt(uuid, "remember 8", "m2")
        backup = service.done("DELETE", f"/session/{uuid}", headers={"Prefer": "wait=60"})["backup"]
        service.done("POST", f"/backups/{backup}/restore", headers={"Prefer": "wait=60"})


def asked(service: Service, path: str, **parameters: str) -> Any:
    """The data of Prometheus' answer; an expression that it can't read fails."""
    answer = requests.get(f"{service.prometheus_url}/api/v1/{path}", params=parameters, timeout=30)
    assert answer.ok, answer.text
    return answer.json()["data"]


def has_data(service: Service, query: Query) -> bool:
    """Whether the query, as Grafana sends it, is answered with something."""
    return bool(asked(service, "query", query=query.sent(VARIABLES))["result"])


def can_have_data(query: Query) -> bool:
    """Whether one machine has what the query asks for, once something was done."""
    return not CLUSTERS.search(query.expr) and not any(name in query.expr for name in NOT_YET)


def test_every_process_is_scraped(service):
    """Web with the key, the others at a port of their own; none is refused."""

    def up() -> bool:
        targets = asked(service, "targets")["activeTargets"]
        return {each["labels"]["job"] for each in targets if each["health"] == "up"} == {
            f"sessions-{name}" for name in PROCESSES
        }

    wait_for(up, "every process to be scraped", seconds=SCRAPED)


def test_every_rule_is_evaluated_and_no_alert_fires(service):
    """A rule whose two sides do not fit is an error only when there are figures."""

    def states() -> list[str]:
        groups = asked(service, "rules")["groups"]
        return [rule["health"] for group in groups for rule in group["rules"]]

    wait_for(lambda: set(states()) == {"ok"}, "every rule to be evaluated", seconds=SCRAPED)
    firing = asked(service, "query", query='ALERTS{alertstate="firing"}')["result"]
    assert [each["metric"]["alertname"] for each in firing] == []


@pytest.mark.parametrize(
    "query", [each for each in queries() if can_have_data(each)], ids=lambda query: f"{query.dashboard}: {query.panel}"
)
def test_a_query_of_a_dashboard_returns_data(service, query):
    """Each that one machine can fill. What only a cluster can, and what counts trouble, is left out."""
    wait_for(lambda: has_data(service, query), query.expr, seconds=SCRAPED, interval=1.0)


def test_prometheus_reads_the_other_queries(service):
    """Those of the kubelet's figures; here they have no data, or say 0."""
    others = [each for each in queries() if not can_have_data(each)]

    assert {each.dashboard for each in others} == {"sessions-workspaces", "sessions-model"}
    for each in others:
        result = asked(service, "query", query=each.sent(VARIABLES))["result"]
        assert [sample["value"][1] for sample in result] in ([], ["0"]), each


def test_no_label_names_a_session_or_user(service):
    """Whoever sees the figures learns sums only."""
    names = set(asked(service, "labels"))

    assert names & {"uuid", "session", "user", "user_id", "key"} == set()
