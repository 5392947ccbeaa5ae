"""The `Prefer` header (RFC 7240): how long a caller wants to wait for the end state of what it asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from flask import Flask, Response, g, request

from app.api.context import core
from app.api.holding import Kind, place
from app.sessions.model import Record

WAIT_PATTERN = re.compile(r'wait\s*=\s*"?(\d{1,9})"?')


@dataclass(frozen=True)
class Preference:
    """How long to wait (s), and what to tell the caller was honoured, "" for nothing."""

    seconds: float
    applied: str


def preference(header: str, default: float, most: float) -> Preference:
    """What a `Prefer` header asks for, in a call that waits `default` seconds by itself; never more
    than `most`. As the RFC demands, what is unknown or malformed is ignored; `wait` beats `respond-async`,
    which then says what to do once it ran out."""
    wished = [part.strip().lower() for part in header.split(",")]
    for part in wished:
        if match := WAIT_PATTERN.fullmatch(part):
            seconds = min(float(match[1]), most)
            return Preference(seconds, f"wait={seconds:.0f}")
    if "respond-async" in wished:
        return Preference(0.0, "respond-async")
    return Preference(min(default, most), "")


def wait_for(record: Record, until: Callable[[Record], bool], default: float = 0.0) -> Record:
    """The record once `until` holds, or as it is after the time the caller gives it (by default
    `default` seconds)."""
    seconds = wanted_wait(default)
    if not seconds or until(record):
        return record
    return core().sessions.wait(record.uuid, until, seconds)


@contextmanager
def waiting(user_id: str, uuid: str = "", default: float = 0.0) -> Iterator[None]:
    """A place among the caller's waiting calls, if it waits. Raises a 429, with nothing done, when there is none."""
    seconds = preference(request.headers.get("Prefer", ""), default, core().settings.wait_max).seconds
    with place(Kind.WAIT, user_id, uuid) if seconds else nullcontext():
        yield


def wanted_wait(default: float) -> float:
    """How long the caller wants to wait (s), by default `default`; it is told which preference that follows."""
    wish = preference(request.headers.get("Prefer", ""), default, core().settings.wait_max)
    g.preference_applied = wish.applied
    return wish.seconds


def longest_wait() -> float:
    """The most seconds the current request may wait."""
    settings = core().settings
    return preference(request.headers.get("Prefer", ""), settings.wait_default, settings.wait_max).seconds


def register_prefer(app: Flask) -> None:
    """Tell callers of `app` which preference was honoured."""

    def show_applied(response: Response) -> Response:
        if applied := g.get("preference_applied"):
            response.headers["Preference-Applied"] = applied
        return response

    app.after_request(show_applied)
