"""`Idempotency-Key` on every POST: the first answer is kept and given again, so that a client may
repeat a request whose answer it never saw.

While the first request runs its key is claimed for little longer than it can take; one that died frees
it by that. Answers that ask for another try (5xx, 429) are not kept, nor are streams.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from dataclasses import dataclass
from typing import cast

from flask import Flask, Response, g, request

from app.api.context import core
from app.api.prefer import longest_wait
from app.api.security import caller
from app.bodies import body_of_request
from app.problems import Problem
from app.sessions import keys
from app.sessions.errors import StateUnavailable
from app.sessions.redis_errors import redis_errors

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,128}")
CLAIM_MARGIN = 10
"""s beyond the longest wait a claim lasts: what a request takes besides waiting."""

FREE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""Frees a claim, unless it ended and is another request's by now."""

KEPT_HEADERS = ("Content-Type", "Location", "Preference-Applied")


@dataclass(frozen=True)
class Claim:
    """What a request holds while it works: the key's name in Redis, the digest of its body, and the claim as it
    stands there."""

    name: str
    body: str
    text: str


def register_idempotency(app: Flask) -> None:
    """Replay the answers of repeated POSTs of `app`. Register it last: it must see the final answer first."""
    app.before_request(_begin)
    app.after_request(_finish)


def name_of_request() -> str:
    """A name that all requests with this one's Idempotency-Key share, "" where it has none. What a request
    creates can be named by it, so that a repetition creates no second one even when its answer was lost."""
    claim: Claim | None = g.get("idempotency")
    return _digest(claim.name)[:32] if claim else ""


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
    with redis_errors():
        claimed = core().redis.set(name, claim, nx=True, ex=int(longest_wait()) + CLAIM_MARGIN)
        kept = claim if claimed else cast("str | None", core().redis.get(name))
    if kept == claim:
        g.idempotency = Claim(name, body, claim)
        return None
    return _answer_again(json.loads(kept or claim), body)


def _answer_again(kept: dict[str, str | int | dict[str, str]], body: str) -> Response:
    if kept["body"] != body:
        raise Problem(422, "idempotency_key_reused", f"This {HEADER} came with another request before.")
    if "status" not in kept:
        text = "The first request with this key is still being worked on."
        raise Problem(409, "request_in_progress", text, headers={"Retry-After": "1"})
    response = Response(str(kept["answer"]), int(str(kept["status"])), dict(kept["headers"]))  # type: ignore[arg-type]
    response.headers[REPLAYED] = "true"
    return response


def _finish(response: Response) -> Response:
    claim: Claim | None = g.pop("idempotency", None)
    if claim is None:
        return response
    try:
        with redis_errors():
            if response.status_code >= 500 or response.status_code == 429 or response.is_streamed:
                core().redis.eval(FREE, 1, claim.name, claim.text)
            else:
                ttl = max(1, int(core().settings.idempotency_ttl))
                core().redis.set(claim.name, _kept(response, claim.body), ex=ttl)
    except StateUnavailable:
        log.warning("the answer was not kept for its idempotency key; the claim ends by itself")
    return response


def _kept(response: Response, body: str) -> str:
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    answer = response.get_data(as_text=True)
    return json.dumps({"body": body, "status": response.status_code, "headers": headers, "answer": answer})


def _digest(*parts: str | bytes) -> str:
    """One digest of all parts; each is hashed first, so that no part can pass for the end of another."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return whole.hexdigest()
