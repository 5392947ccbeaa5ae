"""The modules of a session's page, each with its blueprint."""

from __future__ import annotations

from app.web.session import activity, audit, backups, chat, cost, events, overview, page, resources, restore_points

ALL = (page, overview, chat, backups, restore_points, cost, activity, resources, events, audit)
