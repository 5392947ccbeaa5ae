"""Asks the manager which of the prompts on disk are still unfinished.

The folder may be a copy: of another session's backup, or of this session at an earlier time. A prompt that is open in
it may have ended since, or may belong to another session.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import NamedTuple

from app.agent.documents import strings
from app.agent.gateway_client import Answer, Gateway, GatewayDown, attempts

PATH = "/agent/v1/unfinished"

MOST = 1_000
"""Prompts in one question, the newest ones; at most a few hundred can be unfinished."""

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""The manager's rule for ids of prompts."""


class ProcessEnding(Exception):
    """The process is ending before the manager answered."""


class PromptStatus(NamedTuple):
    """Prompts the manager knows as unfinished, and prompts it may have lost its records of."""

    unfinished: frozenset[str]
    unknown: frozenset[str] = frozenset()


def fetch_status(gateway: Gateway, ages: Mapping[str, float], stopping: threading.Event) -> PromptStatus:
    """Ask the manager until it answers. `ages` are prompt ids with the seconds since each was accepted. Raises
    ProcessEnding."""
    prompts = {id_: round(age, 3) for id_, age in list(ages.items())[-MOST:] if ID.fullmatch(id_)}
    for _ in attempts(stopping):
        try:
            answer = gateway.call("POST", PATH, {"prompts": prompts})
        except GatewayDown:
            answer = Answer(0, b"")
        document = answer.document()
        if answer.ok and document is not None:
            unknown = strings(document.get("unknown"))
            return PromptStatus(frozenset(strings(document.get("unfinished"))), frozenset(unknown))
    raise ProcessEnding
