"""The call on the service's processes: which are alive."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema

from app.api.answers import Items, Number, Text, Time, now_field
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.security import check_operator
from app.core.redis.processes import KINDS, Process


def state_of(process: Process) -> str:
    return "alive" if process.alive else "silent"


def skew_of(process: Process) -> float | None:
    """To the millisecond; None for a process that never reported."""
    return round(process.skew, 3) if process.seen else None


class ProcessSchema(Schema):
    name = Text(examples=["web@fresh-1:4711"])
    kind = Text(enum=list(KINDS))
    host = Text("its machine or pod", null=True)
    status = Text(of=state_of, enum=["alive", "silent"])
    seen_at = Time(of="seen", null=True)
    since = Time(null=True)
    clock_skew_seconds = Number("how far its clock is ahead of Redis'", of=skew_of, null=True)


class ProcessesSchema(Schema):
    processes = Items(ProcessSchema)
    timestamp = now_field()


blp = Blueprint("processes", __name__, description="The processes of the service.")


@blp.route("/processes", methods=["GET"])
@blp.response(200, ProcessesSchema)
@blp.operation("listProcesses")
def list_all() -> dict[str, Any]:
    """List the service's processes, by kind. Each reports itself every 5 s; one that did not for 20 s is `silent`,
    and is left out after 10 min. A kind of which none reports is one silent process without a host. For admin and
    read keys that are bound to no users."""
    check_operator()
    return {"processes": core().processes.all()}
