"""What a log line looks like."""

from __future__ import annotations

import json
import logging
import logging.config
from datetime import UTC, datetime
from io import StringIO

import pytest

from app.process.logs import logging_config, request_id
from app.process.private_text import LOG_HEADING, private, without_private


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What the configured formatter and filter make of records, wherever their logger is."""
    written = StringIO()
    config = logging_config("INFO")
    config["handlers"]["stderr"] |= {"stream": written}
    config["loggers"] = {"test.logs": {"level": "INFO", "handlers": ["stderr"], "propagate": False}}
    del config["root"]
    logging.config.dictConfig(config)
    return written


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_times_are_iso_8601_in_utc(lines: StringIO, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """In any zone of the machine, with milliseconds."""
    monkeypatch.setenv("TZ", zone)
    record = logging.LogRecord("test.logs", logging.INFO, "", 0, "hello %s", ("you",), None)
    record.created, record.msecs = 1_795_317_091.123, 123.0
    logging.getLogger("test.logs").handle(record)
    line = json.loads(lines.getvalue())
    assert line["time"] == "2026-11-22T03:11:31.123Z"
    assert datetime.fromisoformat(line["time"]) == datetime(2026, 11, 22, 3, 11, 31, 123_000, UTC)
    assert {"level": "INFO", "logger": "test.logs", "message": "hello you"}.items() <= line.items()


def test_each_line_has_the_id_of_its_request(lines: StringIO) -> None:
    token = request_id.set("r1")
    logging.getLogger("test.logs").info("a", extra={"uuid": "aaaa0001"})
    request_id.reset(token)
    line = json.loads(lines.getvalue())
    assert (line["request_id"], line["uuid"]) == ("r1", "aaaa0001")


def test_an_exception_is_logged_by_its_type_and_places_without_its_text(lines: StringIO) -> None:
    """A library may quote a prompt or a password in it. The causes are there too."""
    try:
        try:
            raise PermissionError(13, "Permission denied", "/canary")
        except OSError as error:
            raise ValueError("canary") from error
    except ValueError:
        logging.getLogger("test.logs").exception("failed")
    line = json.loads(lines.getvalue())
    assert line["exc_info"].startswith("builtins.ValueError\n  unit/process/test_logs.py:")
    assert "caused by builtins.PermissionError (Permission denied)" in line["exc_info"]
    assert "canary" not in lines.getvalue()


def test_the_private_parts_of_a_text_are_in_no_line(lines: StringIO) -> None:
    """Wherever they stand: in the message, or in a field."""
    error = f"{private('canary.txt')} and {private('canary”2“')} cannot be read.{LOG_HEADING}\ncanary"
    logging.getLogger("test.logs").warning("failed: %s", error, extra={"reason": error, "more": {"list": [error]}})
    line = json.loads(lines.getvalue())
    assert line["message"] == "failed: “…” and “…” cannot be read."
    assert line["reason"] == line["more"]["list"][0] == "“…” and “…” cannot be read."
    assert "canary" not in lines.getvalue()


def test_a_private_part_that_was_cut_off_stays_private() -> None:
    """The outcome of a Job has a limit of length."""
    assert without_private(f"At {private('canary')}"[:6]) == "At “…”"
