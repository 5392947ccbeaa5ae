"""Calls to the model through the manager's gateway: one streamed reply, or an error with its reason.

The `openai` client takes half a second to import, so `warm` does that in the background after the socket is open. A
call runs in its own thread, since a wait for a provider's first byte can't be interrupted. When the user cancels, the
turn stops listening, and the thread ends with its timeout at the latest. Prompts and replies are never logged.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from app.agent.protocol import Failure
from app.agent.text import clean, cut
from app.agent.tools.child import TICK, Stop

if TYPE_CHECKING:
    import openai

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 600.0
"""Seconds between two bytes: before the first one the gateway may retry its provider several times."""

MANAGER_UNAVAILABLE = frozenset({"state_unavailable", "session_not_found", "too_many_calls", "token_ended"})
"""Error codes of the gateway that are temporary: the manager recovers, load falls, or the token file is replaced, as
after a revoke."""

TOLD = frozenset(
    {
        Failure.LLM_BUDGET_EXCEEDED,
        Failure.BUDGET_EXCEEDED,
        Failure.MODEL_WITHOUT_PRICE,
        Failure.LLM_NOT_CONFIGURED,
    }
)
"""Error codes of the gateway whose words are for the user."""

ANSWER_CHARACTERS = 4_000_000
"""A longer stream is an error."""

Message = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A tool call as the model wrote it; `arguments` should be a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """The model's text, tool calls, or both. `usage` in tokens, estimated if the provider sends none."""

    text: str
    calls: tuple[Call, ...]
    usage: dict[str, int]
    complete: bool = True
    """False: cut off at the provider's length limit."""


class ModelError(Exception):
    """The model did not reply, and a retry would not help. `code` is for programs, the text for people; `usage` is that
    of a reply that broke off."""

    usage: Mapping[str, int] = MappingProxyType({})

    def __init__(self, reason: str, code: Failure) -> None:
        super().__init__(reason)
        self.code = code


class ContextTooLong(ModelError):
    """The conversation exceeds the model's context."""


class ModelUnavailable(ModelError):
    """A temporary failure. `retry_after` in seconds, 0 if unknown; `tries`: attempts before giving up."""

    tries: ClassVar[int] = 10

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason, Failure.MODEL_UNAVAILABLE)
        self.retry_after = retry_after


class ManagerUnavailable(ModelUnavailable):
    """The gateway or its Redis is unavailable. The model was hardly reached, so retries are seldom billed."""

    tries: ClassVar[int] = 64


class Stopped(Exception):
    """The turn was ended while the model was replying; `usage` is that of the reply by then."""

    usage: Mapping[str, int] = MappingProxyType({})


class Model:
    """The model behind the gateway. `token` returns the workspace token; without `name` the gateway chooses. `headers`
    returns those that a call has besides."""

    def __init__(
        self,
        gateway_url: str,
        token: Callable[[], str],
        name: str = "",
        headers: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._headers = headers
        self._url = f"{gateway_url}/llm/v1" if gateway_url else ""
        self._token = token
        self._name = name or "default"
        self._lock = threading.Lock()
        self._made: tuple[str, openai.OpenAI] | None = None

    def warm(self) -> None:
        """Import and build the client before the first prompt."""
        self._client()

    def _client(self) -> openai.OpenAI:
        with self._lock:
            token = self._token() or "none"
            if self._made is None or self._made[0] != token:
                # With OPENAI_LOG=debug the client logs whole conversations.
                os.environ.pop("OPENAI_LOG", None)
                import openai

                client = openai.OpenAI(
                    base_url=self._url,
                    api_key=token,
                    max_retries=0,
                    timeout=openai.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
                    # No proxy of the user's: the token must reach only the gateway.
                    http_client=openai.DefaultHttpxClient(trust_env=False, follow_redirects=False),
                )
                self._made = (token, client)
            return self._made[1]

    def answer(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        on_text: Callable[[str], None],
        stop: Stop,
    ) -> Reply:
        """The model's reply; `on_text` gets its text piece by piece. Raises ModelError, Stopped."""
        if not self._url:
            raise ModelError("This workspace has no model: GATEWAY_URL is not set.", Failure.LLM_NOT_CONFIGURED)
        request: dict[str, Any] = {"model": self._name, "messages": list(messages)}
        if headers := self._headers():
            request["extra_headers"] = headers
        if tools:
            request["tools"] = list(tools)
        call = _Streaming(self._client, request)
        threading.Thread(target=call.run, name="model", daemon=True).start()
        try:
            while True:
                if stop():
                    raise Stopped
                try:
                    item = call.items.get(timeout=TICK)
                except queue.Empty:
                    continue
                if isinstance(item, str):
                    on_text(item)
                elif isinstance(item, Reply):
                    return item
                else:
                    raise item
        except (ModelError, Stopped) as e:
            e.usage = call.usage()
            raise
        finally:
            call.abandon()


class _Streaming:
    """One request and its stream. A thread reads it into `items`: pieces of text, then a Reply or an error."""

    def __init__(self, client: Callable[[], openai.OpenAI], request: dict[str, Any]) -> None:
        self.items: queue.Queue[str | Reply | ModelError] = queue.Queue()
        self._client = client
        self._request = request
        self._lock = threading.Lock()
        self._abandoned = threading.Event()
        self._stream: openai.Stream[Any] | None = None
        self._parts: _Parts | None = None

    def usage(self) -> dict[str, int]:
        """The usage of what has been read, {} before the model has begun."""
        parts = self._parts
        return parts.usage(self._request["messages"]) if parts is not None else {}

    def run(self) -> None:
        """Send the request and read its stream to the end."""
        client = self._client()
        import openai

        if self._abandoned.is_set():
            return  # while the client was imported: the request would be paid for nothing
        try:
            stream = client.chat.completions.create(
                **self._request, stream=True, stream_options={"include_usage": True}
            )
            with stream:
                with self._lock:
                    self._stream = stream
                    if self._abandoned.is_set():
                        return
                reply = self._read(stream)
                with self._lock:
                    # From here on its connection may serve the next request.
                    self._stream = None
            self.items.put(reply)
        except ModelError as e:
            self.items.put(e)
        except openai.APIStatusError as e:
            self.items.put(refusal(e))
        except (openai.OpenAIError, ValueError, OSError) as e:
            if self._stream is None and isinstance(e, openai.APIConnectionError):
                self.items.put(ManagerUnavailable(f"The manager's gateway can't be reached ({type(e).__name__})."))
            else:
                self.items.put(ModelUnavailable(f"The model's reply was interrupted ({type(e).__name__})."))
        except Exception as e:  # noqa: BLE001 - the waiting turn must get every error
            self.items.put(ModelError(f"Asking the model failed ({type(e).__name__}).", Failure.MODEL_FAILED))

    def _read(self, stream: openai.Stream[Any]) -> Reply:
        self._parts = parts = _Parts()
        for chunk in stream:
            text = parts.add(chunk)
            if text:
                self.items.put(text)
            if parts.size > ANSWER_CHARACTERS:
                raise ModelError(f"The model's reply exceeds {ANSWER_CHARACTERS} characters.", Failure.MODEL_FAILED)
        return parts.reply(self._request["messages"])

    def abandon(self) -> None:
        """End the stream, also while the thread waits for its next byte."""
        with self._lock:
            self._abandoned.set()
            stream = self._stream
        if stream is not None:
            # Closing a socket does not wake up its reader; shutting it down does.
            connection: Any = stream.response.extensions.get("network_stream")
            with contextlib.suppress(OSError, AttributeError):
                connection.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


class _Parts:
    """Assembles a streamed reply."""

    def __init__(self) -> None:
        self.size = 0
        self._text: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: dict[str, int] | None = None
        self._finish = ""

    def add(self, chunk: Any) -> str:
        """Add a chunk; returns its text."""
        if chunk.usage is not None:
            usage = chunk.usage
            self._usage = {"prompt_tokens": usage.prompt_tokens or 0, "completion_tokens": usage.completion_tokens or 0}
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self._finish = choice.finish_reason or self._finish
        for position, delta in enumerate(choice.delta.tool_calls or []):
            self._add_call(position if delta.index is None else delta.index, delta)
        text = clean(choice.delta.content or "")
        self._text.append(text)
        self.size += len(text)
        return text

    def _add_call(self, index: int, delta: Any) -> None:
        call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        call["id"] = clean(delta.id or call["id"])
        if delta.function is not None:
            call["name"] = clean(delta.function.name or call["name"])
            arguments = clean(delta.function.arguments or "")
            call["arguments"] += arguments
            self.size += len(arguments) + 1

    def reply(self, messages: Sequence[Message]) -> Reply:
        """The complete reply. ModelUnavailable if its end is missing: HTTP does not always detect that."""
        if not self._finish:
            raise ModelUnavailable("The model's reply was interrupted.")
        text = "".join(self._text)
        # Some servers send no id, but a result needs one.
        calls = tuple(
            Call(call["id"] or f"call_{index}", call["name"], call["arguments"])
            for index, call in sorted(self._calls.items())
        )
        return Reply(text, calls, self.usage(messages), complete=self._finish != "length")

    def usage(self, messages: Sequence[Message]) -> dict[str, int]:
        """The provider's count, which comes last, or else an estimate."""
        return self._usage or {
            "prompt_tokens": sum(len(str(message.get("content") or "")) for message in messages) // 4,
            "completion_tokens": self.size // 4,
        }


def refusal(error: openai.APIStatusError) -> ModelError:
    """The error for a status. The body is the gateway's problem document or the provider's error."""
    code, detail = _code_and_detail(error)
    status = error.status_code
    if code in TOLD:
        return ModelError(detail or code, Failure(code))
    if status in (401, 403) and code not in MANAGER_UNAVAILABLE:
        return ModelError("The gateway refused this workspace's token.", Failure.MODEL_REFUSED)
    if code == "context_length_exceeded" or (status in (400, 413, 422) and "context" in detail and "length" in detail):
        return ContextTooLong("The conversation is longer than the model's context.", Failure.CONTEXT_TOO_LONG)
    if status == 429 or status in (408, 409) or status >= 500 or code in MANAGER_UNAVAILABLE:
        wait = error.response.headers.get("retry-after", "")
        seconds = float(wait) if wait.isdigit() else 0.0
        if code in MANAGER_UNAVAILABLE:
            return ManagerUnavailable(f"The manager is not available ({code}).", seconds)
        return ModelUnavailable(f"The model is not available (status {status}).", seconds)
    return ModelError(f"The model refused the request (status {status}): {cut(detail, 300)}", Failure.MODEL_REFUSED)


def _code_and_detail(error: openai.APIStatusError) -> tuple[str, str]:
    try:
        body = error.response.json()
    except ValueError:
        return "", ""
    if not isinstance(body, dict):
        return "", ""
    inner = body.get("error")
    if isinstance(inner, dict):
        return str(inner.get("code") or ""), str(inner.get("message") or "")
    return str(inner or ""), str(body.get("detail") or body.get("title") or "")
