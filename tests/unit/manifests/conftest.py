"""What the overlays of the manifests come to."""

from __future__ import annotations

import pytest

from tests.manifests import MANIFESTS, OVERLAYS, Network, Object, render


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[Object, ...]:
    """All objects of each overlay in turn."""
    return render(MANIFESTS / "overlays" / request.param)


@pytest.fixture
def network(overlay: tuple[Object, ...]) -> Network:
    return Network(overlay)


@pytest.fixture
def dev() -> tuple[Object, ...]:
    return render(MANIFESTS / "overlays" / "dev")


@pytest.fixture
def gke() -> tuple[Object, ...]:
    return render(MANIFESTS / "overlays" / "gke")
