"""A copy of the conversation at the manager's: loaded when the volume has none, and kept up with while it grows.

Messages are only ever added, so only new ones are sent. The copy has a mark, a hash of all messages in it: by that an
agent sees whether it is a copy of what it has, and the manager whether what comes goes on from there. Where it isn't,
because this volume was restored as it once was, all is sent as a new edition beside the one that is there, which
counts until the new one is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from app.agent.documents import Documents, Message, Unreadable, documents_from, natural
from app.agent.gateway import Answer, Gateway, GatewayDown, waits
from app.agent.standing import EARLIER_RELEASE, NotKnown
from app.agent.state import State

log = logging.getLogger(__name__)

PATH = "/agent/v1/checkpoint"
HISTORY = "/agent/v1/history"

NONE_KEPT = "checkpoint_not_found"
"""The code by which the manager says that it has none."""

TIMEOUT = 30.0
"""Seconds for one call, which may carry a conversation from or to a manager of an earlier release."""

PIECE_BYTES = 1_000_000
"""Of messages sent in one call; a longer message goes alone."""

TRIES = 3
"""How often it may be found that the copy is another one than it was thought to be."""


class Copy(NamedTuple):
    """How far a copy is: its edition, the number of its messages, and their mark."""

    edition: str
    messages: int = 0
    mark: str = ""


def load(gateway: Gateway, stopping: threading.Event) -> Documents | None:
    """The manager's copy, None if it has none. Asks until it knows: beginning anew would replace it. NotKnown."""
    next_wait = waits()
    while not stopping.is_set():
        try:
            answer = gateway.call("GET", f"{PATH}?paged", timeout=TIMEOUT)
            if answer.status == 404 and _object(answer.body).get("error") == NONE_KEPT:
                return None
            return _documents(gateway, _good(answer))
        except GatewayDown as e:
            log.warning("The kept conversation can't be loaded yet: %s", e)
        except (ValueError, Unreadable):
            log.error("The kept conversation can't be read; it begins anew")
            return None
        stopping.wait(next_wait())
    raise NotKnown


def _documents(gateway: Gateway, answer: Answer) -> Documents:
    said = json.loads(answer.body)
    if not isinstance(said, dict):
        raise Unreadable("a checkpoint is an object")
    if "history" not in said:
        said["history"] = list(_pages(gateway, said))
    return documents_from(said)


def _pages(gateway: Gateway, said: Mapping[str, Any]) -> Iterator[Any]:
    """The messages of this edition. GatewayDown also when it is replaced meanwhile."""
    after = 0
    while after < natural(said.get("messages")):
        page = json.loads(_good(gateway.call("GET", f"{HISTORY}?after={after}", timeout=TIMEOUT)).body)
        messages = page.get("messages") if page.get("edition") == said.get("edition") else None
        if not messages:
            raise GatewayDown("the copy was replaced")
        yield from messages
        after += len(messages)


def _good(answer: Answer) -> Answer:
    if not answer.ok:
        raise GatewayDown(f"status {answer.status}")
    return answer


def _object(body: bytes) -> Mapping[str, Any]:
    """The object in an answer, an empty one for anything else: of something in front of the manager, say."""
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


class Keeper:
    """Keeps the copy up with the conversation: every `interval` seconds if something has changed, and when asked to."""

    def __init__(self, gateway: Gateway, state: State, interval: float) -> None:
        self._gateway = gateway
        self._state = state
        self._interval = interval
        self._lock = threading.Lock()
        self._saved = -1
        self._copy: Copy | None = None

    def run(self, stopping: threading.Event) -> None:
        """Save until `stopping`."""
        while not stopping.wait(self._interval):
            self.save()

    def save(self, seconds: float = math.inf) -> bool:
        """Save if something has changed since the last time, in these seconds; whether the manager has all of it now.
        What was sent by then need not be sent again."""
        deadline = time.monotonic() + seconds
        if not self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            return False
        try:
            changes = self._state.changes
            if changes == self._saved:
                return True
            documents = self._state.documents()
            if not documents.history and not documents.metadata["queue"]:
                return True
            if not self._store(documents, deadline):
                return False
            self._saved = changes
            return True
        except GatewayDown as e:
            log.warning("No checkpoint could be saved: %s", e)
            return False
        finally:
            self._lock.release()

    def _store(self, documents: Documents, deadline: float) -> bool:
        answer = self._look(documents, deadline) if self._copy is None else None
        if answer is not None and answer.status in EARLIER_RELEASE:
            answer = self._call("PUT", PATH, documents.as_json(), deadline)
        elif answer is None or answer.ok:
            answer = self._bring(documents, deadline)
        if not answer.ok:
            code = _object(answer.body).get("error")
            log.warning("The gateway refused a checkpoint (status %d, %s)", answer.status, code)
        return answer.ok

    def _look(self, documents: Documents, deadline: float) -> Answer:
        """Find out how far the copy is."""
        answer = self._call("GET", f"{HISTORY}?head", None, deadline)
        if answer.ok:
            self._copy = matching(documents.history, _object(answer.body))
        return answer

    def _bring(self, documents: Documents, deadline: float) -> Answer:
        """Send what the copy lacks, and say that it is whole then."""
        for _ in range(TRIES):
            answer = self._send(documents, deadline)
            if answer.status in EARLIER_RELEASE:
                self._copy = None
            if answer.status != 409:
                break
            self._copy = matching(documents.history, _object(answer.body))
        return answer

    def _send(self, documents: Documents, deadline: float) -> Answer:
        copy = self._copy or new_copy()
        for messages in pieces(documents.history[copy.messages :]):
            after = copy.messages + len(messages)
            grown = Copy(copy.edition, after, marked(copy.mark, messages))
            piece = {"edition": copy.edition, "after": copy.messages, "mark": copy.mark}
            answer = self._call("POST", HISTORY, {**piece, "then": grown.mark, "messages": messages}, deadline)
            if not answer.ok:
                return answer
            self._copy = copy = grown
        beside = {"context": documents.context, "metadata": documents.metadata}
        return self._call("PUT", PATH, {**copy._asdict(), **beside}, deadline)

    def _call(self, method: str, path: str, document: Any, deadline: float) -> Answer:
        left = deadline - time.monotonic()
        if left <= 0:
            raise GatewayDown("there was no time for all of it")
        return self._gateway.call(method, path, document, timeout=min(TIMEOUT, left))


def matching(history: Sequence[Message], heads: Mapping[str, Any]) -> Copy:
    """The copy at the manager's that this history goes on from, a new one if none is."""
    for name in ("current", "following"):
        head = heads.get(name)
        if not isinstance(head, dict) or not isinstance(head.get("edition"), str):
            continue
        copy = Copy(head["edition"], natural(head.get("messages")), str(head.get("mark")))
        if copy.messages <= len(history) and marked("", history[: copy.messages]) == copy.mark:
            return copy
    return new_copy()


def new_copy() -> Copy:
    """One that has nothing yet."""
    return Copy(os.urandom(8).hex())


def marked(mark: str, messages: Iterable[Message]) -> str:
    """The mark after these messages, where it was this before them."""
    for message in messages:
        text = json.dumps(message, sort_keys=True)
        mark = hashlib.sha256(f"{mark} {text}".encode()).hexdigest()[:32]
    return mark


def pieces(messages: Sequence[Message], most: int = PIECE_BYTES) -> Iterator[list[Message]]:
    """The messages in parts of `most` bytes; a longer message is a part of its own."""
    part: list[Message] = []
    size = 0
    for message in messages:
        more = len(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")) + 2
        if part and size + more > most:
            yield part
            part, size = [], 0
        part.append(message)
        size += more
    if part:
        yield part
