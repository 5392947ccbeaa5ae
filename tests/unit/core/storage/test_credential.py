"""A short-lived credential, as it travels to a Job."""

from __future__ import annotations

import os

import pytest

from app.core.storage.credential import Credential

GIVEN = Credential({"AWS_SESSION_TOKEN": "canary"}, 12.5)


def test_another_process_gets_it_whole() -> None:
    assert Credential.from_text(GIVEN.to_text()) == GIVEN


def test_its_text_for_people_has_no_secret() -> None:
    assert "canary" not in repr(GIVEN)


def test_clients_and_children_find_it_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    GIVEN.use()
    assert os.environ["AWS_SESSION_TOKEN"] == "canary"
