"""Checks which messages a worker takes from a queue: only calls of that queue's own tasks, as the service sends them.

Redis lets each process write into some queues only, so that a compromised gateway can start only the tasks of delivery
workers. But Celery trusts the message: it runs any task that is named there, and others (`errbacks`, `celery.starmap`),
and returns a rejected message to the queue that the message names.
"""

from __future__ import annotations

import base64
import logging
from typing import Any

from app.core import untrusted_json
from app.core.redis import task_queue

log = logging.getLogger(__name__)

OTHERS = frozenset({"callbacks", "errbacks", "chain", "chord"})
"""Fields by which a message may call more tasks. The service's messages use none."""

NOT_OURS = "its format is not that of the service's messages"

SENT_AS = ("application/json", "base64")
"""The content type of a body, and its encoding in the message."""

NAME_LENGTH = 100
"""Characters of a task's name that are logged; the service's have fewer."""


def admit(message: Any, name: str) -> Any:
    """The message to be worked on, which is returned into `name`, the queue it was taken from, if the worker rejects
    it. None for a refused message, which is logged and dropped: the stale sweep sends intents again. Messages from
    queues that are not for tasks pass: Flower receives the workers' events by the same transport."""
    if name not in task_queue.QUEUES:
        return message
    problem = _problem(message, name)
    if problem:
        log.error("message refused: %s", problem, extra={"task": _task(message)[:NAME_LENGTH], "queue": name})
        return None
    properties = message["properties"]
    delivery = {**properties["delivery_info"], "exchange": "", "routing_key": name}
    return {**message, "properties": {**properties, "delivery_info": delivery}}


def _problem(message: Any, name: str) -> str:
    """Why the message is refused, "" if it is not."""
    if task_queue.ROUTES.get(_task(message)) != name:
        return "its task does not belong to this queue"
    try:
        headers, properties = message["headers"], message["properties"]
        sent_as = (message["content-type"], properties["body_encoding"])
        body = base64.b64decode(message["body"], validate=True)
        args, kwargs, embedded = untrusted_json.parse(body, untrusted_json.SMALL)
        dicts = all(isinstance(each, dict) for each in (kwargs, embedded, properties["delivery_info"]))
        if sent_as != SENT_AS or "compression" in headers or not isinstance(args, list) or not dicts:
            return NOT_OURS
        if embedded.keys() - OTHERS or any(embedded.get(each) or headers.get(each) for each in OTHERS):
            return "it calls further tasks"
    except (AttributeError, KeyError, TypeError, ValueError):
        return NOT_OURS
    return ""


def _task(message: Any) -> str:
    """The name of the message's task, "" where there is none."""
    try:
        name = message["headers"]["task"]
    except (KeyError, TypeError):
        return ""
    return name if isinstance(name, str) else ""
