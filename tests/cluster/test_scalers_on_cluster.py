"""Who scales, with the manager in the cluster: KEDA and we, or we alone; and a change from one to the other."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from app.core.prompts.inbox import MARKER
from tests.cluster.product import Api, kubectl, ready_pods, redis_says, running_pods, settings_of_processes
from tests.waiting import wait_for

# The scaler is changed under all sessions of the product.
pytestmark = pytest.mark.alone

SHORT = 3
"""s of idleness after which a session sleeps here."""

WHO_SCALES = ("worker", "sweeper", "backup-worker", "observer")


class Sessions:
    """Sessions of this test, gone at its end."""

    def __init__(self) -> None:
        self.api = Api()
        self.made: list[str] = []

    def create(self, **wanted: object) -> str:
        session = self.api.call("POST", "/session/create", {"user_id": "ada@example.com", **wanted})
        self.made.append(session["uuid"])
        return str(session["uuid"])

    def wake(self, uuid: str) -> None:
        assert self.api.call("POST", f"/session/{uuid}/scale-up")["status"] == "success"

    def sleep(self, uuid: str) -> None:
        assert self.api.call("POST", f"/session/{uuid}/scale-down")["status"] == "success"
        assert (running_pods(uuid), self.api.status(uuid)) == ([], "sleeping")

    def fell_asleep(self, uuid: str, times: int) -> None:
        """By itself, after it was up each time; its log is read, as calls of the API are counted."""

        def done() -> bool:
            return states(uuid)[-2 * times :] == ["active", "sleeping"] * times and not running_pods(uuid)

        wait_for(done, "the session to fall asleep", lambda: str(states(uuid)), interval=1.0)


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    yield made
    for uuid in made.made:
        made.api.call("DELETE", f"/session/{uuid}?backup=false")


def states(uuid: str) -> list[str]:
    """Those that the session was in, in order, but for `created` and `waking`."""
    read = "return cjson.encode(redis.call('xrange', KEYS[1], '-', '+'))"
    entries = json.loads(redis_says("eval", read, "1", f"session:{uuid}:events"))
    fields = [dict(zip(entry[::2], entry[1::2], strict=True)) for _, entry in entries]
    found = [str(json.loads(each["data"])["status"]) for each in fields if each["type"] == "state"]
    return [each for each in found if each not in ("created", "waking")]


def scaled_objects() -> set[str]:
    """The sessions that KEDA knows."""
    found = kubectl("get", "scaledobjects.keda.sh", "-o", "json")
    return {each["metadata"]["labels"]["session-uuid"] for each in json.loads(found)["items"]}


def wakes_and_sleeps(sessions: Sessions) -> str:
    """Asked for, and by idleness."""
    uuid = sessions.create()
    sessions.sleep(uuid)
    sessions.wake(uuid)
    assert len(ready_pods(uuid)) == 1
    idler = sessions.create(idle_timeout=SHORT)
    sessions.fell_asleep(idler, 1)
    sessions.wake(idler)
    sessions.fell_asleep(idler, 2)
    assert sessions.api.status(uuid) == "active"
    return uuid


def test_keda_and_we(sessions: Sessions) -> None:
    """Every session has its ScaledObject, and goes the way it is asked to."""
    uuid = wakes_and_sleeps(sessions)
    assert set(sessions.made) <= scaled_objects()
    assert redis_says("lrange", f"queue:{uuid}", "0", "-1") == MARKER


def test_the_scaler_may_be_changed_under_living_sessions(sessions: Sessions) -> None:
    """To us alone: what KEDA was told goes, a session that is up stays up and one that sleeps wakes. And back: each
    is KEDA's again from its next wake on."""
    up, asleep = sessions.create(), sessions.create()
    sessions.sleep(asleep)
    (pod,) = ready_pods(up)
    with settings_of_processes(*WHO_SCALES, "beat", SCALER="direct", RECONCILE_INTERVAL="2"):
        wait_for(lambda: not scaled_objects(), "the ScaledObjects to go")
        assert (ready_pods(up), sessions.api.status(up)) == ([pod], "active")
        sessions.wake(asleep)
        wakes_and_sleeps(sessions)
        assert scaled_objects() == set()
    assert (ready_pods(up), sessions.api.status(up)) == ([pod], "active")
    sessions.sleep(up)
    sessions.wake(up)
    assert up in scaled_objects()
