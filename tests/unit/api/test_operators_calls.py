"""What operators ask: keys, settings, processes, samples for charts, what is wrong, and the recovery of sessions."""

from __future__ import annotations

import json
import time

import pytest
from flask import Flask

from app.api import diagnosis
from app.api.diagnosis import worst
from app.core.composition import Core
from app.core.operations.checks import CHECKS
from app.core.operations.verdicts import State, Verdict
from app.core.redis import task_queue
from app.core.redis.counters import START_BUCKETS
from app.core.redis.dead_letters import DeadLetter
from app.core.redis.processes import KINDS, Reporter
from app.core.redis.task_queue import QUEUES
from app.core.sessions.model import Status, iso
from app.core.sessions.samples import Last, Sample
from app.core.storage.archive_keys import new_key
from app.process.settings import Settings
from tests.unit.api.helpers import (
    ADMIN_KEY,
    KEYS,
    NO_REDIS,
    SERVICE_KEY,
    AppMaker,
    Client,
    check_problem,
    digest,
    key_entry,
    keyed,
)

READ_KEY, SCHOOL_KEY = "the-key-that-only-reads", "the-key-of-a-school"
SCHOOL = {"user_prefix": "s-", "max_concurrent": 5, "budget": 12.5}
NONE = {
    "status": "none",
    "dry_run": None,
    "requested_at": None,
    "ended_at": None,
    "found": None,
    "recovered": 0,
    "damaged": None,
    "error": None,
}

pytestmark = pytest.mark.settings(
    archive_key=new_key(),
    api_keys=json.dumps(
        [*KEYS, key_entry("reads", READ_KEY, "read"), key_entry("school", SCHOOL_KEY, "admin", **SCHOOL)]
    ),
)


@pytest.fixture
def reader(app: Flask) -> Client:
    return keyed(app, READ_KEY)


LETTER = "/dead-letters/0123456789abcdef"


@pytest.fixture
def letter(core: Core) -> DeadLetter:
    made = DeadLetter(id=LETTER[-16:], task=task_queue.BACKUP, args=("k3v9x0qa",), at=1.0)
    core.dead_letters.add(made)
    return made


READS = ("/keys", "/settings", "/processes", "/overview/history", "/diagnosis", "/recovery", "/dead-letters")
CHANGES = (("POST", "/recovery"), ("POST", f"{LETTER}/retry"), ("DELETE", LETTER))


@pytest.mark.parametrize("key", [SERVICE_KEY, SCHOOL_KEY])
@pytest.mark.parametrize(("method", "path"), [*(("GET", path) for path in READS), *CHANGES])
def test_they_are_for_operators_alone(
    app: Flask, core: Core, letter: DeadLetter, key: str, method: str, path: str
) -> None:
    """Not for a key that is bound to users, whatever its role."""
    check_problem(keyed(app, key).open(path, method=method), 403, "forbidden")
    assert (queued(core), core.dead_letters.read()) == (0, [letter])


def test_a_read_key_sees_what_operators_see_and_changes_nothing(reader: Client, core: Core, letter: DeadLetter) -> None:
    for method, path in CHANGES:
        check_problem(reader.open(path, method=method), 403, "forbidden")
    assert (queued(core), core.dead_letters.read()) == (0, [letter])
    for path in READS:
        assert reader.get(path).status_code == 200, path


def test_keys_are_shown_without_their_digests(client: Client) -> None:
    answer = client.get("/keys")
    found = {each["name"]: each for each in answer.json["keys"]}
    assert list(found) == sorted(["api_key", "backend", "course", "reads", "school", "web"])
    assert found["school"] == {"name": "school", "role": "admin", "limits": {}, **SCHOOL}
    assert found["api_key"] == {"name": "api_key", "role": "admin", "limits": {}, **dict.fromkeys(SCHOOL)}
    assert found["web"]["limits"] == {"create": "5/minute"}
    for key in (ADMIN_KEY, SERVICE_KEY, SCHOOL_KEY):
        assert key not in answer.text
        assert digest(key) not in answer.text


@pytest.mark.settings(api_keys=json.dumps([key_entry("backend", key) for key in ("old-key", "new-key")]))
def test_those_of_a_rotation_are_both_shown(client: Client) -> None:
    assert [each["name"] for each in client.get("/keys").json["keys"]] == ["api_key", "backend", "backend"]


@pytest.mark.settings(llm_api_key="sk-hidden", secret_key="k" * 40, web_workers=3)
def test_all_settings_are_shown_and_no_key(client: Client) -> None:
    answer = client.get("/settings")
    found = {each["name"]: each for each in answer.json["settings"]}
    assert list(found) == Settings.variables()
    for hidden in ("sk-hidden", "k" * 40, ADMIN_KEY, digest(SERVICE_KEY), "p%40ss"):
        assert hidden not in answer.text
    assert found["WEB_WORKERS"]["value"] == 3
    assert found["LLM_API_KEY"] == {
        "name": "LLM_API_KEY",
        "value": "set",
        "unit": "text",
        "default": "not set",
        "reason": found["LLM_API_KEY"]["reason"],
        "changed": True,
        "secret": True,
    }


def test_processes_are_shown_by_kind(client: Client, core: Core) -> None:
    Reporter(core.redis, "gateway").tick()
    body = client.get("/processes").json
    found = {each["kind"]: each for each in body["processes"]}
    assert list(found) == list(KINDS)
    assert found["gateway"]["status"] == "alive"
    assert found["gateway"]["host"]
    assert abs(found["gateway"]["clock_skew_seconds"]) < 5
    assert found["gateway"]["since"] <= body["timestamp"]
    unknown = dict.fromkeys(("host", "seen_at", "since", "clock_skew_seconds"))
    assert found["beat"] == {"name": "beat", "kind": "beat", "status": "silent", **unknown}


def test_a_sample_is_shown_in_full(client: Client, core: Core) -> None:
    at = int(time.time()) // 60 * 60
    wakes = tuple(int(number == 5) for number in range(len(START_BUCKETS) + 1))
    told = {"failures": {"no_capacity": 1}, "queues": {"wake": 2}, "dead_letters": 3}
    sample = Sample(at=at, sessions={"active": 4}, wakes=wakes, creates=wakes[::-1], cost=0.1234567, **told)  # type: ignore[arg-type]
    core.samples.add(Last(""), {}, sample)
    body = client.get("/overview/history").json
    assert body["interval_seconds"] == 60
    assert body["samples"] == [
        {
            "at": iso(at),
            "sessions": {**dict.fromkeys(map(str, Status), 0), "active": 4},
            "wakes": 1,
            "wake_p50_ms": 875,
            "wake_p95_ms": 988,
            "creates": 1,
            "create_p50_ms": 2500,
            "create_p95_ms": 2950,
            "cost_dollars": 0.123457,
            "saved_dollars": 0.0,
            "failures": {"no_capacity": 1},
            "queues": {**dict.fromkeys(QUEUES, 0), "wake": 2},
            "dead_letters": 3,
        }
    ]


def test_an_empty_service_has_no_samples(client: Client) -> None:
    assert client.get("/overview/history?hours=1").json["samples"] == []
    assert client.get("/overview/history?hours=25").json["interval_seconds"] == 3600


@pytest.mark.parametrize("hours", ["0", "721", "x", "-1", "1.5"])
def test_other_hours_are_refused(client: Client, hours: str) -> None:
    check_problem(client.get(f"/overview/history?hours={hours}"), 400, "invalid_request")


# What is wrong

WELL = Verdict("redis", State.OK, "well")
ODD = Verdict("model", State.UNKNOWN, "odd", "ask")
BAD = Verdict("beat", State.FAILED, "bad", "mend")
SO_SO = Verdict("clocks", State.WARNING, "so so", "look")


@pytest.mark.parametrize(
    ("found", "status"),
    [([], "ok"), ([WELL], "ok"), ([WELL, ODD], "unknown"), ([ODD, SO_SO], "warning"), ([SO_SO, BAD, ODD], "failed")],
)
def test_the_worst_check_counts(found: list[Verdict], status: str) -> None:
    assert worst(found) == status


def test_a_diagnosis_has_each_check(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "diagnose", lambda core, now: [WELL, BAD])
    body = client.get("/diagnosis").json
    assert body["status"] == "failed"
    assert body["checks"] == [
        {"check": "redis", "status": "ok", "found": "well", "remedy": ""},
        {"check": "beat", "status": "failed", "found": "bad", "remedy": "mend"},
    ]


@pytest.mark.settings(redis_url=NO_REDIS)
def test_a_diagnosis_is_made_while_redis_is_down(client: Client) -> None:
    answer = client.get("/diagnosis")
    assert answer.status_code == 200, answer.text
    found = {each["check"]: each["status"] for each in answer.json["checks"]}
    assert list(found) == list(CHECKS)
    assert found["redis"] == "failed"


# Recovery


def queued(core: Core) -> int:
    """How often the look at the store waits in its queue."""
    return len(core.redis.lrange(task_queue.BACKUP_QUEUE, 0, -1))


def test_a_recovery_is_asked_for_and_shown_to_its_end(client: Client, reader: Client, core: Core) -> None:
    assert client.get("/recovery").json == reader.get("/recovery").json == NONE
    answer = client.post("/recovery")
    assert answer.status_code == 202
    asked = {"status": "running", "dry_run": False, "requested_at": answer.json["requested_at"]}
    assert answer.json == client.get("/recovery").json == NONE | asked
    assert queued(core) == 1
    core.recoveries.note_recovered()
    core.recoveries.note_failed("The store is away.")
    assert client.get("/recovery").json == NONE | asked | {"recovered": 1, "error": "The store is away."}
    recovery = core.recoveries.waiting()
    assert recovery is not None
    core.recoveries.end(recovery, 1_700_000_000.0, found=3, damaged=2)
    done = {"status": "done", "ended_at": "2023-11-14T22:13:20.000Z", "found": 3, "recovered": 1, "damaged": 2}
    assert client.get("/recovery").json == NONE | asked | done
    again = client.post("/recovery", json={"dry_run": True}).json
    assert (again["status"], again["dry_run"], again["recovered"]) == ("running", True, 0)


def test_without_an_archive_key_there_is_nothing_to_recover(make_app: AppMaker) -> None:
    check_problem(keyed(make_app(), ADMIN_KEY).post("/recovery"), 409, "restore_points_off")
