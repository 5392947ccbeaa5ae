"""What the calls for operators share: who may use them."""

from __future__ import annotations

from app.api.security import caller
from app.http.problems import Problem


def check_operator() -> None:
    """Raises a 403 unless the caller may list across users; what changes something a key of the role `read` is
    refused before."""
    if not caller().lists_everything:
        raise Problem(403, "forbidden", "This call is open only to admin and read keys that are bound to no users.")
