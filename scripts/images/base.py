"""Builds the Debian base of the images from Debian's packages instead of pulling it from a registry.

It has the name of the image it replaces, so the Dockerfile needs no change. It is built once and kept as an archive:
the build takes a while, and a new base rebuilds all images.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts.images import oci

NAME = "docker.io/library/debian:bookworm-slim"
SUITE = "bookworm"
LIMIT = 900.0
"""Seconds for it; it took 35 s on 2 cores."""

LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/groff/*")
KEPT = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")
"""Files of packages to omit, as the original image does, also of packages installed later."""


@dataclass(frozen=True)
class Base:
    """The base in its archive; `digest` changes with each build of it."""

    archive: Path
    digest: str


def command(target: Path) -> list[str]:
    """The command that creates the root file system as a tar file."""
    options = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    options += [f"--dpkgopt=path-include={path}" for path in KEPT]
    # /bin is a link to /usr/bin from the start: else the package that merges them comes in, and all of Perl with it.
    options += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=usr-is-merged"]
    return ["mmdebstrap", "--quiet", "--variant=minbase", *options, SUITE, str(target)]


def ensure(cache: Path, fresh: bool = False) -> Base:
    """The base, built if it is not in the cache or if `fresh`; raises `oci.BuildError`."""
    recipe = hashlib.sha256(repr((NAME, command(Path("root.tar")))).encode()).hexdigest()[:12]
    archive = cache / f"debian-{recipe}.tar"
    if fresh or not archive.exists():
        print("scripts/images/build: building the Debian base (about a minute, once)", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix=".base-", dir=cache) as folder:
            root = Path(folder, "root.tar")
            oci.run(command(root), LIMIT)
            oci.commit_root(root, NAME)
        oci.save(NAME, archive)
        for old in set(cache.glob("debian-*.tar")) - {archive}:
            old.unlink()
    return Base(archive, oci.config_digest(archive))
