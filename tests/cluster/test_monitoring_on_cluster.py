"""Monitoring of a real cluster: a Prometheus that the component `monitoring` tells what to scrape, with and without the
operator, and that has the kubelet's figures. Every process, every rule, and every query of the dashboards has data."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from scripts.monitoring.alerts import PROCESSES
from tests.cluster import scraping
from tests.cluster.product import LET_IN, SYSTEM, WORKSPACES, Api
from tests.cluster.prompting import Conversation
from tests.cluster.scraping import SCRAPED, WAYS, Prometheus, prometheus, scraped_again
from tests.cluster.test_manifests_on_cluster import kubectl, sent
from tests.dashboards import CLUSTERS, Query, dashboards, queries
from tests.manifests import MANIFESTS, Object, of_kind, render, with_components
from tests.model_server import ModelServer
from tests.waiting import wait_for

# Web and the gateway are replaced before the first test and after the last: they are told of a key and a model.
pytestmark = pytest.mark.timeout(1_200)

VARIABLES = {"$namespace": SYSTEM, "$workspaces": WORKSPACES, "$__rate_interval": "15m"}
"""As Grafana replaces them; the interval is that of a view of some days."""

NOT_YET = {
    "gateway_llm_retries_total": "counted by reason, from the first request that the provider had to be sent again",
}
"""Metrics without a series here, and why."""

ABOUT_PROCESSES = (
    "SessionsProcessDown|SessionsReplicaDown|SessionsScrapeMissing|SessionsObserverSilent|SessionsBeatSilent"
)


@pytest.fixture(scope="module")
def component(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Object, ...]]:
    """All objects of the base with it, by who reads it."""
    return {way: with_components(tmp_path_factory.mktemp("objects"), name) for way, name in WAYS.items()}


@pytest.fixture(scope="module")
def watching(
    component: dict[str, tuple[Object, ...]], model: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Prometheus]]:
    """A Prometheus for each way."""
    with ExitStack() as stack:
        key = stack.enter_context(scraping.scrape_key(component["with the operator"]))
        running = {}
        for way, objects in component.items():
            folder = tmp_path_factory.mktemp("prometheus")
            running[way] = stack.enter_context(prometheus(folder, scraping.configuration(folder, objects, key)))
        yield running


@pytest.fixture(scope="module")
def session(watching: dict[str, Prometheus]) -> Iterator[str]:
    """One that is awake, after something of each kind was done; the second time counts what the first made known."""
    with ExitStack() as left:
        for _ in range(2):
            uuid = use(left)
            scraped_again(*watching.values())
        yield uuid


@pytest.fixture(params=WAYS)
def seen(request: pytest.FixtureRequest, watching: dict[str, Prometheus]) -> Prometheus:
    """Each in turn."""
    return watching[request.param]


def use(left: ExitStack) -> str:
    """Something of each kind; answers the session that is awake at the end, and goes with `left`."""
    api = Api()
    chat = Conversation(api)
    uuid = chat.uuid
    try:
        chat.send("m1", "remember 7")
        assert chat.ended("m1")["state"] == "processed"
        shown = {"uuid": uuid} | api.call("GET", f"/session/{uuid}")["session"]
        wait_for(lambda: api.visit(shown).status_code in LET_IN, "the ingress to lead there", interval=1.0)
        api.call("POST", f"/session/{uuid}/backup")
        wait_for(lambda: api.call("GET", f"/session/{uuid}/backups")["total"] == 1, "the backup", interval=1.0)
        # Before the sleep, whose own point a wake would end.
        points = f"/session/{uuid}/restore-points"
        api.call("POST", points)
        wait_for(lambda: api.call("GET", points)["total"] >= 1, "the restore point", interval=1.0)
        back = {"restore_point": api.call("GET", points)["restore_points"][0]["id"]}
        api.call("POST", f"/session/{uuid}/rollback", back)
        wait_for(lambda: rolled_back(api, uuid), "the rollback", interval=1.0)
        chat.sleep()
        # Wakes it, and is handed over by a delivery worker; web hands a prompt to an awake session itself.
        chat.send("m2", "remember 8")
        assert chat.ended("m2")["state"] == "processed"
    except BaseException:
        chat.delete()
        raise
    chat.delete("")
    names = [each["name"] for each in api.call("GET", f"/session/{uuid}/backups")["backups"]]
    for name in names:
        left.callback(api.ask, "DELETE", f"/backups/{name}")
    restored = str(api.call("POST", f"/backups/{names[0]}/restore")["uuid"])
    left.callback(api.call, "DELETE", f"/session/{restored}?backup=false")
    wait_for(lambda: api.status(restored) == "active", "the restored session", interval=1.0)
    api.call("POST", f"/session/{restored}/keepalive", {"seconds": 1_200})
    return restored


def rolled_back(api: Api, uuid: str) -> bool:
    """And up again."""
    session = api.call("GET", f"/session/{uuid}")["session"]
    return bool(session["rolled_back"]) and session["status"] == "active"


@pytest.mark.parametrize("way", WAYS)
def test_the_component_is_accepted_by_a_real_api_server(component: dict[str, tuple[Object, ...]], way: str) -> None:
    """All that it adds but the operator's kinds, whose definitions are not in this cluster. Nothing of it is kept."""
    base = render(MANIFESTS / "base")
    added = [each for each in component[way] if each not in base and "monitoring.coreos.com" not in each["apiVersion"]]

    assert {each["kind"] for each in added} >= {"NetworkPolicy", "Secret", "ConfigMap"}
    assert sent(added, "--dry-run=server") == ""


def test_prometheus_own_account_finds_every_pod(component: dict[str, tuple[Object, ...]]) -> None:
    """By the role of the component, as what discovery does; without it none, and never a Secret."""
    objects = component["without it"]
    name = f"scrape-{secrets.token_hex(4)}"
    role, binding = (of_kind(objects, kind, SYSTEM)["scrape"] for kind in ("Role", "RoleBinding"))
    [subject] = binding["subjects"]
    account = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
    renamed = [
        {**role, "metadata": {**role["metadata"], "name": name}},
        {
            **binding,
            "metadata": {**binding["metadata"], "name": name},
            "roleRef": {**binding["roleRef"], "name": name},
        },
    ]
    try:
        sent(renamed)
        pods = wait_for(lambda: scraping.pods_as(account), "the account's rights", interval=1.0)
        assert scraping.targets(pods)
        allowed = kubectl("-n", SYSTEM, "auth", "can-i", "--list", f"--as={account}")[0]
        assert re.search(r"^pods\s.*\[get list watch\]$", allowed, re.MULTILINE)
        assert "secrets" not in allowed
    finally:
        kubectl("-n", SYSTEM, "delete", "role,rolebinding", name, "--ignore-not-found")


def test_every_process_is_scraped(seen: Prometheus) -> None:
    """Each replica of each, once, and nothing else of the manager; and the node."""
    pods = [each for each in scraping.pods_as(None) if "deletionTimestamp" not in each["metadata"]]
    wanted = {
        (f"sessions-{name}", SYSTEM, each["metadata"]["name"])
        for each in pods
        if (name := each["metadata"]["labels"]["app.kubernetes.io/name"]) in PROCESSES
    }
    assert {job for job, *_ in wanted} == {f"sessions-{name}" for name in PROCESSES}

    def states() -> dict[tuple[str, str, str], str]:
        return {
            (each["labels"]["job"], each["labels"]["namespace"], each["labels"]["pod"]): each["health"]
            for each in seen.targets()
            if "pod" in each["labels"]
        }

    def problems() -> list[str]:
        return [f"{each['labels']} {each['lastError']}" for each in seen.targets() if each["health"] != "up"]

    wait_for(lambda: states() == dict.fromkeys(wanted, "up"), "every replica", lambda: str(problems()), SCRAPED, 1.0)
    wait_for(lambda: not problems(), "every target to be up", lambda: str(problems()), SCRAPED, 1.0)
    assert len([each for each in seen.targets() if "pod" in each["labels"]]) == len(wanted)
    assert len([each for each in seen.targets() if "pod" not in each["labels"]]) >= 2


def test_every_rule_is_evaluated_and_no_process_is_missed(session: str, seen: Prometheus) -> None:
    """The names of jobs that the rules ask for are those that the scrape gives."""

    def wrong() -> list[Any]:
        groups = seen.asked("rules")["groups"]
        return [rule for group in groups for rule in group["rules"] if rule["health"] != "ok"]

    assert seen.asked("rules")["groups"]
    wait_for(lambda: not wrong(), "every rule to be evaluated", lambda: str(wrong()[:2]), SCRAPED, 1.0)
    assert seen.found(f'ALERTS{{alertname=~"{ABOUT_PROCESSES}"}}') == []


@pytest.mark.parametrize("dashboard", dashboards())
def test_the_choices_of_a_dashboard_are_filled(session: str, seen: Prometheus, dashboard: str) -> None:
    """The namespaces of the manager and of the workspaces are offered."""
    chosen = {}
    for each in dashboards()[dashboard]["templating"]["list"]:
        if each["type"] == "query":
            [(selector, label)] = re.findall(r"^label_values\((.+), (\w+)\)$", each["query"]["query"])
            chosen[each["name"]] = seen.asked(f"label/{label}/values", **{"match[]": selector})

    assert chosen["namespace"] == [SYSTEM]
    assert WORKSPACES in chosen.get("workspaces", [WORKSPACES])


@pytest.mark.parametrize("name", sorted({name for each in queries() for name in CLUSTERS.findall(each.expr)}))
def test_the_node_shows_the_workspaces(session: str, seen: Prometheus, name: str) -> None:
    """Each of its metrics that a query asks for, by the session's pod, container or claim. Some queries have a value
    without it."""
    label = "pod" if name.startswith("container_") else "persistentvolumeclaim"
    expr = f'{name}{{namespace="{WORKSPACES}",{label}=~"user-{session}(-.+)?"}}'
    samples = wait_for(lambda: seen.found(expr), expr, seconds=SCRAPED, interval=1.0)

    if label == "pod":
        assert {"editor", "agent"} <= {each["metric"].get("container") for each in samples}


@pytest.mark.parametrize(
    "query",
    [each for each in queries() if not any(name in each.expr for name in NOT_YET)],
    ids=lambda query: f"{query.dashboard}: {query.panel}",
)
def test_a_query_of_a_dashboard_returns_data(session: str, watching: dict[str, Prometheus], query: Query) -> None:
    """A number at least, whoever finds the pods."""
    expr = query.sent(VARIABLES)
    for running in watching.values():
        wait_for(lambda: running.found(expr), expr, seconds=SCRAPED, interval=1.0)  # noqa: B023


@pytest.mark.parametrize("name", NOT_YET)
def test_what_has_no_data_yet_is_asked_for_all_the_same(session: str, seen: Prometheus, name: str) -> None:
    """Prometheus reads the query."""
    [query] = [each for each in queries() if name in each.expr]

    assert seen.found(query.sent(VARIABLES)) == []


def test_the_ten_that_use_most_are_shown_by_their_session(session: str, seen: Prometheus) -> None:
    """The awake one is among them: by its uuid, from the name of its pod or claim."""
    top = [each for each in queries() if each.dashboard == "sessions-workspaces" and each.expr.startswith("topk(")]
    assert len(top) == 4
    for query in top:
        # All of them instead of ten: other tests' sessions may use more.
        expr = query.sent(VARIABLES).replace("topk(10,", "topk(1000,")

        def named(expr: str = expr) -> bool:
            return session in {each["metric"]["uuid"] for each in seen.found(expr)}

        wait_for(named, f"{session} in {query.panel}", seconds=SCRAPED, interval=1.0)
