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
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from app.core.storage.credential import Credential
from app.volume.environment import ALONE
from tests.conftest import ROOT
from tests.unit.workers.job.test_program import command
from workers.job import entry
from workers.job import program as job_program

pytestmark = pytest.mark.slow

OURS, THEIRS = "zebra-of-the-job", "zebra-of-the-tenant"
REFUSED = b"<Error><Code>AccessDenied</Code></Error>"


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


@dataclass(frozen=True)
class Job:
    """A Job beside a volume whose owner has put settings for every client of a store into HOME. Its environment names
    files of the owner's, and the `cloud`, the server at which a pod with an account gets its credential; `tenant` is a
    server of the owner's own."""

    program: Path
    folder: Path
    tenant: Server
    cloud: Server

    def put_settings(self) -> None:
        account = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.tenant.url}/token",
            "credential_source": {"url": f"{self.tenant.url}/subject"},
        }
        clients = {each: {"endpoint_url": self.tenant.url} for each in ("s3", "gs", "gcs")}
        files = {
            ".aws/config": f"[default]\ncredential_process = {self.folder}/volume/home/steal\n"
            f"endpoint_url = {self.tenant.url}\n",
            ".aws/credentials": f"[default]\naws_access_key_id = {THEIRS}\naws_secret_access_key = {THEIRS}\n",
            ".boto": f"[Credentials]\ngs_host = {self.tenant.url}\n",
            ".netrc": f"default login {THEIRS} password {THEIRS}\n",
            ".config/fsspec/conf.json": json.dumps(clients),
            ".config/gcloud/application_default_credentials.json": json.dumps(account),
            "steal": f"#!/bin/sh\ntouch {self.folder}/stolen\n",
        }
        for name, content in files.items():
            path = self.folder / "volume/home" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (self.folder / "volume/home/steal").chmod(0o755)
        (self.folder / "volume/app").mkdir()

    def run(self, action: str, url: str, credential: Credential | None = None) -> dict[str, str]:
        """What it leaves for its worker."""
        more = []
        if credential is not None:
            (self.folder / "credential").write_text(credential.to_text())
            more = ["--credential-file", str(self.folder / "credential")]
        set_by_the_image = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "volume/home"), "LANG": "C.UTF-8"}
        injected = {
            "AWS_PROFILE": "default",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.cloud.url}/credential",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.cloud.url,
            "CLOUDSDK_CONFIG": str(self.folder / "volume/home/.config/gcloud"),
            "GCE_METADATA_HOST": self.cloud.url.removeprefix("http://"),
        }
        done = subprocess.run(
            [str(self.program), *command(self.folder, action, *more, url=url)],
            env={**set_by_the_image, **injected},
            cwd=self.folder / "volume",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, job_program.FAILED), done.stderr
        told: dict[str, str] = json.loads((self.folder / "message").read_text())
        return told

    def expect_no_other_call(self) -> None:
        assert self.tenant.seen == self.cloud.seen == []
        assert not (self.folder / "stolen").exists()


@pytest.fixture
def job(program: Path, tmp_path: Path) -> Iterator[Job]:
    with serving() as tenant, serving() as cloud:
        made = Job(program, tmp_path, tenant, cloud)
        made.put_settings()
        yield made


@pytest.mark.parametrize("action", ["backup", "restore"])
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_job_calls_its_store_with_its_credential_and_nobody_else(job: Job, scheme: str, action: str) -> None:
    with serving() as store:
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
        assert job.run(action, f"{scheme}://bucket/kept", Credential(given, time.time() + 600))["error"]
    job.expect_no_other_call()
    assert store.seen and all(OURS in each for each in store.seen)
    assert THEIRS not in "".join(store.seen)


@pytest.mark.parametrize("action", ["backup", "restore"])
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_job_without_a_credential_looks_for_none(job: Job, scheme: str, action: str) -> None:
    assert "BACKUP_ROLE" in job.run(action, f"{scheme}://bucket/kept")["text"]
    job.expect_no_other_call()


def test_a_job_beside_such_a_volume_does_its_work(job: Job) -> None:
    file, store = job.folder / "volume/app/file", f"file://{job.folder}/store"
    file.write_text("mine")
    assert "error" not in job.run("backup", store)
    file.write_text("changed")
    assert job.run("restore", store) == {}
    assert file.read_text() == "mine"
    job.expect_no_other_call()


def test_the_entry_keeps_nothing_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever starts it, and empties the environment too."""
    environment = {"AWS_PROFILE": "default", "HTTPS_PROXY": "http://127.0.0.1:9"}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(job_program, "main", lambda arguments: 0)
    assert entry.main() == 0
    assert environment == ALONE
