"""The agent, from the prompt to the file in the browser, and what is left of a conversation in the end."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser

from tests.browser import expect_file, in_terminal, open_editor
from tests.model_server import ModelServer
from tests.service import KEY, Service
from tests.stored import backups_of
from tests.waiting import wait_for

WHICH = "command -v python3 git"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, code_server: str, model: ModelServer) -> Iterator[Service]:
    """One that has a model, and lets a workspace sleep however short it is up."""
    running = Service(tmp_path_factory.mktemp("service"), code_server, **model.settings, WAKE_GRACE="0")
    running.start()
    try:
        yield running
    finally:
        running.stop()
    assert running.processes() == []


@contextmanager
def events_of(service: Service, uuid: str) -> Iterator[list[tuple[str, Any]]]:
    """The session's events from now on, as they come."""
    seen: list[tuple[str, Any]] = []
    answer = requests.get(
        f"{service.url}/session/{uuid}/events", headers={"X-API-Key": KEY}, stream=True, timeout=(10, 60)
    )

    def listen() -> None:
        kind = ""
        try:
            for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    seen.append((kind, json.loads(line.removeprefix("data: "))))
        except (requests.RequestException, AttributeError):
            return  # closed

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        answer.close()


def is_end(event: tuple[str, Any]) -> bool:
    """Whether a prompt was processed."""
    kind, data = event
    return bool(kind == "message" and data["state"] == "processed")


def test_a_prompt_makes_a_file_runs_it_and_the_open_editor_shows_it(
    service: Service, browser: Browser, model: ModelServer
) -> None:
    """The work and the answer come as events while it lasts. The agent has the terminal's programs, so that what one
    installs the other finds, and not those that the service runs on."""
    session = service.create("ada")
    uuid = session["uuid"]
    page = open_editor(browser, service.link(uuid))
    # VS Code lists the files before it watches them; what comes in between it does not see.
    in_terminal(page, f"{WHICH} > watched")
    expect_file(page, "watched")
    with events_of(service, uuid) as seen:
        answer = service.prompt(uuid, "create hello.py that prints hi and run it", "m1")
        assert answer["status"] == "processed"
        wait_for(lambda: any(map(is_end, seen)), "the end among the events", lambda: str(seen))
        told = list(seen)
    [ended] = filter(is_end, told)
    assert ended[1]["response"] == answer["pod_response"], "as whole as in the answer"
    assert (service.files(uuid) / "hello.py").read_text() == "print('hi')\n"
    assert answer["pod_response"]["text"].endswith("It printed:\n\nhi")
    assert [each["name"] for each in answer["pod_response"]["tool_calls"]] == ["write_file", "run_command"]
    tokens = [data["text"] for kind, data in told if kind == "token"]
    assert answer["pod_response"]["text"] in "".join(tokens)
    assert [data["name"] for kind, data in told if kind == "tool_call"] == ["write_file", "run_command"]
    assert [data["ok"] for kind, data in told if kind == "tool_result"] == [True, True]
    assert told.index(next(each for each in told if each[0] == "token")) < told.index(ended)
    expect_file(page, "hello.py")
    page.close()

    with events_of(service, uuid) as seen:
        service.prompt(uuid, "count to 20", "m2")
        wait_for(lambda: any(map(is_end, seen)), "the end")
        assert len([kind for kind, _ in seen if kind == "token"]) > 1, "an answer of a second comes in pieces"

    service.prompt(uuid, f"run: {WHICH} > found", "m3")
    found = (service.files(uuid) / "found").read_text()
    assert found == (service.files(uuid) / "watched").read_text()
    assert found.endswith("/git\n")
    assert sys.prefix not in found
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_a_prompt_wakes_a_sleeping_session_and_is_worked_on_once(service: Service, model: ModelServer) -> None:
    """202 at once, the answer among the messages later; the same prompt again changes nothing."""
    uuid = service.create("bob")["uuid"]
    service.done("POST", f"/session/{uuid}/scale-down")
    before = len(model.requests)
    answer = service.call("POST", f"/session/{uuid}/chat", {"message": "remember 7", "id": "m1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    ended = service.ended(uuid, "m1")
    assert (ended["state"], ended["response"]["text"]) == ("processed", "7 noted")
    assert service.prompt(uuid, "remember 7", "m1")["status"] == "processed"
    assert len(model.requests) == before + 1
    said = [(each["role"], each["content"]) for each in service.conversation(uuid)]
    assert said == [("user", "remember 7"), ("assistant", "7 noted")]
    service.wait_status(uuid, "active")
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_a_conversation_reads_the_same_after_sleeps_a_delete_and_a_restore(
    service: Service, model: ModelServer
) -> None:
    """50 turns, 5 sleeps; read awake, asleep, deleted and restored, and the model is told all of it."""
    uuid = service.create("ada")["uuid"]
    for number in range(50):
        if number % 10 == 5:
            service.done("POST", f"/session/{uuid}/scale-down")
        service.prompt(uuid, f"remember {number}", f"m{number}")
        service.ended(uuid, f"m{number}")
    awake = service.conversation(uuid)
    wanted = [text for n in range(50) for text in (f"remember {n}", f"{n} noted")]
    assert [each["content"] for each in awake] == wanted
    service.wait_status(uuid, "active")
    service.done("POST", f"/session/{uuid}/scale-down")
    assert service.conversation(uuid) == awake
    gone = service.done("DELETE", f"/session/{uuid}")
    assert gone["status"] == "terminated"
    assert service.conversation(uuid) == awake
    sidecar = backups_of(service.data_dir).sidecar(gone["backup"])
    assert [each["content"] for each in sidecar["conversation"]["messages"]] == wanted

    restored = service.done("POST", f"/backups/{gone['backup']}/restore")["uuid"]
    service.wait_status(restored, "active")
    wait_for(lambda: service.conversation(restored) == awake, "the same conversation")
    assert service.prompt(restored, "how many prompts?", "next")["pod_response"]["text"] == "51 prompts"
    service.done("DELETE", f"/session/{restored}?backup=false")


def test_an_idle_session_waits_for_the_end_of_a_turn(service: Service) -> None:
    """It is untouched for longer than its idle timeout, but for the agent's work."""
    uuid = service.done("POST", "/session/create", {"user_id": "ada", "idle_timeout": 3})["uuid"]
    answer = service.prompt(uuid, "run: sleep 10 && echo over", "long", prefer="respond-async")
    assert answer["status"] == "queued", "before it is up, so that it is never idle before its turn"
    ended = service.ended(uuid, "long")
    assert (ended["state"], ended["response"]["text"]) == ("processed", "It said:\n\nover")
    service.wait_status(uuid, "sleeping", replicas=0)
    assert service.status(uuid)["session"]["generation"] == 2, "it did not sleep before"
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_a_sleep_on_demand_ends_a_turn_and_its_message_says_so(service: Service) -> None:
    """Its command ends with it, and the next prompt is worked on as ever."""
    uuid = service.create("ada")["uuid"]
    service.prompt(uuid, "run: touch begun; sleep 600", "cut", prefer="respond-async")
    wait_for((service.files(uuid) / "begun").exists, "the command to run")
    service.done("POST", f"/session/{uuid}/scale-down")
    assert service.processes(WORKSPACE_UUID=uuid) == []
    ended = service.ended(uuid, "cut")
    assert (ended["state"], ended["reason"]) == ("failed", "The workspace was put to sleep while this ran.")
    assert ended["response"]["tool_calls"] == [{"name": "run_command", "ok": False}]
    assert ended["response"]["usage"]["total_tokens"] > 0, "the model was asked, and billed"
    service.prompt(uuid, "remember 8", "next")
    assert service.ended(uuid, "next")["response"]["text"] == "8 noted"
    assert [each["id"] for each in service.conversation(uuid) if each["role"] == "user"] == ["cut", "next"]
    service.wait_status(uuid, "active")
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_a_command_of_the_agent_finds_no_secret_in_its_environment(service: Service, model: ModelServer) -> None:
    """Neither the service's nor its own; and no log has the model's key or the prompt."""
    uuid = service.create("ada")["uuid"]
    text = service.prompt(uuid, "run: env && echo the-prompt-of-this-test", "env")["pod_response"]["text"]
    assert f"WORKSPACE_UUID={uuid}" in text
    secrets = [model.api_key, KEY, (service.data_dir / "secret-key").read_text().strip()]
    secrets.append((service.data_dir / "redis" / "password").read_text().strip())
    secrets += (service.files(uuid).parent / "agent-token").read_text().split()
    assert [secret for secret in secrets if secret in text] == []
    logs = [*(service.data_dir / "log").iterdir(), service.files(uuid).parent / "agent.log"]
    for log in logs:
        said = log.read_text(errors="replace")
        assert [secret for secret in [*secrets, "the-prompt-of-this-test"] if secret in said] == [], log
    service.done("DELETE", f"/session/{uuid}?backup=false")
