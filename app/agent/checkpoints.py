"""The manager's copy of the conversation: loaded if the volume has none, and updated as the conversation grows.

Messages are only ever appended, so only new ones are sent. The copy has a mark, a hash over all its messages. The agent
compares it with its own history, and the manager checks that new messages continue the copy. If the two differ, as
after this volume was restored to an earlier state, all messages are sent as a new edition. The old edition stays valid
until the new one is complete.
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
from app.agent.gateway_client import Answer, Gateway, GatewayDown, attempts
from app.agent.prompt_status import ProcessEnding
from app.agent.state import State

log = logging.getLogger(__name__)

PATH = "/agent/v1/checkpoint"
HISTORY = "/agent/v1/history"

NONE_KEPT = "checkpoint_not_found"
"""The error code of a manager that has no copy."""

TIMEOUT = 30.0
"""Seconds for one call, which carries a part of a conversation."""

PIECE_BYTES = 1_000_000
"""Bytes of messages in one call; a longer message is sent alone."""

TRIES = 3
"""Tries to send what the copy lacks, each after a 409: the copy was not the expected one."""


class Copy(NamedTuple):
    """A copy's edition, the number of its messages, and their mark."""

    edition: str
    messages: int = 0
    mark: str = ""


def load(gateway: Gateway, stopping: threading.Event) -> Documents | None:
    """The manager's copy, None if it has none. Retries until the manager answers: an empty conversation would replace
    the copy. Raises ProcessEnding."""
    for _ in attempts(stopping):
        try:
            answer = gateway.call("GET", PATH, timeout=TIMEOUT)
            if answer.status == 404 and (answer.document() or {}).get("error") == NONE_KEPT:
                return None
            return _documents(gateway, _good(answer))
        except GatewayDown as e:
            log.warning("The manager's copy of the conversation can't be loaded, retrying: %s", e)
        except (ValueError, Unreadable):
            log.error("The manager's copy of the conversation is invalid; starting an empty one")
            return None
    raise ProcessEnding


def _documents(gateway: Gateway, answer: Answer) -> Documents:
    checkpoint = answer.document()
    if checkpoint is None:
        raise Unreadable("the checkpoint is not a JSON object")
    return documents_from({**checkpoint, "history": list(_pages(gateway, checkpoint))})


def _pages(gateway: Gateway, checkpoint: Mapping[str, Any]) -> Iterator[Any]:
    """The messages of the checkpoint's edition. GatewayDown also if it is replaced meanwhile."""
    after = 0
    while after < natural(checkpoint.get("messages")):
        page = json.loads(_good(gateway.call("GET", f"{HISTORY}?after={after}", timeout=TIMEOUT)).body)
        messages = page.get("messages") if page.get("edition") == checkpoint.get("edition") else None
        if not messages:
            raise GatewayDown("the copy was replaced while it was loaded")
        yield from messages
        after += len(messages)


def _good(answer: Answer) -> Answer:
    if not answer.ok:
        raise GatewayDown(f"status {answer.status}")
    return answer


class Keeper:
    """Updates the copy every `interval` seconds if the conversation has changed, and on request."""

    def __init__(self, gateway: Gateway, state: State, interval: float) -> None:
        self._gateway = gateway
        self._state = state
        self._interval = interval
        self._lock = threading.Lock()
        self._saved = -1
        self._copy: Copy | None = None
        self._cuts = 0

    def run(self, stopping: threading.Event) -> None:
        """Save until `stopping`."""
        while not stopping.wait(self._interval):
            self.save()

    def save(self, seconds: float = math.inf) -> bool:
        """Save the changes since the last time within `seconds`; whether the manager now has everything. Messages sent
        by then are not sent again."""
        deadline = time.monotonic() + seconds
        if not self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            return False
        try:
            if self._cuts != self._state.cuts:
                self._cuts, self._copy = self._state.cuts, None
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
            log.warning("The checkpoint could not be saved: %s", e)
            return False
        finally:
            self._lock.release()

    def _store(self, documents: Documents, deadline: float) -> bool:
        answer = self._find_copy(documents, deadline) if self._copy is None else None
        if answer is None or answer.ok:
            answer = self._send_missing(documents, deadline)
        if not answer.ok:
            code = (answer.document() or {}).get("error")
            log.warning("The gateway refused a checkpoint (status %d, %s)", answer.status, code)
        return answer.ok

    def _find_copy(self, documents: Documents, deadline: float) -> Answer:
        """Ask the manager how far its copy is."""
        answer = self._call("GET", f"{HISTORY}?head", None, deadline)
        if answer.ok:
            self._copy = matching(documents.history, answer.document() or {})
        return answer

    def _send_missing(self, documents: Documents, deadline: float) -> Answer:
        """Send the messages that the copy lacks, then complete it."""
        for _ in range(TRIES):
            answer = self._send(documents, deadline)
            if answer.status != 409:
                break
            self._copy = matching(documents.history, answer.document() or {})
        return answer

    def _send(self, documents: Documents, deadline: float) -> Answer:
        copy = self._copy or new_copy()
        if copy.messages > len(documents.history):
            copy = new_copy()
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
            raise GatewayDown("no time was left to send everything")
        return self._gateway.call(method, path, document, timeout=min(TIMEOUT, left))


def matching(history: Sequence[Message], heads: Mapping[str, Any]) -> Copy:
    """The manager's copy that this history continues, or a new one."""
    for name in ("current", "following"):
        head = heads.get(name)
        if not isinstance(head, dict) or not isinstance(head.get("edition"), str):
            continue
        copy = Copy(head["edition"], natural(head.get("messages")), str(head.get("mark")))
        if copy.messages <= len(history) and marked("", history[: copy.messages]) == copy.mark:
            return copy
    return new_copy()


def new_copy() -> Copy:
    """An empty copy of a new edition."""
    return Copy(os.urandom(8).hex())


def marked(mark: str, messages: Iterable[Message]) -> str:
    """The mark after these messages, `mark` being the one before them."""
    for message in messages:
        text = json.dumps(message, sort_keys=True)
        mark = hashlib.sha256(f"{mark} {text}".encode()).hexdigest()[:32]
    return mark


def pieces(messages: Sequence[Message], most: int = PIECE_BYTES) -> Iterator[list[Message]]:
    """The messages in parts of at most `most` bytes; a longer message is a part of its own."""
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
