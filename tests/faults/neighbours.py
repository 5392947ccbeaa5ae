"""How fast quiet sessions wake beside a hostile one, and beside busy ones whose store hangs, against without either, in
rounds that alternate.

The hostile session waits, streams, trickles and sends large documents, also as its agent (`hostile.py`); its own agent
does not answer, its volume has a file of 2 TiB that takes no room, which it has backed up, and it is put to sleep and
woken all the time. The busy ones are woken, changed, backed up and put to sleep all the time.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import secrets
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle

import requests

from app.core.access.keyring import CATEGORIES
from app.core.redis.task_queue import QUEUES
from app.process.settings import Settings
from tests.faults.hostile import Target, attack
from tests.faults.places import Place
from tests.integration import minio
from tests.waiting import wait_for

QUIET = 20
BUSY = 4
TARGET = 1.5
SPARSE = 2 * 1024**4
"""Bytes."""

SETTLED = 5.0
"""s that the hostile session has before the others begin."""

OPENED = ("302 200", "302 302")
"""What a browser is answered that follows a link: it is let in, and then gets the editor or is led to its folder."""

KEY = secrets.token_urlsafe(24)
PLENTY = dict.fromkeys(CATEGORIES, "100000/minute")
SETTINGS = {f"RATE_LIMIT_{name.upper()}": str(getattr(Settings(), f"rate_limit_{name}")) for name in CATEGORIES} | {
    "API_KEYS": json.dumps(
        [{"name": "product", "role": "admin", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "limits": PLENTY}]
    ),
    "DRILL_CYCLE": str(Settings().drill_cycle),
}
"""What the play is played with: the rate limits and drills that the service comes with, and a key of the product's own
servers with limits of its own, as a product has one."""

WAIT = {"X-API-Key": KEY, "Prefer": "wait=30"}
AT_ONCE = {"X-API-Key": KEY, "Prefer": "respond-async"}
TIMEOUT = 60.0
NAP = 10.0
"""s between two calls that put the hostile session to sleep, wake it, or have it backed up."""

BREATH = 1.0
"""s between two busy sessions' turns."""

DRAINED = 300.0
"""s after which the workers have done what the store held up."""


@dataclass
class Seen:
    """What became of the quiet ones; times are in s."""

    woken: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def p95(self) -> float:
        return statistics.quantiles(self.woken, n=20)[-1]

    def shown(self) -> str:
        if not self.woken:
            return f"no wakes, {len(self.errors)} errors"
        p50, p95 = 1000 * statistics.median(self.woken), 1000 * self.p95()
        return f"{len(self.woken)} wakes, p50 {p50:.0f}, p95 {p95:.0f} ms, {len(self.errors)} errors"


class Neighbours:
    """The quiet sessions, the hostile one, and the busy ones of a place."""

    def __init__(self, place: Place, quiet: int, busy: int) -> None:
        self.place = place
        self.quiet = [self._asleep(f"{place.prefix}quiet-{number}") for number in range(quiet)]
        self.hostile = self._create(f"{place.prefix}hostile")
        self.busy = [self._asleep(f"{place.prefix}busy-{number}") for number in range(busy)]

    def round(self, seen: Seen) -> None:
        """Wake each of the quiet ones in turn, open its editor, and put it to sleep."""
        for uuid in self.quiet:
            try:
                seen.woken.append(self._woken(uuid))
            except (AssertionError, requests.RequestException) as error:
                print(f"{uuid}: {error}", flush=True)
                seen.errors.append(f"{uuid}: {error}")

    def _woken(self, uuid: str) -> float:
        """How long its wake took (s)."""
        began = time.monotonic()
        session = self._done("POST", f"/session/{uuid}/wake", WAIT)
        seconds = time.monotonic() - began
        assert session["status"] == "active", session
        wait_for(lambda: self._opened(uuid), "the ingress to lead there", seconds=self.place.patience)
        asleep = self._done("POST", f"/session/{uuid}/sleep", WAIT)
        assert asleep["status"] == "sleeping", asleep
        return seconds

    def _opened(self, uuid: str) -> bool:
        url = str(self._done("POST", f"/session/{uuid}/open")["url"])
        try:
            return self.place.visit(url) in OPENED
        except requests.Timeout:
            return False

    @contextmanager
    def beside_hostile(self) -> Iterator[None]:
        """The block runs beside all that the hostile session does."""
        self._wake_hostile()
        self.place.grow(self.hostile, "sparse", SPARSE)
        token = str(self._done("POST", f"/session/{self.hostile}/token")["token"])
        gateway = self.place.gateway(self.hostile)
        target = Target(self.place.url, self.hostile, token, *gateway, self.place.agent_port)
        context = multiprocessing.get_context("spawn")
        order, taken = context.Pipe()
        over = threading.Event()
        attacker = context.Process(target=attack, args=(target, taken), daemon=True)
        clicks = threading.Thread(target=self._click, args=(over,))
        attacker.start()
        clicks.start()
        try:
            time.sleep(SETTLED)
            yield
        finally:
            over.set()
            order.send(None)
            attacker.join(TIMEOUT)
            attacker.kill()
            clicks.join(2 * TIMEOUT)

    @contextmanager
    def beside_busy(self) -> Iterator[None]:
        """The block runs beside all that the product does for the busy sessions."""
        over, seen = threading.Event(), Counter[str]()
        work = threading.Thread(target=self._work, args=(over, seen))
        work.start()
        try:
            time.sleep(SETTLED)
            yield
        finally:
            over.set()
            work.join(2 * TIMEOUT)
            print(f"the busy sessions were answered: {dict(sorted(seen.items()))}", flush=True)

    def drain(self) -> None:
        """Wait until the workers have done all that was asked until now."""
        client = self.place.redis()

        def idle() -> bool:
            return not any(client.llen(queue) for queue in QUEUES) and not client.hlen("unacked")

        wait_for(idle, "the workers to have nothing to do", seconds=DRAINED)

    def end(self) -> None:
        """Let nothing of it stay."""
        for uuid in (*self.quiet, self.hostile, *self.busy):
            self._done("DELETE", f"/session/{uuid}?backup=false", AT_ONCE)

    def _click(self, over: threading.Event) -> None:
        """What the product does for the hostile session's user, whose agent does not answer."""
        while not over.is_set():
            for what in ("backup", "sleep", "wake"):
                self.place.end_agent(self.hostile, signal.SIGSTOP)
                self._ask("POST", f"/session/{self.hostile}/{what}", AT_ONCE)
                over.wait(NAP)
        self.place.end_agent(self.hostile, signal.SIGCONT)

    def _work(self, over: threading.Event, seen: Counter[str]) -> None:
        """What the product does for the busy sessions' users."""
        for uuid in cycle(self.busy):
            for what, headers in (("wake", WAIT), ("backup", AT_ONCE), ("sleep", AT_ONCE)):
                answer = self._ask("POST", f"/session/{uuid}/{what}", headers)
                seen[f"{what} {answer.status_code if answer is not None else 'none'}"] += 1
                if what == "wake":
                    self.place.write(uuid, {"work": os.urandom(64)})
            if over.wait(BREATH):
                return

    def _asleep(self, user: str) -> str:
        uuid = self._create(user)
        self._done("POST", f"/session/{uuid}/sleep", WAIT)
        return uuid

    def _create(self, user: str) -> str:
        headers = WAIT | {"Prefer": "wait=60"}
        answer = self.place.call("POST", "/session/create", {"user_id": user}, headers, 2 * TIMEOUT)
        assert answer.ok and answer.json()["status"] == "active", answer.text
        return str(answer.json()["uuid"])

    def _wake_hostile(self) -> None:
        def woken() -> bool:
            answer = self._ask("POST", f"/session/{self.hostile}/wake", WAIT)
            return answer is not None and answer.ok and answer.json()["status"] == "active"

        wait_for(woken, "the hostile session to wake", seconds=3 * TIMEOUT)

    def _done(self, method: str, path: str, headers: Mapping[str, str] = AT_ONCE) -> Mapping[str, str]:
        answer = self.place.call(method, path, None, headers, TIMEOUT)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return dict(answer.json())

    def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> requests.Response | None:
        try:
            return self.place.call(method, path, None, headers, TIMEOUT)
        except requests.RequestException:
            return None


@dataclass
class Compared:
    """What was seen `without` the others, `beside` the hostile session, and beside busy ones while the store was
    `hanging`; which processes were `restarted`, and the most `memory` that each part had beside the hostile one, in
    bytes."""

    without: Seen = field(default_factory=Seen)
    beside: Seen = field(default_factory=Seen)
    hanging: Seen = field(default_factory=Seen)
    restarted: list[str] = field(default_factory=list)
    memory: Counter[str] = field(default_factory=Counter)

    def wrong(self) -> list[str]:
        """What may not be at any speed."""
        errors = [*self.without.errors, *self.beside.errors, *self.hanging.errors]
        return [*errors, *(f"{part} was restarted" for part in self.restarted)]

    def ratios(self) -> dict[str, float]:
        """How p95 beside each of the others is to that without them, as far as there were wakes."""
        others = {"a hostile session": self.beside, "a store that hangs": self.hanging}
        return {name: seen.p95() / self.without.p95() for name, seen in others.items() if seen.woken}

    def shown(self) -> str:
        return f"without: {self.without.shown()}\nhostile: {self.beside.shown()}\nhanging: {self.hanging.shown()}"


def compare(place: Place, rounds: int, quiet: int = QUIET, *, store: bool = False) -> Compared:
    """Measure in so many rounds of each kind; with `store` the place's store is `minio.running`'s of this process."""
    neighbours = Neighbours(place, quiet, BUSY if store else 0)
    before, seen = place.lives(), Compared()
    # The first wakes of all warm up.
    neighbours.round(Seen())
    for number in range(rounds):
        neighbours.round(seen.without)
        with neighbours.beside_hostile():
            neighbours.round(seen.beside)
            seen.memory |= Counter(place.memory())
        if store:
            with minio.hanging(), neighbours.beside_busy():
                neighbours.round(seen.hanging)
            neighbours.drain()
        print(f"after round {number}\n{seen.shown()}", flush=True)
    seen.restarted = sorted(before - place.lives())
    neighbours.end()
    return seen


def run(place: Place, rounds: int, *, store: bool = False) -> list[str]:
    """Measure, and show it; what went wrong."""
    seen = compare(place, rounds, store=store)
    memory = ", ".join(f"{part} {size / 1e6:.0f}" for part, size in sorted(seen.memory.items()))
    print(f"\n{seen.shown()}\nMB: {memory}")
    wrong = seen.wrong()
    for name, ratio in seen.ratios().items():
        print(f"p95 beside {name}: {ratio:.2f}x")
        if ratio > TARGET:
            wrong.append(f"p95 beside {name} is {ratio:.2f}x of without it, more than {TARGET}x")
    print("\n".join(wrong), flush=True)
    return wrong
