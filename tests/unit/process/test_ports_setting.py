"""How many ports of a session may be opened at a time: in a cluster each has a rule at the ingress."""

from __future__ import annotations

import pytest

from app.process.settings import Settings, SettingsError

MOST = 16


@pytest.mark.parametrize("most", [0, MOST + 1])
def test_another_number_is_refused(most: int) -> None:
    for allowed in (1, MOST):
        assert Settings(ports_per_session=allowed).checked().ports_per_session == allowed
    with pytest.raises(SettingsError, match="PORTS_PER_SESSION"):
        Settings(ports_per_session=most).checked()
