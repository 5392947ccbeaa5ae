"""A Job beside a hostile volume: what lies in the workspace's HOME decides neither what the Job runs nor whom it calls.

It runs by the image's own program, with the HOME that the image sets, and a store on loopback that refuses it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from app.core.backups.index import identity_fields
from app.core.backups.store import backup_name
from app.core.sessions.model import Identity
from app.core.storage.credential import Credential
from app.volume.environment import ALONE
from workers.job import entry
from workers.job import program as job_program

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[4]
ADA = Identity(uuid="abcd1234", user_id="ada@example.com", created_at=1_763_625_600.0)
NAME = backup_name(ADA.uuid, 1_763_625_600.0)
OURS, THEIRS = "zebra-of-the-job", "zebra-of-the-tenant"
REFUSED = b"<Error><Code>AccessDenied</Code></Error>"

LIMITS = ("--max-bytes", "1000", "--max-entries", "10")
ACTIONS = {
    "backup": (*LIMITS, "--identity", json.dumps(identity_fields(ADA)), "--at", "1763625600.0"),
    "restore": (*LIMITS, f"--user-id={ADA.user_id}"),
}


class Server(ThreadingHTTPServer):
    """Refuses every request, and keeps its first line and headers."""

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[str] = []
        super().__init__(("127.0.0.1", 0), Refusal)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Refusal(BaseHTTPRequestHandler):
    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        assert isinstance(self.server, Server)
        self.server.seen.append(f"{self.requestline}\n{self.headers}")
        self.send_response(403)
        self.send_header("Content-Length", str(len(REFUSED)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(REFUSED)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's program, with an interpreter for itself as in the image, which finds this checkout's modules."""
    folder = tmp_path_factory.mktemp("image")
    venv.create(folder / "service", symlinks=True)
    [packages] = (folder / "service/lib").glob("python3*/site-packages")
    own = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "checkout.pth").write_text("\n".join([str(ROOT), *own]))
    script = (ROOT / "scripts/images/archive-job").read_text()
    assert "/opt/service" in script
    path = folder / "archive-job"
    path.write_text(script.replace("/opt/service", str(folder / "service")))
    path.chmod(0o755)
    return path


@pytest.fixture
def tenant() -> Iterator[Server]:
    """A server of the tenant's own."""
    with serving() as server:
        yield server


@pytest.fixture
def store() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def cloud() -> Iterator[Server]:
    """The metadata server of a cloud, at which a pod with an account gets its credential."""
    with serving() as server:
        yield server


@pytest.fixture
def volume(tmp_path: Path, tenant: Server) -> Path:
    """A volume whose owner has put settings for every client of a store into HOME."""
    files = {
        ".aws/config": f"[default]\ncredential_process = {tmp_path}/volume/home/steal\nendpoint_url = {tenant.url}\n",
        ".aws/credentials": f"[default]\naws_access_key_id = {THEIRS}\naws_secret_access_key = {THEIRS}\n",
        ".boto": f"[Credentials]\ngs_host = {tenant.url}\n",
        ".netrc": f"default login {THEIRS} password {THEIRS}\n",
        ".config/fsspec/conf.json": json.dumps({each: {"endpoint_url": tenant.url} for each in ("s3", "gs", "gcs")}),
        ".config/gcloud/application_default_credentials.json": json.dumps(
            {
                "type": "external_account",
                "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": f"{tenant.url}/token",
                "credential_source": {"url": f"{tenant.url}/subject"},
            }
        ),
        "steal": f"#!/bin/sh\ntouch {tmp_path}/stolen\n",
    }
    for name, content in files.items():
        path = tmp_path / "volume/home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "volume/home/steal").chmod(0o755)
    (tmp_path / "volume/app").mkdir()
    return tmp_path / "volume"


def outcome(
    program: Path, volume: Path, action: str, url: str, cloud: Server, credential: Credential | None = None
) -> dict[str, str]:
    """What the Job leaves for its worker. Its environment names the cloud's server, and files of the tenant's."""
    folder = volume.parent
    arguments = [action, "--files", str(volume / "app"), "--url", url, "--name", NAME, *ACTIONS[action]]
    arguments += ["--message", str(folder / "message")]
    if credential is not None:
        (folder / "credential").write_text(credential.to_text())
        arguments += ["--credential-file", str(folder / "credential")]
    set_by_the_image = {"PATH": os.environ["PATH"], "HOME": str(volume / "home"), "LANG": "C.UTF-8"}
    injected = {
        "AWS_PROFILE": "default",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.url}/credential",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url,
        "CLOUDSDK_CONFIG": str(volume / "home/.config/gcloud"),
        "GCE_METADATA_HOST": cloud.url.removeprefix("http://"),
    }
    done = subprocess.run(
        [str(program), *arguments],
        env={**set_by_the_image, **injected},
        cwd=volume,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, job_program.FAILED), done.stderr
    told: dict[str, str] = json.loads((folder / "message").read_text())
    return told


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_job_calls_its_store_with_its_credential_and_nobody_else(
    program: Path, volume: Path, tenant: Server, store: Server, cloud: Server, scheme: str, action: str
) -> None:
    given = {
        "s3": {
            "AWS_ACCESS_KEY_ID": OURS,
            "AWS_SECRET_ACCESS_KEY": OURS,
            "AWS_SESSION_TOKEN": OURS,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": store.url,
        },
        "gs": {"GOOGLE_ACCESS_TOKEN": OURS, "STORAGE_EMULATOR_HOST": store.url},
    }[scheme]
    told = outcome(program, volume, action, f"{scheme}://bucket/kept", cloud, Credential(given, time.time() + 600))
    assert told["error"]
    assert tenant.seen == cloud.seen == []
    assert store.seen and all(OURS in each for each in store.seen)
    assert THEIRS not in "".join(store.seen)
    assert not (volume.parent / "stolen").exists()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_job_without_a_credential_looks_for_none(
    program: Path, volume: Path, tenant: Server, cloud: Server, scheme: str, action: str
) -> None:
    told = outcome(program, volume, action, f"{scheme}://bucket/kept", cloud)
    assert "BACKUP_ROLE" in told["text"]
    assert tenant.seen == cloud.seen == []
    assert not (volume.parent / "stolen").exists()


def test_a_job_beside_such_a_volume_does_its_work(program: Path, volume: Path, tenant: Server, cloud: Server) -> None:
    (volume / "app/file").write_text("mine")
    told = outcome(program, volume, "backup", f"file://{volume.parent}/store", cloud)
    assert "error" not in told
    (volume / "app/file").write_text("changed")
    assert outcome(program, volume, "restore", f"file://{volume.parent}/store", cloud) == {}
    assert (volume / "app/file").read_text() == "mine"
    assert tenant.seen == cloud.seen == []


def test_the_entry_keeps_nothing_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever starts it, and empties the environment too."""
    environment = {"AWS_PROFILE": "default", "HTTPS_PROXY": "http://127.0.0.1:9"}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(job_program, "main", lambda arguments: 0)
    assert entry.main() == 0
    assert environment == ALONE
