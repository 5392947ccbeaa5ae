"""Streams of server-sent events, read as they come."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

import requests

Event = tuple[str, Any]
"""Its type and its data."""


class Events:
    """The events in a stream's lines, each as soon as its last line is there; `last_id` is the one to resume after."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.last_id = ""

    @classmethod
    def answered(cls, answer: requests.Response) -> Self:
        """Those of an answer, which was asked for with `stream=True`."""
        return cls(line.decode() for line in answer.iter_lines(chunk_size=1))

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        kind = data = ""
        for line in self._lines:
            name, _, text = line.partition(": ")
            if name == "id":
                self.last_id = text
            elif name == "event":
                kind = text
            elif name == "data":
                data = text
            elif not line and data:
                return kind, json.loads(data)
        raise StopIteration


@contextmanager
def listening(url: str, headers: Mapping[str, str]) -> Iterator[list[Event]]:
    """The events of a stream from now on, in a list that grows."""
    seen: list[Event] = []
    answer = requests.get(url, headers=headers, stream=True, timeout=60)
    assert answer.ok, answer.text

    def listen() -> None:
        # What is raised here when it is closed there.
        with suppress(requests.RequestException, AttributeError):
            for event in Events.answered(answer):
                seen.append(event)

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield seen
    finally:
        answer.close()
