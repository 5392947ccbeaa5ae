"""The `Prefer` header (RFC 7240): how long a caller wants to wait for the end state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from flask import Flask, Response, g, request

from app.api.current import core
from app.api.tenant_limits import Kind, hold
from app.core.sessions.model import Record

WAIT_PATTERN = re.compile(r'wait\s*=\s*"?(\d{1,9})"?')


@dataclass(frozen=True)
class Preference:
    """How long to wait (s), and the preference that was applied, "" for none."""

    seconds: float
    applied: str


def preference(header: str, default: float, most: float) -> Preference:
    """The wait that a `Prefer` header asks for, `default` seconds without one, and never more than `most`. As the RFC
    demands, unknown or malformed preferences are ignored; with both, `wait` beats `respond-async`."""
    wished = [part.strip().lower() for part in header.split(",")]
    for part in wished:
        if match := WAIT_PATTERN.fullmatch(part):
            seconds = min(float(match[1]), most)
            return Preference(seconds, f"wait={seconds:.0f}")
    if "respond-async" in wished:
        return Preference(0.0, "respond-async")
    return Preference(min(default, most), "")


def wait_for(record: Record, until: Callable[[Record], bool], default: float = 0.0) -> Record:
    """The record once `until` holds, or as it is after the caller's wait (without one, `default` seconds)."""
    seconds = wanted_wait(default)
    if not seconds or until(record):
        return record
    return core().sessions.wait(record.uuid, until, seconds)


@contextmanager
def waiting(user_id: str, uuid: str = "", default: float = 0.0) -> Iterator[None]:
    """Hold one of the caller's waiting calls, if it waits. Raises `TooManyWaits`, with nothing done, at its limit."""
    seconds = preference(request.headers.get("Prefer", ""), default, core().settings.wait_max).seconds
    with hold(Kind.WAIT, user_id, uuid) if seconds else nullcontext():
        yield


def wanted_wait(default: float) -> float:
    """How long the caller wants to wait (s), without a wish `default`; the answer names the preference applied."""
    wish = preference(request.headers.get("Prefer", ""), default, core().settings.wait_max)
    g.preference_applied = wish.applied
    return wish.seconds


def longest_wait() -> float:
    """The longest wait of the current request, in s."""
    settings = core().settings
    return preference(request.headers.get("Prefer", ""), settings.wait_default, settings.wait_max).seconds


def register_prefer(app: Flask) -> None:
    """Name the applied preference in the answers of `app`."""

    def show_applied(response: Response) -> Response:
        if applied := g.get("preference_applied"):
            response.headers["Preference-Applied"] = applied
        return response

    app.after_request(show_applied)
