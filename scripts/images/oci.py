"""The calls of buildah, and what is read from the OCI archives it writes.

An archive appears whole or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHORT = 60.0
"""Seconds for a call that only reads metadata."""

LONG = 600.0
"""Seconds for one that reads or writes a whole image; the larger takes 30 s on 2 cores."""


class BuildError(Exception):
    """An image can't be built; the text names the step that failed, and why."""


def run(command: list[str], timeout: float) -> str:
    """A command's output; raises `BuildError` with the end of it."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(str(error)) from error
    if done.returncode:
        raise BuildError(f"{' '.join(command[:3])} … failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout.strip()


def build(root: Path, target: str, name: str, timeout: float, given: Mapping[str, Path]) -> None:
    """Build a target of the Dockerfile in `root`; unchanged steps come from the cache. The folders of
    `given` stand for the stages that it names."""
    bundle = Path(os.environ.get("CA_BUNDLE") or "/etc/ssl/certs/ca-certificates.crt")
    secret = ["--secret", f"id=ca,src={bundle}"] if bundle.exists() else []
    # runc: the other runtime of Debian refuses machines with both generations of cgroups.
    options = ["--runtime", "runc", "--format", "oci", "--layers", "--pull-never", *secret]
    options += [f"--build-context={stage}={folder}" for stage, folder in given.items()]
    run(["buildah", "bud", *options, "--target", target, "--tag", name, str(root)], timeout)


def commit_root(root_tar: Path, name: str) -> None:
    """Create an image from a root file system in a tar file."""
    container = run(["buildah", "from", "scratch"], SHORT)
    try:
        run(["buildah", "add", "--quiet", container, str(root_tar), "/"], LONG)
        run(["buildah", "config", "--cmd", "bash", container], SHORT)
        run(["buildah", "commit", "--quiet", container, name], LONG)
    finally:
        run(["buildah", "rm", container], SHORT)


def save(name: str, archive: Path) -> None:
    """Write the image, with its name in it, into an OCI archive. Its layers are packed by zstd: a fifth
    smaller than by gzip, and a node unpacks them in a third of the time."""
    draft = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        run(["buildah", "push", "--quiet", "--compression-format", "zstd", name, f"oci-archive:{draft}:{name}"], LONG)
        draft.rename(archive)
    finally:
        draft.unlink(missing_ok=True)


def load(archive: Path, name: str) -> None:
    """Load an archive's image into the builder's store, under its name, unless it is there."""
    if image_id(name) == config_digest(archive):
        return
    found = run(["buildah", "pull", "--quiet", f"oci-archive:{archive}:{name}"], LONG)
    run(["buildah", "tag", found.splitlines()[-1], name], SHORT)


def image_id(name: str) -> str:
    """The digest of the image of that name in the builder's store; "" if there is none."""
    found = run(["buildah", "images", "--no-trunc", "--json"], SHORT)
    for image in json.loads(found or "null") or []:
        if name in (image.get("names") or []):
            return str(image["id"]).removeprefix("sha256:")
    return ""


def config_digest(archive: Path) -> str:
    """The digest of an archive's image, in hexadecimal: the one it has in any store."""
    with tarfile.open(archive) as tar:
        return str(_manifest(tar)["config"]["digest"]).removeprefix("sha256:")


def config(archive: Path) -> dict[str, Any]:
    """The image's OCI configuration: `Env`, `Entrypoint`, `Cmd`, `User`, `Labels` and so on."""
    with tarfile.open(archive) as tar:
        found = _json(tar, _manifest(tar)["config"]["digest"])["config"]
        return dict(found)


def sizes(archive: Path) -> tuple[int, int]:
    """Bytes of the image's layers, unpacked as on a node, and compressed."""
    with tarfile.open(archive) as tar:
        layers = _manifest(tar)["layers"]
    unpack = 'tar -xOf "$1" "$2" | zstd -dc | wc -c'
    unpacked = [run(["sh", "-c", unpack, "sh", str(archive), _blob(layer["digest"])], LONG) for layer in layers]
    return sum(map(int, unpacked)), sum(int(layer["size"]) for layer in layers)


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    index = json.loads(_read(tar, "index.json"))
    return _json(tar, index["manifests"][0]["digest"])


def _json(tar: tarfile.TarFile, digest: str) -> dict[str, Any]:
    return dict(json.loads(_read(tar, _blob(digest))))


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    if member is None:
        raise BuildError(f"{tar.name!r} is no OCI archive: {name} is missing")
    return member.read()
