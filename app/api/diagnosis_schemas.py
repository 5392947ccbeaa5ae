"""Schemas of the diagnosis."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.schemas import time_field
from app.core.operations.checks import CHECKS
from app.core.operations.verdicts import State


def state_field(description: str) -> fields.String:
    return fields.String(required=True, metadata={"enum": [str(each) for each in State], "description": description})


class CheckSchema(Schema):
    check = fields.String(required=True, metadata={"examples": list(CHECKS)[:3]})
    status = state_field("`warning`: it works and needs attention; `unknown`: it can't be told")
    found = fields.String(required=True, metadata={"description": "what was found"})
    remedy = fields.String(required=True, metadata={"description": "what to do; empty where all is well"})


class DiagnosisSchema(Schema):
    status = state_field("the worst one")
    checks = fields.List(fields.Nested(CheckSchema), required=True)
    timestamp = time_field(required=True)
