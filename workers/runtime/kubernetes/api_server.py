"""A client of the Kubernetes API server: raw JSON, bounded requests, the service's own errors.

The kubernetes package finds the cluster and authenticates the requests (a KUBECONFIG, else the service account of the
pod). Its typed calls are not used: they take 850 ms of CPU for a list of 1,000 pods, the JSON itself 60; they wait for
ever by default; and with a timeout they still try three times.
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config

from app.core.errors import PermanentError, RetryableError, RuntimeUnavailable
from app.process import tracing
from app.process.settings import SettingsError
from workers.runtime.kubernetes.names import FIELD_MANAGER, Object
from workers.runtime.polling import wait_until

KINDS: Mapping[str, str] = {
    "persistentvolumeclaims": "/api/v1",
    "secrets": "/api/v1",
    "services": "/api/v1",
    "pods": "/api/v1",
    "events": "/api/v1",
    "deployments": "/apis/apps/v1",
    "ingresses": "/apis/networking.k8s.io/v1",
    "jobs": "/apis/batch/v1",
    "scaledobjects": "/apis/keda.sh/v1alpha1",
}
"""The API path of each kind."""

PAGE = 500
"""Objects in one page of a list: 2 MB at most, so that no request takes long."""

KUBE_TIMEOUT = 10.0
"""s for a request to the API server, which normally answers in 0.01 s."""

CONNECT_TIMEOUT = 3.0
"""s until an API server that does not accept the connection counts as unavailable."""

POOL_SIZE = 40
"""Connections that a process keeps open: one for each of its threads. The informer holds four."""

KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)
"""A watch may be silent for a minute; a lost connection is noticed after 25 s."""

LINE_LIMIT = 16_000_000
"""Bytes of one line of a watch; the largest object etcd takes has 1.5 MB."""


class NotFound(Exception):
    """The object does not exist."""


class Conflict(Exception):
    """The object changed since it was read, exists already, or has a field that another manager owns."""


class Expired(Exception):
    """The resource version is too old (410): list again."""


class ApiServer:
    """One namespace of one API server. `timeout` (s) bounds each request. Thread-safe.

    Every method raises `RuntimeUnavailable` when the server cannot be reached, is too slow or too busy,
    `RetryableError` when it fails, and `PermanentError` when it rejects the request.
    """

    def __init__(
        self, namespace: str, timeout: float = KUBE_TIMEOUT, configuration: client.Configuration | None = None
    ) -> None:
        self._namespace = namespace
        self._timeout = timeout
        configuration = configuration or find_cluster()
        configuration.retries = False
        configuration.connection_pool_maxsize = POOL_SIZE
        configuration.socket_options = list(KEEPALIVE)
        self._client = client.ApiClient(configuration)
        self._pool: urllib3.PoolManager = self._client.rest_client.pool_manager

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.clear()

    def get(self, kind: str, name: str) -> Object | None:
        """One object, None when it does not exist."""
        try:
            return self._call("GET", self._path(kind, name))
        except NotFound:
            return None

    def list(self, kind: str, selector: str, most: float = math.inf) -> tuple[list[Object], str]:
        """The objects that the label selector finds, and the version of the list. Stops at the first page with which
        there are `most`. Raises `Expired` when reading took too long."""
        found: list[Object] = []
        query = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            page = self._call("GET", self._path(kind), query)
            found += page["items"]
            metadata = page["metadata"]
            if not metadata.get("continue") or len(found) >= most:
                return found, metadata["resourceVersion"]
            query["continue"] = metadata["continue"]

    def version(self, kind: str) -> str:
        """The resource version from which a watch of this kind sees all changes from now on."""
        page = self._call("GET", self._path(kind), {"limit": "1"})
        return str(page["metadata"]["resourceVersion"])

    def namespace_uid(self) -> str:
        """The uid of the namespace, "" when it does not exist."""
        try:
            return str(self._call("GET", f"/api/v1/namespaces/{self._namespace}")["metadata"]["uid"])
        except NotFound:
            return ""

    def create(self, kind: str, body: Object) -> Object:
        """Create an object; `Conflict` when one of this name exists."""
        return self._call("POST", self._path(kind), {"fieldManager": FIELD_MANAGER}, body, "application/json")

    def replace(self, kind: str, body: Object) -> Object:
        """Replace the whole object of this name (PUT). The response shows nothing of the old one but its metadata; an
        equal object is not written. `NotFound`, and `Conflict` as for `apply`."""
        path = self._path(kind, body["metadata"]["name"])
        return self._call("PUT", path, {"fieldManager": FIELD_MANAGER}, body, "application/json")

    def apply(self, kind: str, body: Object, *, force: bool = True) -> Object:
        """Server-side apply. With a `resourceVersion` in the metadata, `Conflict` when the object changed since;
        without `force`, when another manager set one of the fields to something else."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        path = self._path(kind, body["metadata"]["name"])
        return self._call("PATCH", path, query, body, "application/apply-patch+yaml")

    def patch(self, kind: str, name: str, body: Object) -> Object:
        """Merge into an object (JSON merge patch). `NotFound`, and `Conflict` as for `apply`."""
        query = {"fieldManager": FIELD_MANAGER}
        return self._call("PATCH", self._path(kind, name), query, body, "application/merge-patch+json")

    def delete(
        self, kind: str, name: str, *, propagation: str = "Background", version: str = "", now: bool = False
    ) -> bool:
        """Delete an object, a pod on a silent machine too with `now`; whether it existed. `Conflict` when it no longer
        has the given version."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if now:
            body["gracePeriodSeconds"] = 0
        if version:
            body["preconditions"] = {"resourceVersion": version}
        try:
            self._call("DELETE", self._path(kind, name), None, body, "application/json")
        except NotFound:
            return False
        return True

    def watch(self, kind: str, selector: str, version: str, seconds: int) -> WatchStream:
        """The changes since `version` of the objects that the selector finds, for `seconds`. Raises `Expired`."""
        query = {
            "labelSelector": selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        # The server ends the watch; the margin is for a server that hangs.
        response = self._request("GET", self._path(kind), query, read_timeout=seconds + self._timeout)
        if response.status != 200:
            _check(response.status, response.read(65_536))
        return WatchStream(response)

    def _path(self, kind: str, name: str = "") -> str:
        path = f"{KINDS[kind]}/namespaces/{self._namespace}/{kind}"
        return f"{path}/{name}" if name else path

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "",
    ) -> Object:
        data = json.dumps(body).encode() if body is not None else None
        response = self._request(method, path, query, data, content_type)
        try:
            with _transport_errors():
                content = response.read()
            return _check(response.status, content)
        finally:
            response.release_conn()

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "",
        read_timeout: float = 0.0,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": FIELD_MANAGER}
        if content_type:
            headers["Content-Type"] = content_type
        # Rereads a rotated token.
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._client.configuration.host}{path}{'?' + urlencode(query) if query else ''}"
        timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT, self._timeout), read=read_timeout or self._timeout)
        # By the kind alone: an object's name may be a user's.
        kind = (*path.partition("/namespaces/")[2].split("/"), "namespaces")[1]
        with (
            tracing.span(f"{method} {kind}", {"http.request.method": method}, kind="client") as span,
            _transport_errors(),
        ):
            response = self._pool.request(
                method, url, body=body, headers=headers, timeout=timeout, preload_content=False, redirect=False
            )
            span.set("http.response.status_code", response.status)
            return response


class WatchStream:
    """An open watch. Iterating yields events as the server sends them, until the watch ends; `close` ends it from any
    thread. Raises `RetryableError` when the connection breaks, and `Expired`."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._closing = False

    def __iter__(self) -> Iterator[Object]:
        rest = b""
        while chunk := self._chunk():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield _event(line)
            if len(rest) > LINE_LIMIT:
                raise RetryableError("The API server sent an endless line.")

    def _chunk(self) -> bytes:
        try:
            with _transport_errors():
                return self._response.read1(65_536)
        except (RetryableError, AttributeError):
            # AttributeError is urllib3's, of a response that is shut down while it is read.
            if self._closing:
                return b""
            raise

    def close(self) -> None:
        """End the iteration."""
        self._closing = True
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):
            # The watch has ended by itself.
            return

    def release(self) -> None:
        """Close the connection. Called by the thread that iterated, at its end."""
        self._response.close()


def find_cluster() -> client.Configuration:
    """The API server's address and credentials: from KUBECONFIG, else this pod's service account, else the user's
    ~/.kube/config. Raises `SettingsError`."""
    configuration = client.Configuration()
    try:
        if "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise SettingsError(f"No cluster was found: {error}. Set KUBECONFIG, or run this in a pod.") from error
    return configuration


def timestamp(text: str | None) -> float:
    """A timestamp of the API in seconds since the epoch, 0.0 for none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _event(line: bytes) -> Object:
    try:
        event: Object = json.loads(line)
    except ValueError as error:
        raise RetryableError("The API server sent an incomplete event.") from error
    if event.get("type") == "ERROR":
        status = event.get("object") or {}
        _check(int(status.get("code") or 500), json.dumps(status).encode())
    return event


def _check(code: int, content: bytes) -> Object:
    """The object in a response; raises the error that its status means."""
    try:
        answer = json.loads(content)
    except ValueError:
        answer = {}
    if code < 300:
        if not isinstance(answer, dict) or not answer:
            raise RetryableError("The API server returned an empty or invalid response.")
        return answer
    message = str(answer.get("message", "")) if isinstance(answer, dict) else ""
    if code == 404:
        raise NotFound(message)
    if code == 409:
        raise Conflict(message)
    if code == 410:
        raise Expired(message)
    if code in (429, 503):
        raise RuntimeUnavailable(f"The API server is unavailable ({code}).")
    if code == 401 or code >= 500:
        # 401 too: the token was just rotated, or the server is starting.
        raise RetryableError(f"The API server failed ({code}).")
    raise PermanentError(refusal(message or f"status {code}"))


def refusal(message: str) -> str:
    """The error for users whose request the API server rejected."""
    if "exceeded quota" in message:
        return f"The cluster's quota for workspaces is used up: {message.partition('exceeded quota: ')[2]}."
    return f"The cluster rejected this workspace: {message}"


@contextmanager
def _transport_errors() -> Iterator[None]:
    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise RuntimeUnavailable(f"The API server cannot be reached ({type(error).__name__}).") from error


def wait_for(done: Callable[[], bool], seconds: float, failure: str, tick: float = 0.1) -> None:
    """Wait until `done()`; `RetryableError` with the text `failure` when that takes longer."""
    if not wait_until(done, seconds, tick):
        raise RetryableError(f"{failure} within {seconds:.0f} s.")
