"""`Idempotency-Key` on every POST: what is needed to give the first answer again is kept, so that a client may
repeat a request whose answer it never saw.

While the first request runs its key is claimed for little longer than it can take; one that died frees
it by that. Answers that ask for another try (5xx, 429) are not kept, nor are streams.

What is kept is small: a short answer itself, of a longer one to a prompt only which message it is about. A call whose
answer has a secret, or is too long, is carried out again. It makes another secret, and nothing twice, because what it
creates is named by the key. Of each session so many answers are kept, the newest; none while Redis is full.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import time
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import cast

from flask import Flask, Response, g, request
from redis.commands.core import Script

from app.api.context import EXTENSION, core
from app.api.prefer import longest_wait
from app.api.security import caller
from app.bodies import body_of_request
from app.problems import Problem
from app.sessions import keys
from app.sessions.errors import StateUnavailable, StoreFull
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import EVEN_WHEN_FULL

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,128}")
CLAIM_MARGIN = 10
"""s beyond the longest wait a claim lasts: what a request takes besides waiting."""

FREE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""Frees a claim, unless it ended and is another request's by now."""

KEPT_HEADERS = ("Content-Type", "Location", "Preference-Applied")

ANSWER_MAX = 2_048
"""Bytes of an answer that is kept itself: all answers but those of agents have less, and most problems."""


@dataclass(frozen=True)
class Claim:
    """What a request holds while it works: the key's name in Redis, the digest of its body, and the claim as it
    stands there."""

    name: str
    body: str
    text: str


def register_idempotency(app: Flask) -> None:
    """Replay the answers of repeated POSTs of `app`. Register it last: it must see the final answer first."""
    keep = files("app.api").joinpath("lua", "keep.lua").read_text()
    script = app.extensions[EXTENSION].redis.register_script(EVEN_WHEN_FULL + keep)
    app.before_request(_begin)
    app.after_request(partial(_finish, script))


def name_of_request() -> str:
    """A name that all requests with this one's Idempotency-Key share, "" where it has none. What a request
    creates can be named by it, so that a repetition creates no second one even when its answer was lost."""
    name: str = g.get("idempotency_name", "")
    return _digest(name)[:32] if name else ""


def answer_has_secret() -> None:
    """Let the answer to this request not be kept: a repetition makes another secret."""
    g.idempotency_secret = True


def answer_is_of(message_id: str) -> None:
    """Note which message the answer is about, from which it can be made again."""
    g.idempotency_message = message_id


def answered_message() -> str:
    """The message that an earlier request with this key was answered about, "" where the call is to be carried out."""
    return str(g.get("idempotency_answered", ""))


def _begin() -> Response | None:
    key = request.headers.get(HEADER)
    if request.method != "POST" or key is None or request.endpoint is None:
        return None
    if not KEY_PATTERN.fullmatch(key):
        text = f"{HEADER} must be 1 to 128 printable ASCII characters without spaces."
        raise Problem(400, "invalid_request", text, errors={HEADER: [text]})
    name = keys.IDEMPOTENCY.format(digest=_digest(caller().digest, request.method, request.path, key))
    body = _digest(request.query_string, body_of_request())
    # With something of this request's own, by which it recognises its claim when Redis' answer to it was lost.
    claim = json.dumps({"body": body, "nonce": secrets.token_hex(8)})
    g.idempotency_name = name
    try:
        with redis_errors():
            claimed = core().redis.set(name, claim, nx=True, ex=int(longest_wait()) + CLAIM_MARGIN)
            kept = claim if claimed else cast("str | None", core().redis.get(name))
    except StoreFull:
        return None  # what may be done nevertheless does no harm when it is done twice
    if kept == claim:
        g.idempotency = Claim(name, body, claim)
        return None
    return _answer_again(json.loads(kept or claim), body)


def _answer_again(kept: dict[str, str | int | dict[str, str]], body: str) -> Response | None:
    if kept["body"] != body:
        raise Problem(422, "idempotency_key_reused", f"This {HEADER} came with another request before.")
    if "status" not in kept:
        text = "The first request with this key is still being worked on."
        raise Problem(409, "request_in_progress", text, headers={"Retry-After": "1"})
    if "answer" not in kept:
        g.idempotency_answered = kept.get("message", "")
        return None
    response = Response(str(kept["answer"]), int(str(kept["status"])), dict(kept["headers"]))  # type: ignore[arg-type]
    response.headers[REPLAYED] = "true"
    return response


def _finish(keep: Script, response: Response) -> Response:
    if g.get("idempotency_answered"):
        response.headers[REPLAYED] = "true"
    claim: Claim | None = g.pop("idempotency", None)
    if claim is None:
        return response
    try:
        again = response.status_code >= 500 or response.status_code == 429 or response.is_streamed
        with redis_errors():
            if again or core().memory.full():
                core().redis.eval(FREE, 1, claim.name, claim.text)
            else:
                settings = core().settings
                kept = _kept(response, claim.body)
                ttl = max(1, int(settings.idempotency_ttl))
                keep(keys=[claim.name, _index()], args=[kept, ttl, time.time(), settings.idempotency_kept])
    except StateUnavailable:
        log.warning("the answer was not kept for its idempotency key; the claim ends by itself")
    return response


def _index() -> str:
    """The name of what lists the kept answers of the session the request is about, or else of the caller."""
    return keys.KEPT_ANSWERS.format(owner=(request.view_args or {}).get("uuid") or caller().digest[:32])


def _kept(response: Response, body: str) -> str:
    """What is kept of an answer; without `answer` the call is carried out again, or answered from the `message`."""
    kept: dict[str, object] = {"body": body, "status": response.status_code}
    answer = response.get_data(as_text=True)
    if len(answer) <= ANSWER_MAX and not g.get("idempotency_secret"):
        headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        kept |= {"headers": headers, "answer": answer}
    elif message := g.get("idempotency_message"):
        kept["message"] = message
    return json.dumps(kept)


def _digest(*parts: str | bytes) -> str:
    """One digest of all parts; each is hashed first, so that no part can pass for the end of another."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return whole.hexdigest()
