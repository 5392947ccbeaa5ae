"""A Prometheus that watches a run with the shipped rules, in which time passes faster."""

from __future__ import annotations

import copy
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import requests

from scripts.lib import monitoring
from scripts.monitoring.rules import rules_file
from tests.ports import free_port
from tests.service import Service
from tests.waiting import wait_for

FACTOR = 60
"""Of every duration in the rules: 3 days are 72 minutes, 5 minutes are 5 s."""

INTERVAL = "1s"
"""Of scrapes and rules: the shortest window, of 5 s, needs several samples."""

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

WINDOW = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])")
COUNTED = re.compile(r"(?<=\* )(\d+)(?= >= )")
"""The seconds of a window, by which a rate is a count again (scripts/monitoring/objectives.py)."""

END = 10.0
"""s for Prometheus to end."""

Json = dict[str, Any]


def shortened(rules: Json, factor: int = FACTOR) -> Json:
    """The same rules with windows, `for` and intervals `factor` times as short. All else stays, thresholds too."""

    def short(number: str, unit: str) -> str:
        return f"{int(number) * SECONDS[unit] * 1000 // factor}ms"

    made = copy.deepcopy(rules)
    for group in made["groups"]:
        if "interval" in group:
            group["interval"] = short(group["interval"][:-1], group["interval"][-1])
        for rule in group["rules"]:
            expr = WINDOW.sub(lambda found: short(*found.groups()), rule["expr"])
            rule["expr"] = COUNTED.sub(lambda found: str(int(found[1]) // factor), expr)
            if "for" in rule:
                rule["for"] = short(rule["for"][:-1], rule["for"][-1])
    return made


class Prometheus:
    """Prometheus with the targets of this run, started with MONITORING=1. `jobs`: the ports of each, which may be
    changed before `reload`."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._folder = folder
        self._config = monitoring.configuration(service.data_dir, service.ports)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.jobs = {each["job_name"]: ports_of(each) for each in self._config["scrape_configs"]}

    def start(self) -> None:
        """Start it, and wait until each process was scraped."""
        self._folder.mkdir()
        rules = self._folder / "rules.yaml"
        rules.write_text(json.dumps(shortened(rules_file())))
        self._config |= {"global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}}
        self._config["rule_files"] = [str(rules)]
        self._write()
        command = [
            "prometheus",
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        wait_for(self._sees_all, "each process to be scraped", (self._folder / "log").read_text)

    def stop(self) -> None:
        """End it."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def reload(self) -> None:
        """Have it take the jobs as they are now."""
        assert self._process is not None
        self._write()
        self._process.send_signal(signal.SIGHUP)

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = self._asked("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def _write(self) -> None:
        configs = []
        for each in self._config["scrape_configs"]:
            # A job stays without targets, as that of a Deployment without pods does.
            [group] = each["static_configs"]
            addresses = [f"127.0.0.1:{port}" for port in self.jobs[each["job_name"]]]
            configs.append(each | {"static_configs": [group | {"targets": addresses}]})
        # JSON is YAML.
        (self._folder / "prometheus.yml").write_text(json.dumps(self._config | {"scrape_configs": configs}))

    def _sees_all(self) -> bool:
        try:
            targets = self._asked("targets")["activeTargets"]
        except requests.RequestException:
            return False
        return len(targets) == len(self.jobs) and {each["health"] for each in targets} == {"up"}

    def _asked(self, path: str) -> Any:
        answer = requests.get(f"http://127.0.0.1:{self._port}/api/v1/{path}", timeout=10)
        answer.raise_for_status()
        return answer.json()["data"]


def ports_of(config: Json) -> list[int]:
    """Where a job is scraped."""
    return [int(target.rpartition(":")[2]) for group in config["static_configs"] for target in group["targets"]]
