"""Schemas of the calls on backups."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.answers import Items, Text, Time, Truth, Whole, uuid_field
from app.api.request_fields import BACKUP_REGEX, UUID_REGEX, PageQuerySchema, Strict, WholeText, user_id_field


class RestoreSchema(Strict):
    user_id = user_id_field()


class BackupsQuerySchema(PageQuerySchema):
    user_id = user_id_field()
    uuid = fields.String(validate=WholeText(UUID_REGEX, "8 of 0-9 a-z"))


class BackupSchema(Schema):
    name = Text(pattern=BACKUP_REGEX)
    uuid = uuid_field()
    user_id = Text()
    size = Whole("bytes of the zip")
    files = Whole()
    content_bytes = Whole("bytes of its files, without the holes of sparse files")
    sha256 = Text()
    created_at = Time()
    verified = Truth()
    changed = Items(fields.String(), "some of the files that changed during the backup")
    complete = Truth("false if it lacks files that could not be read")
    unreadable = Items(fields.String(), "some of the files and folders that are missing")


class BackupListSchema(Schema):
    total = Whole()
    backups = Items(BackupSchema, of="items")
    next_cursor = Text(null=True)
