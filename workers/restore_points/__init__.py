"""Restore points: a session's files as restic stored them, deduplicated and encrypted, in the session's own
repositories.

A point exists when its sidecar does (`sidecar`), which is written last. What is left out, and whether anything changed,
is decided in `app/volume`.
"""

from workers.restore_points.making import make_point
from workers.restore_points.proving import prove_point
from workers.restore_points.restoring import restore_point

__all__ = ["make_point", "prove_point", "restore_point"]
