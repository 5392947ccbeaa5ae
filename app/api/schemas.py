"""Schemas of requests and answers, to check requests and document both.

Requests are checked strictly: a string of digits is no number, and an unknown field is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import INCLUDE, RAISE, Schema, ValidationError, fields, validate

from app.core.access.keyring import CATEGORIES
from app.core.access.landing_path import LANDING_REGEX, LONGEST, is_landing
from app.core.backups.store import NAME_PATTERN
from app.core.prompts.inbox import ID_PATTERN, State
from app.core.restore_points.names import REFERENCE_PATTERN
from app.core.sessions.model import SIZES, USER_ID_PATTERN, USER_ID_RULE, UUID_PATTERN, Status, Tier

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

MOST_SECONDS = 315_360_000
"""s: ten years; more is probably a wrong unit."""

MOST_LABELS = 32
LONGEST_LABEL = 256
UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
INTEGER = re.compile(r"[0-9]{1,9}")


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


def check_label_text(text: str) -> None:
    """Raises `ValidationError` for a text that is too long or not printable."""
    if len(text) > LONGEST_LABEL or UNPRINTABLE.search(text):
        raise ValidationError(f"Must have at most {LONGEST_LABEL} printable characters.")


def check_says_something(text: str) -> None:
    """Raises `ValidationError` for a blank text, and for a lone surrogate, which UTF-8 can't encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError("Must not contain lone surrogates.") from error
    if not text.strip():
        raise ValidationError("Must not be blank.")


def check_landing(text: str) -> None:
    """Raises `ValidationError` for a path that could lead to another host, or carries a login link."""
    if not is_landing(text):
        raise ValidationError(
            f"Must be a path after one slash, without host, fragment or login link: at most {LONGEST} characters."
        )


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises `ValidationError` for too many labels."""
    if len(labels) > MOST_LABELS:
        raise ValidationError(f"Must have at most {MOST_LABELS} labels.")


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


class OpenSchema(Strict):
    path = fields.String(
        validate=check_landing,
        metadata={
            "description": "where the link leads in the workspace: a path with its query, without a host",
            "maxLength": LONGEST,
            "pattern": LANDING_REGEX,
            "examples": ["/?folder=/app"],
        },
    )


class RevokeSchema(Strict):
    restart = Flag(
        load_default=False,
        metadata={"description": "also end all programs in the workspace, and start it again: it is away for seconds"},
    )


class PromptSchema(Strict):
    message = fields.String(
        required=True,
        validate=[validate.Length(1), check_says_something],
        metadata={"pattern": "\\S", "description": "the prompt for the agent; at most PROMPT_MAX_BYTES bytes of UTF-8"},
    )
    id = fields.String(
        validate=WholeText(MESSAGE_ID_REGEX, "1 to 64 of A-Z a-z 0-9 . _ -"),
        metadata={"description": "the same id and message again are the same prompt; generated if left out"},
    )


class RestoreSchema(Strict):
    user_id = user_id_field()


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


class PageQuerySchema(Strict):
    limit = QueryInteger(load_default=100, validate=validate.Range(1, 1000))
    cursor = fields.String(validate=validate.Length(1, 256), metadata={"description": "next_cursor of the page before"})


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


class BackupsQuerySchema(PageQuerySchema):
    user_id = user_id_field()
    uuid = fields.String(validate=WholeText(UUID_REGEX, "8 of 0-9 a-z"))


def uuid_field() -> fields.String:
    return fields.String(required=True, metadata={"pattern": UUID_REGEX, "examples": ["k3v9x0qa"]})


def time_field(**options: Any) -> fields.String:
    """A time in an answer, in ISO 8601 and UTC."""
    return fields.String(metadata={"format": "date-time", "examples": ["2026-11-20T08:00:00.000Z"]}, **options)


def status_field() -> fields.String:
    return fields.String(required=True, metadata={"enum": [str(status) for status in Status]})


def tier_field() -> fields.String:
    return fields.String(
        required=True,
        metadata={"enum": ["hot", "parked", "archived"], "description": "where its files are; `parked` is reserved"},
    )


def archived_at_field() -> fields.String:
    return fields.String(
        required=True,
        allow_none=True,
        metadata={"format": "date-time", "description": "since when it is archived; null while it has a volume"},
    )


def archives_at_field() -> fields.String:
    return fields.String(
        required=True,
        allow_none=True,
        metadata={
            "format": "date-time",
            "description": "when it is archived at the earliest; null if it is, and for `ttl` 0",
        },
    )


class UsedUpLimitSchema(Schema):
    """A limit of requests that is used up."""

    category = fields.String(required=True, metadata={"enum": sorted(CATEGORIES), "description": "of which calls"})
    rate = fields.String(required=True, metadata={"examples": ["100 per 1 minute"]})
    of = fields.String(required=True, metadata={"enum": ["address", "key", "session_token"]})
    name = fields.String(required=True, allow_none=True, metadata={"description": "the name of the key"})


class ProblemSchema(Schema):
    """RFC 9457."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    instance = fields.String(required=True)
    error = fields.String(required=True, metadata={"description": "a stable code", "examples": ["session_not_found"]})
    request_id = fields.String(required=True)
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))
    limit = fields.Nested(UsedUpLimitSchema, metadata={"description": "of `rate_limited`: which limit, and whose"})
    uuid = fields.String(
        metadata={
            "pattern": UUID_REGEX,
            "description": "the session that was created and did not start; Location has its path",
        }
    )


class CreatedSessionSchema(Schema):
    uuid = uuid_field()
    user_id = fields.String(required=True)
    status = status_field()
    workspace_url = fields.String(required=True, metadata={"format": "uri"})
    created_at = time_field(required=True)
    open_url = fields.String(
        metadata={"description": "only with `open`: a single-use login link, for LOGIN_LINK_TTL from this answer on"}
    )


def risk_field() -> fields.Dict:
    """A session's unsaved work (app/core/sessions/unsaved_work.py)."""
    text = "work at risk when it was last stopped: unsaved, uncommitted, unpushed, jobs; null for none, or not known"
    return fields.Dict(required=True, allow_none=True, metadata={"description": text})


class KeptConversationSchema(Schema):
    stale = fields.Boolean(
        required=True,
        metadata={"description": "the stored copy is outdated by more than two CHECKPOINT_INTERVALs"},
    )
    unsaved_since = time_field(required=True, allow_none=True)
    reason = fields.String(required=True, allow_none=True)


class NewestPointSchema(Schema):
    """The newest restore point of a session."""

    id = fields.String(required=True, allow_none=True)
    saved_at = fields.String(
        required=True,
        allow_none=True,
        metadata={"format": "date-time", "description": "the time whose files are safe in it"},
    )
    error = fields.String(
        required=True, allow_none=True, metadata={"description": "why the last attempt at a newer one failed"}
    )


class RestoringSchema(Schema):
    """What is being restored, and `of` when the restore point or the backup is."""

    files = fields.Integer(required=True)
    bytes = fields.Integer(required=True, metadata={"description": "of these files"})
    of = time_field(required=True)


class SessionDetailSchema(Schema):
    user_id = fields.String(required=True)
    status = status_field()
    created_at = time_field(required=True)
    last_activity = time_field(required=True, allow_none=True)
    tier = tier_field()
    archived_at = archived_at_field()
    archives_at = archives_at_field()
    expires_at = time_field(required=True, allow_none=True)
    workspace_url = fields.String(required=True, metadata={"format": "uri"})
    pod_name = fields.String(required=True, allow_none=True)
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "why the session failed, or what its start waits for"}
    )
    reason_code = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "a code of the reason, if it has one", "examples": ["no_capacity", "editor_ended"]},
    )
    size = fields.String(required=True)
    idle_timeout = fields.Float(required=True)
    ttl = fields.Float(required=True)
    labels = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    restore_from = fields.String(required=True, allow_none=True)
    restoring = fields.Nested(
        RestoringSchema,
        required=True,
        allow_none=True,
        metadata={"description": "what is being restored now; null if nothing is, or nothing is known of it"},
    )
    backup = fields.String(required=True, allow_none=True)
    backup_lacks = fields.Dict(
        required=True,
        allow_none=True,
        metadata={"description": "`unreadable`: files its last backup could not read"},
    )
    restore_point = fields.Nested(NewestPointSchema, required=True)
    last_proven = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "format": "date-time",
            "description": "when a drill last restored its newest restore point, and each file was as it had been",
        },
    )
    files_of = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "format": "date-time",
            "description": "of when the files are, after a volume was lost, or the newest restore point of an archived "
            "session; else null",
        },
    )
    rollback_to = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "the restore point that the session is being rolled back to"},
    )
    rolled_back = fields.Dict(
        required=True,
        allow_none=True,
        metadata={
            "description": "how its last rollback ended: `restored` (`checkpoint` if the agent undid `message_id`, "
            "else `restore_point`), `restore_point`, `files_of`, `saved` (the restore point of the state before), "
            "`at`, `fell_back`, `files` (how many an agent wrote or removed), and `error` if it was called off; only "
            "`message_id` and `saved` while an agent undoes, or when that broke off: repeat the call"
        },
    )
    generation = fields.Integer(required=True)
    risk = risk_field()
    conversation = fields.Nested(KeptConversationSchema, required=True)


class SessionStatusSchema(Schema):
    uuid = uuid_field()
    session = fields.Nested(SessionDetailSchema, required=True)
    replicas = fields.Integer(required=True)
    queue_length = fields.Integer(required=True)
    phases = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    timestamp = time_field(required=True)


class ActionSchema(Schema):
    uuid = uuid_field()
    action = fields.String(required=True)
    status = fields.String(required=True)
    message = fields.String()
    backup = fields.String(metadata={"pattern": BACKUP_REGEX, "description": "the backup that was made in the wait"})


def state_field() -> fields.String:
    return fields.String(required=True, metadata={"enum": [str(state) for state in State]})


class ChatSchema(Schema):
    uuid = uuid_field()
    status = fields.String(required=True, metadata={"enum": ["processed", "failed", "queued"]})
    message_id = fields.String(required=True)
    state = state_field()
    pod_response = fields.Dict(
        metadata={
            "description": "the agent's answer: text, steps, tool_calls, usage; if it failed, what there was by then"
        }
    )
    reason = fields.String(metadata={"description": "why it failed"})
    message = fields.String(metadata={"description": "what a prompt waits for that is not processed yet"})


class MessageSchema(Schema):
    uuid = uuid_field()
    message_id = fields.String(required=True)
    state = state_field()
    message = fields.String(
        required=True, allow_none=True, metadata={"description": "the prompt, until it is finished"}
    )
    response = fields.Dict(
        required=True,
        allow_none=True,
        metadata={"description": "text, steps, tool_calls, usage; if it failed, what there was by then, or null"},
    )
    reason = fields.String(required=True, allow_none=True)
    created_at = time_field(required=True, allow_none=True)
    delivered_at = time_field(required=True, allow_none=True)
    processed_at = time_field(required=True, allow_none=True)
    rolled_back_at = fields.String(
        allow_none=True,
        metadata={"format": "date-time", "description": "when a rollback undid what it did; it does not run again"},
    )


def arguments_field() -> fields.Raw:
    """The arguments of a tool call, which a model wrote."""
    text = "an object; a text where it was cut, or is no JSON object"
    return fields.Raw(metadata={"type": ["object", "string"], "description": text})


class ToolUseSchema(Schema):
    call_id = fields.String(required=True, metadata={"description": "the result has the same"})
    name = fields.String(required=True)
    arguments = arguments_field()


class OutcomeSchema(Schema):
    """How a turn ended."""

    status = fields.String(required=True, metadata={"enum": ["processed", "failed"]})
    response = fields.Dict(metadata={"description": "as in `GET …/messages/{message_id}`"})
    reason = fields.String(metadata={"description": "why it failed"})
    code = fields.String(metadata={"description": "why it failed, as a code", "examples": ["step_limit"]})


class ConversationEntrySchema(Schema):
    """One message, as the agent keeps it; the workspace's user may have changed that."""

    class Meta:
        unknown = INCLUDE

    id = fields.String(metadata={"description": "the prompt's id, the same for all messages of a turn"})
    role = fields.String(metadata={"examples": ["user", "assistant", "tool"]})
    content = fields.String()
    at = time_field(allow_none=True)
    state = fields.String(metadata={"description": "of a prompt that the agent has not begun"})
    tool_calls = fields.List(fields.Nested(ToolUseSchema), metadata={"description": "of an assistant"})
    usage = fields.Dict(metadata={"description": "of an assistant: the model's tokens, as the model counts them"})
    call_id = fields.String(metadata={"description": "of a tool: the call it answers"})
    name = fields.String(metadata={"description": "of a tool"})
    ok = fields.Boolean(metadata={"description": "of a tool: whether it worked"})
    outcome = fields.Nested(OutcomeSchema, metadata={"description": "of the last message of a turn"})


class ConversationSchema(Schema):
    uuid = uuid_field()
    total = fields.Integer(
        required=True, metadata={"description": "messages, without the prompts that the agent has not begun"}
    )
    messages = fields.List(fields.Nested(ConversationEntrySchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class DeletedSchema(Schema):
    uuid = uuid_field()
    status = fields.String(required=True)
    message = fields.String(required=True)
    backup = fields.String(required=True, allow_none=True)
    risk = risk_field()


class SessionSummarySchema(Schema):
    uuid = uuid_field()
    user_id = fields.String(required=True)
    status = status_field()
    created_at = time_field(required=True)
    last_activity = time_field(required=True, allow_none=True)
    tier = tier_field()
    archived_at = archived_at_field()
    archives_at = archives_at_field()
    expires_at = time_field(required=True, allow_none=True)
    workspace_url = fields.String(required=True, metadata={"format": "uri"})
    reason = fields.String(required=True, allow_none=True, metadata={"description": "as in the session itself"})
    reason_code = fields.String(required=True, allow_none=True)
    labels = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    queue_length = fields.Integer(required=True, metadata={"description": "prompts that are not delivered yet"})


class SessionListSchema(Schema):
    total = fields.Integer(
        required=True,
        metadata={
            "description": "sessions of the user and state, or of the user and the tier `archived`; `label`, `q` and "
            "the tier `hot` don't change it"
        },
    )
    sessions = fields.List(
        fields.Nested(SessionSummarySchema),
        required=True,
        metadata={
            "description": "with `label`, `q` or `tier` a page may have fewer than `limit`, or none, before the last"
        },
    )
    next_cursor = fields.String(required=True, allow_none=True)


class BackupSchema(Schema):
    name = fields.String(required=True, metadata={"pattern": BACKUP_REGEX})
    uuid = uuid_field()
    user_id = fields.String(required=True)
    size = fields.Integer(required=True, metadata={"description": "bytes of the zip"})
    files = fields.Integer(required=True)
    content_bytes = fields.Integer(
        required=True, metadata={"description": "bytes of its files, without the holes of sparse files"}
    )
    sha256 = fields.String(required=True)
    created_at = time_field(required=True)
    verified = fields.Boolean(required=True)
    changed = fields.List(
        fields.String(), required=True, metadata={"description": "some of the files that changed during the backup"}
    )
    complete = fields.Boolean(required=True, metadata={"description": "false if it lacks files that could not be read"})
    unreadable = fields.List(
        fields.String(), required=True, metadata={"description": "some of the files and folders that are missing"}
    )


class BackupListSchema(Schema):
    total = fields.Integer(required=True)
    backups = fields.List(fields.Nested(BackupSchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class OpenedSchema(Schema):
    uuid = uuid_field()
    url = fields.String(required=True, metadata={"description": "single-use login link, valid until `expires_at`"})
    expires_at = time_field(required=True)


class TokenSchema(Schema):
    uuid = uuid_field()
    token = fields.String(required=True)
    expires_at = time_field(required=True)


class RedisMemorySchema(Schema):
    state = fields.String(required=True, metadata={"enum": ["ok", "filling", "full", "unlimited"]})
    percent = fields.Float(required=True, allow_none=True)
    used_bytes = fields.Integer(required=True)
    max_bytes = fields.Integer(required=True)


class HealthSchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["healthy", "degraded", "unhealthy"]})
    version = fields.String(required=True)
    redis = fields.String(required=True, metadata={"enum": ["connected", "disconnected"]})
    redis_memory = fields.Nested(RedisMemorySchema, required=True, allow_none=True)
    kubernetes = fields.String(required=True, metadata={"enum": ["connected", "disconnected", "unknown"]})
    workers = fields.Integer(required=True)
    runtime = fields.String(required=True)
    network_policies = fields.String(
        required=True, allow_none=True, metadata={"enum": ["enforced", "not_enforced", "unknown", None]}
    )
    warnings = fields.List(fields.String(), required=True)
    observer_age_seconds = fields.Float(required=True, allow_none=True)
    timestamp = time_field(required=True)


class MetricsSchema(Schema):
    total_sessions = fields.Integer(required=True)
    created_sessions = fields.Integer(required=True)
    active_sessions = fields.Integer(required=True)
    sleeping_sessions = fields.Integer(required=True)
    waking_sessions = fields.Integer(required=True)
    terminating_sessions = fields.Integer(required=True)
    terminated_sessions = fields.Integer(required=True)
    failed_sessions = fields.Integer(required=True)
    archived_sessions = fields.Integer(
        required=True, metadata={"description": "without a volume; they also count by their state"}
    )
    dead_letters = fields.Integer(required=True)
    queue_backlog = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    workers = fields.Integer(required=True)
    observer_age_seconds = fields.Float(required=True, allow_none=True)
    backups = fields.Integer(required=True)
    redis_used_bytes = fields.Integer(required=True)
    redis_max_bytes = fields.Integer(required=True)
    counters = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    timestamp = time_field(required=True)
