"""Schemas of the calls on dead letters."""

from __future__ import annotations

from marshmallow import Schema

from app.api.answers import Items, Text, Time, Whole, status_field, uuid_field
from app.core.redis.dead_letters import LETTER_ID_PATTERN, DeadLetter
from app.core.redis.task_queue import ROUTES

ID_REGEX = f"^{LETTER_ID_PATTERN.pattern}$"


def queue_of(letter: DeadLetter) -> str | None:
    """The queue of its task; None if it is unknown."""
    return ROUTES.get(letter.task)


def tries_of(letter: DeadLetter) -> int | None:
    """Its attempts; None if it had none."""
    return letter.tries or None


class DeadLetterSchema(Schema):
    id = Text(pattern=ID_REGEX)
    at = Time(null=True)
    task = Text(examples=["sessions.wake"])
    queue = Text("of the task", of=queue_of, null=True)
    uuid = Text("the session it is about", null=True)
    generation = Whole("of the session's intent; null for a backup", null=True)
    tries = Whole("attempts that were made", of=tries_of, null=True)
    error = Text("the kind of the last error; null if its workers died", null=True, examples=["ArchiveError"])
    reason = Text("why it was given up", of="why", null=True)
    request_id = Text("of the request behind it", null=True)


class DeadLetterListSchema(Schema):
    total = Whole()
    dead_letters = Items(DeadLetterSchema, of="items")
    next_cursor = Text(null=True)


class RetriedSchema(Schema):
    id = Text("the dead letter's, which is dropped")
    uuid = uuid_field()
    task = Text()
    status = status_field()
