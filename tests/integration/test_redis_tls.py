"""Every process speaks TLS with a Redis that wants it, and with none whose certificate it can't verify."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import requests

from app.core.errors import StateUnavailable
from app.core.redis.connections import connect
from app.core.redis.errors import redis_errors
from app.core.redis.notifications import Notices
from app.process.redis_address import address
from scripts.lib import redis_server
from scripts.lib.redis_server import program
from tests.certificates import Authority
from tests.conftest import REDIS_PASSWORD
from tests.integration.serving import KEY, running_web, started
from tests.ports import free_port
from tests.waiting import wait_for


@dataclass(frozen=True)
class Secured:
    """A Redis that speaks nothing but TLS, at 127.0.0.1 only, and the file to verify it by."""

    port: int
    ca_file: str

    def url(self, host: str = "127.0.0.1", ca_file: str | None = None) -> str:
        """As the settings make it."""
        return address(
            {
                "REDIS_HOST": host,
                "REDIS_PORT": str(self.port),
                "REDIS_PASSWORD": REDIS_PASSWORD,
                "REDIS_CA_FILE": ca_file or self.ca_file,
            }
        )

    @property
    def environ(self) -> dict[str, str]:
        """As an operator says it to a process."""
        return {
            "REDIS_URL": f"rediss://127.0.0.1:{self.port}/0",
            "REDIS_PASSWORD": REDIS_PASSWORD,
            "REDIS_CA_FILE": self.ca_file,
        }


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.certificate("127.0.0.1")
    port = free_port()
    options = {
        "--port": "0",
        "--tls-port": str(port),
        "--tls-cert-file": str(certificate),
        "--tls-key-file": str(key),
        "--tls-ca-cert-file": str(authority.file),
        "--tls-auth-clients": "no",
        "--bind": "127.0.0.1",
        "--dir": str(tmp_path),
        "--requirepass": REDIS_PASSWORD,
        "--save": "",
        "--notify-keyspace-events": "KEA",
    }
    log = tmp_path / "redis.log"
    with started([program()[0], *(part for pair in options.items() for part in pair)], {}, log):
        made = Secured(port, str(authority.file))
        wait_for(lambda: not redis_server.trouble(made.url()), f"Redis answers: {log.read_text()[-500:]}")
        yield made


def celery(secured: Secured, folder: Path, *words: str, **environ: str) -> tuple[list[str], dict[str, str], Path]:
    """What starts a process of Celery's, its environment, and its log."""
    own = {"DATA_DIR": str(folder / "data"), "POISON": "bug", **secured.environ, **environ}
    return [sys.executable, "-m", "celery", "-A", *words], own, folder / "celery.log"


def test_a_call_goes_its_whole_way_with_tls(secured: Secured, tmp_path: Path) -> None:
    """Web enqueues, a worker takes the task, and whoever waits at web hears of its end."""
    words = ["tests.integration.poison", "worker", "-Q", "wake", "-c", "1", "--without-gossip", "--without-mingle"]
    settings = {name: text for name, text in secured.environ.items() if name != "REDIS_URL"}
    with (
        started(*celery(secured, tmp_path, *words)),
        running_web(tmp_path, secured.environ["REDIS_URL"], WAIT_DEFAULT="30", **settings) as url,
    ):
        answer = requests.post(
            f"{url}/session/create",
            json={"user_id": "ada"},
            headers={"X-API-Key": KEY, "Prefer": "wait=60"},
            timeout=90,
        )
        assert requests.get(f"{url}/readyz", timeout=60).status_code == 200
    log = (tmp_path / "celery.log").read_text()
    assert "an internal error" in answer.text or '"failed"' in answer.text, f"{answer.text}\n{log[-3000:]}"
    assert REDIS_PASSWORD not in log


def test_flower_reads_the_queues_with_tls(secured: Secured, tmp_path: Path) -> None:
    port = free_port()
    connect(secured.url(), 5.0).rpush("wake", "{}")
    command = celery(secured, tmp_path, "workers.celery.app", "flower", f"--port={port}", FLOWER_BASIC_AUTH="me:secret")
    with started(*command):

        def waiting() -> bool:
            try:
                answer = requests.get(
                    f"http://127.0.0.1:{port}/api/queues/length", auth=("me", "secret"), timeout=60
                ).json()
            except (requests.RequestException, ValueError):
                return False
            return {"name": "wake", "messages": 1} in answer["active_queues"]

        wait_for(waiting, "Flower shows the task that waits")


def test_traefik_hears_of_routes_with_tls(secured: Secured, tmp_path: Path) -> None:
    environ = {"DATA_DIR": str(tmp_path / "data"), "WORKSPACE_PORT": str(free_port()), **secured.environ}
    with started([sys.executable, "scripts/traefik"], environ, tmp_path / "traefik.log"):
        client = connect(secured.url(), 5.0)
        wait_for(
            lambda: any(each["psub"] == "1" for each in client.client_list()),
            f"Traefik listens to Redis: {(tmp_path / 'traefik.log').read_text()}",
        )


def test_who_waits_hears_a_notice_with_tls(secured: Secured) -> None:
    """Over a connection of its own, on which Redis speaks first."""
    client = connect(secured.url(), 5.0)
    with Notices(client).subscribe("channel") as news:
        wait_for(lambda: client.publish("channel", "") == 1, "somebody is subscribed")
        assert news.wait(60)


@pytest.fixture
def stranger(tmp_path: Path) -> str:
    """The certificate of an authority that signed nothing here."""
    return str(Authority(tmp_path / "stranger").file)


def test_a_redis_of_another_authority_is_not_spoken_to(
    secured: Secured, stranger: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds the name could read every password; the log, and scripts/run, say which setting it is about."""
    monkeypatch.setattr("app.core.redis.errors._logged_at", float("-inf"))
    with pytest.raises(StateUnavailable), redis_errors:
        connect(secured.url(ca_file=stranger), 5.0).ping()
    assert "REDIS_CA_FILE" in caplog.text
    assert "REDIS_CA_FILE" in redis_server.trouble(secured.url(ca_file=stranger))
    assert REDIS_PASSWORD not in redis_server.trouble(secured.url(ca_file=stranger))


def test_neither_web_nor_a_worker_speaks_to_it(secured: Secured, stranger: str, tmp_path: Path) -> None:
    """Each says so where an operator looks."""
    wrong = Secured(secured.port, stranger)
    log = tmp_path / "celery.log"
    words = ["tests.integration.poison", "worker", "-Q", "wake", "-c", "1", "--without-gossip", "--without-mingle"]
    settings = {name: text for name, text in wrong.environ.items() if name != "REDIS_URL"}
    with (
        started(*celery(wrong, tmp_path, *words)),
        running_web(tmp_path, wrong.environ["REDIS_URL"], **settings) as url,
    ):
        assert requests.get(f"{url}/readyz", timeout=60).status_code == 503
        wait_for(lambda: "CERTIFICATE_VERIFY_FAILED" in log.read_text(), "the worker says why")
    assert "REDIS_CA_FILE" in (tmp_path / "web.log").read_text()
    assert REDIS_PASSWORD not in log.read_text() + (tmp_path / "web.log").read_text()


def test_a_certificate_for_another_host_is_refused(secured: Secured) -> None:
    """Also where the right authority signed it."""
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(secured.url(host="localhost"), 5.0).ping()
