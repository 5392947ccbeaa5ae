"""Whether this kernel has Landlock, as new as all that use it need."""

from __future__ import annotations

import pytest

from app.volume import landlock

hides = pytest.mark.skipif(landlock.version() < landlock.MOVING, reason="this kernel has no Landlock")
