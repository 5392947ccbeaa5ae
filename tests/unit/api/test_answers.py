"""The fields of which answers are made: what each makes of objects and dictionaries, and what the document says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from inspect import unwrap
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from marshmallow import Schema, class_registry, fields, missing
from werkzeug import Response

from app.api.answers import (
    Items,
    Number,
    Object,
    OfTypes,
    Part,
    Shown,
    Text,
    Time,
    Truth,
    Whole,
    now_field,
    status_field,
    uuid_field,
)
from app.api.request_fields import UUID_REGEX
from app.core.sessions.model import Status
from tests.documented import Document
from tests.unit.api.helpers import Client

AT, AT_TEXT = 1_700_000_000.25, "2023-11-14T22:13:20.250Z"


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Wheel:
    size: int


@dataclass(frozen=True)
class Car:
    name: str = "a"
    colour: Colour = Colour.RED
    made_at: float = AT
    doors: int = 5
    price: float | Decimal = 1.5
    sold: bool = True
    marks: Mapping[str, Any] = field(default_factory=lambda: {"a": 1})
    value: str | int = 7
    wheel: Wheel = Wheel(3)
    wheels: tuple[Wheel, ...] = (Wheel(1), Wheel(2))
    tags: tuple[str, ...] = ("x", "y")


class WheelSchema(Schema):
    size = Whole()


class CarSchema(Schema):
    name = Text()
    colour = Text()
    made_at = Time()
    doors = Whole()
    price = Number()
    sold = Truth()
    marks = Object(values=fields.Integer())
    value = OfTypes(["string", "integer"])
    wheel = Part(WheelSchema)
    wheels = Items(WheelSchema)
    tags = Items(fields.String())


def made(field: fields.Field[Any], thing: object) -> Any:
    """The answer of a schema that has this one field, `shown`."""
    return Schema.from_dict({"shown": field})().dump(thing)


BOTH = pytest.mark.parametrize("form", [lambda car: car, vars], ids=["object", "dictionary"])


@BOTH
def test_each_field_shows_the_attribute_of_its_name(form: Any) -> None:
    assert CarSchema().dump(form(Car())) == {
        "name": "a",
        "colour": "red",
        "made_at": AT_TEXT,
        "doors": 5,
        "price": 1.5,
        "sold": True,
        "marks": {"a": 1},
        "value": 7,
        "wheel": {"size": 3},
        "wheels": [{"size": 1}, {"size": 2}],
        "tags": ["x", "y"],
    }


def test_values_have_the_types_of_json() -> None:
    body = CarSchema().dump(Car(colour=Colour.RED, price=Decimal("12.50")))
    assert type(body["colour"]) is str
    assert (type(body["price"]), body["price"]) == (float, 12.5)
    assert (type(body["wheels"]), type(body["tags"])) == (list, list)


NULLS: list[tuple[type[Any], Any]] = [
    *((Text, ""), (Text, None)),
    *((Time, 0.0), (Time, None)),
    *((Object, {}), (Object, None)),
    *((Whole, None), (Number, None), (Truth, None)),
]


@BOTH
@pytest.mark.parametrize(("kind", "empty"), NULLS)
def test_null_is_what_is_empty_where_the_field_says_so(kind: type[Any], empty: Any, form: Any) -> None:
    assert made(kind(of="value", null=True), form(Car(value=empty))) == {"shown": None}


@pytest.mark.parametrize(("kind", "nothing"), [(Whole, 0), (Number, 0.0), (Truth, False)])
def test_zero_and_false_are_not_null(kind: type[Any], nothing: Any) -> None:
    shown = made(kind(of="value", null=True), Car(value=nothing))["shown"]
    assert (type(shown), shown) == (type(nothing), nothing)


def test_a_part_is_null_only_without_an_object() -> None:
    part = Part(WheelSchema, of="value", null=True)
    assert made(part, {"value": None}) == {"shown": None}
    assert made(part, {"value": Wheel(0)}) == {"shown": {"size": 0}}


BOTH_OF = (Car(), vars(Car()))


@pytest.mark.parametrize(
    ("field", "thing", "shown"),
    [
        # What is empty, where the field does not say null.
        (Text(of="value"), Car(value=""), ""),
        (Object(of="marks"), Car(marks={}), {}),
        (Items(WheelSchema, of="wheels"), Car(wheels=()), []),
        # Another attribute, one of an attribute, and a function of the object.
        *((Text(of="name"), thing, "a") for thing in BOTH_OF),
        (Whole(of="wheel.size"), Car(), 3),
        (Whole(of=lambda car: car.doors - 1), Car(), 4),
        (Whole(of=lambda car: car["doors"] - 1), vars(Car()), 4),
        (Part(WheelSchema, of=lambda car: car.wheels[1]), Car(), {"size": 2}),
        (Items(WheelSchema, of=lambda car: car.wheels[:1]), Car(), [{"size": 1}]),
        # An optional one that is there; it may be null too.
        *((Text(of="name", optional=True), thing, "a") for thing in BOTH_OF),
        (Time(of="value", optional=True, null=True), {"value": 0.0}, None),
    ],
)
def test_of_says_what_a_field_shows(field: fields.Field[Any], thing: object, shown: object) -> None:
    assert made(field, thing) == {"shown": shown}


def test_the_name_in_the_answer_may_be_another() -> None:
    assert made(Text(of="name", name="class"), Car()) == {"class": "a"}


@BOTH
def test_an_optional_field_is_left_out_where_there_is_no_such_attribute(form: Any) -> None:
    assert made(Text(of="nothing", optional=True), form(Car())) == {}
    assert made(Text(of=lambda _: missing, optional=True), form(Car())) == {}
    assert made(Time(of="nothing", optional=True, null=True), form(Car())) == {}


@pytest.mark.parametrize(
    ("thing", "of", "named"),
    [
        (Car(), "nothing", "Car has no nothing"),
        (vars(Car()), "nothing", "dict has no nothing"),
        (Car(), None, "Car has no shown"),
        (Car(), lambda _: missing, "Car has no shown"),
        (Car(), "wheel.nothing", "'Wheel' object has no attribute 'nothing'"),
    ],
)
def test_an_attribute_that_the_answer_must_have_is_named_when_it_is_not_there(thing: Any, of: Any, named: str) -> None:
    with pytest.raises(AttributeError, match=named):
        made(Text(of=of), thing)


def test_one_that_is_missing_within_a_part_or_a_list_is_named_too() -> None:
    for within in (Part(WheelSchema, of="value"), Items(WheelSchema, of="value")):
        with pytest.raises(AttributeError, match="has no size"):
            made(within, {"value": [Car()] if isinstance(within, Items) else Car()})


def test_the_fields_that_many_answers_share() -> None:
    assert made(uuid_field(of="name"), Car(name="k3v9x0qa")) == {"shown": "k3v9x0qa"}
    assert made(status_field(of="value"), {"value": Status.ACTIVE}) == {"shown": "active"}
    assert made(now_field(), Car())["shown"] > AT_TEXT


# The document


class DocumentedSchema(Schema):
    plain = Text("a text", enum=["a", "b"], examples=["a"], pattern="^[ab]$")
    bare = Text()
    at = Time("when", null=True)
    own_at = Time(examples=["2024-01-01T00:00:00.000Z"])
    count = Whole("how many", null=True, minimum=0)
    share = Number(optional=True)
    sure = Truth()
    marks = Object("marks", values=fields.Integer(), examples=[{"a": 1}])
    anything = Object(null=True)
    value = OfTypes(["string", "integer"], "either")
    wheel = Part(WheelSchema, "a part")
    wheels = Items(WheelSchema, "some")
    tags = Items(fields.String(), maxItems=3)
    named = Text(of="name", name="class")
    id = uuid_field()
    state = status_field()


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    spec = APISpec("title", "1", "3.1.0", plugins=[MarshmallowPlugin()])
    spec.components.schema("Documented", schema=DocumentedSchema)
    return dict(spec.to_dict()["components"]["schemas"]["Documented"])


JSON = "application/json"
TEXT = {"type": "string"}
MARKS = {"description": "marks", "examples": [{"a": 1}]}
EXAMPLE = "2026-11-20T08:00:00.000Z"


@pytest.mark.parametrize(
    ("name", "described"),
    {
        "plain": TEXT | {"description": "a text", "enum": ["a", "b"], "examples": ["a"], "pattern": "^[ab]$"},
        "bare": TEXT,
        "at": {"type": ["string", "null"], "description": "when", "format": "date-time", "examples": [EXAMPLE]},
        "own_at": TEXT | {"format": "date-time", "examples": ["2024-01-01T00:00:00.000Z"]},
        "count": {"type": ["integer", "null"], "description": "how many", "minimum": 0},
        "share": {"type": "number"},
        "sure": {"type": "boolean"},
        "marks": MARKS | {"type": "object", "additionalProperties": {"type": "integer"}},
        "anything": {"type": ["object", "null"], "additionalProperties": {}},
        "value": {"type": ["string", "integer"], "description": "either"},
        "wheels": {"type": "array", "description": "some", "items": {"$ref": "#/components/schemas/Wheel"}},
        "tags": {"type": "array", "items": TEXT, "maxItems": 3},
        "class": TEXT,
        "id": TEXT | {"pattern": UUID_REGEX, "examples": ["k3v9x0qa"]},
        "state": TEXT | {"enum": [str(status) for status in Status]},
    }.items(),
)
def test_what_is_said_of_a_field_is_in_the_document(
    documented: Mapping[str, Any], name: str, described: Mapping[str, Any]
) -> None:
    assert documented["properties"][name] == described


def test_a_part_is_in_the_document_by_its_schema(documented: Mapping[str, Any]) -> None:
    part = documented["properties"]["wheel"]
    assert "#/components/schemas/Wheel" in str(part)
    assert part["description"] == "a part"


def test_all_but_optional_fields_are_required_in_the_document(documented: Mapping[str, Any]) -> None:
    assert {*documented["properties"]} - {*documented["required"]} == {"share"}


# The views

OPENAPI = "docs.openapi"
"""The document is no answer of a schema."""


@pytest.fixture
def answers(app: Flask, client: Client) -> dict[str, dict[str, Any]]:
    """The schemas of each view's 2xx, by their media type, by the view's endpoint."""
    document = Document(client.get("/openapi.json").json)
    found: dict[str, dict[str, Any]] = {}
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD"}:
            operation = document.operation(method, rule.rule)
            assert operation is not None, rule
            good = [each for status, each in operation["responses"].items() if status.startswith("2")]
            contents = [media for each in good for media in each.get("content", {}).items()]
            found[rule.endpoint] = {media: content["schema"] for media, content in contents}
    assert found.keys() == app.view_functions.keys()
    return found


def returned_by(view: Any) -> set[Any]:
    """The types that a view returns, which mypy checks."""
    returned = get_type_hints(unwrap(view))["return"]
    return set(get_args(returned)) if get_origin(returned) in (Union, UnionType) else {returned}


def test_a_schema_makes_each_answer_in_json(app: Flask, answers: Mapping[str, Mapping[str, Any]]) -> None:
    """A response that is the view's own passes the schema by: a view may have one for another media type alone."""
    for endpoint in [each for each, schemas in answers.items() if JSON in schemas and each != OPENAPI]:
        returned = returned_by(app.view_functions[endpoint])
        own = {kind for kind in returned if isinstance(kind, type) and issubclass(kind, Response)}
        assert returned - own and Any not in returned, endpoint
        assert not own or len(answers[endpoint]) > 1, endpoint


def test_each_field_of_an_answer_is_one_of_these(answers: Mapping[str, Mapping[str, Any]]) -> None:
    """So an answer that lacks one is an error."""
    refs = [schemas[JSON]["$ref"] for endpoint, schemas in answers.items() if JSON in schemas and endpoint != OPENAPI]
    assert refs
    for schema in parts_of({ref.rpartition("/")[2] for ref in refs}):
        others = [name for name, each in schema.fields.items() if not isinstance(each, Shown)]
        assert not others, type(schema)


def parts_of(names: set[str]) -> Iterator[Schema]:
    """The schemas of these names in the document, and those within them."""
    left = [class_registry.get_class(f"{name}Schema") for name in sorted(names)]
    seen: set[type[Schema]] = set()
    while left:
        kind = left.pop()
        if kind in seen:
            continue
        seen.add(kind)
        schema = kind()
        yield schema
        inner = [each.inner if isinstance(each, fields.List) else each for each in schema.fields.values()]
        left += [type(each.schema) for each in inner if isinstance(each, fields.Nested)]


def test_an_answer_is_written_as_problems_and_events_are(client: Client) -> None:
    """In one line with spaces, the names in their order, as the docs print it."""
    response = client.get("/sessions")
    assert response.text == json.dumps(response.json)
    assert [*response.json] == ["total", "sessions", "next_cursor"]
