"""The dashboard's list with 10,000 sessions, in Chromium: how soon it is seen, how soon a change is, and what its
stream costs."""

from __future__ import annotations

import http.client
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page

from app.core.redis.connections import connect
from app.core.sessions.model import Record, Status, new_uuid
from app.core.sessions.store import SessionStore
from scripts.bench.servers import KEY, running_gunicorn, running_redis
from scripts.bench.table import Row
from tests.browser import launched

SESSIONS = 10_000
ROUNDS = 20
STREAMS = 500
"""Streams open at once, each of a page that somebody looks at."""

STATES = {Status.ACTIVE: 20, Status.SLEEPING: 74, Status.FAILED: 3, Status.CREATED: 2, Status.WAKING: 1}
"""Of a hundred sessions, so many are in each state."""

PAINTED = """() => new Promise((told) => new PerformanceObserver((seen) => {
  for (const each of seen.getEntriesByName("first-contentful-paint")) told(each.startTime);
}).observe({ type: "paint", buffered: true }))"""
SIZE = "performance.getEntriesByType('navigation')[0].encodedBodySize"
ANSWERED = "performance.getEntriesByType('navigation')[0].responseEnd"

SEEN = """([uuid, status]) => new Promise((told) => {
  const seen = () => document.querySelector(`tr[data-uuid="${uuid}"] .status`).textContent === status;
  new MutationObserver((_, watch) => { if (seen()) { watch.disconnect(); told(Date.now() / 1000); } })
    .observe(document.getElementById("main"), { childList: true, subtree: true });
})"""
"""When a row says that the session is in that state, in s since the epoch."""


def run() -> list[Row]:
    """Measure; rows of label, value and target."""
    with tempfile.TemporaryDirectory(prefix="bench-dashboard-") as name, running_redis(Path(name)) as redis_url:
        store = SessionStore(connect(redis_url, 5.0))
        fill(store)
        with (
            running_gunicorn("app.main:create_app()", Path(name), redis_url, MAX_STREAMS="1000") as port,
            launched() as browser,
            signed_in(browser, f"http://dashboard.localhost:{port}") as page,
        ):
            origin = page.url.rstrip("/")
            return [*paints(page, origin), *searches(page, origin), change(page, store), *streams(page, origin)]


def fill(store: SessionStore) -> None:
    """Ten thousand sessions of some users, in all states, with labels."""
    some, now = random.Random(1), time.time()
    for number in range(SESSIONS):
        created_at = now - (SESSIONS - number) * 8.0
        record = Record(
            uuid=new_uuid(),
            user_id=f"user{number % 3_000}@example.com",
            created_at=created_at,
            last_activity=created_at,
            status=some.choices(list(STATES), list(STATES.values()))[0],
            labels={"course": some.choice(["python-101", "databases"]), "team": str(number % 50)},
            ttl=86_400.0,
        )
        store.create(record, quota=None)


@contextmanager
def signed_in(browser: Browser, origin: str) -> Iterator[Page]:
    """A page of the dashboard."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(f"{origin}/sign-in")
    page.fill("#key", KEY)
    page.press("#key", "Enter")
    page.wait_for_selector("tr[data-uuid]")
    yield page


def paints(page: Page, origin: str) -> list[Row]:
    """From the address to the first sight of the list, and its size."""
    taken, answered = [], []
    for _ in range(ROUNDS):
        page.goto(origin, wait_until="load")
        taken.append(float(page.evaluate(PAINTED)))
        answered.append(float(page.evaluate(ANSWERED)))
    return [
        (f"list of {SESSIONS:,}: first paint p50 / max (ms)", _both(taken), "< 1000"),
        ("  of that, the page's whole answer p50 / max (ms)", _both(answered), ""),
        ("  size of the page (kB)", f"{page.evaluate(SIZE) / 1000:.0f}", ""),
    ]


def searches(page: Page, origin: str) -> Iterator[Row]:
    """A search that finds one of the oldest, and one that finds nothing: both compare all."""
    for text in ("user1@example.com", "nobody"):
        taken = []
        for _ in range(ROUNDS):
            page.goto(f"{origin}/?q={text}", wait_until="load")
            taken.append(float(page.evaluate(ANSWERED)))
        yield (f"search for {text} among {SESSIONS:,} p50 / max (ms)", _both(taken), "")


def change(page: Page, store: SessionStore) -> Row:
    """From a change of state in Redis until the row of an open page says so."""
    page.goto(page.url.partition("?")[0] + "?status=sleeping")
    uuids = [each.get_attribute("data-uuid") or "" for each in page.locator("tr[data-uuid]").all()]
    taken = []
    for uuid in uuids[:ROUNDS]:
        handle = page.evaluate_handle(f"({{ seen: ({SEEN})(['{uuid}', 'waking']) }})")
        started = time.time()
        store.change(uuid, started, to=Status.WAKING)
        taken.append((page.evaluate("(each) => each.seen", handle) - started) * 1000)
    return ("a change of state until a row shows it p50 / max (ms)", _both(taken), "")


def streams(page: Page, origin: str) -> Iterator[Row]:
    """Threads and memory of the web process before and with many streams, each as a page opens it."""
    port = int(origin.rpartition(":")[2])
    process = _web()
    threads, memory = process.num_threads(), process.memory_info().rss
    [cookie] = page.context.cookies(origin)
    headers = {"Host": f"dashboard.localhost:{port}", "Cookie": f"{cookie['name']}={cookie['value']}"}
    with ExitStack() as opened:
        for _ in range(STREAMS):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            opened.callback(connection.close)
            connection.request("GET", "/sessions/stream", headers=headers)
            if connection.getresponse().status != 200:
                raise RuntimeError("a stream was refused")
        yield (f"{STREAMS} more streams of the list: more threads", str(process.num_threads() - threads), "0")
        yield ("  more memory of the web process (MB)", f"{(process.memory_info().rss - memory) / 1e6:.1f}", "")


def _web() -> psutil.Process:
    """gunicorn's process that serves."""
    [master] = [each for each in psutil.Process().children() if "gunicorn" in each.cmdline()]
    [worker] = master.children()
    return worker


def _both(taken: list[float]) -> str:
    return f"{statistics.median(taken):.0f} / {max(taken):.0f}"
