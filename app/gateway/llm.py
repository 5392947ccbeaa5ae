"""The model for workspaces: an OpenAI-compatible API that adds the key, counts tokens and enforces the budget.

Prompts, answers and the key are never logged.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flask import Blueprint, Response, request

from app.core.errors import StateUnavailable
from app.core.limit_errors import BudgetExceeded, LimitReached, TokensUsedUp
from app.core.prompts.token_usage import next_day
from app.core.sessions.model import Record, iso
from app.core.untrusted_json import LARGE
from app.gateway.assembly import Assembly, Unreadable
from app.gateway.cancellation import Call, ClientGone, LeftBetweenTries
from app.gateway.chat_request import ChatRequest, provider_request
from app.gateway.completions import models_document, relay
from app.gateway.parts import Gateway, gateway, session
from app.gateway.provider import EVENT_STREAM, NO_SECOND_TRY, Answer
from app.gateway.usage import Meter
from app.http.bodies import charge_values, read_body
from app.http.problems import Problem, to_problem
from app.process import tracing
from app.process.spans import Span

log = logging.getLogger(__name__)

blp = Blueprint("llm", __name__, url_prefix="/llm/v1")

LARGEST_REQUEST = 8_388_608
"""Bytes of a request to the model, with its conversation: a million tokens are 4 MB of text."""

CLIENT_LEFT = 499
"""The status in the log for a client that has disconnected; no client sees it."""

NOT_CONFIGURED = (
    "No model is configured: start the service with LLM_BASE_URL=https://api.openai.com/v1, LLM_API_KEY and LLM_MODEL "
    "in its environment."
)

WITHOUT_PRICE = (
    "There is a budget in dollars, and PRICES has no price for this model. Choose a model that has one, or have "
    "its price added."
)


@blp.post("/chat/completions")
def chat_completions() -> Response:
    """A completion, streamed or not, as in OpenAI's API reference."""
    parts, record = gateway(), session()
    _check_configured(parts)
    body = read_body(LARGEST_REQUEST)
    charge_values(body, LARGE)
    asked = provider_request(body, parts.core.settings.llm_model)
    del body
    _check_budget(parts, record, time.time())
    _check_costs(parts, record, asked.model)
    with ExitStack() as held:
        call = held.enter_context(_watched(parts))
        meter = Meter(len(asked.body), asked.model, asked.most_tokens)
        span = _model_span(parts)
        held.callback(span.end)
        answer = _ask(parts, record, call, asked, meter, span)
        if answer is None:
            return Response(status=CLIENT_LEFT)
        if not answer.streams:
            if answer.status == 200:
                meter.see_document(answer.text)
                _count(parts, record, meter, span)
            else:
                span.fail(str(answer.status))
            return _whole(answer)
        held.callback(_count, parts, record, meter, span)
        held.callback(answer.close)
        if not asked.streams:
            return _assembled(parts, answer, call, meter)
        headers = {"X-Accel-Buffering": "no"}
        response = Response(_relayed(parts, answer, call, meter), headers=headers, mimetype=EVENT_STREAM)
        # A generator's own `finally` does not run if no byte was read; this always runs.
        response.call_on_close(held.pop_all().close)
        return response


@blp.get("/models")
def models() -> Response:
    """The available models: the one of LLM_MODEL, or the provider's list."""
    parts = gateway()
    _check_configured(parts)
    if name := parts.core.settings.llm_model:
        return Response(json.dumps(models_document(name)), mimetype="application/json")
    with _watched(parts) as call:
        try:
            return _whole(parts.provider.models(call))
        except ClientGone:
            return Response(status=CLIENT_LEFT)


def _check_configured(parts: Gateway) -> None:
    if not parts.provider.configured:
        raise Problem(503, "llm_not_configured", NOT_CONFIGURED, headers=NO_SECOND_TRY)


def _check_budget(parts: Gateway, record: Record, now: float) -> None:
    """Raises the problem of `TokensUsedUp` if the user's tokens of the day are used up. Running requests may finish, so
    a day may end above the budget by their tokens."""
    budget = parts.core.settings.llm_tokens_per_day
    if not budget:
        return
    used = parts.token_usage.of_day(record.user_id, now)
    if used >= budget:
        reset = next_day(now)
        again = int(reset - now) + 1
        raise _final(TokensUsedUp(most=budget, used=used, renewed_at=iso(reset) or "", retry_after=again))


def _check_costs(parts: Gateway, record: Record, model: str) -> None:
    """Raises a 403 if the month's budget in dollars, of the user or of the key that created the session, is used up, or
    if there is one and the workspace chose a model without a price. A second try is no use."""
    chosen = not parts.core.settings.llm_model
    if chosen and not parts.core.prices.has_price(model) and parts.core.budgets.limited(record.user_id, record.made_by):
        raise Problem(403, "model_without_price", WITHOUT_PRICE, headers=NO_SECOND_TRY)
    try:
        parts.core.budgets.check(record.user_id, record.made_by, record.uuid)
    except BudgetExceeded as error:
        raise _final(error) from error


def _final(error: LimitReached) -> Problem:
    """The problem of a limit that a second try does not get around."""
    problem = to_problem(error)
    problem.headers |= NO_SECOND_TRY
    return problem


@contextmanager
def _watched(parts: Gateway) -> Iterator[Call]:
    """A call to the provider that is cancelled when its client disconnects."""
    call = Call()
    # Only gunicorn provides the socket.
    client = request.environ.get("gunicorn.socket")
    number = -1 if client is None else parts.disconnects.watch(client, call)
    try:
        with parts.metrics.open.track_inprogress():
            yield call
    finally:
        parts.disconnects.unwatch(number)


def _model_span(parts: Gateway) -> Span:
    """The span of a call of the model, until its last byte; a model that the workspace chooses is not named."""
    model = parts.core.settings.llm_model
    asked = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
    named = {"gen_ai.request.model": model} if model else {}
    return tracing.span(f"chat {model}".rstrip(), {**asked, **named}, kind="client")


def _ask(parts: Gateway, record: Record, call: Call, asked: ChatRequest, meter: Meter, span: Span) -> Answer | None:
    """The provider's answer, None if the client disconnected before its first byte. The provider may have thought by
    then, so that is counted."""
    started = time.monotonic()
    try:
        answer = parts.provider.chat(call, asked.body)
    except LeftBetweenTries:
        return None
    except ClientGone:
        _count(parts, record, meter, span)
        return None
    except Problem as problem:
        span.fail(problem.code)
        raise
    parts.metrics.first_byte.observe(time.monotonic() - started)
    return answer


def _relayed(parts: Gateway, answer: Answer, call: Call, meter: Meter) -> Iterator[bytes]:
    yield from relay(answer, call, meter)
    if meter.cut:
        parts.metrics.cut.inc()
        log.warning("the provider cut a stream off")


def _assembled(parts: Gateway, answer: Answer, call: Call, meter: Meter) -> Response:
    """The answer as a whole, once its stream has ended. Raises a `Problem` for one that is cut off or no completion."""
    assembly = Assembly()
    try:
        for lines in _relayed(parts, answer, call, meter):
            assembly.add(lines)
        if call.gone:
            return Response(status=CLIENT_LEFT)
        return Response(json.dumps(assembly.document()), mimetype="application/json")
    except Unreadable as error:
        raise Problem(502, "llm_stream_cut", "The model's answer was cut off. Send the request again.") from error


def _count(parts: Gateway, record: Record, meter: Meter, span: Span) -> None:
    """Count the tokens of an answer, however it ended."""
    tokens = meter.tokens()
    span.set("gen_ai.usage.input_tokens", tokens.prompt)
    span.set("gen_ai.usage.output_tokens", tokens.completion)
    parts.metrics.count_tokens(tokens, meter.model)
    try:
        parts.token_usage.add(
            record.uuid, record.user_id, tokens, time.time(), parts.core.prices.model_name(meter.model)
        )
    except StateUnavailable:
        parts.metrics.unrecorded.inc(tokens.total)
        log.warning("token usage not recorded", extra={"uuid": record.uuid, "tokens": tokens.total})


def _whole(answer: Answer) -> Response:
    """An answer that is not streamed, or an error of the provider."""
    headers = {"Retry-After": str(int(answer.retry_after) + 1)} if answer.retry_after is not None else {}
    return Response(answer.text, answer.status, headers, mimetype="application/json")
