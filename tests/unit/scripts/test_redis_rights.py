"""The table of docs/security.md says what the users of Redis may do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.redis import keys, users
from scripts.generate import redis_rights
from scripts.generate.redis_rights import UnnamedKey, example, row

USER = users.User("some", commands=("get", "set"))


def cells(**rights: tuple[str, ...]) -> dict[str, str]:
    """The row of a user with these rights, by the head of each column."""
    return dict(zip(redis_rights.HEAD, row(replace(USER, **rights)), strict=True))  # type: ignore[arg-type]


def test_every_key_has_a_name() -> None:
    """One that is added gets a name here before a process may use it."""
    known = {example(each) for templates in redis_rights.KINDS.values() for each in templates}
    parts = (keys.BOOKED, keys.OPEN, keys.AUDIT_COPY, keys.ALL_COSTS, keys.USER_COSTS, keys.KEY_COSTS, keys.PROCESSES)
    templates = {text for name, text in vars(keys).items() if name.isupper()} - set(parts)
    assert len(templates) > 50
    assert {each for each in templates if example(each) not in known} == set()


def test_what_may_be_written_is_not_said_to_be_only_read() -> None:
    assert cells(both=("session:????????",)) == {
        **dict.fromkeys(redis_rights.HEAD, ""),
        "User": "`some`",
        "Writes": "records",
    }
    assert cells(reads=("session:????????",))["Only reads"] == "records"
    assert cells(writes=("events",))["Writes"] == "the feed of all events"


def test_a_part_is_said_to_be_one() -> None:
    """And a pattern that takes in other keys counts for those too."""
    assert cells(both=("backups",))["Writes"] == "a part of the index of backups and restore points"
    assert cells(both=("costs:key:*",), reads=("costs:user:*",)) == {
        **dict.fromkeys(redis_rights.HEAD, ""),
        "User": "`some`",
        "Writes": "a part of totals of users and API keys",
        "Only reads": "totals of users and API keys",
    }
    assert "budgets of API keys" in cells(both=("costs:*",))["Writes"]


def test_queues_and_channels_have_their_directions() -> None:
    assert cells(writes=("wake",))["Enqueues into"] == "`wake`"
    taking = cells(both=("wake",), reads=("sweep",))
    assert (taking["Enqueues into"], taking["Takes tasks from"]) == ("`wake`", "`wake`")
    assert taking["Only reads"] == "the tasks in `sweep`"
    told = cells(channels=users.WORKERS_EVENTS, commands=("publish",))
    heard = cells(channels=users.WORKERS_EVENTS, commands=("psubscribe",))
    assert (told["Writes"], heard["Only reads"], heard["Writes"]) == ("news of workers", "news of workers", "")


def test_a_key_without_a_name_is_refused() -> None:
    """Else the table would leave it out, and nobody would notice."""
    with pytest.raises(UnnamedKey, match="secrets:x"):
        cells(both=("secrets:x",))
