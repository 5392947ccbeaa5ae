"""Schemas of the calls on files."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.agent.protocol import ArchiveFormat, to_raw
from app.api.answers import Instant, Items, Text, Truth, Whole, uuid_field
from app.api.reach import ReachQuerySchema
from app.api.request_fields import WHOLE_REGEX, QueryInteger, Strict, WholeText, check_whole
from app.core.files.model import FOLDER, KINDS, MODE_PATTERN, Entry, shown
from app.core.sessions.model import GONE, UP, Status

LONGEST_PATH = 4_096
LONGEST_IN_URL = 1_000
"""Characters: a URL has room for 4,000 bytes, of which each may take three."""

DEEPEST = 100
MODE_REGEX = f"^{MODE_PATTERN.pattern}$"
NEW_MODE_REGEX = "^0?[0-7]{3}$"
CURSOR_REGEX = "^[!-~]+$"
LONGEST_CURSOR = 3_000


def path_field(description: str, longest: int, **options: Any) -> fields.String:
    """A path below the workspace's folder."""
    return fields.String(
        validate=[check_whole, validate.Length(1, longest)],
        metadata={"pattern": WHOLE_REGEX, "examples": ["src/main.py"], "description": description},
        **options,
    )


class PlacesQuerySchema(Strict):
    path = path_field("the folder, by default the workspace's own", LONGEST_IN_URL, load_default=".")
    depth = QueryInteger(
        load_default=1,
        validate=validate.Range(0, DEEPEST),
        metadata={"description": "levels of folders; 0 is the entry of `path` itself"},
    )
    glob = fields.String(
        load_default="",
        validate=validate.Length(0, LONGEST_IN_URL),
        metadata={"description": "only what has such a name, or such a path below `path`", "examples": ["*.py"]},
    )


class ListingQuerySchema(ReachQuerySchema, PlacesQuerySchema):
    limit = QueryInteger(load_default=100, validate=validate.Range(1, 1000))
    cursor = fields.String(
        load_default="",
        validate=[WholeText(CURSOR_REGEX, "Must be a next_cursor."), validate.Length(1, LONGEST_CURSOR)],
        metadata={"description": "next_cursor of the page before"},
    )


class WriteQuerySchema(ReachQuerySchema):
    mode = fields.String(
        validate=WholeText(NEW_MODE_REGEX, "Must be permissions in octal, at most 777, as 755."),
        metadata={
            "description": "its permissions in octal; by default those it had, or a new file's",
            "examples": ["755"],
        },
    )


class TreeQuerySchema(ReachQuerySchema):
    path = path_field("the folder, by default the workspace's own", LONGEST_IN_URL, load_default=".")
    format = fields.Enum(
        ArchiveFormat, by_value=True, load_default=ArchiveFormat.TAR_GZ, metadata={"description": "of the archive"}
    )


class FileChangeSchema(Strict):
    """One of the two."""

    move_to = path_field("where it is moved, from the workspace's folder; nothing there is overwritten", LONGEST_PATH)
    make = fields.String(validate=validate.OneOf([FOLDER]), metadata={"description": "make a folder of this path"})

    @validates_schema
    def _check_one(self, data: dict[str, Any], **_: Any) -> None:
        if len(data) != 1:
            raise ValidationError("Give `move_to` or `make`.")


def etag_of(entry: Entry) -> str:
    """As in headers."""
    return f'"{entry.etag}"' if entry.etag else ""


def raw(path: str) -> str | None:
    """The bytes of a path that is no UTF-8."""
    return None if shown(path) == path else to_raw(path)


class FileEntrySchema(Schema):
    """A file, a folder, a link or something else in a workspace."""

    uuid = uuid_field()
    path = Text("from the workspace's folder; bytes that are no UTF-8 are U+FFFD", of=lambda entry: shown(entry.path))
    raw_path = Text(
        "of a path that is no UTF-8: its bytes, percent-encoded as a URL takes them",
        of=lambda entry: raw(entry.path),
        null=True,
    )
    type = Text(enum=list(KINDS))
    size = Whole("bytes; null for what is no file", null=True)
    mode = Text("its permissions in octal", pattern=MODE_REGEX)
    modified_at = Instant()
    target = Text("of a link: the path in it", of=lambda entry: entry.target and shown(entry.target), null=True)
    etag = Text("of a file: as the ETag of its bytes", of=etag_of, null=True, examples=['"a8-c-18ecacd7"'])


class FileListSchema(Schema):
    """A page of what is in a folder."""

    uuid = uuid_field()
    path = Text(of=lambda page: shown(page.path))
    entries = Items(FileEntrySchema, "by name, what is in a folder right after it")
    next_cursor = Text("null at the end; pages before may have few entries, or none", null=True)


class GonePathSchema(Schema):
    """Where nothing is any more, nor below it."""

    path = Text("as of an entry", of=shown)
    raw_path = Text("as of an entry", of=raw, null=True)


class FilesResetEventSchema(Schema):
    """The changes before this are not told: list the folder again. With the event's id as `Last-Event-ID` a stream goes
    on after it."""

    path = Text("the folder or file that is followed", of=lambda changes: shown(changes.path))
    complete = Truth("false: the workspace has more folders than are watched, of which the deepest are not")


class FilesChangedEventSchema(Schema):
    """What changed. Take away what is `gone`, then put the `entries` in their places."""

    path = Text("the folder or file that is followed", of=lambda changes: shown(changes.path))
    gone = Items(GonePathSchema)
    entries = Items(FileEntrySchema, "as they are now, in the order of their changes")


class FilesAsleepEventSchema(Schema):
    """The workspace does not run, so nothing in it changes; once it does a `reset` follows."""

    status = Text("the session's", enum=sorted(map(str, set(Status) - UP - GONE)))


class TreeSchema(Schema):
    """What an archive brought into a folder."""

    uuid = uuid_field()
    path = Text("the folder", of=lambda unpacked: shown(unpacked.path))
    files = Whole("files and links in it")
    bytes = Whole("of the files")
