"""A setting that is a JSON object changes what it names, and nothing else can be named."""

from __future__ import annotations

import pytest

from app.process.settings import Settings, SettingsError


def test_what_is_not_named_stays_as_it_is() -> None:
    assert Settings().points_kept() == (3, 24, 7, 4)
    assert Settings(restore_point_keep='{"last": 20}').points_kept() == (20, 24, 7, 4)
    assert Settings(restore_point_keep='{"weekly": 0, "daily": 1}').points_kept() == (3, 24, 1, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"yearly": 1}', "has the unknown name 'yearly'; it may have last, hourly, daily, weekly."),
        ('{"last": "3"}', ": last must be a whole number."),
        ('{"last": 1.5}', ": last must be a whole number."),
        ('{"last": true}', ": last must be a whole number."),
        ('{"hourly": -1}', " must have no negative number."),
        ("[3]", " must be a JSON object, such as "),
        ("3, 24", " is not valid JSON: "),
    ],
)
def test_the_start_is_refused_by_a_sentence_that_says_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setenv("RESTORE_POINT_KEEP", text)
    with pytest.raises(SettingsError) as caught:
        Settings.from_env()
    assert str(caught.value).startswith("RESTORE_POINT_KEEP") and told in str(caught.value)
