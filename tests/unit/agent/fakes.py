"""Stand-ins for what a turn talks to, in the test's process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.agent.documents import Documents
from app.agent.model import Call, Reply
from app.agent.model_worker import ModelWorker
from app.agent.protocol import Event
from app.agent.retry import RetryingModel
from app.agent.services.services import DOCUMENT, FOLDER, Services
from app.agent.state import State
from app.agent.steps import Steps
from app.agent.tools.child import Stop
from app.agent.tools.registry import Result, Toolbox
from app.agent.tools.sandbox_path import Workspace
from app.agent.turns import Turns

USAGE = {"prompt_tokens": 10, "completion_tokens": 5}


def says(text: str, **more: Any) -> Reply:
    return Reply(text, (), USAGE, **more)


def calls(*names: str, arguments: str = "{}") -> Reply:
    return Reply("", tuple(Call(f"c{n}-{name}", name, arguments) for n, name in enumerate(names)), USAGE)


class FakeModel:
    """Answers what `script` has next, or what `rule` makes of the messages. A script's functions are called."""

    def __init__(self, *script: Any, rule: Callable[[Sequence[dict[str, Any]]], Any] | None = None) -> None:
        self.script = list(script)
        self.rule = rule
        self.asked: list[list[dict[str, Any]]] = []

    def warm(self) -> None:
        """There is nothing to prepare."""

    def answer(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[Any], on_text: Callable[[str], None], stop: Stop
    ) -> Reply:
        self.asked.append(list(messages))
        item = self.script.pop(0) if self.script else self.rule(messages) if self.rule else says("done")
        if callable(item):
            item = item(on_text, stop)
        if isinstance(item, BaseException):
            raise item
        if item.text:
            on_text(item.text)
        return item


def services_of(workspace: Workspace, environment: Mapping[str, str] | None = None, most: int = 16) -> Services:
    """The services of a workspace, not open yet."""
    beside = workspace.folder.parent
    document = beside / ".session" / DOCUMENT
    return Services(workspace, document, beside / FOLDER, environment or {}, most=most)


class FakeToolbox(Toolbox):
    """Adds a line to a file for each call, so that a test can count them even after a crash."""

    def __init__(self, effects: Path) -> None:
        super().__init__(Workspace(effects.parent), environment={}, command_timeout=1)
        self.effects = effects
        self.during: Callable[[str, Stop], None] = lambda name, stop: None

    def call(self, name: str, arguments: str, stop: Stop) -> Result:
        with self.effects.open("a") as file:
            file.write(name + "\n")
        self.during(name, stop)
        return Result(True, f"{name} done")

    def done(self) -> list[str]:
        return self.effects.read_text().split() if self.effects.exists() else []


def break_after(
    monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException, *functions: tuple[object, str]
) -> None:
    """Have these functions do what they do so many times, all together, and then nothing but raise this."""
    left = [count]

    def breaking(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if not left[0]:
                raise error
            left[0] -= 1
            return real(*args, **more)

        return call

    for place, name in functions:
        monkeypatch.setattr(place, name, breaking(getattr(place, name)))


def opened(folder: Path, uuid: str = "u1", fetch: Callable[[], Documents | None] = lambda: None) -> State:
    state = State(folder / ".session", uuid)
    state.open(fetch)
    return state


class World:
    """A state on disk, a model and tools of a test, and the turns between them; run by the test itself."""

    def __init__(self, folder: Path, model: FakeModel | None = None, *, uuid: str = "u1", **limits: Any) -> None:
        self.events: list[Event] = []
        self.model = model or FakeModel()
        self.toolbox = FakeToolbox(folder / "effects")
        self.state = opened(folder, uuid)
        given = {"seconds": 600.0, "steps": 50, "tokens": 1_000_000, "context_tokens": 40_000, **limits}
        steps = Steps(self.state, self.events.append, given["steps"])
        worker = ModelWorker(
            RetryingModel(self.model, self.state, (), given["context_tokens"]),
            self.toolbox,
            lambda: "You are a test.",
            steps,
            given["tokens"],
        )
        self.turns = Turns(self.state, worker, steps, self.events.append, given["seconds"])

    def prompt(self, id_: str, text: str = "do it") -> None:
        self.state.accept(id_, text, limit=100)

    def run(self, *ids: str, text: str = "do it") -> None:
        """Take these prompts, and work until there is nothing to do."""
        for id_ in ids:
            self.prompt(id_, text)
        while self.turns.run_next():
            pass

    def outcome(self, id_: str) -> dict[str, Any]:
        outcome = self.state.outcome(id_)
        assert outcome is not None
        return outcome

    def contents(self) -> list[str]:
        return [message["content"] for message in self.state.history()[0]]

    def prompts(self) -> list[str]:
        return [message["content"] for message in self.state.history()[0] if message["role"] == "user"]
