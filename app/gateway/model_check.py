"""Asks the model's API once a minute whether it answers, for the diagnosis: nobody else has the key."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flask import Flask

from app.core.errors import StateUnavailable
from app.core.redis.model_answers import ModelAnswers
from app.gateway.parts import EXTENSION, Gateway
from app.gateway.provider import Provider

log = logging.getLogger(__name__)

ASKED_EVERY = 60.0
"""s between two questions, by all processes of the gateway."""

TIMEOUT = 5.0
"""s for an answer."""


class ModelCheck:
    """Asks for the list of models, which costs nothing, and notes how that went."""

    def __init__(self, provider: Provider, answers: ModelAnswers, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._answers = answers
        self._clock = clock

    def look(self) -> None:
        """Ask, unless that was done within a minute, or no model is configured."""
        if not self._provider.configured:
            return
        try:
            last = self._answers.last(self._clock())
            if last is not None and last.age < ASKED_EVERY:
                return
            began = time.monotonic()
            status, error = self._provider.probe(TIMEOUT)
            ms = round((time.monotonic() - began) * 1000)
            self._answers.note(self._clock(), status=status, error=error, ms=ms)
        except StateUnavailable as failure:
            log.warning("the answer of the model's API was not noted: %s", failure)


def of_app(app: Flask) -> ModelCheck:
    """That of a gateway."""
    parts: Gateway = app.extensions[EXTENSION]
    return ModelCheck(parts.provider, parts.core.model_answers)
