"""What schemathesis needs to know about this service; it loads this file by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

from typing import Any

import schemathesis

FIELDS = {"type", "title", "status", "detail", "instance", "error", "request_id"}


UNGUESSABLE = ("cursor", "Idempotency-Key", "from", "to", "If-Match", "If-None-Match")
"""Parameters of which a valid value depends on earlier requests, or on another parameter: no generated text is a cursor
this service gave out, or a file's ETag; a key may have come with another body, and one day must not be after the other.
What is refused then is tested elsewhere."""


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    known = raw_schema["components"]["parameters"]
    for item in raw_schema["paths"].values():
        for method, operation in item.items():
            if method != "parameters":
                given = operation.get("parameters", [])
                operation["parameters"] = [one for one in given if _name(one, known) not in UNGUESSABLE]
    # Of a prompt too: its id may have come with another text; and that of a command with another one.
    for name in ("Prompt", "NewExec"):
        raw_schema["components"]["schemas"][name]["properties"].pop("id")
    # No generated number is a time that comes soon.
    raw_schema["components"]["schemas"]["OpenPort"]["properties"].pop("public_until")


def _name(parameter: dict[str, Any], known: dict[str, Any]) -> str:
    reference = parameter.get("$ref", "")
    return str(known[reference.rpartition("/")[2]]["name"] if reference else parameter["name"])


@schemathesis.check
def no_server_error_but_a_workspace_that_is_not_up(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """No workspace ever is, here."""
    late = response.status_code == 504 and response.json()["error"] == "wake_late"
    assert response.status_code < 500 or late, f"{response.status_code}: {response.text[:500]}"


@schemathesis.check
def every_error_is_a_problem_document(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    if response.status_code < 400 or case.method == "HEAD":
        return
    kind = response.headers.get("content-type", [""])[0]
    assert kind == "application/problem+json", f"{response.status_code} is {kind}"
    missing = FIELDS - response.json().keys()
    assert not missing, f"the problem document lacks {missing}"
