"""What happens to all sessions."""

from __future__ import annotations

from collections.abc import Sequence

from workspaces.events import FEED_TYPES, Event, typed
from workspaces.resources.base import Resource, operation
from workspaces.sse import STREAM, Stream, follow


class Feed(Resource):
    """The events of all sessions that the key may see."""

    @operation("streamEvents", STREAM)
    def follow(
        self, *, user_id: str | None = None, label: Sequence[str] | None = None, after: str | None = None
    ) -> Stream[Event]:
        """States, backups and ends of prompts as they happen, after a `FeedBegin`; or all after the event with the id
        `after`. Those of one user, and of sessions with every `label`, as `course=python-101`. It connects again by
        itself, and each time begins with a `FeedBegin`; it ends when it is closed."""
        query = {"user_id": user_id, "label": label}
        events = follow(self._http, "/events", after, query=query)
        return Stream(typed(event, FEED_TYPES) for event in events)
