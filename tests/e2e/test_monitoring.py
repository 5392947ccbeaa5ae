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

SCRAPED = 120.0
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
        running = Service(tmp_path_factory.mktemp("service"), code_server, **model.settings, MONITORING="1")
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


def result(service: Service, query: Query) -> Any:
    """What the query returns, as Grafana sends it."""
    return asked(service, "query", query=query.sent(VARIABLES))["result"]


def can_have_data(query: Query) -> bool:
    """Whether one machine has what the query asks for, once something was done."""
    return not CLUSTERS.search(query.expr) and not any(name in query.expr for name in NOT_YET)


def test_every_process_rule_and_query_has_figures(service: Service) -> None:
    """No alert fires, and no label names a session or its user. Queries of the kubelet's figures are read, which only
    a cluster has; so are those of what counts trouble."""

    def up() -> set[str]:
        targets = asked(service, "targets")["activeTargets"]
        return {each["labels"]["job"] for each in targets if each["health"] == "up"}

    def rules() -> set[str]:
        return {rule["health"] for group in asked(service, "rules")["groups"] for rule in group["rules"]}

    wait_for(lambda: up() == {f"sessions-{name}" for name in PROCESSES}, "every process to be scraped", seconds=SCRAPED)
    wait_for(lambda: rules() == {"ok"}, "every rule to be evaluated", seconds=SCRAPED)
    for query in filter(can_have_data, queries()):
        what = f"{query.dashboard}, {query.panel}: {query.expr}"
        wait_for(lambda query=query: result(service, query), what, seconds=SCRAPED, interval=1.0)  # type: ignore[misc]
    others = [each for each in queries() if not can_have_data(each)]
    assert {each.dashboard for each in others} == {"sessions-workspaces", "sessions-model"}
    for query in others:
        assert [sample["value"][1] for sample in result(service, query)] in ([], ["0"]), query
    firing = asked(service, "query", query='ALERTS{alertstate="firing"}')["result"]
    assert [each["metric"]["alertname"] for each in firing] == []
    assert set(asked(service, "labels")) & {"uuid", "session", "user", "user_id", "key"} == set()
