"""The fields of which answers are made.

A schema of an answer makes it of the core's object and documents it: a field shows the attribute of its own name. `of`
names another attribute, or is a function of the object. With `null` an empty text, object or time, and a number that
is None, is null. An `optional` field is left out if the object has no such attribute. All else becomes a part of the
field's documentation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from marshmallow import Schema, fields, missing

from app.api.request_fields import UUID_REGEX
from app.core.sessions.model import Status, instant, iso

Answer = tuple[Any, int] | tuple[Any, int, Mapping[str, str]]
"""What a view returns: of what its answer is made, the status, and headers."""

OCTETS = "application/octet-stream"
BYTES = {"type": "string", "format": "binary"}
"""The type and the schema of an answer that is bytes."""

Of = str | Callable[[Any], Any] | None


class Shown(fields.Field[Any]):
    """A field of an answer. `name` is its name there, where Python has another; `given` is for the library's field."""

    def __init__(
        self,
        description: str = "",
        *,
        of: Of = None,
        null: bool = False,
        optional: bool = False,
        name: str | None = None,
        given: Mapping[str, Any] | None = None,
        **documented: Any,
    ) -> None:
        described = {"description": description} if description else {}
        super().__init__(
            **(given or {}),
            attribute=of if isinstance(of, str) else None,
            data_key=name,
            required=not optional,
            allow_none=null,
            metadata=described | documented,
        )
        # A dotted name leads to an attribute of an attribute.
        self._of = attrgetter(of) if isinstance(of, str) and "." in of else of if callable(of) else None

    def serialize(self, attr: str, obj: Any, accessor: Any = None, **kwargs: Any) -> Any:
        """The value in the answer. Written anew, as the library's own takes three times as long."""
        if self._of is not None:
            value = self._of(obj)
        else:
            name = self.attribute or attr
            value = obj.get(name, missing) if isinstance(obj, dict) else getattr(obj, name, missing)
        if value is not missing:
            return self._serialize(value, attr, obj, **kwargs)
        if self.required:
            raise AttributeError(f"{type(obj).__name__} has no {self.attribute or attr}, which its answer must have")
        return missing


class Text(Shown, fields.String):
    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None or (self.allow_none and not value) else str(value)


class Time(Shown, fields.String):
    """Seconds since the epoch, in ISO 8601 and UTC."""

    def __init__(self, description: str = "", **options: Any) -> None:
        super().__init__(description, **{"format": "date-time", "examples": ["2026-11-20T08:00:00.000Z"]} | options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return iso(value)


class Instant(Time):
    """The same, of which 0 is one."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str:
        return instant(value)


class Whole(Shown, fields.Integer):
    """A whole number."""


class Number(Shown, fields.Float):
    pass


class Truth(Shown, fields.Boolean):
    pass


class Object(Shown, fields.Dict):
    """An object with any names; `values` is the field of each of its values, if they are alike."""

    def __init__(self, description: str = "", *, values: fields.Field[Any] | None = None, **options: Any) -> None:
        alike = {} if values is None else {"keys": fields.String(), "values": values}
        super().__init__(description, given=alike, **options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        return super()._serialize(value, attr, obj, **kwargs) if value or not self.allow_none else None


class OfTypes(Shown, fields.Raw):
    """A value of one of several types, as JSON names them."""

    def __init__(self, types: Sequence[str], description: str = "", **options: Any) -> None:
        super().__init__(description, type=list(types), **options)


class Part(Shown, fields.Nested):
    """An object within the answer, of a schema."""

    def __init__(self, schema: type[Schema], description: str = "", **options: Any) -> None:
        super().__init__(description, given={"nested": schema}, **options)


class Items(Shown, fields.List):
    """A list, of a schema's objects or of a field's values."""

    def __init__(self, item: type[Schema] | fields.Field[Any], description: str = "", **options: Any) -> None:
        inner = item if isinstance(item, fields.Field) else fields.Nested(item)
        super().__init__(description, given={"cls_or_instance": inner}, **options)


def uuid_field(**options: Any) -> Text:
    return Text(pattern=UUID_REGEX, examples=["k3v9x0qa"], **options)


def status_field(**options: Any) -> Text:
    """The state of a session."""
    return Text(enum=[str(status) for status in Status], **options)


def now_field() -> Time:
    """When the answer was made."""
    return Time(of=lambda _: time.time())
