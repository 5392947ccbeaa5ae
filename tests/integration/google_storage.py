"""Google Cloud Storage for tests of restic, which calls storage.googleapis.com with TLS and nothing else.

restic calls it by a proxy, if there is one, and trusts the authority that SSL_CERT_FILE names. So the store of
`stores.server` stands behind a proxy that answers in Google's place, with a certificate of the test's own.

That store lets anybody do anything. The proxy refuses, as Google does, whoever has no token, and what is not within the
access boundary of the token. It knows the requests of restic and of gcsfs, and refuses all others.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest
import requests
from google.auth.downscoped import AccessBoundaryRule, CredentialAccessBoundary

from tests.certificates import Authority
from tests.integration.forwarding import Forwarder, proxy
from tests.integration.stores import BUCKET, server
from tests.ports import free_port
from workers.runtime.kubernetes.gs_credentials import WRITE, boundary
from workers.runtime.kubernetes.job_access import making, proving

HOST = "storage.googleapis.com"
MAKER, READER = "ya29.who-makes-points", "ya29.who-proves-points"  # pragma: allowlist secret
"""Tokens for one session's part of the bucket, as its Jobs get them."""

LISTS = re.compile(r"/storage/v1/b/[^/]+/o")
UPLOADS = re.compile(r"/upload/storage/v1/b/[^/]+/o")
OBJECT = re.compile(r"(?:(?:/download)?/storage/v1/b/[^/]+/o|/(?!(?:batch|download|storage|upload)/)[^/]+)/(.+)")
"""An object of the JSON API or of the XML API."""

UPLOADED = re.compile(rb'"name": *"([^"]+)"')
TERM = re.compile(r"(resource\.name|api\.getAttribute\([^)]*\))(\.startsWith\(| == )'([^']*)'")
"""A part of a boundary's condition; one of them must be true."""


class Google(Forwarder):
    """Google's store, by its name or at the proxy's own address."""

    tls: ssl.SSLContext
    boundaries: Mapping[str, CredentialAccessBoundary]
    """By token."""

    def do_CONNECT(self) -> None:
        self.close_connection = True
        if self.path != f"{HOST}:443":
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        self.send_response(HTTPStatus.OK)
        self.end_headers()
        with self.tls.wrap_socket(self.connection, server_side=True) as inside:
            type(self)(inside, self.client_address, self.server)

    def do_GET(self) -> None:
        body = self.body()
        limits = self.boundaries.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if limits is None:
            self._refuse(HTTPStatus.UNAUTHORIZED)
        elif not any(self._permitted(rule, body) for rule in limits.rules):
            self._refuse(HTTPStatus.FORBIDDEN)
        else:
            self.forward(body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _permitted(self, rule: AccessBoundaryRule, body: bytes) -> bool:
        if self.command not in ("GET", "HEAD") and WRITE not in rule.available_permissions:
            return False
        key, prefix = self._asked(body)
        name = f"projects/_/buckets/{BUCKET}" + (f"/objects/{key}" if key else "")
        for subject, operator, value in TERM.findall(rule.availability_condition.expression):
            attribute = name if subject == "resource.name" else prefix
            if attribute.startswith(value) if operator == ".startsWith(" else attribute == value:
                return True
        return False

    def _asked(self, body: bytes) -> tuple[str, str]:
        """The object that the request is about, or the prefix of a list; "" where there is none."""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if self.command == "GET" and LISTS.fullmatch(url.path):
            return "", query.get("prefix", [""])[0]
        if self.command == "POST" and UPLOADS.fullmatch(url.path):
            described = UPLOADED.search(body)
            return query["name"][0] if "name" in query else described[1].decode() if described else "", ""
        found = OBJECT.fullmatch(url.path)
        return unquote(found[1]) if found else "", ""

    def _refuse(self, status: HTTPStatus) -> None:
        content = json.dumps({"error": {"code": status, "message": status.phrase}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def running(folder: Path, uuid: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The store with an empty bucket; yields the URL of its backups. restic and the clients of this process, and of
    those it starts, have the token of who makes restore points of that session. Forgets everything at its end."""
    authority = Authority(folder / "authority")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.certificate(HOST))
    port = free_port()

    class Served(Google):
        behind = port
        tls = context
        boundaries = {
            token: boundary(BUCKET, "backups", access(uuid)) for token, access in ((MAKER, making), (READER, proving))
        }

    with server("gs", port, folder / "server.log"), proxy(Served) as served:
        requests.post(f"http://127.0.0.1:{port}/storage/v1/b", json={"name": BUCKET}, timeout=60).raise_for_status()
        monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", MAKER)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        # gcsfs asks no proxy: neither that of this process nor that of one it starts.
        monkeypatch.setitem(fsspec.config.conf, "gs", {"endpoint_url": f"http://127.0.0.1:{served}"})
        monkeypatch.setenv("FSSPEC_GS_ENDPOINT_URL", f"http://127.0.0.1:{served}")
        point_restic_at(served, monkeypatch)
        yield f"gs://{BUCKET}/backups"


def point_restic_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let restic look for Google at a port of loopback."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
