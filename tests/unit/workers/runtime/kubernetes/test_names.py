"""Names in the cluster: derived from the uuid, and labels that hold what they may."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.sessions.model import USER_ID_PATTERN
from workers.runtime.kubernetes import names

DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def test_the_names_of_a_session() -> None:
    """They are what the documentation and the manifests say."""
    assert names.workspace("abcd1234") == "user-abcd1234"
    assert names.scaler("abcd1234") == "user-abcd1234-scaler"
    assert names.host("abcd1234", "example.com") == "vs-code-abcd1234.example.com"
    assert names.selector("abcd1234") == "app=workspace,session-uuid=abcd1234"


@given(uuid=st.from_regex(r"[0-9a-z]{8}", fullmatch=True), backup=st.text())
@pytest.mark.slow
def test_every_name_is_a_dns_label(uuid: str, backup: str) -> None:
    """Whatever the uuid begins with, and whatever the backup is called."""
    for name in (names.workspace(uuid), names.scaler(uuid), names.backup_job("restore", uuid, backup)):
        assert DNS_LABEL.fullmatch(name)


def test_the_same_archive_work_has_the_same_job() -> None:
    """So a repeated task finds it; other work has another."""
    first = names.backup_job("backup", "abcd1234", "app-abcd1234-20260101-000000.zip")
    assert first == names.backup_job("backup", "abcd1234", "app-abcd1234-20260101-000000.zip")
    assert first != names.backup_job("backup", "abcd1234", "app-abcd1234-20260101-000001.zip")
    assert first != names.backup_job("restore", "abcd1234", "app-abcd1234-20260101-000000.zip")


@given(user_id=st.from_regex(USER_ID_PATTERN, fullmatch=True))
def test_every_user_id_becomes_a_label(user_id: str) -> None:
    """The API server would refuse anything else, and with it the session."""
    assert LABEL_VALUE.fullmatch(names.label_value(user_id))


@pytest.mark.parametrize("text", ["ada", "a.b-c_d", "A" * 63])
def test_what_fits_stays_as_it_is(text: str) -> None:
    """A label that can be read is worth more."""
    assert names.label_value(text) == text


def test_user_ids_that_look_alike_stay_apart() -> None:
    """Replacing and cutting must not make one user of two."""
    alike = ["ada@example.com", "ada+example.com", "ada-example.com", "A" * 100, "A" * 101]
    alike += ["auth0|a:b", "auth0:a|b", "auth0-a-b", "auth0|a|b"]
    assert len({names.label_value(each) for each in alike}) == len(alike)
