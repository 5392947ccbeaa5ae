"""The client of the model's API: pooled connections, retries before the first byte, and the only place with the key.

It uses urllib3 directly, because higher clients hide two things: the connection's socket, to cancel a call whose client
has disconnected, and bytes as they come.
"""

from __future__ import annotations

import logging
import random
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, ReadTimeoutError

from app.gateway.cancellation import CURRENT, Call, ClientGone
from app.gateway.gateway_metrics import Metrics
from app.gateway.retries import LONGEST_RETRY_AFTER, parse_retry_after, retry_delay, worth_retrying
from app.http.problems import Problem
from app.process.settings import Settings

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""s: TCP and TLS; a slower provider counts as down."""

STREAM_TIMEOUT = 120.0
"""s between two bytes of an answer."""

RETRIES = 3
"""Retries of a request that failed with a temporary error before the first byte."""

IDLE_CONNECTIONS = 256
"""Idle connections to the provider that are kept open; more may be in use."""

PIECE = 65_536
"""Bytes read at most at a time; a read returns what is there, however little."""

WHOLE_MAX = 33_554_432
"""Bytes of an answer that is not streamed; far above what any model writes."""

ERROR_MAX = 65_536
"""Bytes of a provider's error that are read."""

EVENT_STREAM = "text/event-stream"
AGENT = "workspace-session-manager"
KEY_LIKE = re.compile(rb"\b(?:sk|pk|rk|key|gsk|xai)-[\w*.-]{3,}", re.ASCII)
"""API keys of such providers, also masked with asterisks."""

NO_SECOND_TRY = {"x-should-retry": "false"}
"""Tells OpenAI's own clients not to retry: the gateway has."""


@dataclass
class Answer:
    """An answer of the provider; `retry_after` is in seconds.

    Of a stream, `text` is the first piece, and `pieces` gives all; any other answer is whole in `text`. The caller
    closes a stream.
    """

    status: int
    content_type: str
    text: bytes = b""
    retry_after: float | None = None
    _response: Any = None

    @property
    def streams(self) -> bool:
        return self._response is not None

    def pieces(self) -> Iterator[bytes]:
        """The body of a stream as it comes; raises `HTTPError` if the stream is cut."""
        yield self.text
        while piece := self._response.read1(PIECE):
            yield piece

    def close(self) -> None:
        """Return the connection to the pool if the body was read to its end, else close it."""
        if self._response is not None:
            self._response.close()


class Provider:
    """The API at `LLM_BASE_URL`; `jitter` returns 0 to 1."""

    def __init__(self, settings: Settings, metrics: Metrics, jitter: Callable[[], float] = random.random) -> None:
        self._base = settings.llm_base_url.rstrip("/")
        self._key = settings.llm_api_key.strip()
        self._settings = settings
        self._metrics = metrics
        self._jitter = jitter
        self._pool = _pool(self._base, IDLE_CONNECTIONS)

    @property
    def configured(self) -> bool:
        return bool(self._base)

    def chat(self, call: Call, body: bytes) -> Answer:
        """Ask for a completion. Retries temporary errors within `LLM_TIMEOUT`, before the first byte of an answer.
        Raises `ClientGone`, or a `Problem` if the provider gives no answer."""
        return self._ask(call, "POST", "/chat/completions", body)

    def models(self, call: Call) -> Answer:
        """Ask for the list of models, in the same way."""
        return self._ask(call, "GET", "/models", None)

    def probe(self, seconds: float) -> tuple[int, str]:
        """Ask for the list of models once: the status of the answer, or 0 and the kind of the error."""
        answer = self._try(Call(), "GET", "/models", None, seconds)
        if isinstance(answer, Answer):
            answer.close()
            return answer.status, ""
        # Only the name: the text of an exception may hold an address with a password.
        return 0, type(answer).__name__

    def _ask(self, call: Call, method: str, path: str, body: bytes | None) -> Answer:
        deadline = time.monotonic() + self._settings.llm_timeout
        attempt = 0
        while True:
            left = deadline - time.monotonic()
            refusal = self._try(call, method, path, body, left)
            if isinstance(refusal, Answer) and not worth_retrying(refusal.status, refusal.text):
                return self._checked(refusal)
            retry_after = refusal.retry_after if isinstance(refusal, Answer) else None
            delay = retry_delay(attempt, retry_after, self._jitter())
            late = time.monotonic() + delay >= deadline or (retry_after or 0.0) > LONGEST_RETRY_AFTER
            if attempt >= RETRIES or late:
                return self._given_up(refusal)
            attempt += 1
            reason = _reason(refusal)
            self._metrics.retries.labels(reason).inc()
            log.info("retrying a request to the model's API", extra={"reason": reason, "attempt": attempt})
            call.pause(delay)

    def _try(self, call: Call, method: str, path: str, body: bytes | None, seconds: float) -> Answer | Exception:
        """One request: the answer with the first bytes of its body, or the error."""
        token = CURRENT.set(call)
        response = None
        try:
            response = self._pool.request(
                method,
                self._base + path,
                body=body,
                headers=self._headers(),
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT, seconds), read=max(0.001, seconds)),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            return self._begun(call, response)
        except (HTTPError, HTTPException, OSError) as error:
            if response is not None:
                response.close()
            if call.gone:
                raise ClientGone from error
            return error
        finally:
            CURRENT.reset(token)

    def _begun(self, call: Call, response: Any) -> Answer:
        kind = response.headers.get("Content-Type", "")
        if response.status == 200 and kind.partition(";")[0].strip() == EVENT_STREAM:
            first = response.read1(PIECE)
            if not first:
                raise ProtocolError("a stream without a byte")
            call.wait_at_most(STREAM_TIMEOUT)
            return Answer(200, kind, first, _response=response)
        retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
        text = _read_whole(response, WHOLE_MAX if response.status == 200 else ERROR_MAX)
        response.close()
        return Answer(response.status, kind, text, retry_after)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": AGENT}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers

    def _checked(self, answer: Answer) -> Answer:
        """The answer as a workspace may see it."""
        if answer.status == 401:
            text = "The model's API refused the service's key; set LLM_API_KEY to a valid key."
            log.error("the model's API refused LLM_API_KEY")
            raise Problem(502, "llm_key_refused", text, headers=NO_SECOND_TRY)
        understood = answer.streams or "json" in answer.content_type
        if understood and answer.status == 200:
            return answer
        if understood and 400 <= answer.status < 500:
            answer.text = self._without_key(answer.text)
            return answer
        log.warning("the model's API answered unexpectedly", extra={"status": answer.status})
        text = f"The model's API returned status {answer.status} with an empty or invalid response."
        raise Problem(502, "llm_unavailable", text, headers=NO_SECOND_TRY)

    def _given_up(self, refusal: Answer | Exception) -> Answer:
        if isinstance(refusal, Answer):
            return self._checked(refusal)
        # Only the name: the text of an exception may hold an address with a password.
        log.warning("the model's API is unreachable", extra={"error": type(refusal).__name__})
        if isinstance(refusal, ReadTimeoutError):
            text = f"The model did not begin to answer within {self._settings.llm_timeout:.0f} s."
            raise Problem(504, "llm_timeout", text, headers=NO_SECOND_TRY)
        raise Problem(502, "llm_unavailable", "The model's API is unreachable.", headers=NO_SECOND_TRY)

    def _without_key(self, text: bytes) -> bytes:
        if self._key:
            text = text.replace(self._key.encode(), b"[key]")
        return KEY_LIKE.sub(b"[key]", text)


def _reason(refusal: Answer | Exception) -> str:
    """The reason of a retry, for a metric's label. No text of an exception: it may hold a host."""
    if isinstance(refusal, Answer):
        return str(refusal.status)
    if isinstance(refusal, ReadTimeoutError):
        return "timeout"
    return "connect" if isinstance(refusal, NewConnectionError) else "connection"


def _read_whole(response: Any, limit: int) -> bytes:
    """The body, cut off at `limit` bytes."""
    parts, length = [], 0
    while length < limit and (piece := response.read1(min(PIECE, limit - length))):
        parts.append(piece)
        length += len(piece)
    return b"".join(parts)


class _Attached:
    """A connection that attaches its socket to the present call, to be shut if that is cancelled."""

    sock: Any

    _call: Call | None = None

    def getresponse(self) -> Any:
        # A pooled connection must not be shut by the call before.
        if self._call is not None:
            self._call.detach()
        self._call = CURRENT.get()
        if self._call is not None:
            self._call.attach(self.sock)
        return super().getresponse()  # type: ignore[misc]


class _Connection(_Attached, urllib3.connection.HTTPConnection):
    pass


class _SecureConnection(_Attached, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _pool(base: str, size: int) -> urllib3.PoolManager:
    """A pool that keeps `size` connections, through the environment's proxy if it has one."""
    address = urlsplit(base)
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        manager: urllib3.PoolManager = urllib3.ProxyManager(proxy, num_pools=1, maxsize=size)
    else:
        manager = urllib3.PoolManager(num_pools=1, maxsize=size)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager
