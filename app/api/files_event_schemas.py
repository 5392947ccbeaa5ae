"""Schemas of the events of lost and restored files, in a session's stream and in that over all sessions."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.schemas import time_field


class FilesLostEventSchema(Schema):
    """The volume is gone; the newest copy of the files is being restored."""

    restore_from = fields.String(
        required=True, metadata={"description": "the restore point or backup that is being restored"}
    )
    files_of = time_field(required=True, allow_none=True)
    kept = fields.String(metadata={"description": "the old volume, which is out of reach and may hold newer files"})


class FilesRestoredEventSchema(Schema):
    """The files are there again: those of `files_of`."""

    restore_from = fields.String(required=True, metadata={"description": "the restore point or backup they are from"})
    files_of = time_field(required=True, allow_none=True)
    fell_back = fields.Boolean(
        required=True, metadata={"description": "the newest restore point was broken; this is the newest whole one"}
    )
