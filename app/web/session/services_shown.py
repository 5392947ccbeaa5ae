"""The services and ports of a session's workspace, as the tab shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import request

from app.web.api import api
from app.web.session.endings import ending
from app.web.session.workspace import NO_WAKE, look

LOOKS = 15
"""Looks by itself, one after the other, at what starts. Each is use of the workspace too."""

TONES = {"running": "ok", "listening": "ok", "starting": "busy", "waiting": "busy", "failed": "bad"}
"""In which the states of services and ports are shown, where it is not `calm`."""


def listed(uuid: str) -> dict[str, Any]:
    """The services and ports; where the workspace does not run, what is known of them without it. `public` are the
    addresses of the public ports, and `again` is the number of the next look, 0 if there is to be none."""
    found = look(uuid, partial(_asked, uuid))
    if found["down"]:
        found |= _kept(found["session"])
    services, ports = list(map(_service, found["services"])), list(map(_port, found["ports"]))
    looks = request.args.get("again", 0, type=int)
    return found | {
        "services": services,
        "ports": ports,
        "public": {each["port"]: each["url"] for each in ports if each["public"]},
        "again": looks + 1 if looks < LOOKS and _starts(services, ports) else 0,
    }


def _asked(uuid: str) -> dict[str, Any]:
    services = api().get(f"/session/{uuid}/services", **NO_WAKE)
    return {**services, **api().get(f"/session/{uuid}/ports", **NO_WAKE)}


def _kept(session: Mapping[str, Any]) -> dict[str, Any]:
    """The services as the workspace last reported them, and the opened ports."""
    names = {each["port"]: each["name"] for each in session["services"]}
    ports = [
        {**each, "state": "stopped", "process": None, "service": names.get(each["port"])}
        for each in session["opened_ports"]
    ]
    return {"services": session["services"], "ports": ports}


def _starts(services: list[dict[str, Any]], ports: list[dict[str, Any]]) -> bool:
    """Whether something starts, or is about to: after a wake the workspace starts what ended with it by itself, if that
    has an opened port or is to start with it."""
    opened = {each["port"] for each in ports if each["opened_at"]}
    return any(each["state"] == "starting" for each in (*services, *ports)) or any(
        each.get("reason") in ("sleep", "stopped") and (each["autostart"] or each["port"] in opened)
        for each in services
    )


def _service(told: dict[str, Any]) -> dict[str, Any]:
    over = told["state"] not in ("starting", "running")
    since = told.get("ended_at" if over else "started_at")
    return told | {"tone": TONES.get(told["state"], "calm"), "ended": ending(told), "since": since}


def _port(told: dict[str, Any]) -> dict[str, Any]:
    until = told["public_until"]
    public = until is not None and datetime.fromisoformat(until) > datetime.now(UTC)
    return told | {"tone": TONES.get(told["state"], "calm"), "public": public}
