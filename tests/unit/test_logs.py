"""What a log line looks like."""

from __future__ import annotations

import json
import logging
import logging.config
from datetime import UTC, datetime
from io import StringIO

import pytest

from app.logs import logging_config, request_id


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
