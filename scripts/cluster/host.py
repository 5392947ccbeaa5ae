"""What the cluster touches outside its own folder and network: cgroups, kernel settings, fixed paths.

Some programs of the cluster write to places that can't be configured. What was not there before is removed
after; kernel settings get their old values back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.cluster.components import cni_name
from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import Layout
from scripts.cluster.processes import run

RECORD = "before.json"
KUBELET_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""Set by every kubelet at its start (pkg/kubelet/cm, setupKernelTunables)."""
SHARED_FOLDERS = (
    "/run/containerd",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
    "/run/netns",
)
"""Fixed paths that containerd, its shims, runc, CNI and the kubelet write to."""


def remember(layout: Layout) -> None:
    """Record, once for a cluster, what `restore` must undo. From then on the folder is the cluster's.

    Raises ClusterError for a folder in which something else lies: `down` will delete it with all it holds.
    """
    file = layout.folder / RECORD
    if file.exists():
        return
    layout.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if any(layout.folder.iterdir()):
        raise ClusterError(f"{layout.folder} is not empty, and no cluster's: choose another CLUSTER_DIR.")
    before = {
        "at": time.time_ns(),
        "sysctls": {name: _read(Path("/proc/sys") / name) for name in KUBELET_SYSCTLS},
        "folders": [name for name in SHARED_FOLDERS if not Path(name).exists()],
    }
    _write(file, before)


def _others(layout: Layout) -> dict[Path, Any]:
    """The records of other clusters, with their paths."""
    files = [file for file in layout.folder.parent.glob(f"*/{RECORD}") if file.parent != layout.folder]
    found = {}
    for file in files:
        # It may be going at this very moment.
        with contextlib.suppress(FileNotFoundError, ValueError):
            found[file] = json.loads(file.read_text())
    return found


def _write(file: Path, record: Mapping[str, object]) -> None:
    # In the folder above: killed in between, the cluster's own is still empty.
    unfinished = file.parent.with_suffix(".new")
    unfinished.write_text(json.dumps(record))
    unfinished.rename(file)


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def restore(layout: Layout) -> None:
    """Undo the cluster's changes outside its folder. Call it when its other parts are removed."""
    try:
        before = json.loads((layout.folder / RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return
    _remove_files(layout)
    others = _others(layout)
    if others:
        # They need all this still. What was there before the first of them is known to the oldest record: if that
        # is this one, the next oldest takes it over.
        file, oldest = min(others.items(), key=lambda item: item[1]["at"])
        if before["at"] < oldest["at"]:
            _write(file, before)
        return
    for name, value in before["sysctls"].items():
        file = Path("/proc/sys") / name
        if value is not None and _read(file) != value:
            file.write_text(value)
    if "/var/lib/kubelet" in before["folders"]:
        # Of every kubelet, whatever its root is; none is left to use it.
        Path("/var/lib/kubelet/device-plugins/kubelet.sock").unlink(missing_ok=True)
    for name in before["folders"]:
        remove_empty(Path(name))


def _remove_files(layout: Layout) -> None:
    """Files of this cluster's containers in folders shared with other clusters."""
    sandboxes = set()
    for task in (layout.containerd / "state" / "io.containerd.runtime.v2.task" / "k8s.io").glob("*"):
        sandboxes.add(task.name)
        address = _read(task / "address") or ""
        if address.startswith("unix:///run/containerd/s/"):
            Path(address.removeprefix("unix://")).unlink(missing_ok=True)
        shutil.rmtree(Path("/run/containerd/runc/k8s.io") / task.name, ignore_errors=True)
    results = Path("/var/lib/cni/results")
    for result in results.glob(f"{cni_name(layout)}-*"):
        sandboxes.add(result.name.removeprefix(f"{cni_name(layout)}-").partition("-")[0])
        result.unlink(missing_ok=True)
    for sandbox in sandboxes:
        # Loopback's network has one name in every cluster.
        (results / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and str(layout.folder) in os.readlink(link):
            link.unlink()


def remove_empty(folder: Path) -> None:
    """Remove a folder and its subfolders, as far as they are empty."""
    # `ip netns` mounts its folder onto itself, which Path.is_mount does not notice.
    if str(folder) in mounts_below(folder) and not any(folder.iterdir()):
        with contextlib.suppress(ClusterError):
            run(["umount", str(folder)])
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def remove_folder(layout: Layout) -> None:
    """Delete the cluster's folder. Its record is deleted last: it identifies the folder as a cluster's."""
    for path in list(layout.folder.iterdir()):
        if path.name == RECORD:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (layout.folder / RECORD).unlink(missing_ok=True)
    layout.folder.rmdir()


def is_ours(layout: Layout) -> bool:
    """Whether the folder is a cluster's, also a partly created or removed one."""
    return (layout.folder / RECORD).exists() or (layout.folder.exists() and not any(layout.folder.iterdir()))


def create_cgroups(layout: Layout) -> None:
    """Create the parent cgroup of all pods in every hierarchy; the kubelet expects it."""
    for root in _hierarchies():
        folder = root / layout.cgroup.strip("/")
        folder.mkdir(exist_ok=True)
        # Under version 1 a new group may use no processor and no memory node until told which.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (folder / name).exists() and not _read(folder / name):
                (folder / name).write_text(_read(root / name) or "")


def processes_in_cgroups(layout: Layout) -> set[int]:
    """The ids of all processes of the cluster's pods."""
    found: set[int] = set()
    for folder in _own_cgroups(layout):
        found.update(int(word) for word in (_read(folder / "cgroup.procs") or "").split())
    return found


def remove_cgroups(layout: Layout) -> bool:
    """Remove the cluster's empty cgroups, innermost first; whether all were removed."""
    for folder in _own_cgroups(layout):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return not any(True for _ in _own_cgroups(layout))


def _own_cgroups(layout: Layout) -> Iterator[Path]:
    for root in _hierarchies():
        for path, _, _ in os.walk(root / layout.cgroup.strip("/"), topdown=False):
            yield Path(path)


def _hierarchies() -> list[Path]:
    """The root of every mounted hierarchy: one under cgroup version 2, several with version 1."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [(line.split()[4], line.partition(" - ")[2].split()[0]) for line in lines]
    return [Path(where) for where, kind in mounts if kind in ("cgroup", "cgroup2")]


def mounts_below(folder: Path) -> list[str]:
    """The mount points at or below a folder, the innermost first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # The kernel writes spaces and the like as octal escapes.
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [point for point in reversed(points) if Path(point).is_relative_to(folder)]


def unmount_below(folder: Path) -> None:
    """Unmount everything at or below a folder. Raises ClusterError for mounts that stay busy."""
    for point in mounts_below(folder):
        run(["umount", point])
