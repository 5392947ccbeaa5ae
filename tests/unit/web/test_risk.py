"""What is at risk, in words."""

from __future__ import annotations

from app.core.sessions.unsaved_work import KINDS
from app.web.risk import under_way
from app.web.words import RISKS, at_risk


def test_every_kind_of_unsaved_work_has_words() -> None:
    assert set(RISKS) == set(KINDS)


def test_work_is_counted_and_named() -> None:
    risk = {"unsaved": {"count": 1, "names": ["a.py"]}, "unpushed": {"count": 9, "names": ["main"]}, "complete": True}
    assert at_risk(risk) == ["1 unsaved file: a.py", "9 commits not pushed: main and 8 more"]
    assert at_risk({"complete": False}) == ["There may be more: not everything could be checked."]


def test_only_what_keeps_it_awake_is_under_way() -> None:
    signals = [
        {"signal": "turn", "holds": True, "age_seconds": 3.0},
        {"signal": "editor", "holds": False, "age_seconds": 3.0},
        {"signal": "keepalive", "holds": True, "age_seconds": None},
        {"signal": "jobs", "holds": True, "age_seconds": 61.0},
    ]
    assert under_way(signals) == ["its agent was at work just now", "programs ran in a terminal 1 min ago"]
