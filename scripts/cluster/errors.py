"""The one exception of the cluster's script, in a module of its own so that every other can import it."""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster can't do what was asked; the message says why, to a person."""
