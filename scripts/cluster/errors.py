"""The cluster script's only exception, in its own module so that every other can import it."""

from __future__ import annotations


class ClusterError(Exception):
    """The command failed; the message tells the user why."""
