"""Whether the disk or namespace of all workspaces is the one that it was.

A volume counts as lost only there. While a disk is not mounted, or a setting names another namespace, no workspace is
seen either, but none is lost: restoring them all would put their newest copies beside newer files.
"""

from __future__ import annotations

import logging

import redis

from app.core.errors import PermanentError, RuntimeUnavailable
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from workers.runtime.base import Runtime

log = logging.getLogger(__name__)

WRONG = (
    "The disk or namespace of the workspaces is not the one that it was, so no lost files are restored: mount the "
    "disk, or correct the setting. If it was replaced for good, delete the key workspaces:place in Redis."
)


class Place:
    """The place of all workspaces, remembered in Redis. Methods raise `StateUnavailable`, and the runtime's errors."""

    def __init__(self, client: redis.Redis, runtime: Runtime) -> None:
        self._redis = client
        self._runtime = runtime

    def is_same(self, *, sure: bool) -> bool:
        """Whether the place is the remembered one. Where none is, it is remembered if it is `sure` to be the right
        one."""
        known, now = self._remembered(), self._now()
        if known == "" and now and sure:
            with redis_errors:
                self._redis.set(keys.PLACE, now, nx=True)
            known = self._remembered()
        if known and now is not None and now != known:
            log.warning("%s", WRONG)
        return bool(known) and now == known

    def refuse_another(self) -> None:
        """Raises `RuntimeUnavailable` if another place is remembered."""
        if known := self._remembered():
            now = self._now()
            if now is not None and now != known:
                raise RuntimeUnavailable(WRONG)

    @redis_errors
    def _remembered(self) -> str:
        return str(self._redis.get(keys.PLACE) or "")

    def _now(self) -> str | None:
        """None if the runtime may not tell."""
        try:
            return self._runtime.place()
        except PermanentError as error:
            log.warning("the workspaces' place is unknown: %s", error)
            return None
