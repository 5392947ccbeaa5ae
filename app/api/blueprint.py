"""Blueprints of this API: the rules and the documentation of each route, and how bodies and queries are read.

A view gets checked values; anything else ends here as a 400, 413 or 415.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

import flask
import flask_smorest
from marshmallow import RAISE, Schema, ValidationError, fields
from webargs import core as webargs
from webargs.flaskparser import FlaskParser
from werkzeug.routing import BaseConverter

from app.core.untrusted_json import SMALL
from app.http.bodies import body_of_request, parse_body
from app.http.problems import Problem

ALWAYS = (429, 500, 503)
WITH_KEY = (401, 403)
WITH_BODY = (400, 409, 413, 415, 422)


RULES = "route_rules"
"""The attribute of a view function that holds its rules."""


@dataclass(frozen=True, kw_only=True)
class RouteRules:
    """What holds for a route before its view runs.

    `anonymous`: no key is needed. `session_token`: a session token opens it as well, for its own session. `rate`: the
    category its requests count in, None for no limit. `without_redis`: it has an answer while Redis is down. `audit`:
    its action in the audit, "" where only refusals are audited. `creates`: its answer names the session it created.
    `metrics_key`: a key of the role `metrics` opens it as well.
    """

    anonymous: bool = False
    session_token: bool = False
    rate: str | None = "default"
    without_redis: bool = False
    audit: str = ""
    creates: bool = False
    metrics_key: bool = False


USUAL = RouteRules()
"""The rules of a view that declares none."""

NO_ROUTE = RouteRules(anonymous=True, without_redis=True)
"""The rules of a path that does not exist: its answer is a 404."""


def rules_of(app: flask.Flask, endpoint: str | None) -> RouteRules:
    """The rules of an endpoint, the usual ones if its view declares none; `NO_ROUTE` for no endpoint."""
    rules: RouteRules = getattr(app.view_functions[endpoint], RULES, USUAL) if endpoint else NO_ROUTE
    return rules


def route_rules() -> RouteRules:
    """The rules of the current request's route."""
    return rules_of(flask.current_app, flask.request.endpoint)


class SessionName(BaseConverter):
    """The part of a path that names a session: anything but `create`, which is a call of its own, so that
    wrong methods of that are 405. A malformed name is answered as a session that doesn't exist."""

    regex = r"(?!create\Z)[^/]+"


class EdgeParser(FlaskParser):
    """Reads JSON bodies and query strings; an unknown field is an error in both. In a query, lists are repeated
    parameters."""

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
        lists = {name for name, field in schema.fields.items() if isinstance(field, fields.List)}
        given = {name: values for name, values in req.args.lists() if name not in lists}
        repeated = {name: ["Give this parameter once."] for name, values in given.items() if len(values) > 1}
        if repeated:
            raise Problem(400, "invalid_request", "A query parameter is repeated.", errors=repeated)
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
        errors = {path: texts for location in messages.values() for path, texts in _flat("", location)}
        raise Problem(400, "invalid_request", "Some values are invalid; see `errors`.", errors=errors) from error


def _flat(path: str, messages: Any) -> list[tuple[str, list[str]]]:
    """marshmallow's nested messages as pairs of a dotted path and its texts."""
    if isinstance(messages, Mapping):
        pairs = [_flat(f"{path}.{name}" if path else str(name), inner) for name, inner in messages.items()]
        return [pair for inner in pairs for pair in inner]
    texts = messages if isinstance(messages, list) else [messages]
    return [(("body" if path in ("", "_schema") else path), [str(text) for text in texts])]


class Blueprint(flask_smorest.Blueprint):
    """A blueprint whose views declare their rules, their name in OpenAPI and their errors."""

    ARGUMENTS_PARSER = EdgeParser()

    def operation(
        self, name: str, *errors: int, body: bool = False, own: Collection[int] = (), **given: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a view: its operationId, the statuses of its problem documents, and its `RouteRules`. `body` for
        POSTs, which may all carry an Idempotency-Key. `own` are statuses for which the view declares an answer that is
        no problem document."""
        rules = RouteRules(**given)
        statuses = {*errors, *ALWAYS, *(() if rules.anonymous else WITH_KEY), *(WITH_BODY if body else ())} - {*own}
        responses = {str(status): HTTPStatus(status).name for status in sorted(statuses)}
        options: dict[str, Any] = {"security": []} if rules.anonymous else {}
        if rules.session_token:
            options["security"] = [{"ApiKey": []}, {"SessionToken": []}]
        if rules.metrics_key:
            options["security"] = [{"ApiKey": []}, {"MetricsKey": []}]

        def declare(view: Callable[..., Any]) -> Callable[..., Any]:
            setattr(view, RULES, rules)
            declared: Callable[..., Any] = self.doc(operationId=name, responses=responses, **options)(view)
            return declared

        return declare
