"""Blueprints of this API: how their views are documented, and how bodies and queries are read.

Whatever a caller may send ends here as checked values or as a 400, 413 or 415.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NoReturn

import flask
import flask_smorest
from marshmallow import RAISE, Schema, ValidationError
from webargs import core as webargs
from webargs.flaskparser import FlaskParser
from werkzeug.routing import BaseConverter

from app.bodies import body_of_request, parse_body
from app.problems import Problem
from app.sessions.foreign_json import SMALL

ALWAYS = (429, 500, 503)
WITH_KEY = (401, 403)
WITH_BODY = (400, 409, 413, 415, 422)


class SessionName(BaseConverter):
    """The part of a path that names a session: anything but `create`, which is a call of its own, so that
    its wrong methods are 405. What can't be a name is told as a session that doesn't exist."""

    regex = r"(?!create\Z)[^/]+"


class EdgeParser(FlaskParser):
    """Reads JSON bodies and query strings; an unknown field is an error in both."""

    DEFAULT_VALIDATION_STATUS = 400
    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": RAISE}

    def load_json(self, req: flask.Request, schema: Schema) -> Any:
        body = body_of_request()
        if not body:
            return webargs.missing
        charset = req.mimetype_params.get("charset", "utf-8").lower()
        if req.mimetype != "application/json" or charset not in ("utf-8", "utf8"):
            raise Problem(415, "unsupported_media_type", "The body must be application/json, in UTF-8.")
        try:
            return parse_body(body, SMALL)
        except ValueError as error:
            raise Problem(400, "invalid_json", "The body is not valid JSON in UTF-8.") from error

    def load_querystring(self, req: flask.Request, schema: Schema) -> Any:
        repeated = {name: ["Give it once."] for name, values in req.args.lists() if len(values) > 1}
        if repeated:
            raise Problem(400, "invalid_request", "A parameter came more than once.", errors=repeated)
        return super().load_querystring(req, schema)

    def handle_error(
        self,
        error: ValidationError,
        req: flask.Request,
        schema: Schema,
        *,
        error_status_code: int | None,
        error_headers: Mapping[str, str] | None,
    ) -> NoReturn:
        messages = error.normalized_messages()
        fields = {path: texts for location in messages.values() for path, texts in _flat("", location)}
        raise Problem(400, "invalid_request", "Some values are not acceptable; see errors.", errors=fields) from error


def _flat(path: str, messages: Any) -> list[tuple[str, list[str]]]:
    """marshmallow's nested messages as pairs of a dotted path and its texts."""
    if isinstance(messages, Mapping):
        pairs = [_flat(f"{path}.{name}" if path else str(name), inner) for name, inner in messages.items()]
        return [pair for inner in pairs for pair in inner]
    texts = messages if isinstance(messages, list) else [messages]
    return [(("body" if path in ("", "_schema") else path), [str(text) for text in texts])]


class Blueprint(flask_smorest.Blueprint):
    """A blueprint whose operations are named and say which errors they answer with."""

    ARGUMENTS_PARSER = EdgeParser()

    def operation(
        self, name: str, *errors: int, anonymous: bool = False, body: bool = False, by_token: bool = False
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Document a view: its operationId and the statuses of its problem documents. `body` for POSTs,
        which may all carry an Idempotency-Key, `anonymous` for those that need no key, `by_token` for those that
        a session token opens as well."""
        statuses = {*errors, *ALWAYS, *(() if anonymous else WITH_KEY), *(WITH_BODY if body else ())}
        responses = {str(status): HTTPStatus(status).name for status in sorted(statuses)}
        options: dict[str, Any] = {"security": []} if anonymous else {}
        if by_token:
            options["security"] = [{"ApiKey": []}, {"SessionToken": []}]
        document: Callable[[Callable[..., Any]], Callable[..., Any]] = self.doc(
            operationId=name, responses=responses, **options
        )
        return document
