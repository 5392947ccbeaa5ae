"""One session, by what its user does with it, wherever the service runs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

import pytest
import requests

from tests.events import Event, Events, listening
from tests.model_server import ModelServer
from tests.waiting import wait_for
from workspaces import Workspace, Workspaces

ASYNC = "respond-async"


class Host(Protocol):
    """Where sessions are: a service on this machine, or a product on a cluster."""

    url: str
    """Of the API."""
    key: str
    """The API's, of an admin."""
    patience: float
    """s until a test gives up on something that a session does."""
    between: float
    """s between two looks by the API, which may count its calls."""
    passing: tuple[int, ...]
    """The statuses of calls that are made again, as those without an answer are; () where no call may fail."""

    @property
    def dashboard_url(self) -> str:
        """The dashboard's origin."""

    @property
    def shell(self) -> Callable[..., str]:
        """What a shell prints in the folder that a session's editor opens (uuid, command, and what else says where the
        shell is)."""

    def lose_volume(self, uuid: str) -> None:
        """Its files are gone at once, although they are in use."""

    def look(self, uuid: str) -> str:
        """What there is of a session besides its record, for a test that failed."""


class Conversation:
    """One session, new or with a backup's files, and up unless `awake` is False. It is deleted by whoever made it."""

    def __init__(
        self, host: Host, user: str = "ada@example.com", *, backup: str = "", awake: bool = True, **wanted: Any
    ) -> None:
        self._host = host
        self.uuid = ""
        path = f"/backups/{backup}/restore" if backup else "/session/create"
        self.uuid = str(self.call("POST", path, {"user_id": user, **wanted}).json()["uuid"])
        if awake:
            self.wait_awake()

    def call(self, method: str, path: str, body: Any = None, prefer: str = ASYNC) -> requests.Response:
        """The answer of a call that succeeds; one that could not, since something is down in passing, is made again."""
        headers = {"X-API-Key": self._host.key, "Idempotency-Key": secrets.token_hex(8)}
        headers |= {"Prefer": prefer} if prefer else {}
        timeout = 30 if prefer == ASYNC else 90
        unanswered = (requests.ConnectionError, requests.Timeout) if self._host.passing else ()
        answers: list[requests.Response] = []

        def done() -> bool:
            with suppress(*unanswered):
                answer = requests.request(method, self._host.url + path, json=body, headers=headers, timeout=timeout)
                assert answer.ok or answer.status_code in self._host.passing, answer.text
                answers.append(answer)
                return answer.ok
            return False

        def seen() -> str:
            return answers[-1].text if answers else ""

        wait_for(done, f"{method} {path}", seen, self._host.patience, self._host.between)
        return answers[-1]

    def session(self) -> Any:
        """Its record."""
        return self._status()["session"]

    def send(self, message_id: str, text: str, prefer: str = ASYNC) -> requests.Response:
        """A prompt, not waited for."""
        return self.call("POST", f"/session/{self.uuid}/chat", {"message": text, "id": message_id}, prefer)

    def answer(self, message_id: str, text: str) -> Any:
        """What the call that sends a prompt answers when it is asked to wait for the end."""
        return self.send(message_id, text, "wait=60").json()

    def prompt(self, message_id: str, text: str) -> Any:
        """Send it, and wait for its end, awake or not; the message."""
        self.answer(message_id, text)
        return self.ended(message_id)

    def ended(self, message_id: str) -> Any:
        """The message, once its end is known."""
        found: list[Any] = []

        def over() -> bool:
            answer = self.call("GET", f"/session/{self.uuid}/messages/{message_id}").json()
            if answer["state"] in ("processed", "failed"):
                found.append(answer)
            return bool(found)

        self._wait(over, f"the end of {message_id}")
        return found[0]

    def messages(self) -> list[dict[str, Any]]:
        """All of the conversation, page by page."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.call("GET", f"/session/{self.uuid}/messages{cursor}").json()
            found += page["messages"]
            if page["next_cursor"] is None:
                return found
            cursor = f"?cursor={page['next_cursor']}"

    def said(self) -> list[tuple[str, str]]:
        """Who said what in the conversation."""
        return [(each["role"], each["content"]) for each in self.messages()]

    def prompts(self) -> list[str]:
        """The ids of the prompts in the conversation."""
        return [each["id"] for each in self.messages() if each["role"] == "user"]

    def events(self) -> AbstractContextManager[list[Event]]:
        """Its events from now on, in a list that grows."""
        return listening(f"{self._host.url}/session/{self.uuid}/events", {"X-API-Key": self._host.key})

    @contextmanager
    def streaming(self, path: str, body: Any) -> Iterator[Events]:
        """The events of the stream that a POST answers."""
        headers = {"X-API-Key": self._host.key, "Accept": "text/event-stream"}
        answer = requests.post(self._host.url + path, json=body, headers=headers, stream=True, timeout=60)
        assert answer.ok, answer.text
        with answer:
            yield Events.answered(answer)

    def roll_back(self, message_id: str) -> Any:
        """Undo this prompt and the later ones; what the session says of it."""
        self.call("POST", f"/session/{self.uuid}/rollback", {"message_id": message_id})
        self._wait(lambda: self.session()["rolled_back"], "the rollback")
        return self.session()["rolled_back"]

    def workspace(self) -> Workspace:
        """Its calls, by the Python client."""
        return self.client().workspace(self.uuid)

    def client(self) -> Workspaces:
        """The Python client."""
        return Workspaces(self._host.url, self._host.key)

    def link(self) -> str:
        """The URL of a link that opens its editor once."""
        return str(self.call("POST", f"/session/{self.uuid}/open").json()["url"])

    def sleep(self) -> None:
        """Until no process of it is left."""
        self.call("POST", f"/session/{self.uuid}/sleep")
        self._wait(lambda: self._status()["replicas"] == 0, "the session to sleep")

    def wait_asleep(self) -> None:
        """Until it sleeps, by whatever, and no process of it is left."""
        self._wait(lambda: self._is("sleeping", 0), "the session to fall asleep")

    def wake(self) -> None:
        """Ask for it, without waiting."""
        self.call("POST", f"/session/{self.uuid}/wake")

    def wait_awake(self) -> None:
        self._wait(lambda: self._is("active", 1), "the session to be active")

    def back_up(self) -> None:
        """Until there is a backup."""
        self.call("POST", f"/session/{self.uuid}/backup")
        self._wait(self.backups, "the backup")

    def backups(self) -> list[str]:
        """The names of its backups, newest first."""
        return [each["name"] for each in self.call("GET", f"/session/{self.uuid}/backups").json()["backups"]]

    def delete(self, query: str = "?backup=false") -> None:
        """Until nothing of it is left."""
        self.call("DELETE", f"/session/{self.uuid}{query}")
        self._wait(lambda: self._is("terminated", 0), "the session to go")

    def save(self) -> None:
        """Until there is a restore point of its files."""
        points = f"/session/{self.uuid}/restore-points"
        self.call("POST", points)
        self._wait(lambda: self.call("GET", points).json()["total"], "a restore point")

    def lose_volume(self) -> None:
        self._host.lose_volume(self.uuid)

    def wait_restored(self) -> None:
        """Until the files of a lost volume are back, and it is up again."""

        def restored() -> bool:
            session = self.session()
            return bool(session["files_of"]) and (session["restore_from"], session["status"]) == (None, "active")

        self._wait(restored, "the files to come back")

    def inside(self, command: str, *where: str) -> str:
        """What a shell prints in its folder, or, on a cluster, there in the container of that name."""
        return self._host.shell(self.uuid, command, *where)

    def has(self, name: str) -> bool:
        """Whether its folder has that file."""
        return name in self.inside("ls").split()

    def wait_file(self, name: str) -> None:
        """Until its folder has that file."""
        self._wait(lambda: self.has(name), f"{name} to be there")

    def look(self) -> str:
        """What there is of it, for a test that failed."""
        return f"{self._status()}\n{self._host.look(self.uuid)}"

    def _status(self) -> Any:
        return self.call("GET", f"/session/{self.uuid}").json()

    def _is(self, status: str, replicas: int) -> bool:
        seen = self._status()
        return (seen["session"]["status"], seen["replicas"]) == (status, replicas)

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        wait_for(condition, what, self.look, self._host.patience, self._host.between)


@contextmanager
def conversation(host: Host, user: str = "ada@example.com", **wanted: Any) -> Iterator[Conversation]:
    """A new session, deleted afterwards."""
    made = Conversation(host, user, **wanted)
    try:
        yield made
    finally:
        made.delete()


@pytest.fixture
def chat(host: Host, model: ModelServer) -> Iterator[Conversation]:
    """A session to send prompts to, where the service was told of that model."""
    with conversation(host) as made:
        yield made
