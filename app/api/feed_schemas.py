"""Schemas of the call that follows all sessions."""

from __future__ import annotations

from collections.abc import Mapping

from marshmallow import Schema, fields

from app.api.schemas import Strict, label_filters, status_field, time_field, user_id_field, uuid_field


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


class FeedQuerySchema(Strict):
    user_id = user_id_field()
    label = label_filters()


class FeedBeginSchema(Schema):
    complete = fields.Boolean(
        required=True,
        metadata={"description": "false if events after Last-Event-ID may be missing: read the lists again"},
    )


class FeedEventSchema(Schema):
    uuid = uuid_field()
    user_id = fields.String(required=True)
    at = time_field(required=True)


class FeedStateSchema(FeedEventSchema):
    status = status_field()
    reason = fields.String(allow_none=True, metadata={"description": "why, where there is a reason"})
    reason_code = fields.String(allow_none=True, metadata={"description": "a code of the reason, if it has one"})
    backup = fields.String(metadata={"description": "the name of the last backup, of a deleted session"})


class FeedPhaseSchema(FeedEventSchema):
    """A sleeping session is in the archive now; other steps are in the session's own stream only."""

    phase = fields.String(required=True, metadata={"enum": ["archived"]})


class FeedBackupSchema(FeedEventSchema):
    status = fields.String(required=True, metadata={"enum": ["done", "failed"]})
    name = fields.String(metadata={"description": "of the backup that is done"})
    reason = fields.String(metadata={"description": "why it failed"})


class FeedRestorePointSchema(FeedEventSchema):
    status = fields.String(required=True, metadata={"enum": ["done", "failed"]})
    restore_point = fields.String(metadata={"description": "the id of the one that is done"})
    saved_at = time_field(allow_none=True)
    reason = fields.String(metadata={"description": "why it failed; it is tried again"})


class FeedFilesLostSchema(FilesLostEventSchema, FeedEventSchema):
    """A session's volume is gone; the newest copy of its files is being restored."""


class FeedFilesRestoredSchema(FilesRestoredEventSchema, FeedEventSchema):
    """A session's files are there again: those of `files_of`."""


class FeedRolledBackSchema(FeedEventSchema):
    """A session was rolled back, or a rollback was called off and its files are as they were."""

    status = fields.String(required=True, metadata={"enum": ["done", "failed"]})
    restore_point = fields.String(
        allow_none=True, metadata={"description": "the restore point, null if an agent undid a message"}
    )
    message_id = fields.String(metadata={"description": "the message before which the state is, if it was named"})
    files_of = time_field(allow_none=True)
    fell_back = fields.Boolean(
        metadata={"description": "the restore point was broken; this is the newest whole one before it"}
    )
    reason = fields.String(metadata={"description": "why it was called off"})


class FeedDrillFailedSchema(FeedEventSchema):
    """A drill found a restore point broken; a new one is made."""

    restore_point = fields.String(required=True)
    reason = fields.String(required=True)


class FeedMessageSchema(FeedEventSchema):
    message_id = fields.String(required=True)
    state = fields.String(required=True, metadata={"enum": ["processed", "failed"]})
    reason = fields.String(metadata={"description": "why it failed"})


FEED_SCHEMAS: Mapping[str, type[Schema]] = {
    "begin": FeedBeginSchema,
    "state": FeedStateSchema,
    "phase": FeedPhaseSchema,
    "backup": FeedBackupSchema,
    "restore_point": FeedRestorePointSchema,
    "drill_failed": FeedDrillFailedSchema,
    "files_lost": FeedFilesLostSchema,
    "files_restored": FeedFilesRestoredSchema,
    "rolled_back": FeedRolledBackSchema,
    "message": FeedMessageSchema,
}
"""The schema of each event's data, by its type."""
