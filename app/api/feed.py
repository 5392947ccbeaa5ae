"""The call that follows all sessions a key may see: their states and archives, backups, restore points, lost and
restored volumes, and the ends of prompts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from flask import Response, request

from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.event_schemas import STREAM, stream_of
from app.api.event_streams import HEARTBEAT, LIFETIME, STILL_HERE, resume_point, sse, streamed
from app.api.feed_schemas import FeedQuerySchema
from app.api.request_fields import label_pairs
from app.api.security import Principal, caller, check_user
from app.core.errors import StateUnavailable
from app.core.redis.events import QUIET
from app.core.redis.feed import Feed, FeedEvent
from app.core.sessions.model import iso

log = logging.getLogger(__name__)

blp = Blueprint("feed", __name__, description="What happens to all sessions.")


@blp.route("/events", methods=["GET"])
@blp.arguments(FeedQuerySchema, location="query")
@blp.response(
    200,
    stream_of("FeedEvents"),
    description="Server-sent events: `begin`, then `state`, `phase`, "
    "`backup`, `restore_point`, `drill_failed`, `files_lost`, `files_restored`, `rolled_back` and `message`.",
    content_type=STREAM,
)
@blp.operation("streamEvents", 400)
def stream(query: dict[str, Any]) -> Response:
    """Follow all sessions that the key may see: a key with a `user_prefix` those of its users, a `service` key without
    one those that it created, or with `user_id` those of any user. Deleted sessions say `terminated`. `Last-Event-ID`
    resumes after that event. The stream ends after an hour, or when its reader is too slow: resume then."""
    user_id = query.get("user_id")
    if user_id is not None:
        check_user(user_id)
    feed, after = core().feed, resume_point(request.headers.get("Last-Event-ID"))
    complete = after is None or feed.complete_after(after)
    position = after if after is not None else feed.last_id()
    wanted = seen_by(caller(), user_id, label_pairs(query["label"]))
    return streamed(lambda: lines(feed, position, complete, wanted), user_id)


def seen_by(by: Principal, user_id: str | None, labels: list[tuple[str, str]]) -> Callable[[FeedEvent], bool]:
    """Whether an event is one that the caller asked for and may see. Without `user_id`, a key that lists one user at a
    time sees the sessions that it created."""
    own_only = user_id is None and not by.user_prefix and not by.lists_everything

    def wanted(event: FeedEvent) -> bool:
        visible = by.may_see(event.user_id) and (event.made_by == by.name or not own_only)
        asked = user_id is None or event.user_id == user_id
        return visible and asked and all(event.labels.get(name) == value for name, value in labels)

    return wanted


def lines(
    feed: Feed, position: str, complete: bool, wanted: Callable[[FeedEvent], bool], heartbeat: float = HEARTBEAT
) -> Iterator[str]:
    """The lines of a stream: first `begin`, whose id resumes at its beginning, then every event after `position`."""
    yield sse(position, "begin", {"complete": complete})
    quiet_since = time.monotonic()
    try:
        for event in feed.follow(position, wanted, LIFETIME, min(heartbeat, QUIET)):
            if event is not None:
                yield line_of(event)
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= heartbeat:
                yield STILL_HERE
                quiet_since = time.monotonic()
    except StateUnavailable as error:
        log.info("a stream of the feed ended early: %s", error)


@lru_cache(maxsize=256)
def line_of(event: FeedEvent) -> str:
    """An event in the wire format, with data as in the session's own stream, whose it is, and when it was. Followers
    get the same event at the same time: it is written once for all."""
    data = {**event.data, "uuid": event.uuid, "user_id": event.user_id, "at": iso(event.at)}
    return sse(event.id, event.type, data)
