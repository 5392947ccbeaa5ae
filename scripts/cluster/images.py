"""Loads images into the node: the pause image that every pod needs, and those of tests. No registry is used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import PAUSE_IMAGE, Layout
from scripts.cluster.processes import run, wait_until
from scripts.cluster.programs import cache_folder

LIMIT = 600.0
"""Seconds for one import; 750 MB took 20 s."""
PAUSE_PROGRAM = "catatonit"
"""Statically linked, so its image needs nothing else. With -P it waits until it is signalled."""


def ctr(layout: Layout, *arguments: str, timeout: float = 60.0) -> str:
    """containerd's own client, in the namespace the kubelet uses."""
    return run(["ctr", "--address", str(layout.containerd_socket), "-n", "k8s.io", *arguments], timeout=timeout)


def on_node(layout: Layout) -> dict[str, str]:
    """The images the kubelet can start pods from: name and digest."""
    # The label says that containerd's Kubernetes part has taken notice of an image.
    table = ctr(layout, "images", "list", 'labels."io.cri-containerd.image"==managed')
    rows = [line.split() for line in table.splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def load(layout: Layout, image: str) -> list[str]:
    """Load an image into the node, from an OCI archive or buildah's store; returns its names there.

    An image that has one of these names already is replaced, for pods started from then on. Raises ClusterError.
    """
    if Path(image).is_file():
        return _import(layout, Path(image).resolve())
    with tempfile.TemporaryDirectory(prefix="cluster-image-") as folder:
        archive = Path(folder) / "image.tar"
        name = full_name(image)
        run(["buildah", "push", "--quiet", image, f"oci-archive:{archive}:{name}"], timeout=LIMIT)
        return _import(layout, archive)


def full_name(image: str) -> str:
    """An image's name as Kubernetes completes it: with a registry and a tag."""
    name = image
    first = image.split("/")[0]
    if "/" not in image:
        name = f"docker.io/library/{name}"
    elif not any(mark in first for mark in ".:") and first != "localhost":
        name = f"docker.io/{name}"
    return name if ":" in name.rsplit("/", 1)[1] or "@" in name else f"{name}:latest"


def _import(layout: Layout, archive: Path) -> list[str]:
    wanted = content_of(archive)

    def there() -> bool:
        return wanted.items() <= on_node(layout).items()

    if not there():
        ctr(layout, "images", "import", str(archive), timeout=LIMIT)
        if not wait_until(there, 60.0):
            raise ClusterError(f"containerd has imported {archive.name}, but not as {', '.join(wanted)}.")
    return sorted(wanted)


def content_of(archive: Path) -> dict[str, str]:
    """The names of an OCI archive's images, with their digests.

    Raises ClusterError when it is none, or names nothing.
    """
    try:
        with tarfile.open(archive) as tar:
            member = next((entry for entry in tar if entry.name in ("index.json", "./index.json")), None)
            file = tar.extractfile(member) if member else None
            index = json.load(file) if file else {}
    except (tarfile.TarError, ValueError, OSError) as error:
        raise ClusterError(f"{archive} is no OCI archive: {error}") from error
    key = "org.opencontainers.image.ref.name"
    found = {entry.get("annotations", {}).get(key): entry["digest"] for entry in index.get("manifests", [])}
    found.pop(None, None)
    if not found:
        raise ClusterError(f"{archive} names no image: write it as oci-archive:FILE:NAME.")
    return found


def ensure_pause(layout: Layout) -> None:
    """Load the pause image into the node if it is missing."""
    _import(layout, _pause_archive())


def _pause_archive() -> Path:
    """The archive of the pause image in the cache, made on first use."""
    program = shutil.which(PAUSE_PROGRAM)
    if program is None:
        raise ClusterError(f"There is no {PAUSE_PROGRAM}.")
    digest = hashlib.sha256(Path(program).read_bytes()).hexdigest()[:12]
    target = cache_folder() / f"cluster-pause-{digest}.tar"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".cluster-pause-", dir=target.parent) as folder:
        # A store of its own: nothing of this stays in the user's.
        buildah = ["buildah", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        container = run([*buildah, "from", "scratch"]).strip()
        run([*buildah, "copy", container, program, "/pause"])
        run([*buildah, "config", "--entrypoint", '["/pause", "-P"]', "--user", "65535:65535", container])
        archive = Path(folder) / "pause.tar"
        run([*buildah, "commit", "--quiet", container, f"oci-archive:{archive}:{PAUSE_IMAGE}"])
        run([*buildah, "rm", container])
        with contextlib.suppress(FileExistsError):
            os.link(archive, target)
    return target
