"""Prometheus beside a local run (MONITORING=1): ports, its key, its configuration with the rules of a cluster."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.lib.data_dir import remembered_secret
from scripts.lib.ports import Ports
from scripts.lib.procfile import MEASURED, metrics_port_of
from scripts.monitoring.rules import RUNBOOK, rules_file

HERE = Path(__file__).resolve().parents[2]

INTERVAL = "5s"
"""Of scrapes and rules: one machine has few series, and whoever looks at it tries something out."""

NAMESPACE = "local"
"""Rules and dashboards ask for a namespace."""

MISSING = (
    "MONITORING=1 starts no Prometheus, since there is none: sudo apt-get install --no-install-recommends prometheus; "
    "then sudo systemctl disable --now prometheus, since the package also starts one of its own."
)


def program() -> str | None:
    """The path of Prometheus, None where it is not installed."""
    return shutil.which("prometheus")


def missing() -> list[str]:
    """A warning where it is not installed."""
    return [] if program() else [MISSING]


def environment(data_dir: Path, given: Mapping[str, str], ports: Ports) -> dict[str, str]:
    """The variables of a run with monitoring: PROMETHEUS_PORT, empty where Prometheus is not installed, and API_KEYS
    with an entry for it. Raises `StartError`."""
    if program() is None:
        return {"PROMETHEUS_PORT": ""}
    port = ports.given_or_remembered("PROMETHEUS_PORT", given.get("PROMETHEUS_PORT", "0"))
    key = remembered_secret(key_file(data_dir))
    return {"PROMETHEUS_PORT": str(port), "API_KEYS": with_key(given.get("API_KEYS", ""), key)}


def with_key(api_keys: str, key: str) -> str:
    """API_KEYS with an entry of the role `metrics` for this key. What is no list stays: its reader complains."""
    try:
        entries = json.loads(api_keys or "[]")
    except ValueError:
        return api_keys
    if not isinstance(entries, list):
        return api_keys
    digest = hashlib.sha256(key.encode()).hexdigest()
    return json.dumps([*entries, {"name": "prometheus", "sha256": digest, "role": "metrics"}])


def key_file(data_dir: Path) -> Path:
    """Of the key that Prometheus shows to web."""
    return data_dir / "prometheus" / "key"


def rules(given: Mapping[str, str]) -> dict[str, Any]:
    """Those of a cluster; alerts lead to RUNBOOK_URL, or to the page in this folder."""
    return rules_file(given.get("RUNBOOK_URL") or (HERE / RUNBOOK).as_uri())


def rules_path(data_dir: Path) -> Path:
    """Of the file with the rules."""
    return data_dir / "prometheus" / "rules.yml"


def configuration(data_dir: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """Prometheus' own, for the processes of this run."""
    key = {"type": "Bearer", "credentials_file": str(key_file(data_dir))}
    ports = {name: int(given[metrics_port_of(name)]) for name in MEASURED}
    return {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(rules_path(data_dir))],
        "scrape_configs": [
            _job("web", int(given["PORT"])) | {"authorization": key},
            *(_job(name, port) for name, port in ports.items()),
        ],
    }


def _job(name: str, port: int) -> dict[str, Any]:
    return {
        "job_name": f"sessions-{name}",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE}}],
    }


def command(data_dir: Path, given: Mapping[str, str], config: Path) -> list[str]:
    """Prometheus with this configuration, on loopback, with its figures in the data folder."""
    return [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={data_dir / 'prometheus' / 'data'}",
        "--storage.tsdb.retention.time=15d",
        f"--web.listen-address=127.0.0.1:{given['PROMETHEUS_PORT']}",
        "--log.level=warn",
        "--log.format=json",
    ]
