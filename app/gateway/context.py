"""What a view of the gateway reaches for: the parts its process was built with, and whose request it works on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import cast

from flask import current_app, g

from app.gateway.calls import Hangups
from app.gateway.figures import Figures
from app.gateway.pacing import Pace
from app.gateway.provider import Provider
from app.sessions.core import Core
from app.sessions.model import Record
from app.sessions.spending import Spending

EXTENSION = "workspace_gateway"


@dataclass(frozen=True)
class Gateway:
    """One of each for the process. `deliveries` paces those an agent sets going by its call, `renewals` the new tokens
    that ended ones set going, `old_tokens` what the log says of those of an earlier release, all by the clock `ticks`;
    `checkpoints` bounds how many pieces of conversations are in memory."""

    core: Core
    spending: Spending
    provider: Provider
    figures: Figures
    hangups: Hangups
    deliveries: Pace
    renewals: Pace
    old_tokens: Pace
    checkpoints: BoundedSemaphore
    ticks: Callable[[], float] = time.monotonic


def gateway() -> Gateway:
    """The parts of this process."""
    return cast(Gateway, current_app.extensions[EXTENSION])


def session() -> Record:
    """The session whose token the request brought, as it was when the request came."""
    return cast(Record, g.session)
