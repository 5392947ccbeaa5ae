"""Two tenants of a running service: what the one can get hold of, and what must stay as it is of the other's."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from app.core.access.tokens import COOKIE, FRAME_COOKIE
from app.core.redis.keys import RESOURCES, SESSION, USE
from app.core.signal_kinds import SIGNAL_PREFIX, SIGNALS
from tests.service import Service
from tests.waiting import wait_for

FILE = "notes.txt"
SERVICE = "web"
"""Of the victim's: its name is told to who asks for it."""

MARK = "of-bob-5d1c07"
"""In every text of the victim's that could be shown to somebody."""

ALICE, BOB = "ada-5d1c07", f"{MARK}-himself"
PRODUCT = "https://product.example"
"""A page that may hold workspaces in a frame."""

BOUND_KEYS = {"service": "key-of-adas-service-5d1c07", "admin": "key-of-adas-admin-5d1c07"}
"""API keys that are for one tenant's users, by their role."""

SETTINGS = {
    "EMBED_ORIGINS": PRODUCT,
    # What an agent does by itself would look like something done to it.
    "CHECKPOINT_INTERVAL": "3600",
    "API_KEYS": json.dumps(
        [
            {
                "name": f"ada-{role}",
                "sha256": hashlib.sha256(key.encode()).hexdigest(),
                "role": role,
                "user_prefix": "ada-",
            }
            for role, key in BOUND_KEYS.items()
        ]
    ),
}
"""What a service needs for this."""

NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
TIMEOUT = 20.0
"""s for one request; no test measures it."""

BY_ITSELF = (
    "signal_turn",
    *(SIGNAL_PREFIX + name for name, kind in SIGNALS.items() if kind.by_agent),
    "disk_used_mib",
    "services",
)
"""Fields of a record that its own workspace's reports change."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Shown:
    """A secret in one of the places where it could be taken for a good one."""

    name: str
    place: str
    headers: Mapping[str, str]
    query: str = ""


@dataclass(frozen=True)
class Answer:
    """What was said; `text` is all of it, status line, headers and body."""

    status: int
    text: str


def ask(
    port: int, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: Any = None
) -> Answer:
    """One request to a port of this machine, with the path as it is written. Each comes from an address of its own, so
    that none is held back for those before it."""
    number = next(_numbers)
    source = f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    sent = dict(headers or {})
    if body is not None:
        sent["Content-Type"] = "application/json"
    content = None if body is None else json.dumps(body)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT, source_address=(source, 0))) as made:
        made.request(method, path, content, sent)
        answer = made.getresponse()
        # A stream of events has no end; its beginning tells enough.
        endless = "event-stream" in answer.headers.get("Content-Type", "")
        said = (answer.read1() if endless else answer.read()).decode("latin-1")
        return Answer(answer.status, f"{answer.status} {answer.reason}\n{answer.headers}\n{said}")


class Tenant:
    """A user with an active workspace."""

    def __init__(self, service: Service, user_id: str, **wanted: Any) -> None:
        self.service = service
        self.session = service.create(user_id, **wanted)
        self.uuid = str(self.session["uuid"])

    @property
    def host(self) -> str:
        """Of the workspace, with the port."""
        return urlsplit(self.session["workspace_url"]).netloc

    def port_of(self, name: str) -> int:
        """Where the workspace's editor (`vs-code`) or its agent (`chat`) listens."""
        with self.service.redis(database=1) as routes:
            url = routes.get(f"traefik/http/services/{name}-{self.uuid}/loadbalancer/servers/0/url")
        return urlsplit(str(url)).port or 0


class Attacker(Tenant):
    """A hostile one. `secrets` is all that a tenant can hold, by name."""

    def __init__(self, service: Service, victim: str) -> None:
        super().__init__(service, ALICE)
        token, secret, editor = self._read_inside()
        self.secrets = {
            "session token": service.token(self.uuid),
            "cookie": self._cookie(COOKIE, {"Sec-Fetch-Dest": "document"}),
            "frame cookie": self._cookie(
                FRAME_COOKIE,
                {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site", "Referer": f"{PRODUCT}/"},
            ),
            "link": self._link(),
            "workspace token": token,
            "forged workspace token": token.replace(self.uuid, victim),
            "agent's secret": secret,
            "editor's secret": editor,
            **{f"bound {role} key": key for role, key in BOUND_KEYS.items()},
        }

    def shown(self, own_origin: str) -> Iterator[Shown]:
        """Each secret in each place, as a program sends it that says what it likes of itself: also that it is a page of
        `own_origin`."""
        browser = {**NAVIGATION, "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "same-origin", "Origin": own_origin}
        for name, secret in self.secrets.items():
            if name == "link":
                # Good once, whoever's workspace it was tried at.
                secret = self._link()
            cookies = {"Cookie": f"{COOKIE}={secret}; {FRAME_COOKIE}={secret}", "X-Workspace-Secret": secret}
            yield Shown(name, "key", {"X-API-Key": secret})
            yield Shown(name, "bearer", {"Authorization": f"Bearer {secret}", **cookies})
            yield Shown(name, "visit", {**browser, **cookies}, f"workspace-link={secret}")

    def cookies(self) -> str:
        """Both, as a browser sends them."""
        return f"{COOKIE}={self.secrets['cookie']}; {FRAME_COOKIE}={self.secrets['frame cookie']}"

    def all_at_once(self) -> dict[str, str]:
        """Headers with every secret in the place where it belongs."""
        return {
            "X-API-Key": self.secrets["bound admin key"],
            "Authorization": f"Bearer {self.secrets['session token']}",
            "Cookie": self.cookies(),
            "X-Workspace-Secret": self.secrets["editor's secret"],
        }

    def says_it_is_at(self, address: str) -> None:
        """What an agent says when it comes up, in the name of one's own."""
        port = urlsplit(self.service.gateway_url).port or 0
        bearer = {"Authorization": f"Bearer {self.secrets['workspace token']}"}
        said = {"address": address, "name": "x", "boot": "x"}
        assert ask(port, "/agent/v1/hello", "POST", bearer, said).status == 204

    def _link(self) -> str:
        return self.service.link(self.uuid).partition("workspace-link=")[2]

    def _read_inside(self) -> tuple[str, str, str]:
        """The token, the agent's secret, and the editor's: as a command within the workspace finds them."""
        said = str(self.service.prompt(self.uuid, "run: cat ../agent-token ../editor-secret", "steal"))
        token = re.search(rf"{self.uuid}\.[0-9]+\.[0-9a-f]{{64}}", said)
        assert token, said
        secret, editor = re.findall(r"(?<![0-9a-f.])[0-9a-f]{64}", said.replace(token[0], ""))[:2]
        return token[0], secret, editor

    def _cookie(self, name: str, visit: Mapping[str, str]) -> str:
        link = urlsplit(self.service.link(self.uuid))
        headers = {**NAVIGATION, **visit, "Host": link.netloc}
        entered = ask(self.service.workspace_port, f"/?{link.query}", headers=headers)
        found = re.search(rf"Set-Cookie: {name}=([^;]+)", entered.text)
        assert found, entered.text
        return found[1]


class Victim(Tenant):
    """One with a conversation, files, a command that ran, a service, an opened port, and a backup."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, BOB, labels={"project": MARK})
        self.message = "m1"
        for name in (f"{MARK}.txt", FILE):
            (service.files(self.uuid) / name).write_text(MARK)
        assert service.prompt(self.uuid, f"remember {MARK}", self.message)["status"] == "processed"
        ran = service.done("POST", f"/session/{self.uuid}/exec", {"command": f"echo {MARK}"})
        self.exec_id = str(ran["exec_id"])
        service.done("POST", f"/session/{self.uuid}/services", {"name": SERVICE, "command": f"echo {MARK}; sleep 1000"})
        service.done("POST", f"/session/{self.uuid}/ports/3000/open")
        self._drop_links()
        service.done("POST", f"/session/{self.uuid}/backup")
        made = wait_for(lambda: service.done("GET", f"/session/{self.uuid}/backups")["backups"], "the backup")
        self.backup = str(made[0]["name"])
        folder = service.files(self.uuid).parent
        held = [*(folder / "agent-token").read_text().split(), *(folder / "editor-secret").read_text().split()]
        self.private = [MARK, str(made[0]["sha256"]), *held]
        """Texts that nobody else may ever read."""

    def _drop_links(self) -> None:
        """One would end by itself, 30 s later, while others try what they can."""
        with self.service.redis() as client:
            found = [key for key in client.scan_iter("link:*") if self.uuid in (client.get(key) or "")]
            assert client.delete(*found) == 1

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """What is different now from an earlier `state`."""
        now = self.state()
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        return [f"{name} was {before.get(name)}, and is {now.get(name)}" for name in names]

    def state(self) -> dict[str, Any]:
        """All there is of it, by name: in Redis, on the disk, and what its user is shown."""
        files = self.service.files(self.uuid)
        folders = [files, files.parent / ".execs", files.parent / ".services"]
        folders += (self.service.data_dir / "archive").glob(self.uuid)
        paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        paths += (self.service.data_dir / "backups").glob(f"{self.uuid}/app-*")
        return {
            **self._in_redis(),
            **{str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths},
            "conversation": self.service.conversation(self.uuid),
            "processes": (self.service.data_dir / "running" / f"{self.uuid}.json").read_text(),
        }

    def _in_redis(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with self.service.redis() as client:
            for key in client.scan_iter(count=1000):
                if key.startswith(("audit", "LIMITER")):
                    continue  # That it was tried is noted, and counted.
                if key == RESOURCES.format(uuid=self.uuid):
                    continue  # Its own agent reports them each minute.
                kind = client.type(key)
                if self.uuid in key or BOB in key:
                    found[key] = _READ[kind](client, key)
                elif kind == "zset" and (score := client.zscore(key, self.uuid)) is not None:
                    found[f"{key} has it"] = score
                elif kind == "string" and self.uuid in (client.get(key) or ""):
                    found[f"{key} names it"] = True
        # The record, and over it what stands beside it until it is written next.
        record, use = (found.pop(name.format(uuid=self.uuid), {}) for name in (SESSION, USE))
        kept = {name: text for name, text in {**record, **use}.items() if name not in BY_ITSELF}
        return {**found, "record": kept}


_READ: Mapping[str, Any] = {
    "string": lambda client, key: client.get(key),
    "hash": lambda client, key: client.hgetall(key),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: client.smembers(key),
    "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    "stream": lambda client, key: client.xrange(key),
}
