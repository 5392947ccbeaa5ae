"""The real gateway process between a model server and clients: streams, their ends and number, what is logged."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import redis
import requests

from app.core.access.agent_credentials import AgentCredentials
from app.core.prompts.token_usage import TokenUsage
from app.core.redis.connections import connect
from app.core.sessions.model import Record, Status, new_uuid
from app.core.sessions.store import SessionStore
from tests.integration.serving import SECRET_KEY, running_gateway
from tests.model_server import Answer, ModelServer, Received
from tests.waiting import wait_for

API_KEY = "sk-test-key-of-the-provider-0123456789"
PROMPT = "a prompt nobody but the model may read"
COMPLETION = "an answer nobody but the workspace may read"
TIMEOUT = 30.0
STREAMS = 200
SESSIONS = 25


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer(api_key=API_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def url(folder: Path, redis_server: str, model: ModelServer) -> Iterator[str]:
    settings = {"LLM_BASE_URL": model.url, "LLM_API_KEY": API_KEY, "LLM_MODEL": "forced-model"}
    with running_gateway(folder, redis_server, **settings) as address:
        yield address


@pytest.fixture(autouse=True)
def _clean(redis_client: redis.Redis) -> None:
    """Every test begins with an empty Redis."""


def new_session(redis_server: str, uuid: str, user_id: str) -> str:
    """A session that is up; answers its token."""
    now = time.time()
    record = Record(
        uuid=uuid, user_id=user_id, created_at=now, last_activity=now, status=Status.ACTIVE, settled=1, epoch=1
    )
    SessionStore(connect(redis_server, 5.0)).create(record, quota=None)
    return AgentCredentials([SECRET_KEY]).token(uuid, 1)


@pytest.fixture
def uuid() -> str:
    """Of this test alone, as its user is: what a client left behind may be counted after its test's end."""
    return new_uuid()


@pytest.fixture
def token(redis_server: str, uuid: str) -> str:
    return new_session(redis_server, uuid, f"user-{uuid}")


def ask(url: str, token: str, stream: bool = True, **more: Any) -> requests.Response:
    """A request for a completion, as a stream unless told otherwise."""
    return requests.post(
        f"{url}/llm/v1/chat/completions",
        json={"messages": [{"role": "user", "content": PROMPT}], "model": "wanted", "stream": stream, **more},
        headers={"Authorization": f"Bearer {token}"},
        stream=stream,
        timeout=TIMEOUT,
    )


def client_of(url: str, token: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/llm/v1", api_key=token, max_retries=0, timeout=TIMEOUT)


def completion(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model="wanted", messages=[{"role": "user", "content": PROMPT}], **more)


def newest(model: ModelServer, before: int) -> Received:
    return model.wait_for_requests(before + 1)[-1]


def events(response: requests.Response) -> Iterator[str]:
    """The data of each event of a stream, as it comes."""
    for line in response.iter_lines(chunk_size=1, decode_unicode=True):
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


def test_a_stream_passes_chunk_by_chunk(url: str, token: str, model: ModelServer) -> None:
    """The first chunk is here while the provider holds back all others; the rest comes as it was sent."""
    hold = threading.Event()
    model.script(Answer(text=COMPLETION, hold=hold))
    with ask(url, token) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        passed = events(response)
        first = json.loads(next(passed))
        assert first["choices"][0]["delta"]["role"] == "assistant"
        assert not hold.is_set()
        hold.set()
        rest = list(passed)
    assert rest[-1] == "[DONE]"
    text = "".join(json.loads(data)["choices"][0]["delta"].get("content") or "" for data in rest[:-2])
    assert text == COMPLETION
    assert json.loads(rest[-2])["usage"]["total_tokens"] > 0


def test_the_provider_gets_the_key_the_model_and_no_more(url: str, token: str, model: ModelServer) -> None:
    """The workspace's token stays here, the model is the one of the settings, and usage is asked for."""
    before = len(model.requests)
    with ask(url, token, n=50, store=True, user="ada", temperature=0.5) as response:
        list(events(response))
    received = newest(model, before)
    assert received.headers["Authorization"] == f"Bearer {API_KEY}"
    assert token not in str(received.headers)
    assert received.body == {
        "messages": [{"role": "user", "content": PROMPT}],
        "model": "forced-model",
        "stream": True,
        "temperature": 0.5,
        "stream_options": {"include_usage": True},
    }


def test_openais_own_client_is_served(url: str, token: str, model: ModelServer) -> None:
    """Streamed and not, and the list of models."""
    client = client_of(url, token)
    model.script(Answer(text="one two"), Answer(text="three"))
    with completion(client, stream=True) as stream:
        parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(parts) == "one two"
    assert completion(client).choices[0].message.content == "three"
    assert [each.id for each in client.models.list()] == ["forced-model"]


def test_tokens_are_counted_by_session_and_user(
    url: str, uuid: str, token: str, model: ModelServer, redis_client: redis.Redis
) -> None:
    """What the provider said it took, of a stream and of a whole answer."""
    model.script(*[Answer(text="x", prompt_tokens=11, completion_tokens=5)] * 2)
    with ask(url, token) as response:
        list(events(response))
    ask(url, token, stream=False)
    spending = TokenUsage(redis_client)
    wait_for(lambda: spending.of_session(uuid).prompt == 22, "both requests are counted")
    assert spending.of_session(uuid).completion == 10
    assert spending.of_session(uuid).estimated == 0
    assert spending.of_day(f"user-{uuid}", time.time()) == 32


def test_a_stream_without_usage_is_estimated(
    url: str, uuid: str, token: str, model: ModelServer, redis_client: redis.Redis
) -> None:
    """A provider that doesn't count costs nobody the budget's protection, and the estimate is marked as one."""
    model.script(Answer(text="a b c", usage=False))
    with ask(url, token) as response:
        list(events(response))
    spending = TokenUsage(redis_client)
    wait_for(lambda: spending.of_session(uuid).total > 0, "the stream is counted")
    counted = spending.of_session(uuid)
    assert counted.estimated == counted.total
    assert "gateway_llm_tokens_estimated_total" in requests.get(f"{url}/metrics", timeout=TIMEOUT).text


def test_a_cut_stream_is_an_error_for_openais_client(url: str, token: str, model: ModelServer) -> None:
    """What came before the cut arrives; then the client raises, rather than taking half an answer for one."""
    model.script(Answer(text="one two three four", cut_after=3))
    got = []
    with pytest.raises(openai.APIError) as error, completion(client_of(url, token), stream=True) as stream:
        for chunk in stream:
            got.append(chunk.choices[0].delta.content)
    assert got == ["", "one ", "two "]
    assert error.value.code == "llm_stream_cut"


def test_a_refused_request_is_sent_again_until_it_is_taken(url: str, token: str, model: ModelServer) -> None:
    """The workspace sees the answer only, not the 429 and the 500 before it."""
    before = len(model.requests)
    model.script(Answer(status=429, retry_after="0"), Answer(status=500), Answer(text="at last"))
    assert completion(client_of(url, token)).choices[0].message.content == "at last"
    assert len(model.requests) == before + 3


def test_an_answer_that_breaks_off_before_its_first_byte_is_asked_for_again(
    url: str, token: str, model: ModelServer
) -> None:
    """Nothing of it was passed on, so a second try can't repeat anything."""
    model.script(Answer(text="lost", cut_after=0), Answer(text="second"))
    with completion(client_of(url, token), stream=True) as stream:
        parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(parts) == "second"


def test_a_stream_is_not_asked_for_again_once_a_byte_is_out(url: str, token: str, model: ModelServer) -> None:
    before = len(model.requests)
    model.script(Answer(text="one two", cut_after=1), Answer(text="never asked for"))
    try:
        with ask(url, token) as response:
            list(events(response))
        assert len(model.requests) == before + 1
    finally:
        model.script()
        model._scripted.clear()


def test_the_providers_own_error_passes(url: str, token: str, model: ModelServer) -> None:
    """Its shape is OpenAI's, so that clients understand it."""
    model.script(Answer(status=400))
    with pytest.raises(openai.BadRequestError) as error:
        completion(client_of(url, token))
    assert error.value.type == "invalid_request_error"


def test_a_client_that_leaves_ends_the_providers_stream(
    url: str, uuid: str, token: str, model: ModelServer, redis_client: redis.Redis
) -> None:
    """The provider stops writing, and billing, what nobody reads; what came so far is counted."""
    before = len(model.requests)
    model.script(Answer(text="a b c", hold=threading.Event()))
    with ask(url, token) as response:
        next(events(response))
    received = newest(model, before)
    assert received.finished.wait(TIMEOUT)
    assert received.outcome == "client gone"
    wait_for(lambda: TokenUsage(redis_client).of_session(uuid).completion, "what came so far is counted")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("answer", [Answer(text="late", delay=60), Answer(text="one two", hold=threading.Event())])
def test_a_client_that_leaves_pays_for_what_it_asked(
    url: str, uuid: str, token: str, model: ModelServer, redis_client: redis.Redis, answer: Answer, stream: bool
) -> None:
    """While the model is still thinking or writing, streamed or not: its request ends, and counts in full."""
    before = len(model.requests)
    model.script(answer)
    with pytest.raises(requests.exceptions.RequestException):
        requests.post(
            f"{url}/llm/v1/chat/completions",
            json={"messages": [], "max_tokens": 5_000, "stream": stream},
            headers={"Authorization": f"Bearer {token}"},
            timeout=(TIMEOUT, 0.3),
        )
    received = newest(model, before)
    assert received.finished.wait(TIMEOUT)
    assert received.outcome == "client gone"
    spending = TokenUsage(redis_client)
    wait_for(lambda: spending.of_session(uuid).completion, "the answer is counted")
    assert spending.of_session(uuid).completion == 5_000


def test_two_hundred_streams_at_once(url: str, redis_server: str, model: ModelServer) -> None:
    """All of them are open at the same time, none fails, and each gets its own answer."""
    tokens = [new_session(redis_server, f"stream{number:02}", f"user-{number}") for number in range(SESSIONS)]
    hold = threading.Event()
    begun = threading.Barrier(STREAMS + 1)
    before = len(model.requests)
    model.script(*[Answer(pieces=[f"{number} ", "and ", "done"], hold=hold) for number in range(STREAMS)])

    def stream(number: int) -> str:
        with ask(url, tokens[number % SESSIONS]) as response:
            assert response.status_code == 200, response.text
            passed = events(response)
            next(passed)
            begun.wait(TIMEOUT * 2)
            rest = list(passed)
        assert rest[-1] == "[DONE]"
        return "".join(json.loads(data)["choices"][0]["delta"].get("content") or "" for data in rest[:-2])

    with ThreadPoolExecutor(STREAMS) as pool:
        running = [pool.submit(stream, number) for number in range(STREAMS)]
        begun.wait(TIMEOUT * 2)
        hold.set()
        texts = [each.result(TIMEOUT * 2) for each in running]
    assert len(model.requests) == before + STREAMS
    assert sorted(texts) == sorted(f"{number} and done" for number in range(STREAMS))

    def all_closed() -> bool:
        # The gateway closes a stream after its client has read the last byte.
        shown = requests.get(f"{url}/metrics", timeout=TIMEOUT).text
        return re.search(r"^gateway_llm_streams_open 0\.0$", shown, re.M) is not None

    wait_for(all_closed, "every stream is closed")


def test_one_session_cannot_take_all_places(url: str, redis_server: str, model: ModelServer) -> None:
    """Its ninth request at a time is refused; another session is served meanwhile."""
    greedy, modest = (new_session(redis_server, uuid, "ada") for uuid in ("greedy00", "modest00"))
    hold = threading.Event()
    model.script(*[Answer(text="x", hold=hold)] * 8)
    streams = [ask(url, greedy) for _ in range(8)]
    try:
        refused = ask(url, greedy)
        assert (refused.status_code, refused.json()["error"]) == (429, "too_many_calls")
        assert ask(url, modest, stream=False).status_code == 200
    finally:
        hold.set()
        for response in streams:
            list(events(response))
            response.close()
    wait_for(lambda: ask(url, greedy, stream=False).status_code == 200, "its places are free again")


def test_no_secret_and_no_content_is_logged_or_counted(
    url: str, token: str, model: ModelServer, folder: Path, redis_server: str
) -> None:
    """At DEBUG, through successes and failures of every kind, neither the logs nor /metrics hold any of it."""
    model.script(
        Answer(text=COMPLETION),
        Answer(text=COMPLETION, cut_after=2),
        Answer(status=400),
        Answer(status=401),
        Answer(status=429, retry_after="100"),
        Answer(text=COMPLETION, broken=True),
    )
    for stream in (True, True, False, False, False, True):
        with ask(url, token, stream=stream) as response:
            response.content  # noqa: B018
    bad = requests.post(
        f"{url}/llm/v1/chat/completions",
        data=b'{"messages": "' + PROMPT.encode(),
        headers={"Authorization": f"Bearer {token}"},
        timeout=TIMEOUT,
    )
    assert bad.status_code == 400
    log = (folder / "gateway.log").read_text()
    assert "/llm/v1/chat/completions" in log
    for text in (log, requests.get(f"{url}/metrics", timeout=TIMEOUT).text):
        for secret in (
            API_KEY,
            token,
            token.split(".")[2],
            SECRET_KEY,
            PROMPT,
            COMPLETION,
            COMPLETION.split()[0] + " answer",
        ):
            assert secret not in text
