"""What a worker process works with, built once, after the pool forked it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from app.sessions.core import Core, build_core
from app.sessions.delivery import Deliveries
from app.settings import Settings
from workers import runtime as runtimes
from workers.lifecycle import Lifecycle
from workers.runtime.base import Runtime
from workers.sweeps import Sweeps

if TYPE_CHECKING:
    from workers.runtime.readers import Readers


@dataclass(frozen=True)
class Context:
    core: Core
    runtime: Runtime
    lifecycle: Lifecycle
    sweeps: Sweeps


@lru_cache(maxsize=1)
def core() -> Core:
    """The core alone, which is all that couriers have: they have no access to what runs the workspaces."""
    return build_core(Settings.from_env())


@lru_cache(maxsize=1)
def context() -> Context:
    """This process's context; never called before the fork, so that no connection is shared."""
    runtime = runtimes.load(core().settings)
    lifecycle = Lifecycle(core(), runtime)
    return Context(core(), runtime, lifecycle, Sweeps(core(), runtime, lifecycle))


@lru_cache(maxsize=1)
def deliveries() -> Deliveries:
    """Who hands out prompts in this process."""
    return Deliveries(core())


@lru_cache(maxsize=1)
def readers() -> Readers:
    """Who starts readers of backups in this process; there are some in a cluster only, and only the tasks that want
    one load what that takes."""
    from workers.runtime.readers import make

    return make(core().settings)
