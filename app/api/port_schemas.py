"""Schemas of the calls on ports."""

from __future__ import annotations

import time
from dataclasses import dataclass

from marshmallow import Schema, ValidationError

from app.agent.protocol import SERVICE_NAME, PortState
from app.api.access_schemas import OpenSchema
from app.api.answers import Items, Text, Time, Whole, uuid_field
from app.api.current import core
from app.api.request_fields import Seconds
from app.core.ports.model import Port
from app.core.sessions.opened_ports import OpenedPort


def check_public_until(moment: float) -> None:
    """Raises `ValidationError` for a time that has passed, or is too far ahead."""
    most = core().settings.public_port_max
    # Kept in whole seconds.
    if not 0 < int(moment) - time.time() <= most:
        raise ValidationError(f"Must be seconds since the epoch, in the future and at most {most:.0f} s ahead.")


class OpenPortSchema(OpenSchema):
    public_until = Seconds(
        load_default=None,
        allow_none=True,
        validate=check_public_until,
        metadata={
            "description": "seconds since the epoch, at most PUBLIC_PORT_MAX ahead: until then anybody may see the "
            "port; null or left out: only who may open the workspace"
        },
    )


@dataclass(frozen=True)
class ShownPort:
    """A port as its workspace tells of it, and how it is opened, None if it is not."""

    uuid: str
    told: Port
    opened: OpenedPort | None
    link: str = ""
    expires_at: float = 0.0

    @property
    def url(self) -> str:
        return self.link or core().settings.workspace_url(self.uuid, self.told.port)


class PortSchema(Schema):
    """A port of a workspace."""

    port = Whole(of="told.port")
    state = Text(
        "`listening`: a program listens there; `starting`: the service of this port starts; `stopped`: none does",
        of="told.state",
        enum=list(map(str, PortState)),
    )
    process = Text("of the program that listens, null where that is not known", of="told.process", null=True)
    service = Text(of="told.service", pattern=f"^{SERVICE_NAME.pattern}$", examples=["web"], null=True)
    url = Text("its address", format="uri")
    opened_at = Time("null while it is not opened", of=lambda shown: shown.opened and shown.opened.opened_at, null=True)
    public_until = Time(
        "until when anybody may see it, null for never",
        of=lambda shown: shown.opened and shown.opened.public_until,
        null=True,
    )


class PortListSchema(Schema):
    ports = Items(PortSchema, "by number")


class PortOpeningSchema(PortSchema):
    """A port that was opened."""

    uuid = uuid_field()
    url = Text("a single-use login link, valid until `expires_at`; for a public port its address", format="uri")
    expires_at = Time("null for a public port", null=True)
