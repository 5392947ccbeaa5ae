"""No prompt, key, token, password, file name, content or variable leaves its place: distinctive ones go through the
whole service, with its failures, and are then looked for in every sink, the stores' files among them.

Not looked for, since it is their place: the owner's own keys in Redis (its prompts, events and reasons), answers to the
owner, the workspace's own files and logs, and the one process that needs a key.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from app.core.backups.store import BackupStore
from app.core.prompts.history_store import HistoryStore
from app.core.storage.archive_keys import ArchiveKeys
from app.core.storage.file_store import FileStore
from tests.model_server import Answer, ModelServer
from tests.service import KEY, Service
from tests.tenants import NAVIGATION
from tests.waiting import wait_for
from workers.restore_points import restore_point
from workers.restore_points.sidecar import Sidecars
from workers.runtime.base import never

MODEL_KEY = f"sk-canary-model-{secrets.token_hex(8)}"
SECRET_KEY = f"canary-secret-key-{secrets.token_hex(16)}"
PROMPT = f"canary-prompt-{secrets.token_hex(8)}"
FILE = f"canary-file-{secrets.token_hex(8)}.txt"
CONTENT = f"canary-content-{secrets.token_hex(8)}"
VARIABLE = f"canary-variable-{secrets.token_hex(8)}"
TAIL = f"canary-tail-{secrets.token_hex(8)}"
WRONG = f"canary-wrong-{secrets.token_hex(8)}"
"""What a caller sends where it does not belong: a key, a path, a query, a field."""

STORES = ("backups", "archive")
"""Of backups and restore points, and of conversations, in the data folder."""

QUEUES = frozenset({"wake", "deliver", "lifecycle", "sweep", "backup", "unacked", "unacked_index"})


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer(api_key=MODEL_KEY) as running:
        yield running


def opened(text: str) -> str:
    """The text, and what is in it in base64, as the bodies of Celery's messages are."""
    found = (base64.b64decode(each[: len(each) // 4 * 4]) for each in re.findall(r"[A-Za-z0-9+/]{24,}", text))
    return "\n".join([text, *(each.decode(errors="replace") for each in found)])


class Broker:
    """What goes through the broker: the commands of Celery that Redis takes, from now on."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.heard: list[str] = []
        self._ended = threading.Event()

    def __enter__(self) -> Broker:
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def _listen(self) -> None:
        try:
            for each in self._monitor.listen():
                words = each["command"].split(" ", 2)
                name = words[1] if len(words) > 1 else ""
                if name in QUEUES or "celery" in name or "kombu" in name:
                    self.heard.append(each["command"])
        except (redis.RedisError, OSError, ValueError):
            return  # closed, with the service

    def __exit__(self, *_: object) -> None:
        self._monitor.connection.disconnect()


class Story:
    """A run with everything in it that could leak, and what the caller was told."""

    def __init__(self, service: Service, model: ModelServer) -> None:
        self.service = service
        self.model = model
        self.problems: list[str] = []
        config = (service.data_dir / "redis" / "redis.conf").read_text()
        self.canaries = {
            "prompt": PROMPT,
            "API key": KEY,
            "model key": MODEL_KEY,
            "secret key": SECRET_KEY,
            "file name": FILE,
            "content": CONTENT,
            "variable": VARIABLE,
            "log tail": TAIL,
            "wrong": WRONG,
            "Redis password": config.split("requirepass ")[1].split()[0],
        }

    def refused(self, method: str, path: str, status: int, body: Any = None, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        answer = self.service.call(method, path, body, named)
        assert answer.status_code == status, answer.text
        self.problems.append(json.dumps({**answer.json(), "instance": "the caller's own path"}))

    def use(self) -> str:
        """A session in which everything goes well."""
        service = self.service
        uuid: str = service.create()["uuid"]
        (service.files(uuid) / FILE).write_text(CONTENT)
        self.model.script(Answer(text=f"You said {PROMPT}"))
        assert service.prompt(uuid, PROMPT, "m1")["status"] == "processed"
        link = service.link(uuid)
        scheme, _, rest = link.partition("://")
        host, _, path = rest.partition("/")
        url = f"{scheme}://127.0.0.1:{service.workspace_port}/{path}"
        person = {**NAVIGATION, "Sec-Fetch-Dest": "document"}
        opened = requests.get(url, headers=person | {"Host": host}, allow_redirects=False, timeout=60)
        assert opened.cookies, (opened.status_code, opened.text)
        self.canaries |= {
            "login link": link.partition("workspace-link=")[2],
            "session token": service.token(uuid),
            **{f"cookie {name}": text for name, text in opened.cookies.get_dict().items()},
        }
        root = service.data_dir / "workspaces" / uuid
        for name in ("agent-token", "editor-secret"):
            for number, text in enumerate(re.findall(r"[\w.~+/=-]{20,}", (root / name).read_text())):
                self.canaries[f"{name} {number}"] = text
        service.done("POST", f"/session/{uuid}/backup")
        wait_for(lambda: service.done("GET", f"/session/{uuid}/backups")["total"], "the backup")
        service.save(uuid)
        service.done("POST", f"/session/{uuid}/sleep")
        service.wait_status(uuid, "sleeping", 0)
        service.done("POST", f"/session/{uuid}/chat", {"message": PROMPT, "id": "m2"})
        service.wait_status(uuid, "active")
        service.ended(uuid, "m2")
        return uuid

    def fail(self, uuid: str) -> None:
        """Errors of every kind."""
        service = self.service
        self.model.script(Answer(status=400, text=PROMPT))
        service.prompt(uuid, PROMPT, "m3")
        self.refused("POST", f"/session/{uuid}/chat", 400, {"message": PROMPT, WRONG: WRONG, "id": ""})
        self.refused("POST", f"/session/{uuid}/chat", 422, {"message": PROMPT + "2", "id": "m1"})
        self.refused("GET", f"/{WRONG}?token={WRONG}", 404)
        self.refused("GET", "/sessions", 401, X_API_Key=WRONG)
        self.refused("GET", f"/session/{uuid}", 401, X_API_Key="", Authorization=f"Bearer {WRONG}")
        self.refused("GET", f"/session/{uuid}/messages/{WRONG}", 404)
        stranger = service.workspace(service.status(uuid)["session"], f"/{WRONG}?{WRONG}", Cookie=f"a={WRONG}")
        assert stranger.status_code >= 300
        with requests.get(service.gateway_url, headers={"Authorization": f"Bearer {WRONG}"}, timeout=60) as answer:
            assert answer.status_code >= 400
        self._break_the_store(uuid)
        self._crash(uuid)
        self._fail_a_backup()

    def _break_the_store(self, uuid: str) -> None:
        """A key of the wrong type is a bug for the service: 500, with an exception in the log."""
        client, broken = self.service.redis(), f"message:{uuid}:{WRONG}"
        client.set(broken, PROMPT)
        self.refused("GET", f"/session/{uuid}/messages/{WRONG}", 500)
        client.delete(broken)

    def _crash(self, uuid: str) -> None:
        """The editor says something and dies; then workers die, with a task under way."""
        service = self.service
        with (service.data_dir / "workspaces" / uuid / "editor.log").open("a") as log:
            log.write(f"{TAIL}\n")
        for editor in service.processes("--bind-addr", WORKSPACE_UUID=uuid):
            editor.kill()
        wait_for(lambda: TAIL in self._events_of(uuid) or self._woken(uuid), "the crash to be seen")
        service.done("POST", f"/session/{uuid}/wake")
        for name in ("worker", "delivery-worker", "gateway"):
            service.kill(name)
        service.wait_status(uuid, "active")

    def _events_of(self, uuid: str) -> str:
        return str(self.service.redis().xrange(f"session:{uuid}:events"))

    def _woken(self, uuid: str) -> bool:
        return "waking" in self._events_of(uuid)[-2_000:]

    def _fail_a_backup(self) -> None:
        """The error names the largest file, to its owner."""
        service = self.service
        uuid = service.create("grace")["uuid"]
        (service.files(uuid) / FILE).write_bytes(b"x" * 3_000_000)
        self.refused("DELETE", f"/session/{uuid}", 409)
        assert FILE in service.wait_status(uuid, "failed")["session"]["reason"]
        service.done("POST", f"/session/{uuid}/wake")
        service.wait_status(uuid, "active")
        service.done("POST", f"/session/{uuid}/backup")
        wait_for(lambda: FILE in self._events_of(uuid), "the backup to fail")
        service.done("DELETE", f"/session/{uuid}?backup=false")


def kept(data_dir: Path, uuid: str, scratch: Path) -> dict[str, str]:
    """What the stores give who has the key: of a backup, of a restore point, and of the conversation."""
    keys = ArchiveKeys((data_dir / "archive-key").read_text().strip())
    backups, history = (f"file://{data_dir}/{name}" for name in STORES)
    store = BackupStore(backups, keys)
    (name,) = [each.name for each in (data_dir / "backups").rglob("*.zip")]
    with store.open(name) as stored, zipfile.ZipFile(stored) as archive:
        backup = archive.read(FILE).decode()
    scratch.mkdir()
    files = FileStore(backups)
    (point, *_) = Sidecars(files, keys.session(uuid)).ids()
    restore_point(scratch, backups, keys.session(uuid), point, (10**9, 10**6), never, user_id="ada")
    told = HistoryStore(history, keys=keys).read(uuid)
    return {"backup": backup, "restore point": (scratch / "app" / FILE).read_text(), "conversation": str(told)}


def files_of(data_dir: Path, store: str) -> Iterator[tuple[str, str]]:
    """Each file of a store: its path and every byte of it."""
    for file in sorted((data_dir / store).rglob("*")):
        path = file.relative_to(data_dir)
        # What is written at this moment gets its name later.
        with suppress(FileNotFoundError, IsADirectoryError):
            yield f"{path}", opened(f"{path}\n{file.read_bytes().decode('latin-1')}")


def sinks(story: Story, broker: Broker, own: str, bob: str) -> Iterator[tuple[str, str]]:
    """Each sink, by name, with all its text."""
    service = story.service
    for file in sorted((service.data_dir / "log").iterdir()):
        yield f"log {file.name}", file.read_text(errors="replace")
    yield "terminal", "".join(service.printed)
    for kind in ("application/json", "text/plain"):
        yield f"metrics as {kind}", service.call("GET", "/metrics", headers={"Accept": kind}).text
    yield "audit", service.call("GET", "/audit").text
    yield "another's status", service.call("GET", f"/session/{bob}").text
    yield "problem documents", "\n".join(story.problems)
    yield "broker", opened("\n".join(broker.heard))
    yield from stored(service.redis())
    for name in STORES:
        yield from files_of(service.data_dir, name)
    for process in service.processes():
        yield f"arguments of {process.pid} {process.name()}", " ".join(process.cmdline())
    for uuid in (own, bob):
        for process in service.processes(WORKSPACE_UUID=uuid):
            yield f"environment of {process.pid} in {uuid}", json.dumps(process.environ())


OWNERS = re.compile(r"session:[0-9a-z]{8}(:\w+)?|message:[0-9a-z]{8}:.*|queue:[0-9a-z]{8}(:held)?")
"""Keys of one session, which hold its owner's texts; another's are looked into by name."""


def stored(client: redis.Redis) -> Iterator[tuple[str, str]]:
    for key in client.scan_iter(count=1_000):
        if OWNERS.fullmatch(key):
            continue
        dumped: Any = {
            "string": lambda k: client.get(k),
            "list": lambda k: client.lrange(k, 0, -1),
            "set": lambda k: client.smembers(k),
            "zset": lambda k: client.zrange(k, 0, -1),
            "hash": lambda k: client.hgetall(k),
            "stream": lambda k: client.xrange(k),
            "none": lambda k: "",
        }[client.type(key)](key)
        yield f"Redis {key}", opened(f"{key} {dumped}")


ALLOWED = (("problem documents", "file name"), ("problem documents", "wrong"), ("terminal", "API key"))
"""The caller's own: the name of its file says what to do about it, and its request is quoted to itself. And scripts/run
prints a first call for the person who started it."""


def test_what_is_secret_or_a_users_is_in_no_sink(
    tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer
) -> None:
    folder: Path = tmp_path_factory.mktemp("service")
    settings = {
        "LLM_BASE_URL": model.url,
        "LLM_API_KEY": MODEL_KEY,
        "LLM_MODEL": "stub",
        "SECRET_KEY": SECRET_KEY,
        "OPERATORS_VARIABLE": VARIABLE,
        "RESTORE_MAX_BYTES": "2000000",
        "LOG_LEVEL": "DEBUG",
    }
    service = Service(folder, code_server, **settings)
    service.start()
    try:
        with Broker(service.redis()) as broker:
            story = Story(service, model)
            bob = service.create("bob")["uuid"]
            own = story.use()
            story.fail(own)
            held = kept(service.data_dir, own, folder / "scratch")
            assert (held["backup"], held["restore point"]) == (CONTENT, CONTENT)
            assert PROMPT in held["conversation"]
            found = {
                (sink, name)
                for sink, text in sinks(story, broker, own, bob)
                for name, canary in story.canaries.items()
                if canary in text and (sink, name) not in ALLOWED
            }
            assert any("sessions.wake" in each for each in broker.heard), "the broker was heard"
            assert '"action": "wake"' in (service.data_dir / "log" / "run.log").read_text()
            assert found == set()
    finally:
        service.stop()
