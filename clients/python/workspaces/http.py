"""Sends requests: headers, timeouts, repetitions, and errors as exceptions. Everything else of this package uses it."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx

from workspaces.errors import ApiError, ConfigError, ConnectionFailed, InvalidAnswer, error_class
from workspaces.retries import Retries, connection_error
from workspaces.version import VERSION

CONNECT_TIMEOUT: Final = 10.0
"""s to connect, at most."""

WAIT_MARGIN: Final = 15.0
"""s that an answer may take beyond the wait it was asked for."""

JSON: Final = "application/json"
TEXT: Final = "text/plain"
ERROR_BYTES: Final = 65_536
"""Bytes of an error's body that are read: a proxy's may be long."""

KEY_PATTERN: Final = re.compile(r"[\x21-\x7e]+")


class Http:
    """One service, by one API key. `timeout` is in seconds, for each step of a request."""

    def __init__(
        self,
        api_url: str,
        api_key: str,
        *,
        timeout: float,
        retries: Retries,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if urlsplit(api_url).scheme not in ("http", "https") or not urlsplit(api_url).hostname:
            raise ConfigError(f"The API's URL must be as https://api.example.com, not {api_url!r}.")
        if not KEY_PATTERN.fullmatch(api_key):
            raise ConfigError("The API key is empty, or has characters that no key has.")
        self.url = api_url.rstrip("/")
        self.retries = retries
        self.sleep = sleep
        self._timeout = timeout
        self._client = httpx.Client(
            base_url=self.url,
            headers={"X-API-Key": api_key, "User-Agent": f"workspaces-python/{VERSION}"},
            transport=transport,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def json(self, method: str, path: str, *, also: Collection[int] = (), **options: Any) -> Any:
        """The JSON of an answer; options as `build`. Raises the error of any status that is no success and not in
        `also`."""
        text = self.text(method, path, also=also, **options)
        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidAnswer(f"{self.url} answered something other than JSON: is it the API?") from error

    def text(self, method: str, path: str, *, also: Collection[int] = (), **options: Any) -> str:
        """The text of an answer, as `json`."""
        return self.whole(method, path, also=also, **options).text

    def whole(
        self, method: str, path: str, *, also: Collection[int] = (), once: bool = False, **options: Any
    ) -> httpx.Response:
        """An answer that was read to its end, as `json`. `once` is a request whose content can't be sent again."""
        return self._send(self.build(method, path, **options), also, whole=True, once=once)

    @contextmanager
    def stream(self, method: str, path: str, *, also: Collection[int] = (), **options: Any) -> Iterator[httpx.Response]:
        """An answer whose body is still to be read, as `json`. That may raise the HTTP library's errors."""
        response = self._send(self.build(method, path, **options), also, whole=False)
        try:
            yield response
        finally:
            response.close()

    def build(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        content: bytes | Iterable[bytes] | None = None,
        accept: str = JSON,
        headers: Mapping[str, str] | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
        read_timeout: float | None = None,
    ) -> httpx.Request:
        """A request with a `body` as JSON, or with the bytes of a `content`, which is iterated again for a repetition.
        A POST gets an idempotency key, the same for all its repetitions. `wait` is how long the service may wait for
        the end state (s): None as long as it does by default, 0 not at all."""
        own = {"Accept": accept, "X-Request-Id": secrets.token_hex(8)}
        if method == "POST":
            own["Idempotency-Key"] = idempotency_key or secrets.token_hex(16)
        if wait is not None:
            own["Prefer"] = f"wait={math.ceil(wait)}" if wait > 0 else "respond-async"
        longest = max(self._timeout, (wait or 0.0) + WAIT_MARGIN) if read_timeout is None else read_timeout
        return self._client.build_request(
            method,
            path + encoded(query or {}),
            json=body,
            content=content,
            headers=own | dict(headers or {}),
            timeout=httpx.Timeout(longest, connect=min(CONNECT_TIMEOUT, longest)),
        )

    def _send(
        self, request: httpx.Request, also: Collection[int], *, whole: bool, once: bool = False
    ) -> httpx.Response:
        repeatable = may_be_carried_out_twice(request)
        began, tried = time.monotonic(), 0
        while True:
            tried += 1
            try:
                return self._send_once(request, also, whole)
            except (ApiError, ConnectionFailed) as error:
                pause = self.retries.pause(error, repeatable, tried, time.monotonic() - began)
                if once or pause is None:
                    raise
            self.sleep(pause)

    def _send_once(self, request: httpx.Request, also: Collection[int], whole: bool) -> httpx.Response:
        try:
            response = self._client.send(request, stream=True)
            try:
                if not response.is_success and response.status_code not in also:
                    raise error_of(response)
                if whole:
                    response.read()
            except BaseException:
                response.close()
                raise
        except httpx.TransportError as error:
            raise connection_error(error, self.url) from error
        return response


def encoded(query: Mapping[str, Any]) -> str:
    """The query of a URL, "" for none, without the values that are None. A file's name in it may be no UTF-8."""
    values = httpx.QueryParams({name: value for name, value in query.items() if value is not None}).multi_items()
    return f"?{urlencode(values, errors='surrogateescape')}" if values else ""


def may_be_carried_out_twice(request: httpx.Request) -> bool:
    """Whether a request may be repeated whose answer got lost: a DELETE then finds nothing, and a PUT that depends on
    what was there finds itself."""
    if request.method == "PUT":
        return "If-Match" not in request.headers and "If-None-Match" not in request.headers
    return request.method in ("GET", "POST")


def error_of(response: httpx.Response) -> ApiError:
    """The error of an answer, from its problem document if it has one."""
    body = _problem(response)
    status = response.status_code
    code = str(body.get("error") or "http_error")
    phrase = f"The service answered {status} {response.reason_phrase}".rstrip() + "."
    errors = body.get("errors")
    return error_class(code, status)(
        str(body.get("detail") or phrase),
        code=code,
        status=status,
        request_id=body.get("request_id") or response.headers.get("X-Request-Id"),
        errors=errors if isinstance(errors, dict) else None,
        retry_after=_retry_after(response.headers.get("Retry-After", "")),
        body=body,
    )


def _problem(response: httpx.Response) -> dict[str, Any]:
    content = b""
    for part in response.iter_bytes():
        content += part
        if len(content) > ERROR_BYTES:
            return {}
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(text: str) -> float | None:
    """Seconds; None for a date, which this API does not send."""
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else None
