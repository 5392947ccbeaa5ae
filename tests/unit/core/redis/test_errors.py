"""`redis_errors` translates the same as a decorator and around a block, and refuses what a decorator can't guard."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

import pytest
import redis

from app.core.errors import StateUnavailable, StoreFull
from app.core.redis.errors import redis_errors

AWAY = "The state store is unreachable or did not answer in time; retry."
REFUSES = "The state store does not accept commands at the moment; retry."

TRANSLATED = [
    (redis.ConnectionError("Error 111 connecting to redis-0.internal:6379"), StateUnavailable, AWAY),
    (redis.TimeoutError("Timeout reading from socket"), StateUnavailable, AWAY),
    (redis.BusyLoadingError("Redis is loading the dataset in memory"), StateUnavailable, AWAY),
    (redis.AuthenticationError("invalid username-password pair"), StateUnavailable, AWAY),
    (redis.ReadOnlyError("You can't write against a read only replica."), StateUnavailable, AWAY),
    (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), StateUnavailable, REFUSES),
    (redis.ResponseError("MASTERDOWN Link with MASTER is down"), StateUnavailable, REFUSES),
    (redis.ResponseError("LOADING Redis is loading the dataset"), StateUnavailable, REFUSES),
    (redis.ResponseError("BUSY Redis is busy running a script"), StateUnavailable, REFUSES),
    (redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), StoreFull, str(StoreFull())),
]

UNTOUCHED = [
    redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    redis.exceptions.NoPermissionError("this user has no permissions to run the 'get' command"),
    redis.WatchError("Watched variable changed."),
    redis.DataError("Invalid input of type"),
    ValueError("not of Redis"),
    KeyboardInterrupt(),
]


class Adapter:
    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error

    def _answer(self, key: str, more: int = 1) -> list[str]:
        if self._error:
            raise self._error
        return [key] * more

    @redis_errors
    def decorated(self, key: str, *, more: int = 1) -> list[str]:
        """Some keys."""
        return self._answer(key, more)

    def guarded_within(self, key: str, *, more: int = 1) -> list[str]:
        """Some keys."""
        with redis_errors:
            return self._answer(key, more)

    @property
    @redis_errors
    def as_property(self) -> list[str]:
        return self._answer("p")

    @cached_property
    @redis_errors
    def as_cached(self) -> list[str]:
        return self._answer("c")

    @classmethod
    @redis_errors
    def of_class(cls, error: Exception) -> None:
        raise error

    @staticmethod
    @redis_errors
    def of_nothing(error: Exception) -> None:
        raise error


def both(adapter: Adapter) -> list[Callable[[str], list[str]]]:
    return [adapter.decorated, adapter.guarded_within]


@pytest.mark.parametrize(("error", "kind", "text"), TRANSLATED, ids=lambda value: type(value).__name__)
def test_a_redis_that_can_not_serve_raises_an_error_of_ours(error: Exception, kind: type, text: str) -> None:
    for method in both(Adapter(error)):
        with pytest.raises(StateUnavailable) as caught:
            method("k")
        assert type(caught.value) is kind
        assert str(caught.value) == text
        assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", UNTOUCHED, ids=lambda value: type(value).__name__)
def test_other_errors_stay_as_they_are(error: BaseException) -> None:
    for method in both(Adapter(error)):
        with pytest.raises(type(error)) as caught:
            method("k")
        assert caught.value is error
        assert caught.value.__cause__ is None


def test_an_error_keeps_its_cause() -> None:
    """As one of a bug of ours, and beneath the translated one."""
    cause = OSError("no route to host")

    @redis_errors
    def fail(kind: type[redis.RedisError]) -> None:
        raise kind("of the socket") from cause

    with pytest.raises(redis.ResponseError) as bug:
        fail(redis.ResponseError)
    assert bug.value.__cause__ is cause
    with pytest.raises(StateUnavailable) as away:
        fail(redis.ConnectionError)
    assert away.value.__cause__ is not None
    assert away.value.__cause__.__cause__ is cause


def test_refused_access_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in both(Adapter(redis.exceptions.NoPermissionError("no permissions to run the 'get' command"))):
        caplog.clear()
        monkeypatch.setattr("app.core.redis.errors._logged_at", float("-inf"))
        for _ in range(2):
            with caplog.at_level(logging.ERROR), pytest.raises(redis.exceptions.NoPermissionError):
                method("k")
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "Redis denies its user a command or key" in caplog.text


def test_a_decorated_method_answers_as_before_and_keeps_its_name_docstring_and_signature() -> None:
    method, plain = Adapter.decorated, Adapter.guarded_within
    assert method(Adapter(), "k", more=2) == plain(Adapter(), "k", more=2) == ["k", "k"]
    assert (method.__qualname__, method.__name__) == ("Adapter.decorated", "decorated")
    assert method.__module__ == __name__
    assert method.__doc__ == plain.__doc__ == "Some keys."
    assert inspect.signature(method) == inspect.signature(plain)


def test_blocks_and_methods_may_be_nested() -> None:
    away = redis.ConnectionError("away")
    with pytest.raises(StateUnavailable) as caught, redis_errors, redis_errors:
        Adapter(away).decorated("k")
    assert caught.value.__cause__ is away


def test_it_stands_beneath_other_decorators() -> None:
    away = redis.ConnectionError("away")
    for method in (
        lambda error: Adapter(error).as_property,
        lambda error: Adapter(error).as_cached,
        Adapter.of_class,
        Adapter.of_nothing,
    ):
        with pytest.raises(StateUnavailable):
            method(away)
    assert (Adapter().as_property, Adapter().as_cached) == (["p"], ["c"])


def generator() -> Iterator[str]:
    yield "k"


async def coroutine() -> str:
    return "k"


async def asynchronous_generator() -> AsyncIterator[str]:
    yield "k"


@contextmanager
def context() -> Iterator[str]:
    yield "k"


@pytest.mark.parametrize("function", [generator, coroutine, asynchronous_generator, context])
def test_what_runs_after_its_call_returned_can_not_be_decorated(function: Callable[[], object]) -> None:
    """The decorator would guard nothing of it."""
    with pytest.raises(TypeError, match=f"^{function.__qualname__} runs only after .* put `with redis_errors:` around"):
        redis_errors(function)
