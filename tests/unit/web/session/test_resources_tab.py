"""What a session uses, on its page."""

from __future__ import annotations

import time

from app.core.composition import Core
from app.core.sessions.resources import Sample
from tests.unit.web.conftest import Visitor


def test_the_overview_shows_what_it_uses_and_the_hour(visitor: Visitor, core: Core, uuid: str) -> None:
    core.store.change(uuid, time.time(), replicas=1)
    core.resources.note(uuid, Sample(1.5, 420_000_000, 1_200_000_000), time.time() - 60)
    for path in ("", "/resources"):
        shown = visitor.get(f"/sessions/{uuid}{path}").text
        for words in ("1.50 cores", "420 MB", "1.2 GB"):
            assert f"<b>{words}</b>" in shown
        assert shown.count("in the last hour: ") == 3
        assert "Answers" not in shown, "there were none"


def test_a_session_without_a_report_shows_nothing_used(visitor: Visitor, uuid: str) -> None:
    shown = visitor.get(f"/sessions/{uuid}/resources").text
    assert "<b>0.00 cores</b>" in shown
    assert "<b>0 B</b>" in shown
