"""Holds real answers, and the events of real streams, against the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
from flask.testing import FlaskClient

from app.api.event_schemas import STREAM
from app.api.openapi import api_of
from tests.events import Events

Schema = Mapping[str, Any]


class Document:
    """The OpenAPI document of a service. The methods raise an `AssertionError` for what it does not allow."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self._paths = [(_pattern(path), path) for path in sorted(document["paths"], key=lambda path: path.count("{"))]
        self._validators: dict[str, Any] = {}
        self.seen: set[tuple[str, str, int, str]] = set()
        """What was checked: operationId, media type, status, and the type of the event if it was one."""

    def operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        """The operation of a request, None if there is none."""
        for pattern, template in self._paths:
            if pattern.fullmatch(path):
                found: Mapping[str, Any] | None = self.document["paths"][template].get(method.lower())
                return found
        return None

    def check(self, method: str, path: str, status: int, content_type: str, body: bytes) -> None:
        """Check a whole answer; a path that does not exist is not documented."""
        operation = self.operation(method, path)
        if operation is None or method == "HEAD":
            return
        media = content_type.partition(";")[0].strip()
        where = f"{method} {path} {status} {media}"
        schema = self._schema(operation, status, media, where)
        self.seen.add((operation["operationId"], media, status, ""))
        if media.endswith("json"):
            self._validate(schema, json.loads(body), where)
        elif schema is None:
            assert not body, f"{where} has a body"

    def check_event(self, method: str, path: str, kind: str, data: Any) -> None:
        """Check an event of the stream that answers this request."""
        operation = self.operation(method, path)
        assert operation is not None, f"{method} {path} streams, and is not in the document"
        where = f"{method} {path}, event {kind}: {data}"
        schema = self._schema(operation, 200, STREAM, where)
        assert schema is not None, where
        self.seen.add((operation["operationId"], STREAM, 200, kind))
        assert kind in self._kinds(schema["contentSchema"]), f"{where} is not in the document"
        self._validate(schema["contentSchema"], [{"id": "1-0", "event": kind, "data": data}], where)

    def _kinds(self, schema: Schema) -> set[str]:
        each = self._resolve(schema)["items"]["oneOf"]
        return {event["properties"]["event"]["const"] for event in each}

    def _schema(self, operation: Mapping[str, Any], status: int, media: str, where: str) -> Schema | None:
        """The schema of an answer, None if it has no body."""
        responses = operation["responses"]
        assert str(status) in responses, f"{where} is not in the document"
        content = self._resolve(responses[str(status)]).get("content")
        if content is None:
            return None
        for wanted in (media, "*/*"):
            if wanted in content:
                schema: Schema = content[wanted]["schema"]
                return schema
        raise AssertionError(f"{where} is not in the document, which has {', '.join(content)}")

    def _resolve(self, part: Any) -> Any:
        while "$ref" in part:
            found: Any = self.document
            for name in part["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            part = found
        return part

    def _validate(self, schema: Schema | None, value: Any, where: str) -> None:
        assert schema is not None, f"{where} has a body that is not in the document"
        name = json.dumps(schema, sort_keys=True)
        if name not in self._validators:
            whole = {**schema, "components": {"schemas": self.document["components"]["schemas"]}}
            self._validators[name] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        errors = [
            f"{'/'.join(map(str, e.instance_path))}: {e.message}" for e in self._validators[name].iter_errors(value)
        ]
        assert not errors, f"{where} is not as documented: {errors}"


def _pattern(template: str) -> re.Pattern[str]:
    """Of a path with this template, whose `{path}` is a path of its own."""
    parts = re.split(r"(\{\w+\})", template)
    names = {"{path}": "(?s:.+)"}
    return re.compile("".join(names.get(part, "[^/]+") if part[:1] == "{" else re.escape(part) for part in parts))


class CheckedClient(FlaskClient):
    """Flask's test client; it holds each answer against the app's document."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        response = super().open(*args, **kwargs)
        method, path = response.request.method, response.request.path
        document = document_of(api_of(self.application).document_text())
        if response.mimetype == STREAM:
            response.response = CheckedStream(document, method, path, response.response)
        elif not response.direct_passthrough:
            body = response.get_data()
            document.check(method, path, response.status_code, response.content_type or "", body)
        return response


class CheckedStream:
    """A stream that is answered; its events are checked as they pass."""

    def __init__(self, document: Document, method: str, path: str, parts: Any) -> None:
        self._document = document
        self._request = (method, path)
        self._whole = parts
        self._parts = iter(parts)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        part: bytes = next(self._parts)
        for kind, data in Events(part.decode().split("\n")):
            self._document.check_event(*self._request, kind, data)
        return part

    def close(self) -> None:
        if hasattr(self._whole, "close"):
            self._whole.close()


_documents: dict[str, Document] = {}


def document_of(text: str) -> Document:
    """The document in a JSON text; every app of a test run has the same."""
    if text not in _documents:
        _documents[text] = Document(json.loads(text))
    return _documents[text]
