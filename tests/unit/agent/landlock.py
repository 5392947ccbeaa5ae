"""Whether this kernel can keep the agent's token from commands."""

from __future__ import annotations

import ctypes

import pytest

from app.agent.tools import runner


def kernel_hides() -> bool:
    """As the runner asks it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(runner.CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))) >= runner.OLDEST


hides = pytest.mark.skipif(not kernel_hides(), reason="this kernel has no Landlock")
