"""The way from a workspace's host name to its port, and from a path of the API's to its agent's: Traefik reads it
from Redis.

Keys and values are those of Traefik's KV provider. What one workspace needs is written in one MULTI,
because Traefik acts on whatever it finds, and one malformed value freezes the routes of all. One key
never goes: with the last one deleted, Traefik keeps the routes it had. It also tells whether Redis
has lost the routes.

The addresses of workspaces that are not running are no business of these keys: Traefik's file (see
`fixed`) answers for them, Redis or no Redis. It also holds what every route passes first: the door, where web says
who gets in, and a page in place of what is not reached. The door comes first, so that nobody learns from the page what
it would not tell.

The agent is at `/chat/{uuid}/` of a host name by which Traefik serves nothing else: whatever a workspace's user
lets the agent's port answer is of another origin than the API, and than every workspace.
"""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import redis

from app import redis_address
from app.sessions.errors import RetryableError
from app.sessions.model import UUID_PATTERN
from app.sessions.passes import COOKIES, Kind, Passes
from app.settings import Settings, SettingsError
from workers.runtime import names

ENTRY_POINT = "workspaces"
MIDDLEWARES = ("auth@file", "waking@file")
"""What each route passes, in this order."""

OUR_HEADERS = ("Cookie", "Authorization", "X-API-Key", "X-Workspace-Secret")
"""Of a visitor: what the door answers goes on in their place, and nothing where it answers none."""

DOOR_LIMIT = 1_048_576
"""Bytes of an answer of the door's; a page has 6,000."""

PERMANENT = "traefik/http/services/nowhere/loadbalancer/passhostheader"
ROUTER = "traefik/http/routers/vs-code-"
SERVICE = "traefik/http/services/vs-code-"
AGENT_ROUTER = "traefik/http/routers/chat-"
AGENT_SERVICE = "traefik/http/services/chat-"
AGENT_PREFIX = "traefik/http/middlewares/chat-"


class Routes:
    """Writes and removes workspaces' routes; raises `RetryableError` while Redis is away."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._domain = settings.workspace_domain
        self._api = settings.agents_host()
        self._passes = Passes(settings.secret_keys(), settings.cookie_ttl, settings.token_ttl)

    def host(self, uuid: str) -> str:
        """The host name the workspace is reached by."""
        return names.host(uuid, self._domain)

    def own_pass(self, uuid: str) -> str:
        """What the manager shows the workspace's door itself, "" where there is no SECRET_KEY to sign it with."""
        return self._passes.issue(Kind.PROBE, uuid, 0, time.time())[0] if self._passes.can_sign(Kind.PROBE) else ""

    def put(self, uuid: str, port: int, agent_port: int) -> None:
        """Lead the workspace's host and its agent's path to these loopback ports (0: there is no agent); live in
        about 0.1 s."""
        led = keys(uuid, self._domain, port) | (agent_keys(uuid, self._api, agent_port) if agent_port else {})
        self._write(set_keys={PERMANENT: "true", **led})

    def drop(self, uuid: str) -> None:
        """Let the workspace's addresses answer 503 again."""
        led = keys(uuid, self._domain, 0) | agent_keys(uuid, self._api, 0)
        self._write(set_keys={PERMANENT: "true"}, delete=tuple(led))

    def lost(self) -> bool:
        """Whether Redis has no routes at all, so that they must be written again."""
        try:
            return not self._redis.exists(PERMANENT)
        except redis.RedisError as error:
            raise RetryableError("Redis can't be reached to look at the workspaces' addresses.") from error

    def all(self) -> set[str]:
        """The uuids that have a route. Walks the whole database: for a process's start only."""
        try:
            found = self._redis.scan_iter(match=f"{ROUTER}*/rule", count=1000)
            uuids = {key.removeprefix(ROUTER).removesuffix("/rule") for key in found}
            return {uuid for uuid in uuids if UUID_PATTERN.fullmatch(uuid)}
        except redis.RedisError as error:
            raise RetryableError("Redis can't be reached to look at the workspaces' addresses.") from error

    def _write(self, *, set_keys: dict[str, str], delete: tuple[str, ...] = ()) -> None:
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.mset(set_keys)
                if delete:
                    pipe.delete(*delete)
                pipe.execute()
        except redis.RedisError as error:
            raise RetryableError("Redis can't be reached to change a workspace's address.") from error


def keys(uuid: str, domain: str, port: int) -> dict[str, str]:
    """The keys that lead `vs-code-{uuid}.{domain}` to a loopback port."""
    return {
        f"{ROUTER}{uuid}/rule": f"Host(`{names.host(uuid, domain)}`)",
        f"{ROUTER}{uuid}/entrypoints/0": ENTRY_POINT,
        **_middlewares(f"{ROUTER}{uuid}", *MIDDLEWARES),
        f"{ROUTER}{uuid}/service": f"vs-code-{uuid}",
        f"{SERVICE}{uuid}/loadbalancer/servers/0/url": f"http://127.0.0.1:{port}",
    }


def agent_keys(uuid: str, api: str, port: int) -> dict[str, str]:
    """The keys that lead `/chat/{uuid}/` of the host `api` to the agent on a loopback port, which sees the rest
    of the path."""
    return {
        f"{AGENT_ROUTER}{uuid}/rule": f"Host(`{api}`) && PathPrefix(`/chat/{uuid}/`)",
        f"{AGENT_ROUTER}{uuid}/entrypoints/0": ENTRY_POINT,
        **_middlewares(f"{AGENT_ROUTER}{uuid}", *MIDDLEWARES, f"chat-{uuid}"),
        f"{AGENT_ROUTER}{uuid}/service": f"chat-{uuid}",
        f"{AGENT_PREFIX}{uuid}/stripprefix/prefixes/0": f"/chat/{uuid}",
        f"{AGENT_SERVICE}{uuid}/loadbalancer/servers/0/url": f"http://127.0.0.1:{port}",
    }


def _middlewares(router: str, *names: str) -> dict[str, str]:
    return {f"{router}/middlewares/{number}": name for number, name in enumerate(names)}


def fixed(settings: Settings) -> dict[str, Any]:
    """Traefik's file: the door, the page in place of what is not reached, and that every address of a workspace
    without a route of its own leads to a service without servers, which is a 503."""
    hosts = f"HostRegexp(`^vs-code-[0-9a-z]{{8}}\\.{re.escape(settings.workspace_domain)}$`)"
    rule = f"{hosts} || (Host(`{settings.agents_host()}`) && PathPrefix(`/chat/`))"
    asleep = {"rule": rule, "priority": 1, "service": "asleep", "entryPoints": [ENTRY_POINT]}
    door = {
        "address": f"{forward_auth_url(settings)}/auth/verify",
        "authResponseHeaders": OUR_HEADERS,
        # The door's own renewed cookie, on the workspace's answer.
        "addAuthCookiesToResponse": list(COOKIES),
        "maxResponseBodySize": DOOR_LIMIT,
    }
    page = {"status": ["502-504"], "service": "forward-auth", "query": "/auth/waking"}
    return {
        "http": {
            "routers": {"asleep": asleep | {"middlewares": [name.partition("@")[0] for name in MIDDLEWARES]}},
            "middlewares": {"auth": {"forwardAuth": door}, "waking": {"errors": page}},
            "services": {
                "asleep": {"loadBalancer": {"servers": []}},
                "forward-auth": {"loadBalancer": {"servers": [{"url": forward_auth_url(settings)}]}},
            },
        }
    }


def forward_auth_url(settings: Settings) -> str:
    """Where Traefik asks who gets in; nobody else's to reach."""
    return f"http://127.0.0.1:{settings.forward_auth_port}"


def web_url(settings: Settings) -> str:
    """Where this machine reaches the web process."""
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.bind, settings.bind)
    return f"http://{f'[{own}]' if ':' in own else own}:{settings.port}"


def traefik_environment(settings: Settings, file: str) -> dict[str, str]:
    """Traefik's static configuration as environment variables: in arguments, everyone on the machine
    could read Redis's password. `file` is where `fixed` is written.

    It listens on loopback, whatever the API does: passes would travel in the clear.
    """
    url = urlsplit(settings.routes_url)
    if url.scheme not in ("redis", "rediss"):
        raise SettingsError("REDIS_URL must be redis:// or rediss:// in local mode: Traefik can't use a socket file.")
    if not settings.workspace_port:
        raise SettingsError("WORKSPACE_PORT must be set in local mode: it is where Traefik serves the workspaces.")
    prefix = "TRAEFIK_PROVIDERS_REDIS"
    values = {
        f"TRAEFIK_ENTRYPOINTS_{ENTRY_POINT.upper()}_ADDRESS": f"127.0.0.1:{settings.workspace_port}",
        # X_Auth_User would pass for X-Auth-User at whatever reads headers as CGI does.
        f"TRAEFIK_ENTRYPOINTS_{ENTRY_POINT.upper()}_HTTP_ALIASHEADERSSTRATEGY": "delete",
        "TRAEFIK_PROVIDERS_FILE_FILENAME": file,
        "TRAEFIK_PROVIDERS_FILE_WATCH": "false",
        "TRAEFIK_PROVIDERS_PROVIDERSTHROTTLEDURATION": "100ms",
        "TRAEFIK_GLOBAL_CHECKNEWVERSION": "false",
        "TRAEFIK_GLOBAL_SENDANONYMOUSUSAGE": "false",
        "TRAEFIK_LOG_LEVEL": "WARN",
        prefix: "true",
        f"{prefix}_ENDPOINTS": f"{url.hostname or '127.0.0.1'}:{url.port or 6379}",
        f"{prefix}_DB": url.path.strip("/"),
    }
    if url.username:
        values[f"{prefix}_USERNAME"] = unquote(url.username)
    if url.password:
        values[f"{prefix}_PASSWORD"] = unquote(url.password)
    if url.scheme == "rediss":
        values[f"{prefix}_TLS_INSECURESKIPVERIFY"] = "false"
        if ca_file := redis_address.tls(settings.redis_url).get(redis_address.CA):
            values[f"{prefix}_TLS_CA"] = ca_file
    return values
