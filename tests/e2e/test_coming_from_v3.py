"""Each row of docs/coming-from-v3.md, shown by calls: what a product of an earlier version finds as it was, and what it
finds otherwise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import pytest
import requests

from app.core.sessions.change import TOMBSTONE_TTL
from app.process.settings import Settings, SettingsError
from tests.documents import table
from tests.model_server import ModelServer
from tests.service import KEY, Service
from tests.waiting import wait_for

Shown = Callable[[Service], None]

PAGE = "https://app.example.com"
BOUND, SLOW = "key-of-a-school", "key-of-a-slow-backend"
WITH_KEY = {"X-API-Key": KEY}
AT_ONCE = {"Prefer": "respond-async"}
CREATED = {"uuid", "user_id", "status", "workspace_url", "created_at"}
STATUS = {"uuid", "session", "replicas", "queue_length", "phases", "timestamp"}
SESSION = {"user_id", "status", "created_at", "last_activity", "expires_at", "workspace_url", "pod_name", "reason"}

CALLS: dict[str, Shown] = {}
VARIABLES: dict[str, Shown] = {}


def row(of: dict[str, Shown], name: str) -> Callable[[Shown], Shown]:
    """What shows the row of that name."""

    def register(shown: Shown) -> Shown:
        of[name] = shown
        return shown

    return register


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    keys = [
        {
            "name": "school",
            "sha256": hashlib.sha256(BOUND.encode()).hexdigest(),
            "role": "service",
            "user_prefix": "s-",
        },
        {
            "name": "slow",
            "sha256": hashlib.sha256(SLOW.encode()).hexdigest(),
            "role": "service",
            "limits": {"wake": "1/hour"},
        },
    ]
    return model.settings | {"API_KEYS": json.dumps(keys), "CORS_ORIGINS": PAGE, "MAX_SESSIONS_PER_USER": "2"}


def new(service: Service, user_id: str) -> str:
    """A session that is up."""
    return str(service.create(user_id)["uuid"])


def end(service: Service, *uuids: str) -> None:
    for uuid in uuids:
        service.done("DELETE", f"/session/{uuid}?backup=false")


def refused(answer: requests.Response, status: int, error: str) -> Any:
    """The problem document of a refusal."""
    problem = answer.json()
    assert (answer.status_code, problem["error"]) == (status, error), answer.text
    return problem


@row(CALLS, "every call")
def every_call(service: Service) -> None:
    refused(requests.get(service.url + "/sessions", timeout=60), 401, "unauthorized")
    refused(service.call("GET", "/sessions", headers={"X-API-Key": "another"}), 401, "unauthorized")
    for path in ("/livez", "/readyz", "/health", "/openapi.json", "/docs"):
        assert requests.get(service.url + path, timeout=60).status_code == 200, path
    answer = service.call("GET", "/sessions", headers={"X-Request-Id": "of-mine"})
    assert answer.headers["X-Request-Id"] == "of-mine"


@row(CALLS, "every body")
def every_body(service: Service) -> None:
    problem = refused(service.call("POST", "/session/create", {"user_id": "ada", "image": "x"}), 400, "invalid_request")
    assert list(problem["errors"]) == ["image"]
    assert "page" in refused(service.call("GET", "/sessions?page=2"), 400, "invalid_request")["errors"]
    problem = refused(service.call("POST", "/session/create", {"user_id": "ada", "ttl": "60"}), 400, "invalid_request")
    assert list(problem["errors"]) == ["ttl"]
    form = requests.post(service.url + "/session/create", data={"user_id": "ada"}, headers=WITH_KEY, timeout=60)
    refused(form, 415, "unsupported_media_type")


@row(CALLS, "`user_id`")
def user_ids(service: Service) -> None:
    made = [
        service.done("POST", "/session/create", {"user_id": user_id}, headers=AT_ONCE)
        for user_id in ("auth0|a:b", "google-oauth2|1", "ada+x@example.com", "x" * 128)
    ]
    assert made[0]["user_id"] == "auth0|a:b"
    listed = requests.get(service.url + "/sessions", params={"user_id": "auth0|a:b"}, headers=WITH_KEY, timeout=60)
    assert [each["uuid"] for each in listed.json()["sessions"]] == [made[0]["uuid"]]
    for user_id in ("", "Ada Lovelace", "a/b", "ädä", "x" * 129):
        answer = service.call("POST", "/session/create", {"user_id": user_id})
        assert list(refused(answer, 400, "invalid_request")["errors"]) == ["user_id"]
    end(service, *(each["uuid"] for each in made))


@row(CALLS, "calls from a page")
def from_a_page(service: Service) -> None:
    uuid = new(service, "ada")
    url = f"{service.url}/session/{uuid}/chat"
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    allowed = requests.options(url, headers=asks, timeout=60).headers
    assert allowed["Access-Control-Allow-Origin"] == PAGE
    names = allowed["Access-Control-Allow-Headers"].lower().split(", ")
    assert "authorization" in names
    assert "x-api-key" not in names
    stranger = requests.options(url, headers=asks | {"Origin": "https://else.example.com"}, timeout=60)
    assert "Access-Control-Allow-Origin" not in stranger.headers
    shown = {"Authorization": f"Bearer {service.token(uuid)}", "Origin": PAGE}
    answer = requests.post(url, json={"message": "hello"}, headers=shown, timeout=90)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    end(service, uuid)


@row(CALLS, "`POST /session/create`")
def create(service: Service) -> None:
    once = {"Idempotency-Key": "order-1"}
    answer = service.call("POST", "/session/create", {"user_id": "ada"}, headers=once)
    made = answer.json()
    assert answer.status_code == 201
    assert made.keys() >= CREATED
    assert made["status"] == "created"
    assert service.done("POST", "/session/create", {"user_id": "ada"}, headers=once)["uuid"] == made["uuid"]
    service.wait_status(made["uuid"], "active")
    assert service.workspace(made, Accept="*/*").status_code == 401
    second = service.done("POST", "/session/create", {"user_id": "ada"}, headers=AT_ONCE)
    refused(service.call("POST", "/session/create", {"user_id": "ada"}), 409, "quota_exceeded")
    end(service, made["uuid"], second["uuid"])


@row(CALLS, "`GET /session/{uuid}`, `GET /session/{uuid}/status`")
def status(service: Service) -> None:
    uuid = new(service, "ada")
    for path in (f"/session/{uuid}", f"/session/{uuid}/status"):
        shown = service.done("GET", path)
        assert shown.keys() >= STATUS
        assert shown["session"].keys() >= SESSION
        refused(service.call("GET", path, headers={"X-API-Key": BOUND}), 404, "session_not_found")
    end(service, uuid)


@row(CALLS, "`POST /session/{uuid}/wake`")
def wake(service: Service) -> None:
    uuid = new(service, "ada")
    wanted = {"uuid": uuid, "action": "wake"}
    assert service.done("POST", f"/session/{uuid}/wake").items() >= (wanted | {"status": "active"}).items()
    service.done("POST", f"/session/{uuid}/scale-down")
    assert service.done("POST", f"/session/{uuid}/wake").items() >= (wanted | {"status": "waking"}).items()
    waited = service.done("POST", f"/session/{uuid}/wake", headers={"Prefer": "wait=60"})
    assert waited["status"] == "active"
    end(service, uuid)


@row(CALLS, "`POST /session/{uuid}/sleep`")
def sleep(service: Service) -> None:
    uuid = service.done("POST", "/session/create", {"user_id": "ada"}, headers=AT_ONCE)["uuid"]
    asked = service.done("POST", f"/session/{uuid}/sleep")
    assert (asked["action"], asked["status"], asked["message"]) == ("sleep", "sleeping", "Pod queued for sleep")
    service.wait_status(uuid, "sleeping", 0)
    assert service.files(uuid).is_dir()

    def said() -> bool:
        return bool(service.done("POST", f"/session/{uuid}/sleep")["message"] == "Pod is asleep")

    wait_for(said, "the answer to say that it sleeps")
    end(service, uuid)


@row(CALLS, "`POST /session/{uuid}/scale-up`, `POST /session/{uuid}/scale-down`")
def scale(service: Service) -> None:
    uuid = new(service, "ada")
    for path, action in (("scale-down", "scale_down"), ("scale-up", "scale_up")):
        answer = service.call("POST", f"/session/{uuid}/{path}")
        assert answer.status_code == 200
        assert answer.json().items() >= {"uuid": uuid, "action": action, "status": "success"}.items()
    early = service.call("POST", f"/session/{uuid}/scale-down", headers=AT_ONCE)
    assert (early.status_code, early.json()["status"]) == (202, "sleeping")
    end(service, uuid)


@row(CALLS, "`POST /session/{uuid}/chat`")
def chat(service: Service) -> None:
    uuid = new(service, "ada")
    answer = service.call("POST", f"/session/{uuid}/chat", {"message": "hello", "id": "m1"})
    first = answer.json()
    assert (answer.status_code, first["status"], first["message_id"]) == (200, "processed", "m1")
    assert first["pod_response"]
    assert service.done("POST", f"/session/{uuid}/chat", {"message": "hello", "id": "m1"})["status"] == "processed"
    prompts = [each for each in service.conversation(uuid) if each.get("role") == "user"]
    assert len(prompts) == 1
    service.done("POST", f"/session/{uuid}/scale-down")
    answer = service.call("POST", f"/session/{uuid}/chat", {"message": "again", "id": "m2"})
    queued = answer.json()
    assert (answer.status_code, queued["status"], queued["message"]) == (
        202,
        "queued",
        "Pod is waking up, message queued",
    )
    assert service.ended(uuid, "m2")["state"] == "processed"
    end(service, uuid)


@row(CALLS, "`DELETE /session/{uuid}`")
def delete(service: Service) -> None:
    uuid, other = new(service, "ada"), new(service, "ada")
    (service.files(uuid) / "kept.txt").write_text("kept")
    gone = service.done("DELETE", f"/session/{uuid}")
    assert (gone["status"], gone["message"]) == ("terminated", "Session and all resources deleted")
    (backup,) = service.done("GET", f"/session/{uuid}/backups")["backups"]
    assert (backup["name"], backup["verified"]) == (gone["backup"], True)
    service.done("DELETE", f"/session/{other}?backup=false")
    assert service.done("GET", f"/session/{other}/backups")["backups"] == []
    third = new(service, "ada")
    assert service.call("DELETE", f"/session/{third}", headers=AT_ONCE).status_code == 202
    service.wait_status(third, "terminated")


@row(CALLS, "`GET /session/{uuid}` after a `DELETE`")
def after_delete(service: Service) -> None:
    uuid = new(service, "ada")
    gone = service.done("DELETE", f"/session/{uuid}")
    for path in (f"/session/{uuid}", f"/session/{uuid}/status"):
        assert service.done("GET", path)["session"]["status"] == "terminated"
    assert service.done("DELETE", f"/session/{uuid}") == gone
    refused(service.call("POST", f"/session/{uuid}/wake"), 409, "illegal_state")
    assert uuid not in [each["uuid"] for each in service.done("GET", "/sessions?user_id=ada")["sessions"]]
    lasts = service.redis().ttl(f"session:{uuid}")
    assert 0 < lasts <= TOMBSTONE_TTL == 86_400
    service.redis().delete(f"session:{uuid}")
    refused(service.call("GET", f"/session/{uuid}"), 404, "session_not_found")


@row(CALLS, "`GET /sessions`")
def sessions(service: Service) -> None:
    made = {service.done("POST", "/session/create", {"user_id": "ada"}, headers=AT_ONCE)["uuid"] for _ in range(2)}
    first = service.done("GET", "/sessions?user_id=ada&limit=1")
    assert first["total"] == 2
    second = service.done("GET", f"/sessions?user_id=ada&limit=1&cursor={first['next_cursor']}")
    assert {each["uuid"] for each in first["sessions"] + second["sessions"]} == made
    assert second["next_cursor"] is None
    end(service, *made)


@row(CALLS, "`GET /health`, `GET /metrics`")
def health_and_metrics(service: Service) -> None:
    health = service.done("GET", "/health")
    assert health.items() >= {"status": "healthy", "redis": "connected"}.items()
    assert service.done("GET", "/metrics").keys() >= {
        "total_sessions",
        "active_sessions",
        "sleeping_sessions",
        "timestamp",
    }
    assert "sessions_" in service.call("GET", "/metrics", headers={"Accept": "text/plain"}).text


@row(CALLS, "`/chat/{uuid}/…`")
def agent(service: Service) -> None:
    uuid = new(service, "ada")
    assert service.agent(uuid, "/health").status_code == 401
    assert service.agent(uuid, "/health", Authorization=f"Bearer {service.token(uuid)}").status_code == 200
    assert service.agent(uuid, "/health", **WITH_KEY).status_code == 200
    end(service, uuid)


@row(CALLS, "errors")
def errors(service: Service) -> None:
    answer = service.call("GET", "/session/zzzzzzzz")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json().keys() >= {"type", "title", "status", "detail", "instance", "error", "request_id"}
    shown = {"Authorization": f"Bearer {KEY}"}
    problem = refused(requests.get(service.url + "/sessions", headers=shown, timeout=60), 401, "unauthorized")
    assert "X-API-Key" in problem["detail"]


@row(CALLS, "limits")
def limits(service: Service) -> None:
    shown = {each["name"]: each["default"] for each in service.done("GET", "/settings")["settings"]}
    usual = {"CREATE": 100, "WAKE": 50, "CHAT": 100, "DELETE": 50, "DEFAULT": 100}
    assert {name: shown[f"RATE_LIMIT_{name}"] for name in usual} == {
        name: f"{number}/minute" for name, number in usual.items()
    }
    uuid = new(service, "ada")
    own = {"X-API-Key": SLOW}
    assert service.call("POST", f"/session/{uuid}/wake", headers=own).status_code == 200
    late = service.call("POST", f"/session/{uuid}/wake", headers=own)
    refused(late, 429, "rate_limited")
    assert int(late.headers["Retry-After"]) > 0
    end(service, uuid)


@row(VARIABLES, "`REDIS_HOST`, `REDIS_PORT`, `REDIS_PASSWORD`")
def redis_variables(service: Service) -> None:
    assert service.done("GET", "/health")["redis"] == "connected"
    with pytest.MonkeyPatch.context() as patch:
        named = {
            "REDIS_HOST": "redis",
            "REDIS_PORT": "7000",
            "REDIS_USERNAME": "web",
            "REDIS_PASSWORD": "x",
            "REDIS_DB": "2",
        }
        for name, value in named.items():
            patch.setenv(name, value)
        assert Settings.from_env().redis_url == "redis://web:x@redis:7000/2"
        patch.setenv("REDIS_URL", "redis://another")
        with pytest.raises(SettingsError, match="REDIS_HOST"):
            Settings.from_env()


@row(VARIABLES, "`USER_POD_IMAGE`")
def image(service: Service) -> None:
    names = [each["name"] for each in service.done("GET", "/settings")["settings"]]
    assert "WORKSPACE_IMAGE" in names
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USER_POD_IMAGE", "registry.example.com/workspace:1")
        assert Settings.from_env().workspace_image == "registry.example.com/workspace:1"
        patch.setenv("WORKSPACE_IMAGE", "registry.example.com/workspace:2")
        assert Settings.from_env().workspace_image == "registry.example.com/workspace:2"


@row(VARIABLES, "`SESSION_TTL`, 86,400 s by default")
def session_ttl(service: Service) -> None:
    uuid = new(service, "ada")
    shown = service.status(uuid)["session"]

    def after(name: str) -> float:
        used, then = (datetime.fromisoformat(shown[each]) for each in ("last_activity", name))
        return (then - used).total_seconds()

    assert (after("archives_at"), after("expires_at")) == (86_400, 90 * 86_400)
    end(service, uuid)


ROWS = [(CALLS, name) for name, *_ in table("coming-from-v3.md", "Calls")]
ROWS += [(VARIABLES, name) for name, *_ in table("coming-from-v3.md", "Variables")]


@pytest.mark.parametrize(("of", "name"), ROWS, ids=[name for _, name in ROWS])
def test_the_row_is_true(service: Service, of: dict[str, Shown], name: str) -> None:
    of[name](service)


def test_nothing_is_shown_that_the_document_does_not_say() -> None:
    assert [*CALLS, *VARIABLES] == [name for _, name in ROWS]
