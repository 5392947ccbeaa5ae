"""The cluster's own certificate authority, and the kubeconfig of every part that talks to the API server."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from scripts.cluster.layout import API_URL, DOMAIN, KUBERNETES_IP, NODE_IP, Layout
from scripts.cluster.processes import run

DAYS = "365"
SERVER_NAMES = (
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    f"DNS:kubernetes.default.svc.{DOMAIN}",
    "DNS:localhost",
    f"IP:{KUBERNETES_IP}",
    f"IP:{NODE_IP}",
    "IP:127.0.0.1",
)
CONFIG = "[req]\ndistinguished_name = name\n[name]\n"
"""Empty, so that the system's openssl.cnf has no effect."""


def subjects(layout: Layout) -> dict[str, str]:
    """The parts with a kubeconfig, and their users and groups in the API server (client certificates)."""
    return {
        "admin": "/O=system:masters/CN=admin",
        "controller-manager": "/CN=system:kube-controller-manager",
        "scheduler": "/CN=system:kube-scheduler",
        "kubelet": f"/O=system:nodes/CN=system:node:{layout.name}",
        "proxy": "/CN=system:kube-proxy",
        "coredns": "/O=system:masters/CN=coredns",
        "provisioner": "/O=system:masters/CN=provisioner",
        "keda": "/O=system:masters/CN=keda",
        "traefik": "/O=system:masters/CN=traefik",
    }


def create(layout: Layout) -> None:
    """Write every missing key, certificate and kubeconfig."""
    (layout.pki / "openssl.cnf").write_text(CONFIG)
    _issue(layout, "ca", "/CN=cluster", ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"])
    issue(layout, "apiserver", "/CN=kube-apiserver", SERVER_NAMES)
    issue(layout, "apiserver-to-kubelet", "/O=system:masters/CN=kube-apiserver")
    issue(layout, "front-proxy", "/CN=front-proxy")
    issue(layout, "kubelet-server", f"/CN={layout.name}", (f"DNS:{layout.name}", f"IP:{NODE_IP}"))
    # Signs the tokens of service accounts.
    issue(layout, "service-accounts", "/CN=service-accounts")
    for user, subject in subjects(layout).items():
        issue(layout, user, subject)
        if not layout.kubeconfig_of(user).exists():
            write_kubeconfig(layout, user, layout.kubeconfig_of(user), API_URL)


def issue(layout: Layout, name: str, subject: str, names: tuple[str, ...] = ()) -> None:
    """A key and a certificate by the cluster's authority: NAME.key and NAME.crt in the pki folder."""
    extensions = [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature,keyEncipherment",
        "extendedKeyUsage=serverAuth,clientAuth",
        "authorityKeyIdentifier=keyid",
    ]
    if names:
        extensions.append(f"subjectAltName={','.join(names)}")
    signer = ["-CA", str(layout.pki / "ca.crt"), "-CAkey", str(layout.pki / "ca.key")]
    _issue(layout, name, subject, extensions, signer)


def _issue(layout: Layout, name: str, subject: str, extensions: list[str], signer: list[str] | None = None) -> None:
    certificate = layout.pki / f"{name}.crt"
    if certificate.exists():
        return
    command = ["openssl", "req", "-x509", "-config", str(layout.pki / "openssl.cnf"), "-days", DAYS, "-noenc"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", subject, *(signer or [])]
    for extension in ["subjectKeyIdentifier=hash", *extensions]:
        command += ["-addext", extension]
    # Renamed last: a certificate that is there is whole, and so is its key.
    unfinished = certificate.with_suffix(".new")
    run([*command, "-keyout", str(layout.pki / f"{name}.key"), "-out", str(unfinished)])
    unfinished.rename(certificate)


def write_kubeconfig(layout: Layout, user: str, file: Path, server: str) -> None:
    """Write a file only its owner can read."""
    file.touch(mode=0o600)
    file.write_text(json.dumps(kubeconfig(layout, user, server), indent=1))


def kubeconfig(layout: Layout, user: str, server: str) -> dict[str, object]:
    """Write a kubeconfig for the API server at the URL `server`. It is self-contained, so it can be copied."""
    cluster = {"server": server, "certificate-authority-data": _base64(layout.pki / "ca.crt")}
    credentials = {
        "client-certificate-data": _base64(layout.pki / f"{user}.crt"),
        "client-key-data": _base64(layout.pki / f"{user}.key"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": layout.name, "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": layout.name, "context": {"cluster": layout.name, "user": user}}],
        "current-context": layout.name,
    }


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
