"""How a store's client is made."""

from __future__ import annotations

import fsspec
import pytest

from app.core.storage import object_stores


def test_googles_client_takes_the_token_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is: nobody is asked about it. restic takes it from the same variable."""
    monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", "canary")
    client = object_stores.filesystem("gs://bucket/kept")
    assert client.credentials.credentials.token == "canary"
    assert "canary" not in repr(client)
    fsspec.get_filesystem_class("gs").clear_instance_cache()
