"""What people read about a workspace that isn't up: plain words, and no place of the service's machines."""

from __future__ import annotations

import inspect

import pytest

from app.api.reasons import (
    ASLEEP,
    FAILED,
    FAILS,
    RESTORING,
    STARTING,
    STOPPED,
    WAITS,
    WAKING,
    Files,
    for_people,
    told,
)
from app.core import errors
from app.core.sessions.model import PHASES, Status
from app.core.sessions.reason_codes import ReasonCode
from app.core.storage.archive_keys import UnknownKey

UP_ONCE = dict.fromkeys(PHASES, 1)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (
            "The editor ended unexpectedly. Last lines of its log:\nError: ENOENT /root/.cache/x/launch.js\n10.0.0.7",
            "The editor ended unexpectedly.",
        ),
        (
            "The workspace's image cannot be pulled: dial tcp 10.1.2.3:443: registry.corp.example.com",
            "The workspace's image cannot be pulled.",
        ),
        ("The worker gave up at /srv/data/x on node-7.internal.example.com", "The worker gave up at … on …"),
        ("It is at http://10.0.0.7:8000/x or 10.0.0.7 or C:\\x\\y", "It is at … or … or …"),
        ("Unreadable: “/workspace/app/mine.txt”", "Unreadable."),
        ("", ""),
        ("x" * 1000, "x" * 200 + "."),
    ],
)
def test_a_reason_is_shown_without_what_machines_said(reason: str, shown: str) -> None:
    assert for_people(reason) == shown


@pytest.mark.parametrize("code", [each.value for each in ReasonCode])
def test_each_code_has_words_of_its_own_that_say_what_to_do(code: str) -> None:
    words = told(Status.FAILED, {}, code, "A reason: of a machine")
    assert words.title == FAILED
    assert words.text == FAILS[code]
    assert words.text.endswith(".") and ("ry again" in words.text or "ell the people" in words.text)
    assert words.detail == f"A reason. Code: {code}."


def test_the_codes_of_errors_exist() -> None:
    codes = {UnknownKey.code} | {
        each.code for _, each in inspect.getmembers(errors, inspect.isclass) if hasattr(each, "code")
    }
    assert set(FAILS) - {each.value for each in ReasonCode} <= codes
    assert set(WAITS) <= {each.value for each in ReasonCode}


def test_an_unknown_code_has_words_too_and_one_that_was_up_has_stopped() -> None:
    words = told(Status.FAILED, {}, "", "")
    assert (words.title, words.detail) == (FAILED, "")
    assert words.text.startswith("Something went wrong.")
    assert told(Status.FAILED, UP_ONCE, ReasonCode.EDITOR_ENDED, "").title == STOPPED


def test_what_waits_says_for_what_and_what_sleeps_that_it_sleeps() -> None:
    assert told(Status.WAKING, {}, "", "") == WAKING
    assert told(Status.CREATED, {}, "", "") == STARTING
    assert told(Status.CREATED, {}, "", "", Files.RESTORED) == told(Status.WAKING, {}, "", "", Files.RESTORED)
    assert told(Status.WAKING, {}, "", "", Files.RESTORED) == RESTORING
    assert told(Status.CREATED, {}, ReasonCode.NO_CAPACITY, "").text == WAITS[ReasonCode.NO_CAPACITY]
    assert told(Status.SLEEPING, UP_ONCE, "", "") == ASLEEP
