"""Who may call each route, at which rate, without Redis or not, and under which name the audit has it."""

from __future__ import annotations

from flask import Flask

from app.api.blueprint import RouteRules, rules_of

PUBLIC = RouteRules(anonymous=True, without_redis=True)
PROBE = RouteRules(anonymous=True, without_redis=True, rate=None)

TABLE = {
    "access.open_workspace": RouteRules(audit="open"),
    "access.revoke": RouteRules(audit="revoke"),
    "access.token": RouteRules(audit="token"),
    "activity.activity": RouteRules(),
    "activity.risk": RouteRules(),
    "activity.keep_up": RouteRules(audit="keepalive"),
    "audit.list_all": RouteRules(),
    "auth_again.again": PROBE,
    "backups.delete": RouteRules(rate="delete", audit="delete_backup"),
    "backups.download": RouteRules(audit="download"),
    "backups.list_all": RouteRules(),
    "backups.list_of_session": RouteRules(),
    "backups.restore": RouteRules(rate="create", audit="restore", creates=True),
    "costs.list_all": RouteRules(),
    "costs.of_session": RouteRules(),
    "session_metrics.session_metrics": RouteRules(),
    "dead_letters.delete": RouteRules(audit="drop_dead_letter"),
    "dead_letters.list_all": RouteRules(),
    "dead_letters.retry_one": RouteRules(audit="retry_dead_letter"),
    "diagnosis.show": RouteRules(without_redis=True),
    "docs.asset": PUBLIC,
    "docs.openapi": PUBLIC,
    "docs.page": PUBLIC,
    "docs.root": PUBLIC,
    "execs.end": RouteRules(rate="work", audit="end_exec"),
    "execs.list_all": RouteRules(rate="work"),
    "execs.run": RouteRules(rate="work", audit="exec"),
    "execs.show": RouteRules(rate="work"),
    "execs.type_in": RouteRules(rate="input"),
    "execs.resize": RouteRules(rate="input"),
    "feed.stream": RouteRules(),
    "file_changes.follow": RouteRules(rate="work"),
    "files.change": RouteRules(rate="work", audit="change_file"),
    "files.delete": RouteRules(rate="work", audit="delete_file"),
    "files.listing": RouteRules(rate="work"),
    "files.read": RouteRules(rate="work"),
    "files.write": RouteRules(rate="work", audit="write_file"),
    "trees.read": RouteRules(rate="work"),
    "trees.write": RouteRules(rate="work", audit="write_tree"),
    "going_back.fork": RouteRules(rate="create", audit="fork", creates=True),
    "going_back.roll_back": RouteRules(rate="wake", audit="rollback"),
    "keys.list_all": RouteRules(),
    "messages.chat": RouteRules(session_token=True, rate="chat", audit="prompt"),
    "messages.conversation": RouteRules(session_token=True),
    "messages.message": RouteRules(session_token=True),
    "overview.show": RouteRules(),
    "past_events.past": RouteRules(session_token=True),
    "probes.livez": PROBE,
    "probes.readyz": PROBE,
    "processes.list_all": RouteRules(),
    "recovery.show": RouteRules(),
    "recovery.start": RouteRules(audit="recover"),
    "restore_points.list_all": RouteRules(),
    "restore_points.make": RouteRules(audit="restore_point"),
    "backups.back_up": RouteRules(audit="backup"),
    "ports.close": RouteRules(rate="work", audit="close_port"),
    "ports.list_all": RouteRules(rate="work"),
    "ports.open_one": RouteRules(rate="work", audit="open_port"),
    "services.list_all": RouteRules(rate="work"),
    "services.log": RouteRules(rate="work"),
    "services.restart": RouteRules(rate="work", audit="restart_service"),
    "services.show": RouteRules(rate="work"),
    "services.start": RouteRules(rate="work", audit="start_service"),
    "services.stop": RouteRules(rate="work", audit="stop_service"),
    "sessions.create": RouteRules(rate="create", audit="create", creates=True),
    "sessions.delete": RouteRules(rate="delete", audit="delete"),
    "sessions.events": RouteRules(session_token=True),
    "sessions.get": RouteRules(session_token=True),
    "sessions.list_all": RouteRules(),
    "sessions.scale_down": RouteRules(audit="scale_down"),
    "sessions.scale_up": RouteRules(rate="wake", audit="scale_up"),
    "sessions.sleep": RouteRules(session_token=True, audit="sleep"),
    "sessions.status": RouteRules(session_token=True),
    "sessions.wake": RouteRules(session_token=True, rate="wake", audit="wake"),
    "settings.list_all": RouteRules(),
    "system.health": PUBLIC,
    "system.metrics": RouteRules(metrics_key=True),
}
"""Written down by hand: a route that becomes public, or changes its rate, changes this table too."""


def test_each_route_declares_its_rules(app: Flask) -> None:
    assert {endpoint: rules_of(app, endpoint) for endpoint in app.view_functions} == TABLE


def test_a_view_that_declares_nothing_needs_a_key_and_has_the_default_rate(app: Flask) -> None:
    app.add_url_rule("/bare", "bare", lambda: "")
    assert rules_of(app, "bare") == RouteRules()
    assert app.test_client().get("/bare").status_code == 401


def test_a_path_that_does_not_exist_is_public(app: Flask) -> None:
    """It is a 404, for callers without a key and without Redis too."""
    assert rules_of(app, None) == PUBLIC
