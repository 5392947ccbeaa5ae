"""The call on the service's processes: which are alive."""

from __future__ import annotations

import time
from typing import Any

from flask import Response

from app.api.blueprint import Blueprint
from app.api.current import core, reply
from app.api.operators import check_operator
from app.api.process_schemas import ProcessesSchema
from app.core.redis.processes import Process
from app.core.sessions.model import iso

blp = Blueprint("processes", __name__, description="The processes of the service.")


@blp.route("/processes", methods=["GET"])
@blp.response(200, ProcessesSchema)
@blp.operation("listProcesses")
def list_all() -> Response:
    """List the service's processes, by kind. Each reports itself every 5 s; one that did not for 20 s is `silent`,
    and is left out after 10 min. A kind of which none reports is one silent process without a host. For admin and
    read keys that are bound to no users."""
    check_operator()
    return reply({"processes": [shown(each) for each in core().processes.all()], "timestamp": iso(time.time())})


def shown(process: Process) -> dict[str, Any]:
    """A process in an answer."""
    return {
        "name": process.name,
        "kind": process.kind,
        "host": process.host,
        "status": "alive" if process.alive else "silent",
        "seen_at": iso(process.seen),
        "since": iso(process.since),
        "clock_skew_seconds": round(process.skew, 3) if process.seen else None,
    }
