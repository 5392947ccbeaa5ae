"""What forward auth costs: /auth/verify by itself, and a workspace's request through Traefik with it and without.

With and without are measured in turns, against the same backend, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from app.core.access.tokens import COOKIE, AccessTokens, Kind
from app.core.redis.connections import connect
from app.core.sessions.store import SessionStore
from app.process.settings import Settings
from scripts.bench.api import fill
from scripts.bench.servers import (
    latencies,
    percentile,
    running_gunicorn,
    running_redis,
    running_traefik,
    throughput,
)
from scripts.bench.table import Row
from workers.runtime.local import routes

SECRET_KEY = "of-the-bench-and-of-nobody-else-at-all"
SESSIONS = 1_000
SAMPLES = 1_000
"""Requests a round and way: enough for a p99."""

TARGET = 3.0
"""ms a check may take, half of the time."""

PATH = "/session/x"
"""Of the bare backend."""


def run(rounds: int = 5, seconds: int = 2) -> list[Row]:
    """Measure; rows of label, value and target."""
    with tempfile.TemporaryDirectory(prefix="bench-forward-auth-") as name:
        folder = Path(name)
        with (
            running_redis(folder) as redis_url,
            running_gunicorn(
                "app.main:create_forward_auth()", folder, redis_url, SECRET_KEY=SECRET_KEY
            ) as forward_auth,
            running_gunicorn("scripts.bench.bare:create_app()", folder, redis_url) as backend,
        ):
            settings = Settings(forward_auth_port=forward_auth)
            uuid = fill(SessionStore(connect(redis_url, 5.0)), SESSIONS)[0]
            with running_traefik(folder, traefik_file(settings, uuid, backend)) as traefik:
                return [*check(forward_auth, uuid, rounds, seconds), *through(traefik, uuid, rounds, seconds)]


def traefik_file(settings: Settings, uuid: str, backend: int) -> dict[str, Any]:
    """The product's file, with two ways to one backend: the workspace's host, and one that asks nobody."""
    made = routes.fixed(settings)
    http = made["http"]
    way = {"service": "backend", "entryPoints": [routes.ENTRY_POINT]}
    http["services"]["backend"] = {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{backend}"}]}}
    http["routers"]["bare"] = way | {"rule": "Host(`bare.localhost`)"}
    middlewares = http["routers"]["asleep"]["middlewares"]
    http["routers"]["guarded"] = way | {"rule": f"Host(`{settings.workspace_host(uuid)}`)", "middlewares": middlewares}
    return made


def check(forward_auth: int, uuid: str, rounds: int, seconds: int) -> list[Row]:
    """/auth/verify by itself, as Traefik asks it for an asset of a page."""
    host = Settings().workspace_host(uuid)
    headers = {
        **visitor(uuid),
        "X-Forwarded-Host": host,
        "X-Forwarded-Method": "GET",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Uri": "/static/out/vs/workbench/workbench.js",
    }
    asked = ["/auth/verify"] * SAMPLES
    latencies(forward_auth, asked[:100], headers)
    taken = [ms for _ in range(rounds) for ms in latencies(forward_auth, asked, headers)]
    rate = statistics.median(throughput(forward_auth, "/auth/verify", seconds, headers=headers) for _ in range(rounds))
    return [
        ("/auth/verify, one process (requests/s)", f"{rate:.0f}", ""),
        ("/auth/verify, p50 (ms)", f"{percentile(taken, 50):.2f}", f"< {TARGET:.0f} ms"),
        ("/auth/verify, p99 (ms)", f"{percentile(taken, 99):.2f}", ""),
    ]


def through(traefik: int, uuid: str, rounds: int, seconds: int) -> list[Row]:
    """The same request through Traefik, with forward auth and without."""
    ways = {"bare": {"Host": "bare.localhost"}, "guarded": visitor(uuid)}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for headers in ways.values():
        latencies(traefik, [PATH] * 100, headers)
    for _ in range(rounds):
        for name, headers in ways.items():
            taken[name] += latencies(traefik, [PATH] * SAMPLES, headers)
            rates[name].append(throughput(traefik, PATH, seconds, headers=headers))
    rows = []
    for name, label in (("bare", "through Traefik alone"), ("guarded", "through Traefik and forward auth")):
        p50, p99 = (percentile(taken[name], percent) for percent in (50, 99))
        rows.append((f"{label} (requests/s)", f"{statistics.median(rates[name]):.0f}", ""))
        rows.append((f"{label}, p50 / p99 (ms)", f"{p50:.2f} / {p99:.2f}", ""))
    added = [percentile(taken["guarded"], percent) - percentile(taken["bare"], percent) for percent in (50, 99)]
    return [*rows, ("forward auth adds, p50 / p99 (ms)", f"{added[0]:.2f} / {added[1]:.2f}", "")]


def visitor(uuid: str) -> dict[str, str]:
    """The headers of a browser that has been let in."""
    text, _ = AccessTokens([SECRET_KEY], 3600.0).issue(Kind.COOKIE, uuid, 0, time.time())
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
    return {
        "Host": Settings().workspace_host(uuid),
        "User-Agent": agent,
        "Accept": "*/*",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Dest": "script",
        "Cookie": f"vscode-tkn=none; {COOKIE}={text}",
    }
