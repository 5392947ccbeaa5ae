"""The calls on a session's use: what they explain, and what they keep up."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.composition import Core
from app.core.redis import keys
from app.core.sessions.idle_policy import WAKE
from app.core.sessions.model import Signal, Status
from app.core.signal_kinds import SIGNALS
from tests.fake_agent import fake_agent
from tests.unit.api.helpers import Client, check_problem, move, new_session

SHOWN = [WAKE, *SIGNALS]


@pytest.fixture
def uuid(client: Client, core: Core) -> str:
    """A session that has been active since now."""
    made = new_session(client)
    now = time.time()
    move(core, made, Status.ACTIVE, idle_at=now + 900, awake_since=now)
    return made


def seconds_until(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() - time.time()


def keep_up(client: Client, uuid: str, **wanted: object) -> Any:
    return client.post(f"/session/{uuid}/keepalive", json=wanted)


def activity(client: Client, uuid: str) -> Any:
    answer = client.get(f"/session/{uuid}/activity")
    assert answer.status_code == 200, answer.text
    return answer.json


def test_activity_explains_what_keeps_a_session_up(client: Client, core: Core) -> None:
    """Each signal, when it was last seen, how long it counts, and whether it holds."""
    uuid = new_session(client, idle_timeout=600)
    move(core, uuid, Status.ACTIVE, awake_since=time.time())
    core.activity.write(uuid, {"jobs": Signal(time.time() - 100, detail="make")})
    body = activity(client, uuid)
    assert [each["signal"] for each in body["signals"]] == SHOWN
    assert body["verdict"]["idle"] is False
    assert body["verdict"]["why"].startswith("it woke 0 s ago")
    jobs = body["signals"][SHOWN.index("jobs")]
    assert (jobs["counts_seconds"], jobs["holds"], jobs["by_a_person"], jobs["detail"]) == (600, True, False, "make")
    assert 100 <= jobs["age_seconds"] < 110
    assert 490 < seconds_until(jobs["until"]) <= 500
    editor = body["signals"][SHOWN.index("editor")]
    assert (editor["last_at"], editor["age_seconds"], editor["holds"], editor["until"]) == (None, None, False, None)
    assert 590 < seconds_until(body["sleeps_at"]) <= 600
    assert 530 < seconds_until(body["next_check"]) <= 540, "when its sleep is announced"
    assert 43_000 < seconds_until(body["only_a_person_counts_from"]) <= 43_200


def test_activity_of_a_session_that_is_not_up_or_never_sleeps_says_so(client: Client, core: Core) -> None:
    uuid = new_session(client, idle_timeout=0)
    body = activity(client, uuid)
    assert body["verdict"] == {"idle": False, "why": "only an active session can be idle; this one is created"}
    assert (body["sleeps_at"], body["next_check"], body["only_a_person_counts_from"]) == (None, None, None)
    move(core, uuid, Status.ACTIVE, awake_since=time.time())
    body = activity(client, uuid)
    assert "never falls asleep" in body["verdict"]["why"]
    assert (body["sleeps_at"], body["next_check"]) == (None, None)


def test_a_keepalive_holds_until_its_end_and_can_be_taken_back(client: Client, core: Core, uuid: str) -> None:
    answer = keep_up(client, uuid, seconds=3_600)
    assert answer.status_code == 200
    assert (answer.json["action"], answer.json["status"], answer.json["hours"]) == ("keepalive", "active", "")
    assert 3_590 < seconds_until(answer.json["until"]) <= 3_600
    assert seconds_until(activity(client, uuid)["sleeps_at"]) > 3_590
    looked_at = core.redis.zscore(keys.IDLE, uuid)
    assert looked_at <= time.time(), "the sweep looks at once"
    assert seconds_until(keep_up(client, uuid, seconds=0).json["until"]) < 1
    assert seconds_until(activity(client, uuid)["sleeps_at"]) <= 900


def test_a_keepalive_may_name_a_time(client: Client, uuid: str) -> None:
    """In any zone; one that is past keeps nothing up."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert 3_500 < seconds_until(keep_up(client, uuid, until=soon.isoformat()).json["until"]) <= 3_600
    past = keep_up(client, uuid, until="2020-01-01T00:00:00Z")
    assert (past.status_code, seconds_until(past.json["until"]) < 1) == (200, True)


def test_hours_of_the_week_are_kept_with_the_session(client: Client, uuid: str) -> None:
    answer = keep_up(client, uuid, hours="Mon-Sun 00:00-00:00")
    assert (answer.json["hours"], answer.json["until"]) == ("Mon-Sun 00:00-00:00", None)
    body = activity(client, uuid)
    assert body["verdict"]["why"].startswith("kept awake in these hours")
    assert body["sleeps_at"] == body["only_a_person_counts_from"], "a whole week is longer than MAX_AWAKE"
    assert keep_up(client, uuid, hours="").json["hours"] == ""
    assert activity(client, uuid)["signals"][-1]["holds"] is False


@pytest.mark.parametrize(
    "wanted",
    [{}, {"seconds": 5, "hours": "Mon 08:00-09:00"}, {"seconds": -1}, {"seconds": "60"}]
    + [{"until": "tomorrow"}, {"until": 5}, {"hours": "always"}, {"days": 1}],
)
def test_a_keepalive_that_makes_no_sense_is_400(client: Client, uuid: str, wanted: dict[str, object]) -> None:
    check_problem(keep_up(client, uuid, **wanted), 400, "invalid_request")


def test_a_keepalive_beyond_the_most_is_cut_to_that_and_says_so(client: Client, uuid: str) -> None:
    answer = keep_up(client, uuid, seconds=1e8)
    assert 28_790 < seconds_until(answer.json["until"]) <= 28_800


def test_a_session_on_its_way_out_can_not_be_kept_up(client: Client, core: Core, uuid: str) -> None:
    """A sleeping one can, for when it is woken; this does not."""
    move(core, uuid, Status.SLEEPING)
    assert keep_up(client, uuid, seconds=60).json["status"] == "sleeping"
    core.sessions.delete(uuid)
    assert keep_up(client, uuid, seconds=60).status_code == 409


def test_the_work_at_risk_is_asked_of_an_awake_workspace(client: Client, core: Core, uuid: str) -> None:
    with fake_agent() as agent:
        agent.unsaved_work = {"unsaved": {"count": 1, "names": ["a.py"]}, "complete": True}
        assert core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
        assert risk(client, uuid) == (True, agent.unsaved_work)
        agent.unsaved_work = {"complete": True}
        assert risk(client, uuid) == (True, None)
    assert risk(client, uuid) == (False, None), "it answers no more"


def test_the_work_at_risk_of_a_sleeping_session_is_what_was_seen_last(client: Client, core: Core, uuid: str) -> None:
    left = {"jobs": {"count": 2, "names": ["make"]}, "complete": True}
    move(core, uuid, Status.SLEEPING, unsaved_work=left)
    assert risk(client, uuid) == (True, left)


def risk(client: Client, uuid: str) -> tuple[bool, Any]:
    answer = client.get(f"/session/{uuid}/risk")
    assert answer.status_code == 200, answer.text
    return answer.json["known"], answer.json["risk"]
