"""Builds the Go programs of the cluster once: etcd, Kubernetes, the KEDA operator and CoreDNS; fetches the kinds that
the manifests have objects of; and builds an object store for tests.

They come from the Go module proxy as source and are pinned by the go.mod and go.sum beside this file. A build
is kept outside the checkout under a name made of both, so that another version is another folder. Several
may run at once: one builds, the others wait. A killed one leaves nothing that looks finished.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scripts.cluster.errors import ClusterError
from scripts.lib.locks import only_one

HERE = Path(__file__).resolve().parent
BUILD_LIMIT = 3_600.0
"""Seconds for a build, and for waiting for another run's; Kubernetes and KEDA take 5 to 7 minutes each on 2 cores."""
KUBERNETES_VERSION = "1.34.4"
"""As in kubernetes/go.mod; a program built outside Kubernetes' own tree does not know it."""
GO_HOMES = ("/usr/local/go/bin", "/usr/lib/go/bin")
"""Where Go is if it is not on PATH, as installed by its own instructions or by Debian."""


@dataclass(frozen=True)
class Kinds:
    """Definitions of custom resources in the source of a Go module, in a folder of it, one in a file
    GROUP_PLURAL.yaml. By default all of them, else those with these plurals."""

    module: str
    folder: str
    plurals: tuple[str, ...] = ("*",)


@dataclass(frozen=True)
class Module:
    """A go.mod and its programs; `programs` maps a package to the name of its file."""

    name: str
    programs: dict[str, str]
    ldflags: str = "-s -w"
    kinds: Kinds | None = None
    """Kept beside the programs."""


def _version_flags(version: str) -> str:
    major, minor, _ = version.split(".")
    package = "k8s.io/component-base/version"
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {package}.{name}={value}" for name, value in values.items())])


_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
MODULES = (
    Module(
        "kubernetes",
        {f"k8s.io/kubernetes/cmd/{name}": name for name in _KUBERNETES},
        _version_flags(KUBERNETES_VERSION),
    ),
    Module("etcd", {"go.etcd.io/etcd/server/v3": "etcd"}),
    Module("coredns", {"github.com/coredns/coredns": "coredns"}),
    Module(
        "keda",
        {"github.com/kedacore/keda/v2/cmd/operator": "keda-operator"},
        kinds=Kinds("github.com/kedacore/keda/v2", "config/crd/bases"),
    ),
    Module("cert-manager", {}, kinds=Kinds("github.com/cert-manager/cert-manager", "deploy/crds")),
    Module("traefik", {}, kinds=Kinds("github.com/traefik/traefik/v3", "docs/content/reference/dynamic-configuration")),
    Module(
        "prometheus-operator",
        {},
        # All ten would take the API server eight seconds at each start.
        kinds=Kinds(
            "github.com/prometheus-operator/prometheus-operator",
            "example/prometheus-operator-crd",
            ("podmonitors", "prometheusrules"),
        ),
    ),
)

MINIO = Module("minio", {"github.com/minio/minio": "minio"})
"""No part of the cluster."""


@dataclass(frozen=True)
class Programs:
    """The paths of the programs."""

    folders: dict[str, Path]

    def __getitem__(self, name: str) -> str:
        """The path of a program. KeyError if no module builds it."""
        for module in MODULES:
            if name in module.programs.values():
                return str(self.folders[module.name] / name)
        raise KeyError(name)

    def crds(self) -> list[Path]:
        """The folders with custom resources."""
        return [self.folders[module.name] / "crds" for module in MODULES if module.kinds]


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "workspace-session-manager"


def built() -> Programs:
    """The paths of the programs, whether they are built or not."""
    return Programs({module.name: target_of(module) for module in MODULES})


def ensure() -> Programs:
    """Build what is missing, on small machines one module at a time. Raises ClusterError."""
    missing = [module for module in MODULES if not target_of(module).exists()]
    if missing:
        go = find_go()
        # Two at a time only where there are cores for it: one build alone keeps four busy.
        with ThreadPoolExecutor(max_workers=2 if (os.cpu_count() or 1) >= 8 else 1) as pool:
            list(pool.map(lambda module: _ensure_one(go, module), missing))
    return built()


def minio() -> Path:
    """The path of MinIO, built if it is missing. Raises ClusterError."""
    if not target_of(MINIO).exists():
        _ensure_one(find_go(), MINIO)
    return target_of(MINIO) / "minio"


def target_of(module: Module) -> Path:
    """The folder of a module's build; its name depends on everything that affects the build."""
    digest = hashlib.sha256(repr((sorted(module.programs.items()), module.ldflags, module.kinds)).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((HERE / module.name / name).read_bytes())
    return cache_folder() / f"cluster-{module.name}-{digest.hexdigest()[:12]}"


def find_go() -> str:
    go = shutil.which("go", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *GO_HOMES]))
    if go is None:
        raise ClusterError("The programs of the cluster must be built once, and there is no Go: install 1.26 or newer.")
    return go


def _ensure_one(go: str, module: Module) -> None:
    target = target_of(module)
    target.parent.mkdir(parents=True, exist_ok=True)
    with only_one(target.parent / f"cluster-{module.name}.lock", BUILD_LIMIT, ClusterError):
        if not target.exists():
            _build(go, module, target)


def _build(go: str, module: Module, target: Path) -> None:
    print(f"cluster: building {module.name} (once; minutes)", file=sys.stderr, flush=True)
    began = time.monotonic()
    # Beside the target: a rename is only atomic within a file system.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        folder = Path(temporary) / "build"
        folder.mkdir()
        flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", f"-ldflags={module.ldflags}"]
        if module.programs:
            _go(go, module, "build", *flags, "-o", f"{folder}/", *module.programs)
        for package, name in module.programs.items():
            (folder / _default_name(package)).rename(folder / name)
        if kinds := module.kinds:
            _go(go, module, "mod", "download", kinds.module)
            source = _go(go, module, "list", "-m", "-f", "{{.Dir}}", kinds.module).strip()
            (folder / "crds").mkdir()
            for plural in kinds.plurals:
                for file in Path(source, kinds.folder).glob(f"*_{plural}.yaml"):
                    # Not copytree: a module's folders are read-only, and so would ours be.
                    (folder / "crds" / file.name).write_bytes(file.read_bytes())
        folder.rename(target)
    print(f"cluster: built {module.name} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _default_name(package: str) -> str:
    """`go build`'s name for a package's program: the last part of its path that is not the module's version."""
    return re.sub(r"/v[0-9]+$", "", package).rsplit("/", 1)[1]


def _go(go: str, module: Module, *arguments: str) -> str:
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    try:
        done = subprocess.run(
            ["nice", "-n", "10", go, *arguments],
            cwd=HERE / module.name,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"Building {module.name} took longer than {BUILD_LIMIT:.0f} s.") from error
    if done.returncode != 0:
        raise ClusterError(f"go {arguments[0]} failed for {module.name}:\n{done.stderr[-4000:]}")
    return done.stdout
