"""What each user of Redis may do, asked of Redis itself: nothing of an administrator's, and its own keys only."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from app.agent.protocol import Failure
from app.core.access.audit import Act, Audit
from app.core.access.keyring import Keyring, Principal
from app.core.composition import Core
from app.core.redis import keys, task_queue, users
from app.core.redis.events import EventLog
from app.core.redis.memory import Memory
from app.core.restore_points.index import RestorePoints
from app.core.service import NewSession
from app.process.settings import Settings
from app.web.people import AT_ONCE, People
from tests.conftest import ROOT
from tests.redis_users import Guarded

A, B = "abcd1234", "efgh5678"

DANGEROUS = [
    *("FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "SWAPDB 0 1", "SAVE", "BGSAVE", "BGREWRITEAOF"),
    *("SHUTDOWN", "DEBUG SLEEP 1", "MONITOR", "REPLICAOF a 1", "FAILOVER", "SYNC", "CLUSTER INFO", "LATENCY RESET"),
    *("CONFIG GET requirepass", "CONFIG SET dir /", "CONFIG REWRITE", "MODULE LOAD /x", "FUNCTION LOAD x", "FCALL f 0"),
    *("ACL LIST", "ACL SETUSER me", "ACL WHOAMI", "SCRIPT FLUSH", "SCRIPT KILL", "SLOWLOG GET", "MEMORY DOCTOR"),
    *("CLIENT LIST", "CLIENT KILL ID 1", "CLIENT PAUSE 1", "CLIENT NO-EVICT on", "PUBSUB CHANNELS", "WAIT 0 1"),
    *("MIGRATE a 1 k 0 1", "RESTORE k 0 x", "DUMP k", "OBJECT FREQ k", "MOVE k 1", "COPY a b", "RENAME a b", "SORT k"),
]


EVERYBODY = [each.name for each in users.USERS]


def allowed(guarded: Guarded, user: str, commands: Iterable[str]) -> list[str]:
    """Those of the user's commands that Redis would carry out."""
    asked = guarded.client(users.ADMIN)
    return [each for each in commands if asked.execute_command("ACL", "DRYRUN", user, *each.split()) == "OK"]


def test_web_may_sign_people_in_and_end_their_sign_ins(guarded: Guarded) -> None:
    ada = Principal(name="ada", digest="d" * 64, role="read")
    people = People(guarded.client(users.WEB.name), Keyring([ada]), 60)
    secrets = [people.sign_in(ada, by_key=True) for _ in range(AT_ONCE + 1)]
    assert [people.find(secret) is not None for secret in secrets] == [False, *[True] * AT_ONCE]
    people.sign_out(secrets[-1])
    assert people.find(secrets[-1]) is None


@pytest.mark.parametrize(("user", "commands"), [(users.ADMIN, DANGEROUS), *((each, []) for each in EVERYBODY)])
def test_only_the_administrator_may_do_what_is_for_administrators(
    guarded: Guarded, user: str, commands: list[str]
) -> None:
    """So that what others are refused is for whom it comes from, and not for how it is written."""
    assert allowed(guarded, user, DANGEROUS) == commands


@pytest.mark.parametrize(
    ("user", "commands"),
    [
        (
            "gateway",
            [
                *(f"ZADD sessions:intents 1 {A}", f"ZADD sessions:expiry 1 {A}", f"ZADD sessions:idle 1 {A}"),
                *("ZRANGE sessions:all 0 -1", "ZRANGE user:ada:sessions 0 -1", "GET link:0", "SET link:0 x"),
                *("DEL backups", f"HSET backups:in_use {A} x", "HGETALL backup:x", f"SET lease:{A} x"),
                *("LPUSH wake {}", "LPUSH backup {}", "LRANGE deliver 0 -1", "BRPOP deliver 1", "HGETALL unacked"),
                *("GET idempotency:x", "SET sentinel 0", "SUBSCRIBE x", "PUBLISH /0.celery.pidbox x", "SET clock x"),
                *(f"HSET session:{A} task x", f"HDEL session:{A} epoch", f"DEL session:{A}", f"EXPIRE session:{A} 1"),
                *("DEL costs:running", "HSET costs:budgets backend 1", "HSET costs:all:open x 1", "GET costs:shown"),
                *("XADD audit * a b", "XDEL audit 1-1", "XRANGE audit - +", "DEL audit"),
            ],
        ),
        (
            "forward-auth",
            [
                *(f"HGETALL message:{A}:m", f"HGETALL agent:{A}", f"LRANGE queue:{A} 0 -1", "LPUSH deliver {}"),
                *(f"LRANGE session:{A}:prompts 0 -1", "ZADD sessions:expiry 1 x", "DEL backups", "LRANGE wake 0 -1"),
                *(f"HGETALL ledger:{A}:2026-01", "HINCRBY costs:user:ada:2026-01 b 1", "HGETALL costs:all:ever"),
                *("GET tokens:ada:2026-01-01", "HINCRBY counters x 1", "PUBLISH /0.celery.pidbox x"),
            ],
        ),
        (
            "web",
            [
                *(f"HINCRBY ledger:{A}:2026-01 01:b 1", "DEL costs:user:ada:2026-01", "HSET costs:all:open x 1"),
                *("HGETALL unacked", "LRANGE wake 0 -1", "DEL backups", "HSET backup:x a b", "SET sentinel 0"),
                "DEL clock",
            ],
        ),
        (
            "delivery-worker",
            [
                *("ZADD sessions:intents 1 x", "DEL backups", "LRANGE wake 0 -1", f"SET lease:{A} x", "GET link:0"),
                *(f"HSET session:{A} task x", f"HDEL session:{A} epoch", f"DEL session:{A}", f"EXPIRE session:{A} 1"),
            ],
        ),
        ("observer", ["DEL backups", f"SET lease:{A} x", "GET link:0", "LRANGE wake 0 -1", "ZADD sessions:expiry 1 x"]),
        (
            "worker",
            ["GET link:0", "GET idempotency:x", "LRANGE answers:x 0 -1", "LPUSH LIMITER/rate:x y", "SET ballast x"],
        ),
        ("beat", [f"HGETALL session:{A}", "LPUSH wake {}", "LRANGE sweep 0 -1", "BRPOP sweep 1", "EVAL x 0"]),
        (
            "flower",
            ["LPUSH wake {}", "BRPOP wake 1", "DEL wake", f"HGETALL session:{A}", "GET link:0", "HGETALL unacked"],
        ),
        (
            "keda",
            [f"DEL queue:{A}", f"LPUSH queue:{A} x", f"HGETALL session:{A}", f"LRANGE queue:{A} 0 -1", "GET link:0"],
        ),
    ],
)
def test_a_process_has_no_part_in_what_is_anothers(guarded: Guarded, user: str, commands: list[str]) -> None:
    """Whoever has taken it over has not got there."""
    assert allowed(guarded, user, commands) == []


@pytest.mark.parametrize("user", [each.name for each in users.USERS if each.checked])
def test_a_script_gives_nobody_more(guarded: Guarded, user: str) -> None:
    """Any key may be named to one, and what it does with it is refused."""
    client = guarded.client(user)
    for text in ("return redis.call('SET', KEYS[1], 'x')", "return redis.call('FLUSHALL')"):
        digest = guarded.client(users.ADMIN).script_load(text)
        with pytest.raises(redis.ResponseError, match="permissions|can't run this command|can't access"):
            client.evalsha(digest, 1, "nobodys")
    assert guarded.client(users.ADMIN).get("nobodys") is None


def test_the_gateway_notes_whom_it_refuses_and_can_not_touch_what_keys_did(guarded: Guarded) -> None:
    """The refusals are a stream of their own; the other it neither reads nor writes."""
    act = Act(action="model", by="anonymous", role="anonymous", address="10.0.0.5", status=401, reason="unauthorized")
    of_gateway, of_web = Audit(guarded.client("gateway")), Audit(guarded.client("web"))
    of_web.note(replace(act, action="delete", status=200))
    for each in (act, act, replace(act, address="10.0.0.6")):
        of_gateway.note(each, repeatable=True)
    of_gateway.note(replace(act, action="forged"))
    noted = [(entry.act.action, entry.act.address, entry.count) for entry in of_web.page().entries]
    assert noted == [("model", "10.0.0.6", 1), ("model", "10.0.0.5", 2), ("delete", "10.0.0.5", 1)]


WRITERS = [each.name for each in users.PROCESSES if each not in (users.BEAT, users.FLOWER)]


@pytest.mark.parametrize("user", WRITERS)
def test_who_changes_sessions_writes_the_feed_and_only_two_read_it(guarded: Guarded, user: str) -> None:
    """It says of all sessions whose they are, which the gateway, for one, can't find out otherwise. The backup worker
    deletes what it says of an erased one."""
    admin = guarded.client(users.ADMIN)
    admin.delete(keys.FEED)
    admin.hset(f"session:{A}", mapping={"uuid": A, "user_id": "ada", "status": "active"})
    client = guarded.client(user)
    EventLog(client, Memory(client)).append(A, "state", {"status": "active"})
    assert [entry["user_id"] for _, entry in admin.xrange(keys.FEED)] == ["ada"]
    reading = [f"XREAD STREAMS {keys.FEED} 0", f"XRANGE {keys.FEED} - +", f"XREVRANGE {keys.FEED} + -"]
    assert allowed(guarded, user, reading) == (reading if user in ("web", "backup-worker") else [])


@pytest.mark.parametrize("user", ["web", "gateway", "worker", "sweeper", "backup-worker", "delivery-worker"])
def test_whoever_ends_prompts_counts_why(guarded: Guarded, tmp_path: Path, user: str) -> None:
    """A worker that deletes a session ends those that wait."""
    settings = Settings(data_dir=tmp_path, max_sessions_per_user=100)
    web, own = (Core(replace(settings, redis_url=guarded.url(each))) for each in ("web", user))
    uuid = web.sessions.create(NewSession(user_id="ada")).uuid
    web.inbox.take(uuid, "hello", "m1", now=time.time())
    _, before = web.counters.prompts()
    assert own.inbox.finish(uuid, "m1", reason="It was deleted.", code=Failure.DELETE, now=time.time())
    _, after = web.counters.prompts()
    assert after == {"delete": before.get("delete", 0) + 1}


@pytest.mark.parametrize("user", ["sweeper", "backup-worker"])
def test_whoever_deletes_sessions_remembers_whose_restore_points_are_left(guarded: Guarded, user: str) -> None:
    points = RestorePoints(guarded.client(user))
    points.end(A, 2.0)
    points.end(B, 1.0)
    assert points.ending() == [B, A]
    for uuid in (A, B):
        points.ended(uuid)
    assert points.ending() == []


def test_what_scripts_do_may_be_done() -> None:
    """A command that one of them is the first to use is added to the lists; on whose keys is for the lists to say."""
    texts = [each.read_text() for each in (ROOT / "app").rglob("*.lua")]
    used = {name.lower() for text in texts for name in re.findall(r"redis\.call\('([A-Z]+)'", text)}
    granted = {name.partition("|")[0] for name in (*users.READING, *users.WRITING, *users.ERASING)}
    assert len(used) > 40
    assert used - granted == set()


CONTROL = (
    *("PUBLISH /0.celery.pidbox x", "PSUBSCRIBE /0.celery.pidbox", "LPUSH x.reply.celery.pidbox x"),
    *("BRPOP x.reply.celery.pidbox 1", "SADD _kombu.binding.celery.pidbox x", "LPUSH worker@here.celery.pidbox x"),
)
"""What commands Celery's workers, or waits for their answers."""


@pytest.mark.parametrize("user", EVERYBODY)
def test_nobody_commands_workers_by_celerys_remote_control(guarded: Guarded, user: str) -> None:
    """It can end a worker, take back its tasks, and have it take others."""
    assert allowed(guarded, user, CONTROL) == []


TELL, LISTEN = "PUBLISH /0.celeryev/worker.heartbeat x", "PSUBSCRIBE /0.celeryev/*"


@pytest.mark.parametrize(
    ("user", "command"),
    [("worker", TELL), ("sweeper", TELL), ("backup-worker", TELL), ("delivery-worker", TELL), ("flower", LISTEN)],
)
def test_workers_tell_flower_what_they_do_and_only_flower_listens(guarded: Guarded, user: str, command: str) -> None:
    """Which says nothing itself."""
    assert allowed(guarded, user, [TELL, LISTEN]) == [command]
    assert allowed(guarded, "flower", ["PUBLISH events x"]) == []


@pytest.mark.parametrize("said", [{}, {"username": "web", "password": "password-of-gateway"}])
def test_without_a_password_of_ones_own_nobody_gets_in(guarded: Guarded, said: dict[str, str]) -> None:
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=guarded.port, retry=None, **said).ping()


def test_keda_asks_how_long_a_queue_is(guarded: Guarded) -> None:
    """With the script of its Redis scaler (2.20), in short."""
    guarded.client("worker").rpush(f"queue:{A}", "prompt")
    asked = """
        local kind = redis.call('type', KEYS[1]).ok
        if kind == 'list' or kind == 'none' then return redis.call('llen', KEYS[1]) end
        return redis.error_reply('another kind')
    """
    assert [guarded.client("keda").eval(asked, 1, f"queue:{uuid}") for uuid in (A, B)] == [1, 0]


@pytest.mark.parametrize(
    ("user", "tasks"),
    [
        ("beat", list(task_queue.SWEEPS)),
        ("gateway", [task_queue.DELIVER, task_queue.TELL_FILES, task_queue.TOKEN_ENDED]),
        ("forward-auth", list(task_queue.START_KINDS)),
    ],
)
def test_who_asks_for_tasks_may_put_them_where_they_belong(guarded: Guarded, user: str, tasks: list[str]) -> None:
    assert tasks
    commands = [f"LPUSH {task_queue.ROUTES[task]} message" for task in tasks]
    assert allowed(guarded, user, commands) == commands
