"""How the fuzzer calls: each call is noted, with what became of it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import requests
from urllib3.exceptions import NewConnectionError

from tests.faults.chronicle import Deed, Outcome
from tests.faults.scene import LEAVE_ASLEEP, WORK, Scene, Subject

ASYNC = {"Prefer": "respond-async"}
STREAM = {"Accept": "text/event-stream"}

AWAY = 0.05
"""s after a call that was not answered: while nothing runs there is nothing to be quick for."""

OVERTAKEN = ("start_failed", "stop_failed", "teardown_failed", "superseded", "request_in_progress")
"""Codes of a 409 to a call that had its effect before it waited."""

ENDED = "illegal_state"
"""The code of a 409 to a call whose workspace may have ended in the middle of its work."""

BEFORE_IT = ("session_not_found", "asleep", "rate_limited", "unauthorized", "invalid_request")
"""Codes of refusals of calls that did not get as far as a workspace."""


class Caller:
    """A client called `name`. What it chooses is chosen by `chance`; it waits for nothing once it is `over`."""

    def __init__(self, scene: Scene, name: str, chance: random.Random, over: threading.Event) -> None:
        self.scene, self.name, self.chance, self.over = scene, name, chance, over

    def patience(self) -> dict[str, str]:
        """How long a call is to wait for its end state."""
        return self.chance.choice([ASYNC, ASYNC, ASYNC, {"Prefer": "wait=1"}])

    def begin(
        self, subject: Subject | None, what: str, about: str = "", noting: Callable[[Deed], object] = lambda _: None
    ) -> Deed:
        """Note a call that is about to be made, with the session and by `noting`."""
        deed = self.scene.chronicle.begin(what, self.name, subject.uuid if subject else "", about)
        if subject is not None:
            subject.deeds.append(deed)
        noting(deed)
        return deed

    def do(
        self,
        subject: Subject | None,
        what: str,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str],
        *,
        about: str = "",
        timeout: float = 20.0,
        noting: Callable[[Deed], object] = lambda _: None,
    ) -> tuple[Deed, requests.Response | None]:
        """Make a call, and note it and what became of it; the answer, None where there was none."""
        deed = self.begin(subject, what, about, noting)
        answer = None
        try:
            answer = self.scene.place.call(method, path, body, headers, timeout)
            outcome, detail = self.judged(deed, answer), f"{answer.status_code} {_shown(answer)}"
        except requests.RequestException as error:
            outcome = Outcome.REFUSED if never_arrived(error) else Outcome.UNKNOWN
            detail = type(error).__name__
            self.over.wait(AWAY)
        self.scene.chronicle.end(deed, outcome, detail)
        return deed, answer

    def follow(
        self,
        subject: Subject,
        what: str,
        path: str,
        body: Any,
        *,
        about: str,
        timeout: float,
        most: int,
        noting: Callable[[Deed], object],
    ) -> None:
        """Make a call whose answer is a stream, read so many of its events, and go away."""
        deed = self.begin(subject, what, about, noting)
        outcome, seen = Outcome.UNKNOWN, 0
        try:
            with self.scene.place.call("POST", path, body, STREAM, timeout, stream=True) as answer:
                outcome = self.judged(deed, answer)
                if outcome is Outcome.ACCEPTED:
                    outcome = Outcome.UNKNOWN
                    for line in answer.iter_lines(chunk_size=1):
                        seen += line.startswith(b"event:")
                        # The first thing told is told because it was taken.
                        outcome = Outcome.ACCEPTED if seen else outcome
                        if seen >= most:
                            break
        except (requests.RequestException, AttributeError) as error:
            outcome = Outcome.REFUSED if never_arrived(error) else outcome
        self.scene.chronicle.end(deed, outcome, f"stream, {seen} events")

    def judged(self, deed: Deed, answer: requests.Response) -> Outcome:
        """What an answer says of its call; one that no fault explains is noted as trouble."""
        status = answer.status_code
        if status < 400:
            return Outcome.ACCEPTED
        code = code_of(answer)
        if status == 500 or (status != 502 and not code):
            self.scene.trouble("internal error", deed.uuid, f"{deed.what} {deed.about}: {status} {answer.text[:500]}")
        if status >= 500 or code in OVERTAKEN or (code == ENDED and deed.what in WORK | LEAVE_ASLEEP):
            return Outcome.UNKNOWN
        deed.arrived = code not in BEFORE_IT
        return Outcome.REFUSED


def code_of(answer: requests.Response) -> str:
    """The code of a problem document, "" for another answer."""
    with suppress(ValueError, AttributeError):
        return str(answer.json().get("error", ""))
    return ""


def never_arrived(error: Exception) -> bool:
    """Whether nobody listened where the call went."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError)


def _shown(answer: requests.Response) -> str:
    """What an answer says, as far as it is text."""
    kind = answer.headers.get("Content-Type", "")
    return answer.text if "json" in kind else f"{len(answer.content)} bytes of {kind}"
