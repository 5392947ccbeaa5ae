"""Prometheus beside scripts/run: only where it is asked for, with a key that opens nothing but the metrics."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable

import pytest

from scripts.lib import monitoring, procfile, serve
from scripts.lib.data_dir import StartError
from scripts.lib.ports import Ports
from scripts.monitoring import alerts
from scripts.monitoring.rules import RUNBOOK, rules_file
from tests.conftest import ROOT
from tests.ports import free_port

PROCFILE = ROOT / "Procfile"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus is on this machine, as far as these tests know."""
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")


@pytest.fixture
def chosen(make_environment: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a run with monitoring."""
    monkeypatch.setenv("MONITORING", "1")
    return make_environment()


def names(given: dict[str, str]) -> list[str]:
    """Those of the programs of a run with this environment."""
    return [each.name for each in procfile.programs(PROCFILE.read_text(), given, heartbeat_limit=90.0)]


@pytest.mark.parametrize("asked", ["", "0"])
def test_without_being_asked_for_nothing_changes(tmp_path, make_environment, monkeypatch, asked):
    """No port, no key, no process more."""
    monkeypatch.setenv("MONITORING", asked)

    chosen = make_environment()

    assert "PROMETHEUS_PORT" not in chosen
    assert "API_KEYS" not in chosen
    assert "prometheus" not in names(chosen)
    assert not (tmp_path / "prometheus").exists()


def test_asked_for_it_is_one_of_the_processes(chosen):
    """So that it is started again if it ends, and ended with the run."""
    asked, not_asked = names(chosen), names({"DATA_DIR": chosen["DATA_DIR"]})
    assert set(asked) - set(not_asked) == {"prometheus"}


def test_where_it_is_not_installed_the_run_says_what_to_install_and_goes_on(make_environment, monkeypatch, capsys):
    """Another Prometheus may scrape the ports."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("MONITORING", "1")

    chosen = make_environment()

    assert "apt-get install --no-install-recommends prometheus" in capsys.readouterr().err
    assert "prometheus" not in names(chosen)
    assert serve.watched(chosen) == ""


def test_its_port_stays_the_same_and_one_of_the_users_own_is_taken(tmp_path, chosen, make_environment):
    """A bookmark of its page is good in the next run. As with every other port, nonsense is refused."""
    port = free_port()
    given = {"MONITORING": "1", "PROMETHEUS_PORT": str(port)}

    assert make_environment()["PROMETHEUS_PORT"] == chosen["PROMETHEUS_PORT"]
    assert monitoring.environment(tmp_path, given, Ports(tmp_path))["PROMETHEUS_PORT"] == str(port)
    with pytest.raises(StartError, match="PROMETHEUS_PORT"):
        monitoring.environment(tmp_path, {"MONITORING": "1", "PROMETHEUS_PORT": "x"}, Ports(tmp_path))


def test_its_key_opens_the_metrics_only_and_is_its_owners(tmp_path, chosen):
    """The service gets its SHA-256, Prometheus the path of its file."""
    [entry] = json.loads(chosen["API_KEYS"])
    file = monitoring.key_file(tmp_path)

    assert entry["role"] == "metrics"
    assert entry["sha256"] == hashlib.sha256(file.read_text().strip().encode()).hexdigest()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() not in json.dumps(monitoring.configuration(tmp_path, chosen))


def test_keys_of_the_users_own_stay():
    """Also those that can't be read: the service says what is wrong with them."""
    kept = json.loads(monitoring.with_key('[{"name": "app"}]', "k"))

    assert [each["name"] for each in kept] == ["app", "prometheus"]
    assert monitoring.with_key("{nonsense", "k") == "{nonsense"
    assert monitoring.with_key('{"name": "app"}', "k") == '{"name": "app"}'


def test_it_scrapes_what_the_rules_ask_for(tmp_path, chosen):
    """Each process under its job, with a namespace; web with the key; the rules are those of a cluster."""
    config = monitoring.configuration(tmp_path, chosen)
    jobs = {each["job_name"]: each for each in config["scrape_configs"]}

    assert set(jobs) == {f"sessions-{name}" for name in alerts.PROCESSES}
    assert [name for name, each in jobs.items() if "authorization" in each] == ["sessions-web"]
    assert {each["static_configs"][0]["labels"]["namespace"] for each in jobs.values()} == {monitoring.NAMESPACE}
    assert jobs["sessions-web"]["static_configs"][0]["targets"] == [f"127.0.0.1:{chosen['PORT']}"]
    assert len({each["static_configs"][0]["targets"][0] for each in jobs.values()}) == len(jobs)
    assert config["rule_files"] == [str(monitoring.rules_path(tmp_path))]


def test_the_rules_are_those_of_a_cluster_and_lead_to_the_runbook_in_this_folder():
    """Or to where the user says."""
    address = "https://wiki.example.com/sessions"

    for given, page in (({}, (ROOT / RUNBOOK).as_uri()), ({"RUNBOOK_URL": address}, address)):
        made = json.dumps(monitoring.rules(given)["groups"])
        assert made.replace(f'"{page}#', f'"{RUNBOOK}#') == json.dumps(rules_file()["groups"])
        assert f'"{page}#sessionsmodeldown"' in made


def test_it_listens_on_loopback_keeps_its_figures_in_the_data_folder_and_the_introduction_says_where_it_is(
    tmp_path, chosen
):
    """Whoever may see figures of all sessions is on this machine. Only if it runs it is told of."""
    command = monitoring.command(tmp_path, chosen, tmp_path / "prometheus.yml")
    address = f"127.0.0.1:{chosen['PROMETHEUS_PORT']}"

    assert f"--web.listen-address={address}" in command
    assert f"--storage.tsdb.path={tmp_path}/prometheus/data" in command
    assert serve.watched(chosen) == f"PROMETHEUS_URL=http://{address}\n"
    assert serve.watched({}) == serve.watched({"PROMETHEUS_PORT": "9090"}) == ""
