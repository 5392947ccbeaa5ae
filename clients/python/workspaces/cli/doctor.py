"""What `sessionctl doctor` checks: from this machine to the service, then the service's own diagnosis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from workspaces.client import Workspaces
from workspaces.errors import ConfigError, ConnectionFailed, Forbidden, Unauthorized, WorkspacesError
from workspaces.models import Health

TIMEOUT: Final = 5.0
"""s for the request to the ingress."""

SKEW: Final = 30.0
"""s by which two clocks may differ: session tokens and login links last about a minute at least."""

UNKNOWN_WORKSPACE: Final = "00000000"
"""A workspace that does not exist: forward auth refuses it, which shows that the ingress asks it."""

INGRESS: Final = "ingress_from_here"

REFUSALS = frozenset({302, 401, 403, 404})


@dataclass(frozen=True)
class Finding:
    """`status` is `ok`, `warning`, `failed` or `unknown`; `remedy` says what to do."""

    check: str
    status: str
    found: str
    remedy: str = ""


def examine(make: Callable[[], Workspaces]) -> list[Finding]:
    """All findings; ends early where nothing further can be told."""
    try:
        client = make()
    except ConfigError as error:
        return [Finding("configuration", "failed", str(error), "Copy both from the output of scripts/run.")]
    with client:
        return list(_examine(client))


def _examine(client: Workspaces) -> Iterator[Finding]:
    try:
        health = client.system.health()
    except ConnectionFailed as error:
        remedy = "Check API_URL, and that the service runs: curl $API_URL/livez"
        yield Finding("api", "failed", str(error), remedy)
        return
    except WorkspacesError as error:
        yield Finding("api", "failed", str(error), "Something else answers at API_URL; correct it.")
        return
    yield Finding("api", "ok", f"{client.api_url} answers, version {health.version}.")
    yield clocks(health, time.time())
    try:
        diagnosis = client.system.diagnose()
    except Unauthorized as error:
        yield Finding("key", "failed", str(error), "Set API_KEY to one of the service's keys; scripts/run prints it.")
        yield from by_health(health)
        return
    except Forbidden:
        text = "This key sees no diagnosis; only the service's health follows."
        yield Finding("key", "warning", text, "Use an admin key that is bound to no users for the rest.")
        yield from by_health(health)
        return
    except WorkspacesError as error:
        yield Finding("key", "unknown", str(error), "See the service's log.")
        yield from by_health(health)
        return
    yield Finding("key", "ok", "The key is valid.")
    for check in diagnosis.checks:
        yield Finding(check.check, check.status, check.found, check.remedy)
    yield from _ingress_from_here(client)


def clocks(health: Health, now: float) -> Finding:
    """Whether this machine's clock agrees with the service's."""
    skew = abs(health.timestamp.timestamp() - now)
    if skew <= SKEW:
        return Finding("clock", "ok", "This machine's clock agrees with the service's.")
    text = f"This machine's clock and the service's differ by {skew:.0f} s."
    return Finding("clock", "warning", text, "Set both by NTP: links and tokens expire by the service's clock.")


def by_health(health: Health) -> Iterator[Finding]:
    """What /health tells, which needs no key."""
    parts: Mapping[str, tuple[bool, str]] = {
        "redis": (health.redis == "connected", "Start Redis, and check REDIS_URL."),
        "workers": (health.workers > 0, "Start the workers: see the Procfile, or `kubectl -n fresh-system get pods`."),
        "observer": (health.kubernetes == "connected", "Start the observer, and read its log."),
    }
    for name, (good, remedy) in parts.items():
        yield Finding(name, "ok" if good else "failed", "works" if good else "does not work", "" if good else remedy)


def _ingress_from_here(client: Workspaces) -> Iterator[Finding]:
    """Whether workspaces' addresses lead from this machine to an ingress that asks forward auth."""
    try:
        kept = {each.name: each.value for each in client.system.settings().settings}
    except WorkspacesError as error:
        text = f"Workspaces' addresses are not known, as the service does not tell its settings: {error}"
        yield Finding(INGRESS, "unknown", text, "See the service's log.")
        return
    domain, scheme, port = (kept.get(name) for name in ("WORKSPACE_DOMAIN", "WORKSPACE_SCHEME", "WORKSPACE_PORT"))
    if not domain or not scheme:
        yield Finding(INGRESS, "unknown", "The service's settings don't say where workspaces are.", "Upgrade it.")
        return
    url = f"{scheme}://vs-code-{UNKNOWN_WORKSPACE}.{domain}" + (f":{port}" if port else "")
    yield reach(url, httpx.HTTPTransport(retries=0))


def reach(url: str, transport: httpx.BaseTransport) -> Finding:
    """Whether forward auth refuses a workspace that does not exist."""
    try:
        with httpx.Client(timeout=TIMEOUT, transport=transport) as http:
            status = http.get(at_loopback(url), headers={"Host": httpx.URL(url).netloc.decode()}).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        text = f"{url} can't be reached: {error}"
        return Finding(INGRESS, "failed", text, "Check the DNS entry of *.WORKSPACE_DOMAIN, and the ingress.")
    if status in REFUSALS:
        return Finding(INGRESS, "ok", "Workspaces' addresses lead to the ingress, which asks forward auth.")
    text = f"{url} answers {status}, though there is no such workspace."
    if status < 400:
        return Finding(INGRESS, "failed", text, "The ingress does not ask forward auth: anyone may open any workspace.")
    return Finding(INGRESS, "failed", text, "See the logs of the ingress and of forward auth.")


def at_loopback(url: str) -> httpx.URL:
    """The URL, with the address of a name under .localhost: browsers know it, this machine's resolver may not."""
    parsed = httpx.URL(url)
    return parsed.copy_with(host="127.0.0.1") if parsed.host.endswith(".localhost") else parsed
