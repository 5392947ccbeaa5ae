"""Ways into a workspace that a product has besides a link, on a real cluster, through the ingress (the suite is
tests/suites/ways_in.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.product import LET_IN, Api, kubectl, settings_of_processes
from tests.product import product
from tests.suites.ways_in import KEPT, Ways, WaysIn, browser, context, settings_with, signs_in
from tests.waiting import wait_for
from workers.runtime.kubernetes.pods import FILES

__all__ = ["browser", "context", "signs_in"]

# All processes are replaced before the first test and after the last.
pytestmark = pytest.mark.timeout(900)

WHO_KNOWS = ("web", "forward-auth", "worker", "sweeper", "backup-worker")
"""The processes that must hear of the product, and of where workspaces are: who makes their addresses, and who lets
people in."""


@pytest.fixture(scope="module")
def ways(api: Api) -> Iterator[Ways]:
    """The product is served beside the cluster: by its names below `localhost` a browser finds it here."""
    with product() as app, settings_of_processes(*WHO_KNOWS, **settings_with(app)):
        session = api.call("POST", "/session/create", {"user_id": "ada"})
        uuid = session["uuid"]
        try:
            wait_for(lambda: api.visit(session).status_code in LET_IN, "the ingress to lead there")
            kubectl("exec", f"deployment/user-{uuid}", "--", "touch", f"{FILES}/{KEPT}")
            yield Ways(api.call, api.new, app, session, FILES)
        finally:
            api.call("DELETE", f"/session/{uuid}?backup=false")


class TestWaysInOnCluster(WaysIn):
    """The whole product, as the overlay `dev` puts it there."""
