"""The objects of a worker process, built once, after the pool has forked it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from app.core.composition import Core
from app.process.settings import Settings
from workers import runtime as runtimes
from workers.drills import Drills
from workers.erasing import Erasing
from workers.lifecycle.intents import Lifecycle
from workers.points import Points
from workers.runtime.base import Runtime
from workers.sweeps import Sweeps

if TYPE_CHECKING:
    from workers.runtime.kubernetes.download_job import DownloadJobs


@dataclass(frozen=True)
class Context:
    core: Core
    runtime: Runtime
    lifecycle: Lifecycle
    points: Points
    drills: Drills
    sweeps: Sweeps
    erasing: Erasing


@lru_cache(maxsize=1)
def core() -> Core:
    """The core alone: delivery workers have no access to the runtime."""
    return Core(Settings.from_env())


@lru_cache(maxsize=1)
def context() -> Context:
    """The context of this process. Never called before the fork, so that no connection is shared."""
    runtime = runtimes.load(core().settings)
    lifecycle = Lifecycle(core(), runtime)
    points = Points(core(), runtime, lifecycle)
    drills = Drills(core(), runtime, lifecycle)
    sweeps, erasing = Sweeps(core(), runtime, lifecycle), Erasing(core(), runtime)
    return Context(core(), runtime, lifecycle, points, drills, sweeps, erasing)


@lru_cache(maxsize=1)
def download_jobs() -> DownloadJobs:
    """The download jobs, which exist in clusters only; the Kubernetes modules are loaded at the first use."""
    from workers.runtime.kubernetes.download_job import make

    return make(core().settings)
