"""The routes from the host names of a workspace and its ports to its editor's port, and from `/chat/{uuid}/` to its
agent's. Traefik reads them from Redis.

Keys and values are those of Traefik's KV provider. The keys of one workspace are written in one MULTI, because Traefik
acts on whatever it finds, and one malformed value freezes the routes of all. One permanent key is never deleted: when
the last key goes, Traefik keeps the routes it had. That key also tells whether Redis has lost the routes.

Traefik's file (see `fixed`) answers for workspaces without a route, with or without Redis. It also holds the
middlewares of every route: forward auth, where the web process decides about access, then a page for workspaces that
cannot be reached. Forward auth comes first, so that the page reveals nothing to those without access.

The agent has a host name by which Traefik serves nothing else: its responses, which a workspace's user controls, have
another origin than the API and every workspace.
"""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import redis

from app.core.access.tokens import COOKIES, AccessTokens, Kind
from app.core.errors import RetryableError
from app.core.sessions.model import UUID_PATTERN
from app.process import redis_address
from app.process.settings import Settings, SettingsError

ENTRY_POINT = "workspaces"
MIDDLEWARES = ("auth@file", "waking@file")
"""The middlewares of each route, in this order."""

OUR_HEADERS = ("Cookie", "Authorization", "X-API-Key", "X-Workspace-Secret")
"""Headers of the forwarded request: forward auth's response replaces them, and removes those it does not set."""

FORWARD_AUTH_LIMIT = 1_048_576
"""Bytes of a forward-auth response; a page has 6,000."""

PERMANENT = "traefik/http/services/nowhere/loadbalancer/passhostheader"
ROUTER = "traefik/http/routers/vs-code-"
SERVICE = "traefik/http/services/vs-code-"
AGENT_ROUTER = "traefik/http/routers/chat-"
AGENT_SERVICE = "traefik/http/services/chat-"
AGENT_PREFIX = "traefik/http/middlewares/chat-"


class Routes:
    """Writes and removes the routes of workspaces; raises `RetryableError` while Redis is unavailable."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._settings = settings
        self._api = settings.agents_host()
        self._tokens = AccessTokens(settings.secret_keys(), settings.cookie_ttl)

    def host(self, uuid: str) -> str:
        """The workspace's host name."""
        return self._settings.workspace_host(uuid)

    def probe_token(self, uuid: str) -> str:
        """A token with which the manager itself passes forward auth, "" without a SECRET_KEY to sign it."""
        return self._tokens.issue(Kind.PROBE, uuid, 0, time.time())[0] if self._tokens.can_sign(Kind.PROBE) else ""

    def put(self, uuid: str, port: int, agent_port: int) -> None:
        """Route the workspace's host and its agent's path to these loopback ports (0: no agent); live in about
        0.1 s."""
        routes = keys(uuid, self.host(uuid), port) | (agent_keys(uuid, self._api, agent_port) if agent_port else {})
        self._write(set_keys={PERMANENT: "true", **routes})

    def drop(self, uuid: str) -> None:
        """Remove the workspace's routes, so that its addresses answer 503."""
        routes = keys(uuid, self.host(uuid), 0) | agent_keys(uuid, self._api, 0)
        self._write(set_keys={PERMANENT: "true"}, delete=tuple(routes))

    def lost(self) -> bool:
        """Whether Redis has lost all routes, so that they must be rewritten."""
        try:
            return not self._redis.exists(PERMANENT)
        except redis.RedisError as error:
            raise RetryableError("Redis cannot be reached to read the workspaces' routes.") from error

    def all(self) -> set[str]:
        """The uuids that have a route. Scans the whole database: for the start of a process only."""
        try:
            found = self._redis.scan_iter(match=f"{ROUTER}*/rule", count=1000)
            uuids = {key.removeprefix(ROUTER).removesuffix("/rule") for key in found}
            return {uuid for uuid in uuids if UUID_PATTERN.fullmatch(uuid)}
        except redis.RedisError as error:
            raise RetryableError("Redis cannot be reached to read the workspaces' routes.") from error

    def _write(self, *, set_keys: dict[str, str], delete: tuple[str, ...] = ()) -> None:
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.mset(set_keys)
                if delete:
                    pipe.delete(*delete)
                pipe.execute()
        except redis.RedisError as error:
            raise RetryableError("Redis cannot be reached to change a workspace's route.") from error


def keys(uuid: str, host: str, port: int) -> dict[str, str]:
    """The keys that route the workspace's `host`, and the hosts of all its ports, to a loopback port."""
    return {
        f"{ROUTER}{uuid}/rule": f"Host(`{host}`) || HostRegexp(`^[0-9]{{1,5}}--{re.escape(host)}$`)",
        f"{ROUTER}{uuid}/entrypoints/0": ENTRY_POINT,
        **_middlewares(f"{ROUTER}{uuid}", *MIDDLEWARES),
        f"{ROUTER}{uuid}/service": f"vs-code-{uuid}",
        f"{SERVICE}{uuid}/loadbalancer/servers/0/url": f"http://127.0.0.1:{port}",
    }


def agent_keys(uuid: str, api: str, port: int) -> dict[str, str]:
    """The keys that route `/chat/{uuid}/` of the host `api` to the agent on a loopback port, with that prefix
    removed."""
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
    """Traefik's file: the middlewares (forward auth, and the page for workspaces that cannot be reached), and a route
    for the addresses of all other workspaces, and of their ports, to a service without servers, which answers 503."""
    hosts = f"HostRegexp(`^([0-9]{{1,5}}--)?vs-code-[0-9a-z]{{8}}\\.{re.escape(settings.workspace_domain)}$`)"
    rule = f"{hosts} || (Host(`{settings.agents_host()}`) && PathPrefix(`/chat/`))"
    asleep = {"rule": rule, "priority": 1, "service": "asleep", "entryPoints": [ENTRY_POINT]}
    forward_auth = {
        "address": f"{forward_auth_url(settings)}/auth/verify",
        "authResponseHeaders": OUR_HEADERS,
        # Forward auth renews its cookie on the workspace's response.
        "addAuthCookiesToResponse": list(COOKIES),
        "maxResponseBodySize": FORWARD_AUTH_LIMIT,
    }
    page = {"status": ["502-504"], "service": "forward-auth", "query": "/auth/waking"}
    return {
        "http": {
            "routers": {"asleep": asleep | {"middlewares": [name.partition("@")[0] for name in MIDDLEWARES]}},
            "middlewares": {"auth": {"forwardAuth": forward_auth}, "waking": {"errors": page}},
            "services": {
                "asleep": {"loadBalancer": {"servers": []}},
                "forward-auth": {"loadBalancer": {"servers": [{"url": forward_auth_url(settings)}]}},
            },
        }
    }


def forward_auth_url(settings: Settings) -> str:
    """Where Traefik asks for access decisions; only Traefik may reach it."""
    return f"http://127.0.0.1:{settings.forward_auth_port}"


def web_url(settings: Settings) -> str:
    """The URL of the web process on this machine."""
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.bind, settings.bind)
    return f"http://{f'[{own}]' if ':' in own else own}:{settings.port}"


def traefik_environment(settings: Settings, file: str) -> dict[str, str]:
    """Traefik's static configuration as environment variables: arguments would show Redis's password to everyone on the
    machine. `file` is where `fixed` is written.

    Traefik listens on loopback, also when the API does not: access tokens would be sent unencrypted.
    """
    url = urlsplit(settings.routes_url)
    if url.scheme not in ("redis", "rediss"):
        raise SettingsError("REDIS_URL must be redis:// or rediss:// in local mode: Traefik cannot use a socket file.")
    if not settings.workspace_port:
        raise SettingsError("WORKSPACE_PORT must be set in local mode: Traefik serves the workspaces on that port.")
    prefix = "TRAEFIK_PROVIDERS_REDIS"
    values = {
        f"TRAEFIK_ENTRYPOINTS_{ENTRY_POINT.upper()}_ADDRESS": f"127.0.0.1:{settings.workspace_port}",
        # A server that reads headers like CGI would take X_Auth_User for X-Auth-User.
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
