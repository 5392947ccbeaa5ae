"""What a session's stream says beyond the log of its events."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.api import event_streams
from app.api.event_streams import follow, follow_message
from app.core.composition import Core
from app.core.prompts.inbox import Prompt
from app.core.redis import keys
from app.core.sessions.model import Status
from tests.documented import events_of
from tests.unit.api.helpers import Client


def told(core: Core, uuid: str) -> list[tuple[str, Any]]:
    """The events of a session that is over, from the first on."""
    core.store.change(uuid, time.time(), to=Status.TERMINATING)
    core.store.change(uuid, time.time(), to=Status.TERMINATED)
    lines = "".join(follow(core, core.store.get(uuid), "0-0", announce=False)).split("\n")
    return list(events_of(lines))


def test_the_sessions_stream_has_the_whole_message_too(client: Client, core: Core, uuid: str) -> None:
    """The same as at the end of the stream of the prompt, and each state as it was then."""
    core.inbox.take(uuid, "a long text", "m1", now=time.time())
    core.inbox.delivered(uuid, "m1", time.time())
    core.inbox.finish(uuid, "m1", response={"text": "hello"}, now=time.time())
    whole = client.get(f"/session/{uuid}/messages/m1").json
    queued, delivered, processed = [data for kind, data in told(core, uuid) if kind == "message"]
    assert processed == whole
    assert delivered == whole | {"state": "delivered", "response": None, "processed_at": None}
    assert queued == delivered | {"state": "queued", "delivered_at": None}


def test_a_failed_message_has_its_reason_in_the_sessions_stream(core: Core, uuid: str) -> None:
    core.inbox.take(uuid, "hi", "m1", now=time.time())
    core.inbox.finish(uuid, "m1", reason="No room.", now=time.time())
    *_, failed = [data for kind, data in told(core, uuid) if kind == "message"]
    assert (failed["state"], failed["reason"], failed["response"]) == ("failed", "No room.", None)


def test_a_failed_message_has_what_there_was_of_its_answer(client: Client, core: Core, uuid: str) -> None:
    """Once it has failed, and not in the states before."""
    core.inbox.take(uuid, "hi", "m1", now=time.time())
    core.inbox.delivered(uuid, "m1", time.time())
    core.inbox.finish(uuid, "m1", reason="Cancelled.", response={"text": "half an"}, now=time.time())
    assert client.get(f"/session/{uuid}/messages/m1").json["response"] == {"text": "half an"}
    told_of = [(data["state"], data["response"]) for kind, data in told(core, uuid) if kind == "message"]
    assert told_of == [("queued", None), ("delivered", None), ("failed", {"text": "half an"})]


def test_the_event_of_a_message_that_has_expired_says_its_state(core: Core, uuid: str) -> None:
    core.inbox.take(uuid, "hi", "m1", now=time.time())
    core.inbox.finish(uuid, "m1", response={"text": "hello"}, now=time.time())
    core.redis.delete(keys.PROMPT.format(uuid=uuid, id="m1"))
    *_, processed = [data for kind, data in told(core, uuid) if kind == "message"]
    assert (processed["state"], processed["created_at"]) == ("processed", None)


def test_a_state_that_was_announced_is_not_told_again(core: Core, uuid: str) -> None:
    """It may have been reached between the reads of the position and of the record."""
    before = core.events.last_id(uuid)
    core.store.change(uuid, time.time(), to=Status.TERMINATING)
    record = core.store.get(uuid)
    core.store.change(uuid, time.time(), to=Status.TERMINATED)
    lines = "".join(follow(core, record, before, announce=True)).split("\n")
    assert [data["status"] for _, data in events_of(lines)] == ["terminating", "terminated"]


def test_a_stream_that_is_resumed_leaves_out_no_state(core: Core, uuid: str) -> None:
    """Not the present one either: its caller has not heard of it."""
    core.store.change(uuid, time.time(), to=Status.TERMINATING)
    before = core.events.last_id(uuid)
    core.store.change(uuid, time.time(), to=Status.TERMINATED)
    lines = "".join(follow(core, core.store.get(uuid), before, announce=False)).split("\n")
    assert [data["status"] for _, data in events_of(lines)] == ["terminated"]


def test_the_stream_of_a_prompt_that_ends_between_two_reads_has_all_the_work(
    core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is read, then the prompt: what happens in between is told too."""
    core.inbox.take(uuid, "hi", "m1", now=time.time())
    progress = core.inbox.progress

    def after_the_work(of: str, message_id: str) -> tuple[Prompt, bool]:
        if not core.inbox.get(of, message_id).finished:
            core.inbox.delivered(of, message_id, time.time())
            core.events.append(of, "token", {"message_id": message_id, "text": "hello"})
            core.inbox.finish(of, message_id, response={"text": "hello"}, now=time.time())
        return progress(of, message_id)

    monkeypatch.setattr(core.inbox, "progress", after_the_work)
    lines = "".join(follow_message(core, uuid, core.inbox.get(uuid, "m1"), core.events.last_id(uuid))).split("\n")
    told = [(kind, data.get("state") or data["text"]) for kind, data in events_of(lines)]
    assert told == [("message", "delivered"), ("token", "hello"), ("message", "processed")]


def test_the_stream_of_a_prompt_whose_end_the_log_has_no_more_ends(
    core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "QUIET", 0.01)
    core.inbox.take(uuid, "hi", "m1", now=time.time())
    queued = core.inbox.get(uuid, "m1")
    core.inbox.finish(uuid, "m1", response={"text": "hello"}, now=time.time())
    lines = "".join(follow_message(core, uuid, queued, core.events.last_id(uuid))).split("\n")
    assert [data["state"] for _, data in events_of(lines)] == ["processed"]
