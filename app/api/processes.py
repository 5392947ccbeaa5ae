"""The call on the service's processes: which are alive."""

from __future__ import annotations

import time
from typing import Any

from flask import Response
from marshmallow import Schema, fields

from app.api.blueprint import Blueprint
from app.api.current import core, reply
from app.api.schemas import time_field
from app.api.security import check_operator
from app.core.redis.processes import KINDS, Process
from app.core.sessions.model import iso


class ProcessSchema(Schema):
    name = fields.String(required=True, metadata={"examples": ["web@fresh-1:4711"]})
    kind = fields.String(required=True, metadata={"enum": list(KINDS)})
    host = fields.String(required=True, allow_none=True, metadata={"description": "its machine or pod"})
    status = fields.String(required=True, metadata={"enum": ["alive", "silent"]})
    seen_at = time_field(required=True, allow_none=True)
    since = time_field(required=True, allow_none=True)
    clock_skew_seconds = fields.Float(
        required=True, allow_none=True, metadata={"description": "how far its clock is ahead of Redis'"}
    )


class ProcessesSchema(Schema):
    processes = fields.List(fields.Nested(ProcessSchema), required=True)
    timestamp = time_field(required=True)


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
