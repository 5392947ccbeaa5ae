"""The schema of a problem document, which `app/http/problems.py` writes."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.answers import Items, Object, Part, Text, Whole
from app.api.request_fields import UUID_REGEX
from app.core.access.keyring import CATEGORIES


class UsedUpLimitSchema(Schema):
    """A limit of requests that is used up."""

    category = Text("of which calls", enum=sorted(CATEGORIES))
    rate = Text(examples=["100 per 1 minute"])
    of = Text(enum=["address", "key", "session", "session_token"])
    name = Text("the name of the key", null=True)


class ProblemSchema(Schema):
    """RFC 9457."""

    type = Text()
    title = Text()
    status = Whole()
    detail = Text()
    instance = Text()
    error = Text("a stable code", examples=["session_not_found"])
    request_id = Text()
    errors = Object(values=Items(fields.String()), optional=True)
    limit = Part(UsedUpLimitSchema, "of `rate_limited`: which limit, and whose", optional=True)
    uuid = Text(
        "the session that was created and did not start; Location has its path", optional=True, pattern=UUID_REGEX
    )
