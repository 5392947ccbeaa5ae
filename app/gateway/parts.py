"""What the gateway's views need: the parts of the process, and the session of the request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from flask import current_app, g

from app.core.composition import Core
from app.core.prompts.token_usage import TokenUsage
from app.core.sessions.model import Record
from app.core.throttle import Throttle
from app.gateway.cancellation import DisconnectWatcher
from app.gateway.gateway_metrics import Metrics
from app.gateway.provider import Provider
from app.http.concurrency import Slots

EXTENSION = "workspace_gateway"


@dataclass(frozen=True)
class Gateway:
    """The parts of the process. By the clock `ticks`, three throttles limit for each session: `deliveries` and
    `notices` of restored files that hellos trigger, and `renewals` that ended tokens trigger. `begun_answers` remembers
    the prompts whose first token was noted. `checkpoints` limits how many pieces of conversations are parsed, in
    memory, at a time, and gives each session one."""

    core: Core
    token_usage: TokenUsage
    provider: Provider
    metrics: Metrics
    disconnects: DisconnectWatcher
    deliveries: Throttle
    notices: Throttle
    renewals: Throttle
    begun_answers: Throttle
    checkpoints: Slots
    ticks: Callable[[], float] = time.monotonic


def gateway() -> Gateway:
    """The parts of this process."""
    return cast(Gateway, current_app.extensions[EXTENSION])


def session() -> Record:
    """The session of the request's token, as it was when the request came."""
    return cast(Record, g.session)
