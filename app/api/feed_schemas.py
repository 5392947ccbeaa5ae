"""Schemas of the call that follows all sessions.

These events, and those of app/api/event_schemas.py, are stored as they are sent; their schemas only document them.
"""

from __future__ import annotations

from collections.abc import Mapping

from marshmallow import Schema

from app.api.answers import Text, Time, Truth, status_field, uuid_field
from app.api.request_fields import Strict, label_filters, user_id_field


class FilesLostEventSchema(Schema):
    """The volume is gone; the newest copy of the files is being restored."""

    restore_from = Text("the restore point or backup that is being restored")
    files_of = Time(null=True)
    kept = Text("the old volume, which is out of reach and may hold newer files", optional=True)


class FilesRestoredEventSchema(Schema):
    """The files are there again: those of `files_of`."""

    restore_from = Text("the restore point or backup they are from")
    files_of = Time(null=True)
    fell_back = Truth("the newest restore point was broken; this is the newest whole one")


class EndSchema(Schema):
    """How an attempt ended."""

    status = Text(enum=["done", "failed"])
    reason = Text("why it failed", optional=True)


class BackupEndSchema(EndSchema):
    name = Text("of the backup, if it is done", optional=True)


class RestorePointEndSchema(EndSchema):
    restore_point = Text("the newest one's id, if it is done", optional=True)
    saved_at = Time(optional=True, null=True)
    reason = Text("why it failed; it is tried again", optional=True)


class RollbackEndSchema(EndSchema):
    restore_point = Text("the restore point, null if an agent undid a message", optional=True, null=True)
    message_id = Text("the message before which the state is, if it was named", optional=True)
    files_of = Time(optional=True, null=True)
    fell_back = Truth("the restore point was broken; this is the newest whole one before it", optional=True)
    reason = Text("why it was called off", optional=True)


class BrokenPointSchema(Schema):
    restore_point = Text("the broken one's id")
    reason = Text()


class FeedQuerySchema(Strict):
    user_id = user_id_field()
    label = label_filters()


class FeedBeginSchema(Schema):
    complete = Truth("false if events after Last-Event-ID may be missing: read the lists again")


class FeedEventSchema(Schema):
    uuid = uuid_field()
    user_id = Text()
    at = Time()


class FeedStateSchema(FeedEventSchema):
    status = status_field()
    reason = Text("why, where there is a reason", optional=True, null=True)
    reason_code = Text("a code of the reason, if it has one", optional=True, null=True)
    backup = Text("the name of the last backup, of a deleted session", optional=True)


class FeedPhaseSchema(FeedEventSchema):
    """A sleeping session is in the archive now; other steps are in the session's own stream only."""

    phase = Text(enum=["archived"])


class FeedBackupSchema(BackupEndSchema, FeedEventSchema):
    pass


class FeedRestorePointSchema(RestorePointEndSchema, FeedEventSchema):
    pass


class FeedFilesLostSchema(FilesLostEventSchema, FeedEventSchema):
    """A session's volume is gone; the newest copy of its files is being restored."""


class FeedFilesRestoredSchema(FilesRestoredEventSchema, FeedEventSchema):
    """A session's files are there again: those of `files_of`."""


class FeedRolledBackSchema(RollbackEndSchema, FeedEventSchema):
    """A session was rolled back, or a rollback was called off and its files are as they were."""


class FeedDrillFailedSchema(BrokenPointSchema, FeedEventSchema):
    """A drill found a restore point broken; a new one is made."""


class FeedMessageSchema(FeedEventSchema):
    message_id = Text()
    state = Text(enum=["processed", "failed"])
    reason = Text("why it failed", optional=True)


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
