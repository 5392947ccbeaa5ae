"""The fields of requests, and the patterns that requests and answers share.

Requests are checked strictly: a string of digits is no number, and an unknown field is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from app.core.backups.store import NAME_PATTERN
from app.core.prompts.inbox import ID_PATTERN
from app.core.restore_points.names import REFERENCE_PATTERN
from app.core.sessions.model import USER_ID_PATTERN, USER_ID_RULE, UUID_PATTERN

UUID_REGEX = f"^{UUID_PATTERN.pattern}$"
USER_REGEX = f"^{USER_ID_PATTERN.pattern}$"
BACKUP_REGEX = f"^{NAME_PATTERN.pattern.replace('?P<uuid>', '')}$"
POINT_REGEX = f"^{REFERENCE_PATTERN.pattern.replace('?P<uuid>', '').replace('?P<id>', '')}$"
SOURCE_REGEX = f"^(?:{BACKUP_REGEX[1:-1]}|{POINT_REGEX[1:-1]})$"
MESSAGE_ID_REGEX = f"^{ID_PATTERN.pattern}$"
LABEL_REGEX = "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"
LABEL_RULE = "1 to 63 of A-Z a-z 0-9 . _ / -, a letter or digit at both ends"
TEXT_REGEX = "^[^\\x00-\\x1f\\x7f]*$"
BARE_LABEL = LABEL_REGEX.removeprefix("^").removesuffix("$")
LABEL_FILTER_REGEX = f"^{BARE_LABEL}=[^\\x00-\\x1f\\x7f]{{0,256}}$"

NO_NUL = "[^\\x00]"
WHOLE_REGEX = f"^{NO_NUL}*$"

MOST_SECONDS = 315_360_000
"""s: ten years; more is probably a wrong unit."""

MOST_LABELS = 32
LONGEST_LABEL = 256
UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
INTEGER = re.compile(r"[0-9]{1,12}")


class WholeText(validate.Regexp):
    """Checks that a whole text matches: Python's `$`, the end of the documented pattern, allows a newline after it."""

    def __init__(self, regex: str, message: str) -> None:
        super().__init__(regex, error=message)
        self._whole = re.compile(regex.removeprefix("^").removesuffix("$"))

    def __call__(self, value: Any) -> Any:
        if not self._whole.fullmatch(value):
            raise ValidationError(self._format_error(value))
        return value


class Seconds(fields.Float):
    """A JSON number of seconds; a string of digits is refused."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.make_error("invalid", input=value)
        try:
            number = float(value)
        except OverflowError as error:
            raise self.make_error("too_large", input=value) from error
        if not math.isfinite(number):
            raise self.make_error("special", input=value)
        return number


class WholeNumber(fields.Integer):
    """A JSON number without a fraction, as 2 or 2.0; a string of digits is refused."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
            raise self.make_error("invalid", input=value)
        return int(value)


class QueryInteger(fields.Integer):
    """An integer in a query string: ASCII digits only."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        if not isinstance(value, str) or not INTEGER.fullmatch(value):
            raise self.make_error("invalid", input=value)
        return int(value)


class QueryFlag(fields.Boolean):
    """A boolean in a query string: `true` or `false`, as some languages print it with a capital."""

    WORDS: Mapping[Any, bool] = {"true": True, "True": True, "false": False, "False": False}

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if value not in self.WORDS:
            raise self.make_error("invalid", input=value)
        return self.WORDS[value]


def check_label_text(text: str) -> None:
    """Raises `ValidationError` for a text that is too long or not printable."""
    if len(text) > LONGEST_LABEL or UNPRINTABLE.search(text):
        raise ValidationError(f"Must have at most {LONGEST_LABEL} printable characters.")


def check_whole(text: str) -> None:
    """Raises `ValidationError` for what no program or file can be given."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError("Must not contain lone surrogates.") from error
    if "\0" in text:
        raise ValidationError("Must not contain a NUL.")


def seconds(description: str) -> Seconds:
    return Seconds(validate=validate.Range(0, MOST_SECONDS), metadata={"description": description})


def user_id_field(**options: Any) -> fields.String:
    check = WholeText(USER_REGEX, USER_ID_RULE)
    return fields.String(validate=check, metadata={"examples": ["ada@example.com"]}, **options)


def label_filter(description: str) -> fields.String:
    """A label and its value in a query string."""
    return fields.String(
        validate=WholeText(LABEL_FILTER_REGEX, "Must be a label and its value, as course=python-101."),
        metadata={"description": description, "examples": ["course=python-101"]},
    )


def label_filters() -> fields.List:
    """Labels and their values in a query string, one for each time the parameter is given."""
    return fields.List(
        label_filter("a label and its value"),
        load_default=list,
        validate=validate.Length(max=MOST_LABELS),
        metadata={"description": "only sessions with this label and value; repeat it for several, all must match"},
    )


def label_pairs(filters: Sequence[str]) -> list[tuple[str, str]]:
    """The names and values of label filters."""
    return [(name, value) for name, _, value in (each.partition("=") for each in filters)]


class Strict(Schema):
    """A request; an unknown field is refused."""

    class Meta:
        unknown = RAISE


class Flag(fields.Boolean):
    """A JSON boolean; strings and numbers are refused."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class PageQuerySchema(Strict):
    limit = QueryInteger(load_default=100, validate=validate.Range(1, 1000))
    cursor = fields.String(validate=validate.Length(1, 256), metadata={"description": "next_cursor of the page before"})
