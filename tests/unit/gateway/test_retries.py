"""When a refused request is sent again, and after how long."""

from __future__ import annotations

import pytest

from app.gateway.retries import LONGEST_DELAY, error_code, parse_retry_after, retry_delay, worth_retrying

NOW = 1_763_625_600.0  # Thu, 20 Nov 2025 08:00:00 GMT


NO_MONEY = b'{"error": {"message": "...", "code": "insufficient_quota"}}'


@pytest.mark.parametrize(
    ("status", "body", "worth"),
    [
        *((each, b"{}", True) for each in (408, 409, 429, 500, 502, 503, 504, 529)),
        *((each, b"{}", False) for each in (200, 301, 400, 401, 403, 404, 413, 422)),
        (429, NO_MONEY, False),
    ],
)
def test_not_now_is_worth_another_try_and_never_is_not(status, body, worth):
    """No waiting fills an empty account, though it is a 429."""
    assert worth_retrying(status, body) is worth


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b'{"error": "text"}', b'{"error": null}', b"\xff"])
def test_a_body_that_is_no_error_has_no_code(body):
    """A proxy in between may answer anything."""
    assert error_code(body) == ""


def test_waits_double_up_to_a_limit_and_are_spread():
    """Half of it is chance, so that those who were refused together don't come back together."""
    assert [retry_delay(attempt, None, 1.0) for attempt in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert [retry_delay(attempt, None, 0.0) for attempt in range(4)] == [0.25, 0.5, 1.0, 2.0]
    assert retry_delay(1000, None, 1.0) == LONGEST_DELAY


def test_nobody_comes_back_before_the_moment_the_provider_named():
    assert retry_delay(0, 7.0, 0.0) == 7.0
    assert 7.0 < retry_delay(0, 7.0, 1.0) < 8.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("Thu, 20 Nov 2025 08:00:10 GMT", 10.0),
        ("Thu, 20 Nov 2025 07:00:00 GMT", 0.0),
        ("Thu, 20 Nov 2025 08:00:10", 10.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    """RFC 9110 allows both; what is neither counts as absent."""
    assert parse_retry_after(value, NOW) == seconds
