"""A sleep and a prompt at nearly the same moment, in either order: one trial of it, on any runtime."""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests

from app.core.prompts.inbox import FINISHED, State
from app.core.redis import keys
from app.core.sessions.model import Status
from tests.faults import counting
from tests.faults.places import Place
from tests.model_server import last_prompt
from tests.waiting import wait_for

APART = 0.05
"""s between the two calls at most."""

SLEEP_FIRST, BUSY = 0.7, 0.3
"""The shares of trials in which the sleep is sent first, and in which a turn runs already."""

POLL = 0.02
ASLEEP = "put to sleep"
"""Of the reason of a turn that a sleep on demand ended."""


@dataclass(frozen=True)
class Raced:
    """How one trial went. `slept_first`: the order in which the service took the two; `seconds`: from the prompt's call
    to its end."""

    slept_first: bool
    state: str
    seconds: float


class Race:
    """Trials with one session of a place."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self.place, self.chance = place, chance
        self.uuid = str(self._done("POST", "/session/create", {"user_id": f"{place.prefix}racer"})["uuid"])
        self._asked: Counter[str] = Counter()

    def trial(self, number: int) -> Raced:
        """Let the two race; whatever is lost, hangs, or is done twice is an `AssertionError`."""
        self._wait_active()
        name, before = f"{self.uuid}.{number}", f"{self.uuid}.{number}.before"
        gap, first, busy = self.chance.uniform(0, APART), self.chance.random(), self.chance.random() < BUSY
        command = self.chance.choice([0, 300])
        if busy:
            self._prompt(before, 500)
            wait_for(lambda: self._message(before)["state"] != State.QUEUED, "the turn before to begin")
        begun, before_both = time.time(), self._last_event()
        calls = [self._sleep, lambda: self._prompt(name, command)]
        if first > SLEEP_FIRST:
            calls.reverse()
        beside = threading.Thread(target=calls[0])
        beside.start()
        time.sleep(gap)  # meant: the moment is what is tried
        calls[1]()
        beside.join()
        slept_first = self._slept_first(name, before_both)
        message = self._ended(name, wake=not slept_first)
        earlier = self._ended(before, wake=not slept_first) if busy else None
        shown = f"{name}, slept first: {slept_first}, {gap * 1000:.0f} ms apart, busy: {busy}: {message} {earlier}"
        assert message["state"] == State.PROCESSED or (not slept_first and ASLEEP in message["reason"]), shown
        assert not earlier or earlier["state"] == State.PROCESSED or ASLEEP in earlier["reason"], shown
        self._wait_down_or_up(Status.ACTIVE if slept_first else None)
        self._worked_once([message, *([earlier] if earlier else [])], shown)
        return Raced(slept_first, message["state"], self._end_of(name) - begun)

    def _last_event(self) -> str:
        with self.place.redis() as client:
            return str(client.xrevrange(keys.EVENTS.format(uuid=self.uuid), count=1)[0][0])

    def _slept_first(self, name: str, after: str) -> bool:
        """Whether the sleep was taken before the prompt: events since `after` stand in the order of what happened."""
        with self.place.redis() as client:
            entries = client.xrange(keys.EVENTS.format(uuid=self.uuid), f"({after}")
        for _, entry in entries:
            data = json.loads(entry["data"])
            if data.get("message_id") == name:
                return False
            if entry["type"] == "state" and data["status"] == Status.SLEEPING:
                return True
        raise AssertionError(f"neither was taken: {entries}")

    def _ended(self, name: str, *, wake: bool) -> Any:
        """The message once it has ended. With `wake` its session may sleep while it waits (ADR 0012), and is woken."""

        def ended() -> Any:
            message = self._message(name)
            if message["state"] in FINISHED:
                return message
            if wake and self._session()["session"]["status"] == Status.SLEEPING:
                self._done("POST", f"/session/{self.uuid}/wake")
            return None

        return wait_for(
            ended, f"{name} to end", lambda: f"{self._message(name)} {self._session()}", self.place.patience
        )

    def _worked_once(self, messages: Sequence[Any], shown: str) -> None:
        for received in self.place.model.forget():
            if match := counting.PATTERN.fullmatch(last_prompt(received.body)):
                self._asked[match[1]] += 1
        counted = Counter(self.place.read(self.uuid, counting.FILE).split())
        for message in messages:
            name = message["message_id"]
            if message["state"] == State.PROCESSED:
                assert (counted[name], self._asked[name]) == (1, 2), f"{counted[name]}, {self._asked[name]}: {shown}"
            else:
                assert counted[name] <= 1, shown

    def _wait_active(self) -> None:
        self._done("POST", f"/session/{self.uuid}/wake")
        self._wait_down_or_up(Status.ACTIVE)

    def _wait_down_or_up(self, status: Status | None) -> None:
        """Until the session is in that state, or in either where it is None, and nothing is on its way."""

        def settled() -> bool:
            seen = self._session()
            wanted = (Status.ACTIVE, Status.SLEEPING) if status is None else (status,)
            now = seen["session"]["status"]
            return now in wanted and seen["replicas"] == (now == Status.ACTIVE)

        wait_for(settled, f"{self.uuid} to be {status or 'settled'}", lambda: str(self._session()), self.place.patience)

    def _end_of(self, name: str) -> float:
        with self.place.redis() as client:
            return float(client.hget(keys.PROMPT.format(uuid=self.uuid, id=name), "processed_at") or 0)

    def _sleep(self) -> None:
        self._done("POST", f"/session/{self.uuid}/sleep")

    def _prompt(self, name: str, milliseconds: int) -> None:
        body = {"message": counting.prompt(name, milliseconds), "id": name}
        self._done("POST", f"/session/{self.uuid}/chat", body)

    def _message(self, name: str) -> Any:
        return self._done("GET", f"/session/{self.uuid}/messages/{name}")

    def _session(self) -> Any:
        return self._done("GET", f"/session/{self.uuid}")

    def _done(self, method: str, path: str, body: Any = None) -> Any:
        answer: requests.Response = self.place.call(method, path, body, {"Prefer": "respond-async"}, 20)
        assert answer.ok, answer.text
        return answer.json()


def figures(raced: Sequence[Raced]) -> str:
    """How many ended how, and how long those took that came after the sleep."""
    kinds = Counter(f"{'sleep' if each.slept_first else 'prompt'} first, {each.state}" for each in raced)
    took = sorted(each.seconds for each in raced if each.slept_first) or [0.0]
    p99 = statistics.quantiles(took, n=100)[-1] if len(took) > 1 else took[0]
    return f"{dict(kinds)}; after a sleep p50 {statistics.median(took):.2f} s, p99 {p99:.2f} s, most {took[-1]:.2f} s"


def run(place: Place, trials: int, chance: random.Random) -> list[str]:
    """Race so often; what went wrong. After that another session is raced with; a tenth of them is enough."""
    raced, wrong = [], []
    race = Race(place, chance)
    for number in range(trials):
        try:
            raced.append(race.trial(number))
        except AssertionError as error:
            print(f"trial {number}: {error}", flush=True)
            wrong.append(f"trial {number}: {error}")
            if len(wrong) == max(1, trials // 10):
                break
            race = Race(place, chance)
    print(f"\n{len(raced)} of {trials} trials went well: {figures(raced)}", flush=True)
    return wrong
