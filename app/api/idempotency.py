"""`Idempotency-Key` on every POST: a client may repeat a request whose answer it never saw, and gets the first answer.

While the first request runs it claims its key, for little longer than it can take, so the claim of a request that died
expires. Only 2xx answers are stored: a refusal is decided anew. So is a stream.

Short answers are stored whole; of a longer answer to a prompt, the message's id. A call whose answer has a secret or is
too long is carried out again: it makes a new secret, and creates nothing twice, because the key names what it creates.
Redis keeps the newest answers of each caller, and of each caller on each session, and stores none while it is full.
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
from typing import cast

from flask import Flask, Response, g, request

from app.api.current import EXTENSION, core
from app.api.prefer import longest_wait
from app.api.security import caller
from app.core.errors import StateUnavailable, StoreFull
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.scripts import Script
from app.core.service import IDEMPOTENCY_TTL
from app.http.bodies import body_of_request
from app.http.named_session import named_session
from app.http.problems import Problem

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,128}")
CLAIM_MARGIN = 10
"""s that a claim lasts beyond the longest wait: the time of a request apart from waiting."""

FREE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""Frees a claim, unless it has expired and another request holds it."""

KEPT_HEADERS = ("Content-Type", "Location", "Preference-Applied")

ANSWER_MAX = 2_048
"""Bytes of a stored answer, with what is stored beside it: nearly all answers but those of agents are shorter."""

KEPT_OF_CALLER = 50_000
"""Answers kept for one caller, an API key or a session token, on all sessions."""

KEPT_OF_BOTH = 500
"""Answers kept for one caller on one session, or for the sessions it creates."""


@dataclass(frozen=True)
class Claim:
    """The claim of a running request: its key in Redis, the digest of its body, and the claim's text in Redis."""

    name: str
    body: str
    text: str


def register_idempotency(app: Flask) -> None:
    """Replay the answers of repeated POSTs of `app`. Register it last: it must see the final answer first."""
    keep = Script(app.extensions[EXTENSION].redis, "keep_answer")
    app.before_request(_begin)
    app.after_request(partial(_finish, keep))


def name_of_request() -> str:
    """A name shared by all requests with this Idempotency-Key, "" without one. Naming what a request creates by it
    keeps a repetition from creating a second one, even if the first answer was lost."""
    name: str = g.get("idempotency_name", "")
    return _digest(name)[:32] if name else ""


def answer_has_secret() -> None:
    """Don't store the answer to this request: a repetition makes a new secret."""
    g.idempotency_secret = True


def answer_is_of(message_id: str) -> None:
    """Store the message's id in place of a long answer, which can be made again from it."""
    g.idempotency_message = message_id


def answer_names(uuid: str) -> None:
    """The answer to this request names a session that its path does not: it goes with the session's erasure."""
    g.idempotency_names = uuid


def answered_message() -> str:
    """The id of the message that an earlier request with this key was about, "" if the call must be carried out."""
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
    # The nonce identifies this request's claim if Redis' answer was lost.
    claim = json.dumps({"body": body, "nonce": secrets.token_hex(8)})
    g.idempotency_name = name
    try:
        with redis_errors:
            claimed = core().redis.set(name, claim, nx=True, ex=int(longest_wait()) + CLAIM_MARGIN)
            kept = claim if claimed else cast("str | None", core().redis.get(name))
    except StoreFull:
        return None  # Calls that a full Redis still allows do no harm when repeated.
    if kept == claim:
        g.idempotency = Claim(name, body, claim)
        return None
    return _answer_again(json.loads(kept or claim), body)


def _answer_again(kept: dict[str, str | int | dict[str, str]], body: str) -> Response | None:
    if kept["body"] != body:
        raise Problem(422, "idempotency_key_reused", f"This {HEADER} was used with another request before.")
    if "status" not in kept:
        text = "The first request with this key is still in progress."
        raise Problem(409, "request_in_progress", text, retry_after=1)
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
        with redis_errors:
            if not 200 <= response.status_code < 300 or response.is_streamed or core().memory.full():
                core().redis.eval(FREE, 1, claim.name, claim.text)
            else:
                uuid = named_session()
                by = caller().digest[:32]
                about = [each for each in dict.fromkeys((uuid, g.get("idempotency_names", ""))) if each]
                named = [key.format(uuid=each) for each in about for key in (keys.SESSION, keys.NAMING_ANSWERS)]
                keep(
                    answer=claim.name,
                    of_caller=keys.KEPT_ANSWERS.format(owner=by),
                    of_both=keys.KEPT_ANSWERS.format(owner=f"{by}:{uuid}"),
                    named=named,
                    text=_kept(response, claim.body),
                    ttl=IDEMPOTENCY_TTL,
                    now=time.time(),
                    most_of_caller=KEPT_OF_CALLER,
                    most_of_both=KEPT_OF_BOTH,
                    on_first=int(bool(uuid)),
                )
    except StateUnavailable:
        log.warning("answer not stored for its idempotency key; the claim expires by itself")
    return response


def _kept(response: Response, body: str) -> str:
    """The stored form of an answer. Without `answer`, a repetition is carried out again, or answered by `message`."""
    least: dict[str, object] = {"body": body, "status": response.status_code}
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    whole = json.dumps({**least, "headers": headers, "answer": response.get_data(as_text=True)})
    if len(whole) <= ANSWER_MAX and not g.get("idempotency_secret"):
        return whole
    message = g.get("idempotency_message")
    return json.dumps({**least, "message": message} if message else least)


def _digest(*parts: str | bytes) -> str:
    """One digest of all parts. Each is hashed first, so that a part's end can't be taken for another part."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return whole.hexdigest()
