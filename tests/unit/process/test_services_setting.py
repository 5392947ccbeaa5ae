"""How many services a workspace may have: not more than a report has room for."""

from __future__ import annotations

import pytest

from app.agent.protocol import SERVICES_MOST
from app.process.settings import Settings, SettingsError


@pytest.mark.parametrize("most", [0, SERVICES_MOST + 1])
def test_another_number_is_refused(most: int) -> None:
    for allowed in (1, SERVICES_MOST):
        assert Settings(services_per_session=allowed).checked().services_per_session == allowed
    with pytest.raises(SettingsError, match="SERVICES_PER_SESSION"):
        Settings(services_per_session=most).checked()
