"""The gateway asks the model's API once a minute whether it answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from app.core.redis import keys
from app.core.redis.model_answers import ModelAnswers
from app.gateway.gateway_metrics import Metrics
from app.gateway.model_check import ASKED_EVERY, ModelCheck
from app.gateway.provider import Provider
from app.process.settings import Settings
from tests.model_server import ModelServer
from tests.ports import free_port


class Checked:
    """A check whose clock stands still."""

    def __init__(self, client: redis.Redis, folder: Path, url: str) -> None:
        self.now = 1_000.0
        self.answers = ModelAnswers(client)
        provider = Provider(Settings(data_dir=folder, llm_base_url=url, llm_api_key="sk-test"), Metrics())
        self.check = ModelCheck(provider, self.answers, lambda: self.now)


def test_a_model_that_answers_is_noted_and_not_asked_again_within_a_minute(
    redis_client: redis.Redis, tmp_path: Path
) -> None:
    with ModelServer() as model:
        checked = Checked(redis_client, tmp_path, model.url)
        for seconds, age in ((0.0, 0.0), (ASKED_EVERY - 1, ASKED_EVERY - 1), (1.0, 0.0)):
            checked.now += seconds
            checked.check.look()
            last = checked.answers.last(checked.now)
            assert last is not None
            assert (last.status, last.error, last.age) == (200, "", age)


def test_an_error_is_noted_by_its_kind_alone(redis_client: redis.Redis, tmp_path: Path) -> None:
    checked = Checked(redis_client, tmp_path, f"http://user:hidden@127.0.0.1:{free_port()}/v1")
    checked.check.look()
    text = redis_client.get(keys.MODEL_SEEN)
    assert text is not None
    assert "NewConnectionError" in text
    assert "hidden" not in text


def test_without_a_model_nobody_is_asked(redis_client: redis.Redis, tmp_path: Path) -> None:
    checked = Checked(redis_client, tmp_path, "")
    checked.check.look()
    assert checked.answers.last(checked.now) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"at": "x"}', "1"])
def test_what_is_no_answer_is_none(redis_client: redis.Redis, text: str) -> None:
    """A gateway that was taken over writes what it likes."""
    redis_client.set(keys.MODEL_SEEN, text)
    assert ModelAnswers(redis_client).last(1.0) is None


def test_redis_being_away_ends_nothing(tmp_path: Path) -> None:
    Checked(redis.Redis(host="127.0.0.1", port=free_port(), retry=None), tmp_path, "http://127.0.0.1:1/v1").check.look()
