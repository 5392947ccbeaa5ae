"""Which of the prompts on the disk are still to be worked on: that is the manager's to say, not the disk's.

A folder may be a copy: of a session restored from a backup, or of this one as it once was. What is open in it may have
ended since, or may be another's.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from app.agent.gateway import Answer, Gateway, GatewayDown, waits

log = logging.getLogger(__name__)

PATH = "/agent/v1/unfinished"

MOST = 1_000
"""Prompts that are asked about, the newest of them; no more than a few hundred can be unfinished."""

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""The manager's rule: it has no prompt with another id."""

EARLIER_RELEASE = frozenset({404, 405})


class NotKnown(Exception):
    """The manager could not be asked before the process had to end."""


class Standing(NamedTuple):
    """What the manager knows of some prompts: which have not ended, and of which it may have lost what it knew."""

    unfinished: frozenset[str]
    unknown: frozenset[str] = frozenset()


Ask = Callable[[Mapping[str, float]], Standing | None]
"""Tells how prompts stand, which are given with the seconds since each was taken; None when nobody can tell."""


def nobody(ages: Mapping[str, float]) -> None:
    """There is no manager to ask."""


def ask(gateway: Gateway, ages: Mapping[str, float], stopping: threading.Event) -> Standing | None:
    """Ask the manager until it answers; None for a manager of an earlier release. NotKnown."""
    asked = {id_: round(age, 3) for id_, age in list(ages.items())[-MOST:] if ID.fullmatch(id_)}
    next_wait = waits()
    while not stopping.is_set():
        try:
            answer = gateway.call("POST", PATH, {"prompts": asked})
        except GatewayDown:
            answer = Answer(0, b"")
        said = _object(answer.body)
        if answer.ok and said is not None:
            return Standing(_ids(said.get("unfinished")), _ids(said.get("unknown")))
        # Without a problem of the manager's it is something in front of it that answers.
        if answer.status in EARLIER_RELEASE and said is not None and "error" in said:
            return None
        stopping.wait(next_wait())
    raise NotKnown


def _object(body: bytes) -> dict[str, object] | None:
    try:
        said = json.loads(body)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _ids(value: object) -> frozenset[str]:
    return frozenset(each for each in value if isinstance(each, str)) if isinstance(value, list) else frozenset()
