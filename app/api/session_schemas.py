"""Schemas of the calls on sessions: requests, and the answers that are made of a session's record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, missing, validate

from app.agent.protocol import ServiceState
from app.api.answers import Items, Number, Object, Part, Text, Time, Truth, Whole, now_field, status_field, uuid_field
from app.api.current import core
from app.api.request_fields import (
    BACKUP_REGEX,
    LABEL_REGEX,
    LABEL_RULE,
    LONGEST_LABEL,
    MOST_LABELS,
    SOURCE_REGEX,
    TEXT_REGEX,
    Flag,
    PageQuerySchema,
    QueryFlag,
    Strict,
    WholeText,
    check_label_text,
    label_filters,
    seconds,
    user_id_field,
)
from app.api.service_schemas import SERVICE_NAME_REGEX
from app.core.sessions.model import SIZES, Record, Status, Tier


class QueryBackup(fields.String):
    """The backup before a deletion: `true` of all files, `false` none, `partial` of the readable files."""

    # Some languages print booleans with a capital.
    WORDS: Mapping[Any, str] = {"true": "true", "True": "true", "false": "false", "False": "false"}
    CHOICES = ("true", "false", "partial")

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        word = self.WORDS.get(value, value)
        if word not in self.CHOICES:
            raise ValidationError(f"Must be one of {', '.join(self.CHOICES)}.")
        return word


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises `ValidationError` for too many labels."""
    if len(labels) > MOST_LABELS:
        raise ValidationError(f"Must have at most {MOST_LABELS} labels.")


class NewSessionSchema(Strict):
    user_id = user_id_field(required=True)
    restore_from = fields.String(
        validate=WholeText(SOURCE_REGEX, "Must be the name of a backup, or `restore_from` of a restore point."),
        metadata={"description": "the backup, or the restore point, whose files the session starts with"},
    )
    size = fields.String(validate=validate.OneOf(SIZES), metadata={"description": "how much CPU and memory it may use"})
    ttl = seconds("unused for this long, the session is archived; 0: never, and it has no end (s)")
    idle_timeout = seconds("unused for this long, the session sleeps; 0 never (s)")
    labels = fields.Dict(
        keys=fields.String(validate=WholeText(LABEL_REGEX, LABEL_RULE)),
        values=fields.String(validate=check_label_text, metadata={"maxLength": LONGEST_LABEL, "pattern": TEXT_REGEX}),
        validate=check_labels,
        metadata={"description": "the caller's own texts, stored with the session", "maxProperties": MOST_LABELS},
    )
    open = Flag(metadata={"description": "add a login link to the answer, as from POST /session/{uuid}/open"})


class DeleteQuerySchema(Strict):
    backup = QueryBackup(
        load_default="true",
        metadata={
            "enum": list(QueryBackup.CHOICES),
            "description": "false deletes without a backup, partial with a backup of the readable files",
        },
    )
    erase = QueryFlag(
        load_default=False,
        metadata={
            "description": "true leaves no backup, restore point or conversation either, whatever `backup` says; also "
            "of a session that is terminated"
        },
    )


class SessionsQuerySchema(PageQuerySchema):
    status = fields.Enum(Status, by_value=True)
    tier = fields.Enum(Tier, by_value=True, metadata={"description": "where its files are"})
    user_id = user_id_field()
    label = label_filters()
    q = fields.String(
        load_default="",
        validate=[validate.Length(1, LONGEST_LABEL), WholeText(TEXT_REGEX, "Must be printable.")],
        metadata={"description": "search: a part of the uuid, the user id or a label's value, in any case"},
    )


def workspace_url(record: Record) -> str:
    return core().settings.workspace_url(record.uuid)


def expires_at(record: Record) -> float | None:
    return record.expires_at(core().settings.archive_retention)


def itself(record: Record) -> Record:
    """The record, for a part of an answer that is made of it too."""
    return record


def risk_field() -> Object:
    """A session's unsaved work (app/core/sessions/unsaved_work.py)."""
    return Object(
        "work at risk when it was last stopped: unsaved, uncommitted, unpushed, jobs; null for none, or not known",
        of="unsaved_work",
        null=True,
    )


class CreatedSessionSchema(Schema):
    uuid = uuid_field(of="record.uuid")
    user_id = Text(of="record.user_id")
    status = status_field(of="record.status")
    workspace_url = Text(of=lambda made: workspace_url(made.record), format="uri")
    created_at = Time(of="record.created_at")
    open_url = Text(
        "only with `open`: a single-use login link, for 30 s from this answer on",
        of=lambda made: made.open_url or missing,
        optional=True,
    )


def unsaved_since(record: Record) -> float:
    return float(record.unarchived.get("since", 0.0))


def is_stale(record: Record) -> bool:
    """Whether the stored conversation is outdated. A single failure to store it may pass."""
    return 0 < unsaved_since(record) < time.time() - 2 * core().settings.checkpoint_interval


class KeptConversationSchema(Schema):
    stale = Truth("the stored copy is outdated by more than two CHECKPOINT_INTERVALs", of=is_stale)
    unsaved_since = Time(of=unsaved_since, null=True)
    reason = Text(of=lambda record: record.unarchived.get("reason"), null=True)


class NewestPointSchema(Schema):
    """The newest restore point of a session."""

    id = Text(of="point", null=True)
    saved_at = Time("the time whose files are safe in it", of="point_at", null=True)
    error = Text("why the last attempt at a newer one failed", of="point_error", null=True)


class RestoringSchema(Schema):
    """What is being restored, and `of` when the restore point or the backup is."""

    files = Whole()
    bytes = Whole("of these files")
    of = Text(format="date-time")


class ReportedServiceSchema(Schema):
    """A service of the workspace."""

    name = Text(pattern=SERVICE_NAME_REGEX, examples=["web"])
    port = Whole("null for one that listens nowhere", null=True)
    state = Text(enum=list(map(str, ServiceState)))


class OpenedPortSchema(Schema):
    """A port that is opened."""

    port = Whole()
    url = Text("its address", format="uri")
    opened_at = Time()
    public_until = Time("until when anybody may see it; null for never", null=True)


def opened_ports(record: Record) -> list[dict[str, Any]]:
    """Its opened ports with their addresses, by number."""
    address = core().settings.workspace_url
    ports = sorted(record.opened_ports, key=lambda each: each.port)
    return [{**vars(each), "url": address(record.uuid, each.port)} for each in ports]


class SessionSchema(Schema):
    """What a session's own answer and its row in a list say alike."""

    uuid = uuid_field()
    user_id = Text()
    status = status_field()
    created_at = Time()
    last_activity = Time(null=True)
    tier = Text("where its files are; `parked` is reserved", enum=["hot", "parked", "archived"])
    archived_at = Time("since when it is archived; null while it has a volume", null=True)
    archives_at = Time("when it is archived at the earliest; null if it is, and for `ttl` 0", null=True)
    expires_at = Time(of=expires_at, null=True)
    workspace_url = Text(of=workspace_url, format="uri")
    reason = Text("why the session failed, or what its start waits for", null=True)
    reason_code = Text("a code of the reason, if it has one", null=True, examples=["no_capacity", "editor_ended"])
    labels = Object(values=fields.String())
    services = Items(ReportedServiceSchema, "as the workspace last reported them, seconds ago", of="present_services")
    opened_ports = Items(OpenedPortSchema, "by number", of=opened_ports)


class SessionDetailSchema(SessionSchema):
    class Meta:
        # Its answer has it beside this.
        exclude = ("uuid",)

    pod_name = Text(null=True)
    size = Text()
    idle_timeout = Number()
    ttl = Number()
    restore_from = Text(null=True)
    restoring = Part(
        RestoringSchema,
        "what is being restored now; null if nothing is, or nothing is known of it",
        of=lambda record: record.brings or None,
        null=True,
    )
    backup = Text(null=True)
    backup_lacks = Object("`unreadable`: files its last backup could not read", null=True)
    restore_point = Part(NewestPointSchema, of=itself)
    last_proven = Time(
        "when a drill last restored its newest restore point, and each file was as it had been", null=True
    )
    files_of = Time(
        "of when the files are, after a volume was lost, or the newest restore point of an archived session; else null",
        null=True,
    )
    rollback_to = Text("the restore point that the session is being rolled back to", null=True)
    rolled_back = Object(
        "how its last rollback ended: `restored` (`checkpoint` if the agent undid `message_id`, else `restore_point`), "
        "`restore_point`, `files_of`, `saved` (the restore point of the state before), `at`, `fell_back`, `files` (how "
        "many an agent wrote or removed), and `error` if it was called off; only `message_id` and `saved` while an "
        "agent undoes, or when that broke off: repeat the call",
        null=True,
    )
    generation = Whole()
    risk = risk_field()
    conversation = Part(KeptConversationSchema, of=itself)


class SessionStatusSchema(Schema):
    uuid = uuid_field()
    session = Part(SessionDetailSchema, of=itself)
    replicas = Whole()
    queue_length = Whole("prompts that are not delivered yet", of="waiting")
    phases = Object(values=fields.Integer())
    timestamp = now_field()


class SessionSummarySchema(SessionSchema):
    queue_length = Whole("prompts that are not delivered yet", of="waiting")


class SessionListSchema(Schema):
    total = Whole(
        "sessions of the user and state, or of the user and the tier `archived`; `label`, `q` and the tier `hot` don't "
        "change it"
    )
    sessions = Items(
        SessionSummarySchema,
        "with `label`, `q` or `tier` a page may have fewer than `limit`, or none, before the last",
        of="items",
    )
    next_cursor = Text(null=True)


class ActionSchema(Schema):
    uuid = uuid_field()
    action = Text()
    status = Text()
    message = Text(optional=True)
    backup = Text("the backup that was made in the wait", optional=True, pattern=BACKUP_REGEX)


class DeletedSchema(Schema):
    uuid = uuid_field()
    status = Text()
    message = Text()
    backup = Text(null=True)
    risk = risk_field()
