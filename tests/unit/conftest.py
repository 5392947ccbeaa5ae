"""How unit tests run: on which Redis, and on how many processors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis
from flask import Flask
from jinja2.bccache import Bucket, BytecodeCache
from werkzeug.routing import Rule

from app.core.redis import connections
from app.process.settings import Settings
from tests.deep_tree import DeepTrees
from tests.fake_agent import FakeAgent, fake_agent
from tests.fake_redis import fake_redis
from tests.world import World

FAKE = os.environ.get("FAKE_REDIS") == "1" or not (os.environ.get("REAL_REDIS") == "1" or shutil.which("redis-server"))
"""A redis-server on loopback is faster than fakeredis, which runs each Lua script several times as long; so fakeredis
is for machines without one. REAL_REDIS=1 insists on a real one, FAKE_REDIS=1 uses fakeredis all the same."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Whole folders are tested on all processors, unless the command line says on how many."""
    options = config.option
    chosen = getattr(options, "numprocesses", 0) is not None or options.usepdb or options.collectonly
    if not (chosen or hasattr(config, "workerinput")) and all(Path(each).is_dir() for each in config.args):
        options.numprocesses = "logical"


COMPILED_ROUTES: dict[tuple[object, ...], dict[str, Any]] = {}
"""What werkzeug made of each route, which all apps of this process share."""


def _builds_no_address(*_: object, **__: object) -> NoReturn:
    raise AssertionError("no address of a route is built in unit tests: see compile_once")


def compile_once(rule: Rule, compile_: Callable[[Rule], None] = Rule.compile) -> None:
    """Compile a route as werkzeug does, without the two functions that build its address, which the service calls
    nowhere, or copy what came of it for an earlier app."""
    assert rule.map is not None
    assert not rule.defaults
    key = (rule.rule, rule.host, rule.subdomain, rule.merge_slashes, *rule.map.converters.items())
    if key not in COMPILED_ROUTES:
        compile_(rule)
        COMPILED_ROUTES[key] = {name: getattr(rule, name) for name in ("_parts", "_trace", "_converters", "arguments")}
    vars(rule).update(COMPILED_ROUTES[key], _build=_builds_no_address, _build_unknown=_builds_no_address)


class CompiledTemplates(BytecodeCache):
    """Jinja's compiled templates, which all apps of this process share."""

    def __init__(self) -> None:
        self._codes: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if code := self._codes.get(bucket.key + bucket.checksum):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key + bucket.checksum] = bucket.bytecode_to_string()


COMPILED = CompiledTemplates()


@pytest.fixture(autouse=True, scope="module")
def compiled_once() -> Iterator[None]:
    """A process compiles each route and each template once; unit tests have an app each, hundreds in all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", lambda *_, **__: _builds_no_address)
        patch.setattr(Rule, "compile", compile_once)
        patch.setitem(Flask.jinja_options, "bytecode_cache", COMPILED)
        yield


@pytest.fixture(autouse=True, scope="module")
def patient_with_redis() -> Iterator[None]:
    """A Redis on a busy machine takes longer than one that serves people may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "COMMAND_TIMEOUT", 5.0)
        yield


@pytest.fixture
def redis_client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """An empty Redis; a real one for tests marked `real_redis`, and for those that use its URL."""
    real = request.node.get_closest_marker("real_redis") or "redis_server" in request.fixturenames
    if FAKE and not real:
        with fake_redis() as client:
            yield client
    else:
        yield request.getfixturevalue("real_redis_client")


@pytest.fixture(scope="session")
def uncalled_app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The API with the settings' defaults, for tests that read its routes or its document and call nothing."""
    # Here, as it takes a sixth of the start of a run: most files need no API.
    from app.main import create_app

    return create_app(Settings(api_key="a-key-for-nothing", data_dir=tmp_path_factory.mktemp("uncalled")))


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    return World(redis_client, tmp_path)


@pytest.fixture
def make_world(redis_client: redis.Redis, tmp_path: Path) -> Callable[..., World]:
    """Makes a world with other settings."""
    return partial(World, redis_client, tmp_path)


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    """A workspace's agent that does as the test wants it."""
    with fake_agent() as made:
        yield made


@pytest.fixture
def deep_trees(tmp_path: Path) -> Iterator[DeepTrees]:
    """Makes trees too deep for a stack and a path; what is left of them is deleted."""
    trees = DeepTrees(tmp_path)
    yield trees
    trees.delete()
