"""The verdict over scripted days: the moment at which a session must sleep, and until which it must not.

A day begins on a Monday at 8:00 UTC with a session that has just come up and sleeps 15 minutes after its last use;
`MAX_AWAKE` is 12 hours. Its times are minutes from there. The sweep looks when the verdict before told it to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.sessions.awake_hours import HOURS, BadHours, hours_end, read_hours
from app.core.sessions.counted_time import Counted
from app.core.sessions.idle_policy import (
    BUSY_GRACE,
    MAX_EXPIRY_RECHECK,
    MAX_RECHECK,
    Policy,
    expiry_verdict,
    idle_verdict,
    not_ahead,
)
from app.core.sessions.model import Record, Signal, Status
from app.core.signal_kinds import SIGNALS
from app.process.settings import Settings, SettingsError
from tests.unit.core.conftest import a_record
from workers.clock import ClockGuard

MONDAY = 1_763_971_200.0
"""2025-11-24T08:00:00Z."""

MINUTE, HOUR = 60.0, 3_600.0
IDLE = 15
POLICY = Policy(max_awake=12 * HOUR, wake_grace=30.0)
UP = a_record(status=Status.ACTIVE, idle_timeout=IDLE * MINUTE, ttl=600.0, last_activity=MONDAY, awake_since=MONDAY)

LOOKS = 10_000
"""Of the sweep, in a day of a test: a verdict that is never done would show."""


@dataclass(frozen=True)
class Event:
    """What happens at a minute of the day: a signal, other fields of the record, or a jump of the clock (s)."""

    minute: float
    signal: str = ""
    until: float = 0.0
    fields: dict[str, Any] = field(default_factory=dict)
    jump: float = 0.0


def every(minutes: float, signal: str, start: float, end: float) -> list[Event]:
    """A signal again and again, the last time at `end`."""
    count = round((end - start) / minutes)
    return [Event(start + n * minutes, signal) for n in range(count)] + [Event(end, signal)]


def once(signal: str, minute: float, until: float = 0.0) -> list[Event]:
    return [Event(minute, signal, until)]


def prompts(minute: float, **fields: Any) -> list[Event]:
    """The inbox changes its counts."""
    return [Event(minute, fields=fields)]


def slept_at(events: Iterable[Event], policy: Policy = POLICY, record: Record = UP) -> float:
    """The minute in which the sweep puts it to sleep, infinite when it wouldn't in four days.

    The clock of the record and of the sweep may jump; the answer is in minutes that really passed.
    """
    coming = sorted(events, key=lambda event: event.minute)
    steady, passed, offset = ClockGuard(), 0.0, MONDAY
    due = idle_verdict(record, policy, offset).next_check
    for _ in range(LOOKS):
        wait = due - offset - passed
        look = passed if wait > MAX_RECHECK else passed + max(0.0, wait)
        if coming and coming[0].minute * MINUTE <= look:
            event = coming.pop(0)
            passed = max(passed, event.minute * MINUTE)
            steady.trusts(passed + offset, passed)
            record, offset = happened(record, event, passed + offset), offset + event.jump
            continue
        passed, now = look, look + offset
        if not due or passed > 4 * 24 * HOUR:
            return math.inf
        if not steady.trusts(now, passed):
            passed += 1.0
            continue
        verdict = idle_verdict(record, policy, now)
        if verdict.due:
            return passed / MINUTE
        assert verdict.next_check > now, verdict.why
        if verdict.warn:
            record = replace(record, warned=verdict.sleeps_at)
        if verdict.ahead:
            changed = not_ahead(record, now)
            record = replace(record, **(changed | {"signals": {**record.signals, **changed["signals"]}}))
        due = verdict.next_check
    raise AssertionError("the sweep never came to an end")


def happened(record: Record, event: Event, now: float) -> Record:
    if not event.signal:
        return replace(record, **event.fields)
    signal = Signal(now, MONDAY + event.until * MINUTE if event.until else 0.0)
    return replace(record, signals={**record.signals, event.signal: signal}, last_activity=now)


def quiet_job(start: float, end: float, until: float) -> list[Event]:
    """One that is seen every half minute from `start` to `end`, and counts until a minute at most."""
    return [replace(event, until=until) for event in every(0.5, "quiet_job", start, end)]


LONG_BUILD = [*once("terminal", 1), *every(0.5, "jobs", 1, 5 * 60)]
BUILD_FOR_EVER = [*once("terminal", 1), *every(5, "jobs", 1, 3 * 24 * 60)]
THINKING = [*once("prompt", 1), *prompts(1.1, unfinished=1), *every(0.2, "turn", 1.2, 16), *prompts(16, unfinished=0)]
ALONE = [*once("prompt", 1), *prompts(1.1, unfinished=1), *every(0.2, "turn", 1.2, 41), *prompts(41, unfinished=0)]
DIES = [*once("prompt", 1), *prompts(1.1, unfinished=1), *every(0.2, "turn", 1.2, 6)]
LUNCH = [*every(1, "editor", 0, 4 * 60), *every(1, "editor", 4 * 60 + 14, 8 * 60)]

DAYS: dict[str, tuple[list[Event], float]] = {
    "nobody comes": ([], IDLE),
    "typing for three hours": (every(1, "editor", 0, 180), 180 + IDLE),
    "typing, a lunch of 14 minutes, typing": (LUNCH, 8 * 60 + IDLE),
    "reading with the tab open, a scroll now and then": (every(10, "editor", 0, 120), 120 + IDLE),
    "reading without a touch for longer than the timeout": ([*once("editor", 5), *once("editor", 21)], 20),
    "a tab that was loaded, then in the background over night": (every(0.1, "browser", 0, 2), 2 + IDLE),
    "a person reloads the page all evening": (every(10, "browser", 0, 240), 240 + IDLE),
    "something makes a browser's requests for ever": (every(5, "browser", 0, 3 * 24 * 60), 12 * 60),
    "a long build in a terminal": (LONG_BUILD, 5 * 60 + IDLE),
    "a build that never ends": (BUILD_FOR_EVER, 12 * 60 + 1),
    "sleep 600; make": ([*once("terminal", 1), *every(0.2, "jobs", 11, 30)], 30 + IDLE),
    "a quiet job of half an hour": ([*once("terminal", 1), *quiet_job(1, 31, until=121)], 31 + IDLE),
    "a quiet job that goes on": ([*once("terminal", 1), *quiet_job(1, 3 * 24 * 60, until=121)], 121),
    "a quiet job that works now and then": (
        [*once("terminal", 1), *quiet_job(1, 120, until=121), *quiet_job(120, 3 * 24 * 60, until=240)],
        240,
    ),
    "a quiet job that counts for longer than MAX_AWAKE": (
        [*once("terminal", 1), *quiet_job(1, 3 * 24 * 60, until=3_000)],
        12 * 60 + 1,
    ),
    "a quiet job that does not count any more": ([*once("terminal", 1), *quiet_job(1, 60, until=0.5)], 1 + IDLE),
    "the clock jumps back an hour while a quiet job waits": (
        [*once("terminal", 1), *quiet_job(1, 20, until=121), Event(20.1, jump=-HOUR), *quiet_job(20.5, 40, until=61)],
        40 + IDLE,
    ),
    "the model thinks for 15 minutes": (THINKING, 16 + IDLE),
    "the agent works with no tab open": (ALONE, 41 + IDLE),
    "the agent dies while it works": (DIES, 6 + IDLE),
    "a prompt every 10 minutes for two days": (every(10, "prompt", 0, 2_880), 2_880 + IDLE),
    "prompts that its agent never takes": (prompts(1, waiting=2), 12 * 60),
    "a prompt that its agent takes late": ([*prompts(1, waiting=1), *once("turn", 50), *prompts(50, waiting=0)], 65),
    "a keepalive": (once("keepalive", 1, until=200), 200),
    "a keepalive for longer than MAX_AWAKE": (once("keepalive", 1, until=3_000), 12 * 60),
    "a keepalive that is taken back": ([*once("keepalive", 1, until=200), *once("keepalive", 2, until=2)], IDLE),
    "a keepalive again and again": ([Event(n, "keepalive", n + 60) for n in range(0, 4_000, 50)], 12 * 60),
    "typing for 14 hours": (every(1, "editor", 0, 840), 840 + IDLE),
    "a build begun after 11 hours of typing": (
        [*every(1, "editor", 0, 660), *every(1, "jobs", 660, 3 * 24 * 60)],
        660 + 12 * 60,
    ),
    "the clock jumps back an hour while someone types": (
        [*every(1, "editor", 0, 20), Event(20.5, jump=-HOUR), *every(1, "editor", 21, 40)],
        40 + IDLE,
    ),
    "the clock jumps forward an hour while someone types": (
        [*every(0.1, "editor", 0, 20), Event(20.05, jump=HOUR), *every(0.1, "editor", 20.1, 40)],
        40 + IDLE,
    ),
}


@pytest.mark.parametrize("day", DAYS)
def test_a_session_sleeps_at_the_minute_it_should_and_not_before(day: str) -> None:
    events, minute = DAYS[day]
    assert slept_at(events) == pytest.approx(minute, abs=0.02)


def test_a_timeout_shorter_than_a_turns_grace_counts_from_the_turns_end() -> None:
    """A sweep may have looked while the turn still counted for `BUSY_GRACE`."""
    record = replace(UP, idle_timeout=BUSY_GRACE / 2)
    turn = [*prompts(0.2, unfinished=1), *once("turn", 0.2), *once("turn", 0.4), *prompts(0.41, unfinished=0)]
    assert 0.9 <= slept_at(turn, record=record) <= 1.0


@pytest.mark.parametrize("jump", [-365 * 24 * HOUR, -24 * HOUR])
def test_a_clock_that_jumps_back_far_keeps_a_session_up_for_one_more_timeout_at_most(jump: float) -> None:
    """Its times lie in the future for ever then; they count as now, once."""
    asleep = slept_at([*once("editor", 1), Event(2, jump=jump)])
    assert 16 <= asleep <= 2 + 2 * IDLE + 1


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("Mon-Fri 08:00-18:00", 10.0),
        ("Mon 08:00-09:00,Mon 09:00-12:30", 4.5),
        ("Sat-Mon 07:00-08:00", 0.0),
        ("Sat-Mon 07:00-08:01", 1 / 60),
        ("Sun 22:00-09:00", 1.0),
        ("Sun 22:00-08:00", 0.0),
        ("Mon 00:00-00:00, Tue 00:00-10:00", 26.0),
        ("Mon-Sun 00:00-00:00", 16.0 + 7 * 24),
        ("", 0.0),
    ],
)
def test_hours_end_when_the_last_of_those_that_follow_one_another_does(text: str, hours: float) -> None:
    """Those of the whole week after one."""
    end = hours_end(read_hours(text), MONDAY)
    assert end == pytest.approx(MONDAY + hours * HOUR if hours else 0.0)


@pytest.mark.parametrize(
    "text", ["always", "Mon 8-18", "mon 08:00-18:00", "Xyz 08:00-09:00", "Mon 08:00-24:00", "Mon 08:61-09:00", "x" * 65]
)
def test_what_is_no_hours_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(BadHours, match="must have the form"):
        read_hours(text)


@given(st.from_regex(HOURS, fullmatch=True))
@pytest.mark.slow
def test_whatever_looks_like_hours_is(text: str) -> None:
    """So that the pattern in the API's document tells all of it."""
    assert all(0 <= span.start < span.end <= 2 * 24 * HOUR for span in read_hours(text))


@pytest.mark.parametrize(
    ("policy", "events", "minute"),
    [
        ({"hours": read_hours("Mon-Fri 08:00-18:00")}, [], 10 * 60),
        ({"hours": read_hours("Mon-Sun 00:00-00:00")}, [], 12 * 60),
        ({"hours": read_hours("Tue 08:00-18:00")}, [], IDLE),
        ({"windows": {"browser": 300.0}}, every(1, "browser", 0, 60), 65),
        ({"windows": {"browser": 300.0}}, every(1, "editor", 0, 60), 60 + IDLE),
        ({"windows": {"jobs": 0.0}}, every(1, "jobs", 0, 60), IDLE),
        ({"windows": {"quiet_job": 120.0}}, quiet_job(0, 60, until=120), 62),
        ({"windows": {"quiet_job": 0.0}}, quiet_job(0, 60, until=120), IDLE),
        ({"max_awake": 0.0}, BUILD_FOR_EVER, 3 * 24 * 60 + IDLE),
        ({"max_awake": 0.0}, prompts(1, waiting=1), math.inf),
    ],
)
def test_a_session_sleeps_as_the_settings_say(policy: dict[str, Any], events: list[Event], minute: float) -> None:
    """In hours, up to MAX_AWAKE; after each signal's own window; and never while something goes on without one."""
    assert slept_at(events, replace(POLICY, **policy)) == minute


@pytest.mark.parametrize(
    ("fields", "minute"),
    [
        ({"signals": {"window": Signal(MONDAY, detail="Mon 07:00-09:00")}}, 60),
        ({"idle_timeout": 5.0}, POLICY.wake_grace / MINUTE),
    ],
    ids=["until its own hours end", "after its grace, however short its timeout"],
)
def test_a_session_that_nobody_uses_sleeps_by_what_is_its_own(fields: dict[str, Any], minute: float) -> None:
    assert slept_at([], POLICY, replace(UP, **fields)) == pytest.approx(minute, abs=1e-6)


@pytest.mark.parametrize(
    "fields", [{"idle_timeout": 0.0}, *({"status": status} for status in Status if status is not Status.ACTIVE)]
)
def test_only_an_active_session_with_a_timeout_is_ever_idle(fields: dict[str, Any]) -> None:
    verdict = idle_verdict(replace(UP, **fields), POLICY, 1e10)
    assert (verdict.due, verdict.next_check) == (False, 0.0)


def test_one_that_never_woke_shows_its_last_use_as_its_wake() -> None:
    created = replace(UP, status=Status.CREATED, awake_since=0.0, last_activity=MONDAY + 60)
    wake = idle_verdict(created, POLICY, MONDAY + 60).reasons[0]
    assert (wake.name, wake.at) == ("wake", MONDAY + 60)


def test_an_unfinished_prompt_counts_until_its_agent_is_silent_however_short_the_timeout() -> None:
    """It reports every 10 s while it works."""
    working = replace(UP, unfinished=1, idle_timeout=10.0, signals={"turn": Signal(MONDAY + 100)})
    assert not idle_verdict(working, POLICY, MONDAY + 100 + BUSY_GRACE - 1).due
    assert idle_verdict(working, POLICY, MONDAY + 100 + BUSY_GRACE).due


def looks(record: Record = UP) -> Iterator[tuple[float, bool]]:
    """When the sweep looks (s), and whether it warns then, until it puts the session to sleep."""
    look = idle_verdict(record, POLICY, MONDAY).next_check
    while not (verdict := idle_verdict(record, POLICY, look)).due:
        yield look - MONDAY, verdict.warn
        record = replace(record, warned=verdict.sleeps_at) if verdict.warn else record
        look = verdict.next_check


def test_a_sleep_is_announced_once_a_minute_before() -> None:
    assert list(looks()) == [(14 * MINUTE, True)]
    assert list(looks(replace(UP, idle_timeout=90.0))) == [(60.0, True)], "the last third of a short timeout"


def test_a_use_after_the_warning_makes_it_void_and_there_is_another_one() -> None:
    warned = replace(UP, warned=MONDAY + 900)
    assert not idle_verdict(warned, POLICY, MONDAY + 880).warn
    used = replace(warned, signals={"editor": Signal(MONDAY + 880)})
    again = idle_verdict(used, POLICY, MONDAY + 900)
    assert (again.due, again.warn, again.next_check) == (False, False, MONDAY + 880 + 840)
    assert idle_verdict(used, POLICY, again.next_check).warn


def test_the_verdict_explains_itself() -> None:
    """By what keeps it up the longest; with every signal, also those never seen."""
    record = replace(UP, signals={"editor": Signal(MONDAY + 100), "jobs": Signal(MONDAY + 200, detail="make")})
    verdict = idle_verdict(record, POLICY, MONDAY + 230)
    assert verdict.why == "a terminal's processes used CPU 30 s ago (make)"
    reasons = {reason.name: reason for reason in verdict.reasons}
    assert set(reasons) == {"wake", *SIGNALS}
    assert (reasons["editor"].until, reasons["editor"].person) == (MONDAY + 1_000, True)
    assert (reasons["jobs"].until, reasons["jobs"].person) == (MONDAY + 1_100, False)
    assert reasons["browser"].at == reasons["browser"].until == 0.0
    idle = idle_verdict(record, POLICY, MONDAY + 5_000)
    assert (idle.due, idle.why) == (True, "unused for 4800 s")
    limited = idle_verdict(replace(UP, signals={"jobs": Signal(MONDAY + 12 * HOUR)}), POLICY, MONDAY + 12 * HOUR)
    assert limited.why == "unused for 0 s; only a person keeps it awake after 43200 s"


def test_a_quiet_job_is_explained_by_its_name_and_by_when_it_counts_no_more() -> None:
    signal = Signal(MONDAY + 1_000, MONDAY + 3_000, "sleep")
    verdict = idle_verdict(replace(UP, signals={"quiet_job": signal}), POLICY, MONDAY + 1_010)
    at_most = "sleep, until 2025-11-24T08:50:00.000Z at most"
    assert verdict.why == f"a quiet job was at work in a terminal 10 s ago ({at_most})"
    [reason] = [reason for reason in verdict.reasons if reason.name == "quiet_job"]
    assert (reason.counts, reason.until, reason.person) == (900.0, MONDAY + 1_900, False)
    ended = idle_verdict(replace(UP, signals={"quiet_job": replace(signal, at=MONDAY + 2_995)}), POLICY, MONDAY + 3_000)
    assert (ended.due, ended.why) == (True, f"unused for 5 s; its quiet job counts no more ({at_most})")
    alone = idle_verdict(replace(UP, signals={"quiet_job": signal}), POLICY, MONDAY + 1_900)
    assert (alone.due, alone.why) == (True, "unused for 900 s")
    nameless = idle_verdict(replace(UP, signals={"quiet_job": replace(signal, detail="")}), POLICY, MONDAY + 1_010)
    assert nameless.why.endswith("(until 2025-11-24T08:50:00.000Z at most)")


def test_a_policy_is_what_the_settings_say_and_names_what_is_wrong() -> None:
    assert Policy.of(Settings()).windows == {}
    assert Policy.of(Settings(activity_windows='{"browser": 60}')).windows == {"browser": 60.0}
    for wrong in ("[]", "{", '{"noise": 1}', '{"browser": -1}', '{"keepalive": 1}', '{"browser": "long"}'):
        with pytest.raises(SettingsError, match="ACTIVITY_WINDOWS"):
            Policy.of(Settings(activity_windows=wrong))
    with pytest.raises(SettingsError, match="AWAKE_HOURS"):
        Policy.of(Settings(awake_hours="always"))


FAILED, ASLEEP = replace(UP, status=Status.FAILED), replace(UP, status=Status.SLEEPING)
ARCHIVED, LONG = replace(ASLEEP, archived_at=MONDAY + 700), replace(ASLEEP, ttl=5_000.0)
NO, ARCHIVE, END = (False, False), (False, True), (True, False)
"""Whether it has expired, and whether it is to be archived."""


@pytest.mark.parametrize(
    ("record", "seconds", "retention", "due", "next_check"),
    [
        pytest.param(UP, 599, 1, NO, 600, id="before its ttl"),
        pytest.param(UP, 600, 1, END, 600, id="after its ttl"),
        pytest.param(replace(UP, last_activity=MONDAY + 500), 600, 1, NO, 1_100, id="used in between"),
        pytest.param(ASLEEP, 600, 1, END, 600, id="asleep after its ttl"),
        pytest.param(FAILED, 600, 1, END, 600, id="failed after its ttl"),
        pytest.param(ASLEEP, 599, 3_000, NO, 600, id="asleep before its ttl, then archived"),
        pytest.param(ASLEEP, 600, 3_000, ARCHIVE, 600, id="asleep after its ttl, archived"),
        pytest.param(ASLEEP, 2_999, 3_000, ARCHIVE, 2_999, id="asleep before the end of the retention"),
        pytest.param(ASLEEP, 3_000, 3_000, END, 3_000, id="asleep after the retention"),
        pytest.param(ARCHIVED, 800, 3_000, NO, 3_000, id="archived"),
        pytest.param(ARCHIVED, 2_999, 3_000, NO, 3_000, id="archived before the end of the retention"),
        pytest.param(ARCHIVED, 3_000, 3_000, END, 3_000, id="archived after the retention"),
        pytest.param(ARCHIVED, 1e9, 0, NO, 1e9 + MAX_EXPIRY_RECHECK, id="archived for ever"),
        pytest.param(LONG, 4_999, 3_000, NO, 5_000, id="before a ttl beyond the retention"),
        pytest.param(LONG, 5_000, 3_000, END, 5_000, id="after a ttl beyond the retention"),
        pytest.param(UP, 700, 30_000, NO, 1_000, id="awake, so not archived, and looked at again soon"),
        pytest.param(FAILED, 700, 30_000, NO, 1_000, id="failed, so not archived"),
        pytest.param(replace(UP, status=Status.WAKING), 700, 30_000, NO, 1_000, id="waking, so not archived"),
        pytest.param(replace(UP, status=Status.TERMINATING), 1_000, 1, NO, 4_600, id="a teardown that may fail"),
        pytest.param(replace(UP, status=Status.TERMINATED), 1_000, 1, NO, -MONDAY, id="terminated: never again"),
        pytest.param(replace(UP, ttl=0.0), 1e12, 1, NO, -MONDAY, id="without a ttl: never"),
        pytest.param(replace(UP, ttl=1e9), 0, 1, NO, MAX_EXPIRY_RECHECK, id="far ahead: once a day"),
    ],
)
def test_a_session_expires_or_is_archived_when_it_should_and_is_looked_at_then(
    record: Record, seconds: float, retention: float, due: tuple[bool, bool], next_check: float
) -> None:
    """Once a day at least, so that a deadline beyond that is one of a clock that jumped back."""
    seen = expiry_verdict(record, Counted(MONDAY + seconds), retention)
    assert ((seen.due, seen.archive), seen.next_check, seen.ahead) == (due, MONDAY + next_check, False)


def test_gaps_put_the_expiry_off_and_times_ahead_are_noticed() -> None:
    seen = expiry_verdict(UP, Counted(MONDAY + 1_000, ((MONDAY + 100, MONDAY + 900),)), 1.0)
    assert (seen.due, seen.next_check) == (False, MONDAY + 1_400)
    assert expiry_verdict(replace(UP, last_activity=MONDAY + 60), Counted(MONDAY), 1.0).ahead


@pytest.mark.parametrize(("tries", "hours"), [(1, 1), (2, 2), (3, 4), (5, 16), (6, 24), (1_000, 24)])
def test_one_that_could_not_be_deleted_is_left_alone_longer_each_time(tries: int, hours: int) -> None:
    failed = replace(FAILED, expiry_tries=tries, requested_at=MONDAY + 1_000)
    waits = expiry_verdict(failed, Counted(MONDAY + 1_000), 1.0)
    assert (waits.due, waits.next_check) == (False, MONDAY + 1_000 + hours * HOUR)
    assert f"its backup failed {tries} times" in waits.why
    assert expiry_verdict(failed, Counted(waits.next_check), 1.0).due is True
