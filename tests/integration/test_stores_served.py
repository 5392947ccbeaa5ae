"""Web and gateway as they ship, with backups and conversations in a folder and in object stores."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
import redis
import requests

from app.core.access.agent_credentials import AgentCredentials
from app.core.backups.index import Backup, BackupIndex
from app.core.backups.store import BackupStore, backup_name
from app.core.redis.connections import connect
from app.core.sessions.model import Identity, Record, Status
from app.core.sessions.store import SessionStore
from tests.integration.serving import KEY, SECRET_KEY, running_gateway, running_web
from tests.integration.stores import BUCKET, point_at, server
from tests.ports import free_port
from workers.archive import write_backup

HEADERS = {"X-API-Key": KEY}
UUID = "stored01"
TIMEOUT = 120.0
LARGE = 3_000_000
"""Bytes of a file that comes in several pieces."""
SAID = [{"id": "m1", "role": "user", "content": "remember ß"}]
FIRST = {"edition": "one", "after": 0, "mark": "", "then": "1", "messages": SAID}
HEAD = {"edition": "one", "messages": 1, "mark": "1"}


@pytest.fixture(params=["file", "s3", "gs"])
def stores(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The settings that name the stores."""
    kind, port = str(request.param), free_port()
    if kind == "file":
        yield {}
        return
    point_at(kind, port, monkeypatch)
    client = fsspec.get_filesystem_class(kind)
    client.clear_instance_cache()
    with server(kind, port, tmp_path / "server.log"):
        fsspec.filesystem(kind).mkdir(BUCKET)
        yield {"HISTORY_URL": f"{kind}://{BUCKET}/archive", "BACKUP_URL": f"{kind}://{BUCKET}/backups"}
    client.clear_instance_cache()


def new_session(redis_url: str) -> str:
    """A session that is up; answers its token."""
    now = time.time()
    record = Record(
        uuid=UUID, user_id="ada", created_at=now, last_activity=now, status=Status.ACTIVE, settled=1, epoch=1
    )
    SessionStore(connect(redis_url, 5.0)).create(record, quota=None)
    return AgentCredentials([SECRET_KEY]).token(UUID, 1)


def new_backup(redis_url: str, files: BackupStore, folder: Path) -> Backup:
    """A backup that is in the store and in the index."""
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(LARGE))
    now = time.time()
    name = backup_name(UUID, now)
    write_backup(folder, files, name, Identity(uuid=UUID, user_id="ada", created_at=now), now)
    backup = Backup.from_sidecar(files.sidecar(name))
    BackupIndex(connect(redis_url, 5.0)).add(backup)
    return backup


def test_a_conversation_goes_in_over_the_gateway_and_comes_out_over_web(
    tmp_path: Path, redis_server: str, redis_client: redis.Redis, stores: dict[str, str]
) -> None:
    agent = {"Authorization": f"Bearer {new_session(redis_server)}"}
    with (
        running_gateway(tmp_path, redis_server, **stores) as gateway,
        running_web(tmp_path, redis_server, **stores) as web,
    ):
        added = requests.post(f"{gateway}/agent/v1/history", json=FIRST, headers=agent, timeout=TIMEOUT)
        assert added.status_code == 200, added.text
        assert added.json()["following"] == HEAD
        again = requests.post(f"{gateway}/agent/v1/history", json=FIRST, headers=agent, timeout=TIMEOUT)
        assert (again.status_code, again.json()["following"]) == (409, HEAD)
        whole = {**HEAD, "context": SAID, "metadata": {"turns": 1}}
        settled = requests.put(f"{gateway}/agent/v1/checkpoint", json=whole, headers=agent, timeout=TIMEOUT)
        assert settled.status_code == 204, settled.text
        read = requests.get(f"{web}/session/{UUID}/messages", headers=HEADERS, timeout=TIMEOUT)
        assert (read.status_code, read.json()["messages"]) == (200, SAID), read.text


def test_a_backup_is_downloaded_and_deleted_over_web(
    tmp_path: Path, redis_server: str, redis_client: redis.Redis, stores: dict[str, str]
) -> None:
    files = BackupStore(stores.get("BACKUP_URL", f"file://{tmp_path}/data/backups"))
    backup = new_backup(redis_server, files, tmp_path / "app")
    with files.open(backup.name) as stored:
        content = stored.read()
    assert len(content) > LARGE
    with running_web(tmp_path, redis_server, **stores) as web:
        path = f"{web}/backups/{backup.name}"
        whole = requests.get(f"{path}/download", headers=HEADERS, timeout=TIMEOUT)
        assert (whole.status_code, whole.content == content) == (200, True)
        part = requests.get(f"{path}/download", headers=HEADERS | {"Range": "bytes=-10"}, timeout=TIMEOUT)
        assert (part.status_code, part.content) == (206, content[-10:])
        assert requests.delete(path, headers=HEADERS, timeout=TIMEOUT).status_code == 204
    assert files.names() == []


def test_a_store_that_does_not_answer_holds_up_nobody_else(
    tmp_path: Path, redis_server: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_session(redis_server)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as threads:
        point_at("s3", silent.getsockname()[1], monkeypatch)
        settings = {"HISTORY_URL": f"s3://{BUCKET}/archive", "WEB_WORKERS": "1"}
        with running_web(tmp_path, redis_server, **settings) as web:
            read = threads.submit(requests.get, f"{web}/session/{UUID}/messages", headers=HEADERS, timeout=TIMEOUT)
            silent.settimeout(TIMEOUT)
            with silent.accept()[0]:
                assert requests.get(f"{web}/livez", timeout=TIMEOUT).status_code == 200
                assert not read.done()
            silent.close()
            answer = read.result(timeout=TIMEOUT)
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
