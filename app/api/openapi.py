"""The OpenAPI 3.1 document: the views' declarations, and what all calls share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

import flask_smorest
from flask import Flask
from flask_smorest import Blueprint
from flask_smorest.utils import prepare_response

from app.api.dead_letter_schemas import ID_REGEX
from app.api.event_schemas import STREAMS, schema_name, stream_schema
from app.api.exec_schemas import EXEC_ID_REGEX, VARIABLE_REGEX
from app.api.problem_schemas import ProblemSchema
from app.api.request_fields import BACKUP_REGEX, LABEL_REGEX, MESSAGE_ID_REGEX, UUID_REGEX
from app.api.service_schemas import SERVICE_NAME_REGEX
from app.http.problems import PROBLEM_TYPE

VERSION = "0.2.0"
EXTENSION = "openapi"
TITLE = "Workspace Session Manager"
DESCRIPTION = (
    "VS Code workspaces on demand: they sleep when idle, wake in seconds and are always restorable. "
    "Errors are RFC 9457 problem documents whose `error` is a stable code."
)

PLAIN: dict[str, Any] = {"type": "string"}
"""The schema of a text answer."""

METHODS = ("get", "put", "post", "delete")
EVENTS_PATHS = ("/session/{uuid}/events", "/session/{uuid}/changes", "/events")

WAITING = frozenset(
    {
        "backUpSession",
        "chat",
        "createSession",
        "deleteSession",
        "endExec",
        "exec",
        "getExec",
        "getService",
        "makeRestorePoint",
        "openPort",
        "restartService",
        "restoreBackup",
        "rollBackSession",
        "forkSession",
        "scaleDownSession",
        "scaleUpSession",
        "sleepSession",
        "startService",
        "wakeSession",
    }
)
"""The operations that heed `Prefer`."""

CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "readFile": ("IfMatch", "IfNoneMatch"),
    "writeFile": ("IfMatch", "OnlyNew"),
    "deleteFile": ("IfMatch",),
}
"""The operations that heed conditions, and which."""

RESUMED = frozenset({"getExec", "getServiceLog"})
"""The operations that heed `Last-Event-ID` besides those of `EVENTS_PATHS`, which take nothing else."""

PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "uuid": {"type": "string", "pattern": UUID_REGEX, "examples": ["k3v9x0qa"]},
    "name": {"type": "string", "pattern": BACKUP_REGEX, "examples": ["app-k3v9x0qa-20261120-080000.zip"]},
    "exec_id": {"type": "string", "pattern": EXEC_ID_REGEX, "examples": ["7f3a9c0de1b2a4f5"]},
    "port": {"type": "integer", "minimum": 1, "maximum": 65_535, "examples": [3_000]},
    "path": {"type": "string", "pattern": "^[^\\x00]+$", "examples": ["src/main.py"]},
    "message_id": {"type": "string", "pattern": MESSAGE_ID_REGEX, "examples": ["7f3a9c0de1b2a4f5"]},
    "letter_id": {"type": "string", "pattern": ID_REGEX, "examples": ["7f3a9c0de1b2a4f5"]},
    "asset": {"type": "string", "pattern": "^[a-z0-9.-]{1,40}$", "examples": ["swagger-ui.css"]},
}

SERVICE_PATHS = "/session/{uuid}/services/{name}"
SERVICE_NAME: dict[str, Any] = {"type": "string", "pattern": SERVICE_NAME_REGEX, "examples": ["web"]}
"""The `name` in these paths."""

PARAMETERS: dict[str, dict[str, Any]] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "1 to 128 of A-Z a-z 0-9 . _ -; returned, and added to log lines; any other value is replaced",
        "schema": {"type": "string"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "the same key and request within a day get the first answer again",
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=N` waits up to N seconds for the end state; `respond-async` does not wait",
        "schema": {"type": "string", "examples": ["wait=30", "respond-async"]},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "only a file with one of these ETags; `*`: only if there is one",
        "schema": {"type": "string", "examples": ['"a8-c-18ecacd7"']},
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "in": "header",
        "description": "only a file with none of these ETags",
        "schema": {"type": "string", "examples": ['"a8-c-18ecacd7"']},
    },
    "OnlyNew": {
        "name": "If-None-Match",
        "in": "header",
        "description": "`*`: only a new file",
        "schema": {"type": "string", "enum": ["*"]},
    },
    "LastEventId": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "resume after this event",
        "schema": {"type": "string", "pattern": "^[0-9]{1,19}(-[0-9]{1,19})?$"},
    },
}

HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"description": "the id of this request", "schema": {"type": "string"}},
    "RateLimit-Limit": {"description": "requests in a window", "schema": {"type": "integer"}},
    "RateLimit-Remaining": {"description": "requests left in this window", "schema": {"type": "integer"}},
    "RateLimit-Reset": {"description": "seconds until the next window", "schema": {"type": "integer"}},
    "Retry-After": {"description": "seconds to wait before trying again", "schema": {"type": "integer"}},
    "Preference-Applied": {"description": "the preference that was applied", "schema": {"type": "string"}},
    "Idempotency-Replayed": {"description": "true if this is the first answer again", "schema": {"type": "string"}},
}

EVERYWHERE = ("X-Request-Id", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
AGAIN_LATER = (HTTPStatus.TOO_MANY_REQUESTS.name, HTTPStatus.SERVICE_UNAVAILABLE.name)


class Api(flask_smorest.Api):
    """flask-smorest, with problem documents for errors, and without its own pages. The document is written when it is
    first asked for: it takes longer than everything else at the start of a process."""

    ERROR_SCHEMA = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME = None

    def __init__(self, app: Flask) -> None:
        self._blueprints: list[Blueprint] = []
        self._text = ""
        super().__init__(app)

    def register_blueprint(self, blp: Blueprint) -> None:
        """Register a blueprint in the application, and for the document."""
        self._app.extensions["flask-smorest"]["blp_name_to_api"][blp.name] = self
        self._app.register_blueprint(blp)
        self._blueprints.append(blp)

    def document_text(self) -> str:
        """The whole document in JSON, of the blueprints registered so far."""
        if not self._text:
            _begin_spec(self, super()._init_spec)
            for blp in self._blueprints:
                blp.register_views_in_doc(self, self._app, self.spec, name=blp.name, parameters=None)
                self.spec.tag({"name": blp.name, "description": blp.description})
            self._text = self._app.json.dumps(_document(self))
        return self._text

    def _init_spec(self, **_: Any) -> None:
        """Left to `document_text`."""

    def _register_responses(self) -> None:
        for status in HTTPStatus:
            response: dict[str, Any] = {"description": status.phrase}
            if status >= 400:
                response["schema"] = self.ERROR_SCHEMA
            prepare_response(response, self.spec, PROBLEM_TYPE)
            self.spec.components.response(status.name, response, lazy=True)

    def _register_error_handlers(self) -> None:
        """Left to app.http.problems, which also handles errors outside of views."""


def make_api(app: Flask) -> Api:
    """Collects the views' declarations; register the blueprints with it."""
    app.config.update(API_TITLE=TITLE, API_VERSION=VERSION, OPENAPI_VERSION="3.1.0")
    app.extensions[EXTENSION] = api = Api(app)
    return api


def api_of(app: Flask) -> Api:
    """What `make_api` made for this application."""
    return cast(Api, app.extensions[EXTENSION])


def _begin_spec(api: Api, begin: Callable[..., None]) -> None:
    """The document's parts that all calls share; `begin` is the library's own beginning."""
    begin(info={"description": DESCRIPTION, "license": {"name": "Apache-2.0"}})
    api.spec.components.security_scheme("ApiKey", {"type": "apiKey", "in": "header", "name": "X-API-Key"})
    api.spec.components.security_scheme("MetricsKey", {"type": "http", "scheme": "bearer"})
    api.spec.components.security_scheme("SessionToken", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    api.spec.options["security"] = [{"ApiKey": []}]
    for name, parameter in PARAMETERS.items():
        api.spec.components.parameter(name, parameter["in"], {k: v for k, v in parameter.items() if k != "in"})
    for name, header in HEADERS.items():
        api.spec.components.header(name, header)
    for schema in {each: None for kinds in STREAMS.values() for each in kinds.values()}:
        api.spec.components.schema(schema_name(schema), schema=schema)
    for name in STREAMS:
        api.spec.components.schema(name, stream_schema(name))


def _document(api: Api) -> dict[str, Any]:
    document: dict[str, Any] = api.spec.to_dict()
    for path, item in document["paths"].items():
        known = PATH_PARAMETERS | ({"name": SERVICE_NAME} if path.startswith(SERVICE_PATHS) else {})
        for parameter in item.get("parameters", ()):
            parameter["schema"] = known[parameter["name"]]
        for method in METHODS:
            if method in item:
                _complete(item[method], method, path)
    # apispec drops rules of a Dict field's keys, and of a schema as a whole.
    document["components"]["schemas"]["NewSession"]["properties"]["labels"]["propertyNames"] = {"pattern": LABEL_REGEX}
    document["components"]["schemas"]["NewExec"]["properties"]["env"]["propertyNames"] = {"pattern": VARIABLE_REGEX}
    schemas = document["components"]["schemas"]
    for one_of in ("FileChange", "KeepAlive", "Rollback"):
        schemas[one_of] |= {"minProperties": 1, "maxProperties": 1}
    schemas["Fork"] |= {"not": {"required": ["restore_point", "message_id"]}}
    schemas["NewExec"] |= {"not": {"required": ["tty", "stdin"]}}
    for name, response in document["components"]["responses"].items():
        response["headers"] = _header_refs(*EVERYWHERE, *(("Retry-After",) if name in AGAIN_LATER else ()))
    return document


def _complete(operation: dict[str, Any], method: str, path: str) -> None:
    """Add the parameters and headers that all operations of its kind have."""
    waits = operation["operationId"] in WAITING
    own = (*(("IdempotencyKey",) if method == "post" else ()), *(("Prefer",) if waits else ()))
    if path in EVENTS_PATHS:
        own = ("LastEventId",)
    if operation["operationId"] in RESUMED:
        own = (*own, "LastEventId")
    own = (*own, *CONDITIONS.get(operation["operationId"], ()))
    refs = [{"$ref": f"#/components/parameters/{name}"} for name in ("RequestId", *own)]
    operation["parameters"] = [*operation.get("parameters", ()), *refs]
    replayed, applied = ("Idempotency-Replayed",) if method == "post" else (), ("Preference-Applied",) if waits else ()
    headers = (*EVERYWHERE, *applied, *replayed)
    for response in operation["responses"].values():
        if "$ref" not in response:
            response["headers"] = _header_refs(*headers) | response.get("headers", {})


def _header_refs(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
