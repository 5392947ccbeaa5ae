"""The call on API keys."""

from __future__ import annotations

import json

from flask import Flask

from tests.unit.api.helpers import ADMIN_KEY, KEYS, SERVICE_KEY, AppMaker, check_problem, digest, keyed


def test_keys_are_shown_without_their_digests(make_app: AppMaker) -> None:
    more = {"name": "school", "sha256": digest("x" * 20), "role": "service", "user_prefix": "s-", "budget": 12.5}
    answer = keyed(make_app(api_keys=json.dumps([*KEYS, {**more, "held_at_once": 5}])), ADMIN_KEY).get("/keys")
    found = {each["name"]: each for each in answer.json["keys"]}
    assert list(found) == sorted(["api_key", "backend", "course", "school", "web"])
    assert found["school"] == {
        "name": "school",
        "role": "service",
        "user_prefix": "s-",
        "limits": {},
        "held_at_once": 5,
        "budget": 12.5,
    }
    assert found["api_key"] == {
        "name": "api_key",
        "role": "admin",
        "user_prefix": None,
        "limits": {},
        "held_at_once": None,
        "budget": None,
    }
    assert found["web"]["limits"] == {"create": "5/minute"}
    for key in (ADMIN_KEY, SERVICE_KEY, "x" * 20):
        assert key not in answer.text
        assert digest(key) not in answer.text


def test_those_of_a_rotation_are_both_shown(make_app: AppMaker) -> None:
    both = [{"name": "backend", "sha256": digest(key), "role": "service"} for key in ("old-key", "new-key")]
    answer = keyed(make_app(api_keys=json.dumps(both)), ADMIN_KEY).get("/keys")
    assert [each["name"] for each in answer.json["keys"]] == ["api_key", "backend", "backend"]


def test_they_are_for_operators_alone(app: Flask) -> None:
    check_problem(keyed(app, SERVICE_KEY).get("/keys"), 403, "forbidden")


def test_a_read_key_sees_what_operators_see_and_changes_nothing(make_app: AppMaker) -> None:
    reader = [{"name": "board", "sha256": digest("reading-key"), "role": "read"}]
    client = keyed(make_app(api_keys=json.dumps(reader)), "reading-key")
    for path in ("/keys", "/settings", "/processes", "/dead-letters", "/overview/history"):
        assert client.get(path).status_code == 200, path
    check_problem(client.post("/dead-letters/0123456789abcdef/retry"), 403, "forbidden")
    check_problem(client.delete("/dead-letters/0123456789abcdef"), 403, "forbidden")
