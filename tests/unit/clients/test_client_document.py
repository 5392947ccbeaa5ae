"""The client and the OpenAPI document say the same: calls, their parameters, answers, and events.

A call that is added to the API fails here until the client has a method for it: `@operation("itsId")` in
clients/python/workspaces/resources, with a dataclass of the answer's name in models.py.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from flask import Flask

from app.api.event_schemas import STREAM, STREAMS
from app.api.openapi import api_of
from tests.conftest import ROOT
from workspaces import Workspaces, events, models
from workspaces.cli.running import WHY
from workspaces.decoding import Answer
from workspaces.http import JSON, TEXT
from workspaces.kept_bytes import OCTETS
from workspaces.pages import Pages
from workspaces.resources.base import OPERATION
from workspaces.resources.services import Restart
from workspaces.sse import Stream
from workspaces.version import VERSION

FOR_BROWSERS = {"root", "docs", "docsAsset", "again"}
"""Operations that are pages, and no calls of a program."""

OPENMETRICS = "application/openmetrics-text"
"""A second type of the same text."""

BY_A_PARAMETER = {("readTree", "application/zip")}
"""Types that a parameter of the method for another type asks for."""

PYTHON_NAMES = {"from": "first", "to": "last", "Prefer": "wait", "Idempotency-Key": "idempotency_key"}
PYTHON_NAMES |= {"Last-Event-ID": "after", "If-Match": "if_match", "If-None-Match": "new"}
BY_ITSELF = {"X-Request-Id"}
"""Headers that the client sends without being asked."""

OWN = {"downloadBackup": {"to"}}
"""Parameters that are the client's alone, by operation: where a download goes."""

REQUIRED_BY_CLIENT = {"writeTree": {"path"}}
"""Parameters that stand before a content."""

CONDITIONS = ("If-Match", "If-None-Match")
"""A read needs none, but to go on where it broke."""

IGNORED = {STREAM: {"Prefer"}, OCTETS: {"Prefer", "Last-Event-ID", *CONDITIONS}}
IGNORED |= dict.fromkeys((JSON, TEXT), {"Last-Event-ID"})
"""Parameters that the API ignores in calls for this type of answer."""

FOR_BYTES = {"stream"}
"""Parameters that ask for bytes: the method that answers them requires these, and no other has them."""

IN_ANOTHER = {"Session": ("SessionStatus", "SessionDetail")}
"""Dataclasses that put together what the document has in an object within another."""

OUTPUT_EVENTS = ("StdoutEvent", "StderrEvent")
"""Classes that tell two events with the same data apart."""

LEFT_OUT = {"session": "SessionStatus"}
"""Fields of the document that no dataclass has: the object within."""

Method = Callable[..., Any]


@pytest.fixture(scope="module")
def document(uncalled_app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(api_of(uncalled_app).document_text())
    return found


@pytest.fixture(scope="module")
def methods() -> dict[tuple[str, str], Method]:
    """The client's methods, by operation and type of the answer."""
    with Workspaces("http://api.test", "key") as client:
        found = [method for each in vars(client).values() for _, method in inspect.getmembers(each, inspect.ismethod)]
    called = {getattr(each, OPERATION): each.__func__ for each in found if hasattr(each, OPERATION)}
    assert len(called) == sum(hasattr(each, OPERATION) for each in found), "two methods call the same operation"
    return called


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each operation by its id, with the parameters of its path."""
    return {
        operation["operationId"]: operation
        | {"parameters": [*item.get("parameters", []), *operation.get("parameters", [])]}
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    }


def resolved(document: Mapping[str, Any], part: Any) -> Any:
    while "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def answers(document: Mapping[str, Any], operation: Mapping[str, Any]) -> dict[str, Any]:
    """The schemas of the successful answers by their type, which is "" for none."""
    found: dict[str, Any] = {}
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            content = resolved(document, response).get("content") or {"": {"schema": None}}
            found |= {media: each["schema"] for media, each in content.items()}
    return found


def test_every_operation_has_one_method_for_each_type_of_its_answer(document, operations, methods):
    documented = {
        (name, media)
        for name, operation in operations.items()
        for media in answers(document, operation)
        if name not in FOR_BROWSERS and media != OPENMETRICS
    }
    assert methods.keys() == documented - BY_A_PARAMETER


def test_methods_take_the_parameters_of_their_operation_and_require_the_required(document, operations, methods):
    """Those of the path, of the query and of the headers, and the fields of the body."""
    for (name, media), method in methods.items():
        operation, taken = operations[name], inspect.signature(method).parameters
        parameters = [resolved(document, each) for each in operation["parameters"]]
        content = operation.get("requestBody", {}).get("content", {})
        body = resolved(document, content[JSON]["schema"]) if JSON in content else {}
        wanted = {each["name"] for each in parameters} - BY_ITSELF | body.get("properties", {}).keys()
        ignored = IGNORED.get(media, set()) | (set() if media == OCTETS else FOR_BYTES)
        bytes_sent = {"content"} if OCTETS in content else set()
        expected = {PYTHON_NAMES.get(each, each) for each in wanted - ignored} | bytes_sent
        assert taken.keys() - {"self"} - OWN.get(name, set()) == expected, name
        required = {each["name"] for each in parameters if each.get("required")} | {*body.get("required", [])}
        required |= FOR_BYTES & expected | bytes_sent | REQUIRED_BY_CLIENT.get(name, set())
        given = {each for each, parameter in taken.items() if parameter.default is parameter.empty} - {"self"}
        assert given == required, name


# Answers


def test_methods_answer_what_the_document_says(document, operations, methods):
    for (name, media), method in methods.items():
        kind = get_type_hints(method)["return"]
        schema = answers(document, operations[name])[media] or {}
        where = method.__qualname__
        if get_origin(kind) is Pages:
            kind = get_args(kind)[0]
        if inspect.isclass(kind) and issubclass(kind, Answer):
            reference = schema["$ref"].rpartition("/")[2]
            assert reference == IN_ANOTHER.get(kind.__name__, (kind.__name__,))[0], where
        else:
            assert "$ref" not in schema, f"{where} answers no dataclass"
        if media == STREAM:
            assert get_origin(kind) is Stream, where


def dataclasses_of(module: types.ModuleType) -> dict[str, type]:
    found = inspect.getmembers(module, lambda each: inspect.isclass(each) and issubclass(each, Answer))
    return {name: each for name, each in found if each.__module__ == module.__name__}


def fields_of_schemas(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The properties of these schemas; whether each is required too."""
    found: dict[str, Any] = {}
    for name in names:
        schema = document["components"]["schemas"][name]
        for field, described in schema["properties"].items():
            if LEFT_OUT.get(field) != name:
                found[field] = (described, field in schema.get("required", []))
    return found


@pytest.mark.parametrize("name", sorted({*dataclasses_of(models)} - {"Usage"}))
def test_a_dataclass_has_the_fields_of_its_schema(document, name):
    compare(document, dataclasses_of(models)[name], fields_of_schemas(document, *IN_ANOTHER.get(name, (name,))))


@pytest.mark.parametrize("name", sorted({*dataclasses_of(events)} - {"Event", "FeedEvent", *OUTPUT_EVENTS}))
def test_an_events_class_has_the_fields_of_its_data(document, name):
    known = {"id": ({"type": "string"}, True), "type": ({"type": "string"}, True)}
    compare(document, dataclasses_of(events)[name], known | fields_of_schemas(document, name))


def test_every_answers_schema_has_a_dataclass(document, operations):
    """Those that are reached from answers and events of the operations that the client has."""
    reached: set[str] = set()
    waiting = [
        schema
        for name, operation in operations.items()
        if name not in FOR_BROWSERS
        for schema in answers(document, operation).values()
        if schema
    ]
    while waiting:
        part = waiting.pop()
        name = part.get("$ref", "").rpartition("/")[2] if isinstance(part, dict) else ""
        if name in reached:
            continue
        reached.update(filter(None, [name]))
        inner = document["components"]["schemas"][name] if name else part
        waiting += [
            each for each in (inner.values() if isinstance(inner, dict) else inner) if isinstance(each, dict | list)
        ]
    joined = {schema for schemas in IN_ANOTHER.values() for schema in schemas}
    assert reached - joined - {"UnsavedWork"} - set(STREAMS) <= {*dataclasses_of(models), *dataclasses_of(events)}


def test_every_type_of_event_has_a_class(document):
    def kinds(*names: str) -> set[str]:
        streams = [document["components"]["schemas"][name]["items"]["oneOf"] for name in names]
        return {event["properties"]["event"]["const"] for stream in streams for event in stream}

    assert kinds("SessionEvents", "ChatEvents") == events.TYPES.keys()
    assert kinds("ExecEvents") == events.EXEC_TYPES.keys()
    assert kinds("LogEvents") == events.SERVICE_TYPES.keys()
    assert kinds("FileEvents") == events.FILE_TYPES.keys()
    assert kinds("FeedEvents") == events.FEED_TYPES.keys()


@pytest.mark.parametrize(
    ("words", "schema", "field"),
    [
        (models.Status, "SessionDetail", "status"),
        (models.MessageState, "Message", "state"),
        (models.ExecState, "Exec", "state"),
        ([*WHY, None], "Exec", "reason"),
        (models.ServiceState, "Service", "state"),
        ([*WHY, None], "Service", "reason"),
        (get_args(Restart), "Service", "restart"),
        (models.PortState, "Port", "state"),
    ],
)
def test_words_are_those_of_the_document(document, words, schema, field):
    assert [*words] == document["components"]["schemas"][schema]["properties"][field]["enum"]


def compare(document: Mapping[str, Any], kind: type, schema: Mapping[str, Any]) -> None:
    hints = get_type_hints(kind)
    fields = {each.metadata.get("name", each.name): each for each in dataclasses.fields(kind) if each.name != "raw"}
    assert fields.keys() == schema.keys(), kind.__name__
    for name, field in fields.items():
        described, required = schema[name]
        expected = type_of(document, described)
        hint, optional = bare(hints[field.name])
        where = f"{kind.__name__}.{field.name}"
        assert fits(hint, expected), f"{where} is {hint}, and {described} in the document"
        nullable = "null" in as_list(described.get("type")) or None in described.get("enum", [])
        nullable |= any(each.get("type") == "null" for each in described.get("anyOf", []))
        absent = not required and get_origin(hint) is not tuple and hint is not Any
        assert not (nullable or absent) or optional or hint is Any, f"{where} may be null or absent"


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def bare(hint: Any) -> tuple[Any, bool]:
    """A type without None, and whether None was part of it."""
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (each for each in get_args(hint) if each is not type(None))
        return inner, True
    return hint, False


def type_of(document: Mapping[str, Any], described: Mapping[str, Any]) -> Any:
    """The Python type of a property: for an object that has a name in the document, its name."""
    for each in described.get("anyOf", []):
        if "$ref" in each:
            described = each
    if "$ref" in described:
        return described["$ref"].rpartition("/")[2]
    kinds = [each for each in as_list(described.get("type")) if each != "null"]
    if len(kinds) != 1:
        return Any
    if kinds == ["string"]:
        return {"date-time": datetime, "date": date}.get(described.get("format", ""), str)
    return {"integer": int, "number": float, "boolean": bool, "object": dict, "array": tuple}[kinds[0]]


def fits(hint: Any, expected: Any) -> bool:
    if get_origin(hint) is Mapping:
        return expected is dict or expected == "UnsavedWork"
    if get_origin(hint) is tuple:
        return expected is tuple
    if inspect.isclass(hint) and issubclass(hint, Answer):
        return bool(hint.__name__ == expected)
    return bool(hint == expected)


# The package


def test_the_client_needs_httpx_alone():
    """No code of the server, and no other package; but to decrypt a backup, which is an extra."""
    folder = ROOT / "clients/python/workspaces"
    allowed = {"workspaces", "httpx", *sys.stdlib_module_names}
    for path in [*folder.glob("*.py"), *folder.glob("resources/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            extra = {"cryptography"} if path.name == "encrypted_backup.py" else set()
            assert {name.partition(".")[0] for name in names} <= allowed | extra, path


def test_the_package_has_the_services_version():
    found = re.search(r"^version = (.*)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert found is not None
    assert found[1] == VERSION
