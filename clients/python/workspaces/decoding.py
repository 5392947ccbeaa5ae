"""Makes frozen dataclasses of JSON. Reads tolerantly: unknown fields are left to `raw`, missing ones get a default."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from workspaces.errors import InvalidAnswer

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer of the API. `raw` is the JSON it was made of, with the fields this version does not know."""

    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)


def named(name: str) -> Any:
    """A field whose name in the API is no name in Python."""
    return dataclasses.field(metadata={"name": name})


def decode(kind: type[T], value: Any, where: str = "the answer") -> T:
    """`value`, as JSON has it, as a `kind`; raises `InvalidAnswer` with the place that does not fit."""
    decoded: T = _decode(kind, value, where)
    return decoded


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (each for each in get_args(kind) if each is not type(None))
        return _decode(kind, value, where)
    if dataclasses.is_dataclass(kind):
        return _object(kind, _of_type(dict, value, where), where)
    if origin is tuple:
        inner = get_args(kind)[0]
        return tuple(_decode(inner, each, f"{where}[{n}]") for n, each in enumerate(_of_type(list, value, where)))
    if origin is Mapping:
        inner = get_args(kind)[1]
        items = _of_type(dict, value, where).items()
        return {name: _decode(inner, each, f"{where}.{name}") for name, each in items}
    if kind in (datetime, date):
        return _time(kind, _of_type(str, value, where), where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _of_type(kind, value, where)


def _object(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    hints = _hints(kind)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name = field.metadata.get("name", field.name)
        if field.name == "raw":
            given["raw"] = value
        elif name in value:
            given[field.name] = _decode(hints[field.name], value[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            given[field.name] = _absent(hints[field.name], f"{where}.{name}")
    return kind(**given)


def _absent(kind: Any, where: str) -> Any:
    """What stands for a field that an older service does not send."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType) or kind is Any:
        return None
    if origin is tuple:
        return ()
    if origin is Mapping:
        return {}
    raise InvalidAnswer(f"{where} is missing.")


def _of_type(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InvalidAnswer(f"{where} is {type(value).__name__}, and should be {kind.__name__}.")
    return value


def _time(kind: Any, text: str, where: str) -> date:
    try:
        found: date = kind.fromisoformat(text)
    except ValueError as error:
        raise InvalidAnswer(f"{where} is no time.") from error
    if isinstance(found, datetime) and found.tzinfo is None:
        return found.replace(tzinfo=UTC)
    return found


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
