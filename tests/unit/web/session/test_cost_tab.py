"""What a session cost, by day."""

from __future__ import annotations

from app.web.session.cost_tab import HEIGHT, bars_of
from tests.unit.web.conftest import Visitor


def day(name: str, dollars: float) -> dict[str, object]:
    return {"day": name, "dollars": {"total": dollars}}


def test_each_day_of_the_answer_has_a_bar() -> None:
    days = [day("2026-11-02", 1.0), day("2026-11-04", 4.0)]
    bars = bars_of({"from": "2026-11-01", "to": "2026-11-05", "days": days})
    assert [bar.day for bar in bars] == [f"2026-11-0{number}" for number in range(1, 6)]
    assert [bar.height for bar in bars] == [0.5, HEIGHT / 4, 0.5, HEIGHT, 0.5]
    assert bars[3].y == 0


def test_a_session_that_used_nothing_yet_says_so(visitor: Visitor, uuid: str) -> None:
    shown = visitor.get(f"/sessions/{uuid}/cost").text
    assert "this month" in shown
