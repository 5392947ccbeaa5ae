"""A model provider for tests: the OpenAI wire format over real HTTP, without a model.

In a test it is a thread:

    with ModelServer() as model:
        model.script(Answer(text="hello"), Answer(status=429, retry_after="1"))
        ... model.url ... model.requests ...

and for everything that wants a process, `python -m tests.model_server --port 9000 [--api-key KEY]`.

What it answers, first match: the next scripted answer; the first rule that gives one (`default_rules`
knows a handful of sentences, among them "create hello.py that prints hi and run it" and
"remember N"); else a sentence that repeats the prompt. Wire format: the OpenAI API reference, "Chat
completions" and "Streaming"; what is sent between two chunks follows `Answer`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL = "stub-model"
BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of a request that are read at most."""

HOLD_LIMIT = 300.0
"""Seconds an answer is held at most: it ends a test that forgot to let it go. A cluster may need RECONCILE_INTERVAL, a
minute, to notice that a volume is lost."""


@dataclass(frozen=True)
class ToolCall:
    """A call the model makes. `arguments` as an object, or as text to send something that isn't one."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Answer:
    """One answer. `status` other than 200 is an error in the provider's shape, with `Retry-After` if given."""

    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    status: int = 200
    retry_after: str = ""
    delay: float = 0.0
    """Seconds before the first byte."""
    pace: float = 0.0
    """Seconds between two chunks."""
    cut_after: int | None = None
    """The connection is cut after so many chunks, without an end."""
    broken: bool = False
    """What comes instead of the second chunk (or of the whole answer) is not JSON."""
    usage: bool = True
    """False: never says how many tokens it took, even if asked."""
    prompt_tokens: int | None = None
    """What `usage` says; None: a count of words."""
    completion_tokens: int | None = None
    finish_reason: str = ""
    """"": `tool_calls` if there are any, else `stop`."""
    hold: threading.Event | None = None
    """After the first piece of its content (before the first byte when not streaming) it waits for this event."""
    pieces: Sequence[str] = ()
    """The text as it is cut into chunks; (): at words."""


@dataclass
class Received:
    """A request the server got, and how answering it went."""

    path: str
    headers: Message
    """By name, in any case."""
    body: Any
    at: float
    outcome: str = ""
    """"sent", "cut" or "client gone"; "" while it is being answered."""
    chunks: int = 0
    """Chunks sent so far, the one on its way included."""
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as it came."""
        return list(self.body.get("messages", [])) if isinstance(self.body, dict) else []


Rule = Callable[[Mapping[str, Any]], Answer | None]
"""From a request's body to an answer, or None when it isn't this rule's."""


def content_text(message: Mapping[str, Any]) -> str:
    """A message's content as text, whichever of its two forms it has."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def last_prompt(body: Mapping[str, Any]) -> str:
    """The last user message, "" without one."""
    users = [message for message in body.get("messages", []) if message.get("role") == "user"]
    return content_text(users[-1]) if users else ""


def results_since_prompt(body: Mapping[str, Any]) -> list[str]:
    """The results of tools since the last user message, oldest first."""
    results: list[str] = []
    for message in body.get("messages", []):
        if message.get("role") == "user":
            results = []
        elif message.get("role") == "tool":
            results.append(content_text(message))
    return results


def when(text: str, *steps: Answer) -> Rule:
    """When the last prompt contains `text`: the first step, after one tool result the second, and so on.

    `{result}` in a step's text stands for the last tool result. The last step is repeated. A step with
    several tool calls counts once.
    """

    def rule(body: Mapping[str, Any]) -> Answer | None:
        if text not in last_prompt(body):
            return None
        return _step(body, steps)

    return rule


def _step(body: Mapping[str, Any], steps: Sequence[Answer]) -> Answer:
    results = results_since_prompt(body)
    rest = len(results)
    for step in steps[:-1]:
        if rest < max(1, len(step.tool_calls)):
            return step
        rest -= max(1, len(step.tool_calls))
    last = steps[-1]
    return replace(last, text=last.text.replace("{result}", results[-1] if results else ""))


def _create_and_run(body: Mapping[str, Any]) -> Answer | None:
    found = re.search(r"create (\S+\.py) that prints (.+?) and run it", last_prompt(body))
    if not found:
        return None
    path, printed = found.groups()
    return _step(
        body,
        (
            Answer(tool_calls=(ToolCall("write_file", {"path": path, "content": f"print({printed!r})\n"}),)),
            Answer(tool_calls=(ToolCall("run_command", {"command": f"python3 {path}"}),)),
            Answer(text=f"I created {path} and ran it. It printed:\n\n{{result}}"),
        ),
    )


def _remember(body: Mapping[str, Any]) -> Answer | None:
    found = re.search(r"\bremember (\S+)", last_prompt(body))
    return Answer(text=f"{found[1]} noted") if found else None


def _run(body: Mapping[str, Any]) -> Answer | None:
    found = re.match(r"\s*run: (.+)", last_prompt(body), re.DOTALL)
    if not found:
        return None
    call = ToolCall("run_command", {"command": found[1]})
    return _step(body, (Answer(tool_calls=(call,)), Answer(text="It said:\n\n{result}")))


def _count(body: Mapping[str, Any]) -> Answer | None:
    found = re.search(r"\bcount to (\d{1,5})", last_prompt(body))
    if not found:
        return None
    return Answer(pieces=[f"{number} " for number in range(1, int(found[1]) + 1)], pace=0.05)


def _how_many(body: Mapping[str, Any]) -> Answer | None:
    if "how many prompts" not in last_prompt(body):
        return None
    prompts = sum(message.get("role") == "user" for message in body["messages"])
    return Answer(text=f"{prompts} prompts")


def default_rules() -> tuple[Rule, ...]:
    """create F.py that prints X and run it; remember N; run: COMMAND; count to N (20 a second); how many prompts."""
    return (_create_and_run, _remember, _run, _count, _how_many)


def _tokens(text: str) -> int:
    return len(text.split())


def usage_of(answer: Answer, body: Mapping[str, Any]) -> dict[str, int]:
    """What the provider bills: the answer's own figures, or words of the conversation and of the answer."""
    prompt = answer.prompt_tokens
    if prompt is None:
        prompt = sum(_tokens(content_text(message)) for message in body.get("messages", []))
    completion = answer.completion_tokens
    if completion is None:
        text = "".join(answer.pieces) or answer.text
        completion = _tokens(text) + sum(_tokens(call.text()) + 1 for call in answer.tool_calls)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _pieces(answer: Answer) -> list[str]:
    return list(answer.pieces) or re.findall(r"\S+\s*|\s+", answer.text)


def _call_deltas(calls: Sequence[ToolCall], ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each call as providers stream it: id and name first, then its arguments in pieces of 7 characters."""
    for index, (call, call_id) in enumerate(zip(calls, ids, strict=True)):
        start = {"index": index, "id": call_id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        yield {"tool_calls": [start]}
        text = call.text()
        for at in range(0, len(text), 7):
            yield {"tool_calls": [{"index": index, "function": {"arguments": text[at : at + 7]}}]}


def _finish(answer: Answer) -> str:
    return answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")


def chunks_of(answer: Answer, body: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
    """The answer as the objects of a stream, in order; without the closing `[DONE]`."""
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage")) and answer.usage
    head = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body.get("model") or MODEL,
        "system_fingerprint": "fp_stub",
    }
    if wants_usage:
        head["usage"] = None

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": "" if _pieces(answer) else None})
    for piece in _pieces(answer):
        yield chunk({"content": piece})
    for delta in _call_deltas(answer.tool_calls, _call_ids(answer, number)):
        yield chunk(delta)
    yield chunk({}, _finish(answer))
    if wants_usage:
        yield {**head, "choices": [], "usage": usage_of(answer, body)}


def _call_ids(answer: Answer, number: int) -> list[str]:
    return [f"call_{number}_{index}" for index, _ in enumerate(answer.tool_calls)]


def completion_of(answer: Answer, body: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The answer as one object, for a request that doesn't stream."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(_pieces(answer)) or None, "refusal": None}
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": call.text()}}
            for call, call_id in zip(answer.tool_calls, _call_ids(answer, number), strict=True)
        ]
    completion: dict[str, Any] = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model") or MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}],
    }
    if answer.usage:
        completion["usage"] = usage_of(answer, body)
    return completion


def error_body(status: int) -> dict[str, Any]:
    """An error in the provider's shape."""
    kind, code = {429: ("requests", "rate_limit_exceeded"), 401: ("invalid_request_error", "invalid_api_key")}.get(
        status, ("server_error" if status >= 500 else "invalid_request_error", None)
    )
    return {"error": {"message": f"The stub answers {status}.", "type": kind, "param": None, "code": code}}


class ClientGone(Exception):
    """Whoever asked has closed the connection."""


class ModelServer:
    """The server, at the address `host`; `port` 0 takes a free one. With `api_key` every other key gets a 401."""

    def __init__(
        self, port: int = 0, *, api_key: str = "", rules: Sequence[Rule] | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.api_key = api_key
        self._host = host
        self.rules = list(default_rules() if rules is None else rules)
        self.requests: list[Received] = []
        """The chat requests so far, oldest first."""
        self.closing = threading.Event()
        self._scripted: deque[Answer] = deque()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._arrived = threading.Condition(self._lock)
        self._http = _Http((host, port), _Handler)
        self._http.model = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """What to give a client as its base URL."""
        return f"http://{self._host}:{self._http.server_address[1]}/v1"

    @property
    def settings(self) -> dict[str, str]:
        """What a service is told of it."""
        return {"LLM_BASE_URL": self.url, "LLM_API_KEY": self.api_key, "LLM_MODEL": "stub"}

    def script(self, *answers: Answer) -> None:
        """Give these answers to the next requests, in order, before any rule is asked."""
        with self._lock:
            self._scripted.extend(answers)

    def wait_for_requests(self, count: int, timeout: float = 30.0) -> list[Received]:
        """The requests, once there are `count` of them. TimeoutError if there never are."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} requests after {timeout} s, not {count}")
            return list(self.requests)

    def forget(self) -> list[Received]:
        """The requests so far, of which nothing is kept: each holds a whole conversation."""
        with self._arrived:
            requests, self.requests = self.requests, []
            return requests

    def take(self, received: Received) -> tuple[Answer, int]:
        """Note a request; the answer to it and its number."""
        with self._arrived:
            self.requests.append(received)
            self._arrived.notify_all()
            scripted = self._scripted.popleft() if self._scripted else None
        return scripted or self._by_rule(received.body), next(self._numbers)

    def _by_rule(self, body: Mapping[str, Any]) -> Answer:
        for rule in self.rules:
            answer = rule(body)
            if answer is not None:
                return answer
        return Answer(text=f"You said: {last_prompt(body)[:200]}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(60)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    model: ModelServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, *_: object) -> None:
        """Nothing: a test's output is its own."""

    def do_GET(self) -> None:
        if self.path.rstrip("/") in ("/v1/models", "/models"):
            listed = {"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "tests"}
            self._json(200, {"object": "list", "data": [listed]})
        else:
            self._json(404, error_body(404))

    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), BODY_LIMIT)
        raw = self.rfile.read(length)
        if not self.path.rstrip("/").endswith("/chat/completions"):
            return self._json(404, error_body(404))
        key = self.server.model.api_key
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            return self._json(401, error_body(401))
        try:
            body = json.loads(raw)
        except ValueError:
            return self._json(400, error_body(400))
        received = Received(self.path, self.headers, body, time.time())
        answer, number = self.server.model.take(received)
        try:
            self._answer(answer, number, received)
        except (ClientGone, OSError):
            received.outcome = "client gone"
            self.close_connection = True
        finally:
            received.finished.set()

    def _answer(self, answer: Answer, number: int, received: Received) -> None:
        self._pause(answer.delay)
        if answer.status != 200:
            headers = {"Retry-After": answer.retry_after} if answer.retry_after else {}
            self._json(answer.status, error_body(answer.status), headers)
            received.outcome = "sent"
        elif received.body.get("stream"):
            self._stream(answer, number, received)
        else:
            self._whole(answer, number, received)

    def _whole(self, answer: Answer, number: int, received: Received) -> None:
        if answer.hold is not None:
            self._pause(HOLD_LIMIT, answer.hold)
        text = json.dumps(completion_of(answer, received.body, number)).encode()
        if answer.broken:
            text = text[: len(text) // 2]
        if answer.cut_after is not None:
            self._head(200, "application/json", {"Content-Length": str(len(text))})
            self.wfile.write(text[: len(text) // 2])
            return self._cut(received)
        self._head(200, "application/json", {"Content-Length": str(len(text))})
        self.wfile.write(text)
        received.outcome = "sent"

    def _stream(self, answer: Answer, number: int, received: Received) -> None:
        self._head(200, "text/event-stream; charset=utf-8", {"Transfer-Encoding": "chunked"})
        for index, chunk in enumerate(chunks_of(answer, received.body, number)):
            if answer.cut_after is not None and index >= answer.cut_after:
                return self._cut(received)
            if index:
                self._pause(answer.pace)
            text = "{not json" if answer.broken and index == 1 else json.dumps(chunk, ensure_ascii=False)
            received.chunks += 1
            self._event(text)
            # The chunk before it only says whose turn it is.
            if index == 1 and answer.hold is not None:
                self._pause(HOLD_LIMIT, answer.hold)
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")
        received.outcome = "sent"

    def _event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _cut(self, received: Received) -> None:
        received.outcome = "cut"
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _pause(self, seconds: float, until: threading.Event | None = None) -> None:
        """Let time pass, or wait for the event; ClientGone when the other side closes meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.server.model.closing.is_set():
            if until is not None and until.is_set():
                return
            if select.select([self.connection], [], [], min(left, 0.01))[0]:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    raise ClientGone
                self.server.model.closing.wait(min(left, 0.01))

    def _head(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("x-request-id", "req_stub")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _json(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self._head(status, "application/json", {"Content-Length": str(len(text)), **(headers or {})})
        self.wfile.write(text)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="A stub model server, OpenAI's wire format over HTTP.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, printed")
    parser.add_argument("--api-key", default="", help="refuse every other key")
    options = parser.parse_args()
    with ModelServer(options.port, api_key=options.api_key) as model:
        print(model.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
