"""What of the test cluster is on this machine; only for a cluster of our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.cluster import layout as layouts
from scripts.cluster import processes


def volume(claim: Mapping[str, Any]) -> Path:
    """The files of a volume that is bound, where its provisioner sees them: what it mounts others here don't."""
    layout = layouts.from_environment()
    found = processes.running(layout, "provisioner")
    assert found is not None
    return Path(f"/proc/{found.pid}/root{layout.volumes}") / claim["spec"]["volumeName"]
