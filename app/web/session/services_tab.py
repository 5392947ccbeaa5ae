"""The services of a session's workspace: see them with its ports, start, restart and stop one, read its log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from flask import Response, render_template, request

from app.web.api import ApiError, api
from app.web.session.blueprint import session_blueprint
from app.web.session.download import download
from app.web.session.output_stream import shown
from app.web.session.page import show
from app.web.session.services_shown import listed
from app.web.session.streams import ended, follow
from app.web.session.workspace import NO_WAKE
from app.web.session_actions import DONE

blp = session_blueprint("services")

TAIL = 65_536
"""Bytes of a log that are shown of what was written before."""

TYPED = ("name", "command", "cwd", "restart", "port")
"""The fields of the dialog for a new service, but for its box."""

FOLLOWED = 3_600
"""s after a log was opened in which a lost connection is made again. Each one is use of the workspace, and an open page
must not keep it awake by itself."""


@blp.get("/services")
def index(uuid: str) -> str:
    """The tab."""
    return show(uuid, "services", listed)


@blp.get("/services/live")
def live(uuid: str) -> str:
    """The services and ports, which change; the answer to each action."""
    return render_template("session/_services.html", uuid=uuid, **listed(uuid))


@blp.get("/services/start")
def ask_to_start(uuid: str) -> str:
    """The dialog for a new service."""
    return render_template("session/_service_form.html", uuid=uuid, given={"restart": "on_failure"})


@blp.post("/services")
def start(uuid: str) -> Response:
    """Start a service of the dialog's fields; the dialog again, with what is wrong with them."""
    given = request.form.to_dict()
    try:
        api().post(f"/session/{uuid}/services", definition(given))
    except ApiError as error:
        return Response(render_template("session/_service_form.html", uuid=uuid, given=given, refused=error))
    there = {"HX-Retarget": "#services-live", "HX-Reswap": "morph:innerHTML"}
    return Response(live(uuid), headers=there | {"HX-Trigger": DONE})


@blp.post("/services/<service>/restart")
def restart(uuid: str, service: str) -> str:
    """Restart a service."""
    api().post(f"/session/{uuid}/services/{service}/restart")
    return live(uuid)


@blp.post("/services/<service>/stop")
def stop(uuid: str, service: str) -> str:
    """Stop a service, which is forgotten with its log; answers the tab, in which no log is shown any more."""
    api().delete(f"/session/{uuid}/services/{service}")
    return index(uuid)


@blp.get("/services/<service>/log")
def log(uuid: str, service: str) -> str:
    """The log, as it comes."""
    about = api().get(f"/session/{uuid}/services/{service}", **NO_WAKE)
    return render_template("session/_log.html", uuid=uuid, service=about, opened=int(time.time()))


@blp.get("/services/<service>/log/stream")
def log_stream(uuid: str, service: str) -> Response:
    """The log's stream, of a log that was `opened` then."""
    if time.time() - request.args.get("opened", 0, type=int) > FOLLOWED:
        return ended()
    return follow(f"/session/{uuid}/services/{service}/log", shown, tail=TAIL, **NO_WAKE)


@blp.get("/services/<service>/log/download")
def keep_log(uuid: str, service: str) -> Response:
    """The log as far as it is kept."""
    return download(f"/session/{uuid}/services/{service}/log", f"{service}.log")


def definition(given: Mapping[str, str]) -> dict[str, Any]:
    """What the API takes, of the dialog's fields; what is left empty is left to it."""
    typed: dict[str, Any] = {name: text.strip() for name, text in given.items() if name in TYPED and text.strip()}
    with suppress(KeyError, ValueError):  # of what is no number the API says so, beside the field
        typed["port"] = int(typed["port"])
    return {"name": "", "command": "", "autostart": "autostart" in given, **typed}
