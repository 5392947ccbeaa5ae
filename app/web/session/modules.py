"""The modules of a session's page, each with its blueprint."""

from __future__ import annotations

from app.web.session import (
    activity_tab,
    audit_tab,
    backups_tab,
    chat_tab,
    cost_tab,
    events_tab,
    overview_tab,
    page,
    resources_tab,
    restore_points_tab,
)

ALL = (
    page,
    overview_tab,
    chat_tab,
    backups_tab,
    restore_points_tab,
    cost_tab,
    activity_tab,
    resources_tab,
    events_tab,
    audit_tab,
)
