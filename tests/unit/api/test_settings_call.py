"""The call on the settings that are in force."""

from __future__ import annotations

from flask import Flask

from app.process.settings import Settings
from tests.unit.api.helpers import ADMIN_KEY, SERVICE_KEY, AppMaker, Client, check_problem, digest, keyed


def test_all_settings_are_shown_and_no_key(make_app: AppMaker) -> None:
    client: Client = keyed(make_app(llm_api_key="sk-hidden", secret_key="k" * 40, web_workers=3), ADMIN_KEY)
    answer = client.get("/settings")
    found = {each["name"]: each for each in answer.json["settings"]}
    assert list(found) == Settings.variables()
    for hidden in ("sk-hidden", "k" * 40, ADMIN_KEY, digest(SERVICE_KEY), "p%40ss"):
        assert hidden not in answer.text
    assert found["WEB_WORKERS"]["value"] == 3
    assert found["LLM_API_KEY"] == {
        "name": "LLM_API_KEY",
        "value": "set",
        "unit": "text",
        "default": "not set",
        "reason": found["LLM_API_KEY"]["reason"],
        "changed": True,
        "secret": True,
    }


def test_they_are_for_operators_alone(app: Flask) -> None:
    check_problem(keyed(app, SERVICE_KEY).get("/settings"), 403, "forbidden")
