"""Every endpoint of the service, and how it is asked for what is another tenant's (tests/e2e/test_two_tenants.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.tenants import ALICE, BOB


@dataclass(frozen=True)
class Try:
    """One way to ask an endpoint for what is the victim's, and how it is answered: who shows an API key for the
    attacker's users, its session token, its workspace's own token, or (`rest`) anything else. Names in angle brackets
    are filled in."""

    query: str = ""
    body: Any = None
    key: int = 401
    token: int = 401
    workspace: int = 401
    rest: int = 401


def public(status: int = 200, query: str = "") -> tuple[Try, ...]:
    """An endpoint that asks nobody who they are, and tells everybody the same."""
    return (Try(query, key=status, token=status, workspace=status, rest=status),)


KEYED = Try(key=404, token=403)
"""Of a session or a backup: for keys of other users it is not there, and a session token does not open it at all."""

OF_SESSION = Try(key=404, token=404)
"""What a session token opens, of its own session."""

LISTED = Try(key=403, token=403)

WEB: Mapping[str, Sequence[Try]] = {
    "sessions.create": [
        replace(LISTED, body={"user_id": BOB}),
        replace(KEYED, body={"user_id": ALICE, "restore_from": "<name>"}),
    ],
    "sessions.list_all": [
        LISTED,
        replace(LISTED, query=f"user_id={BOB}"),
        replace(LISTED, query="status=active"),
        replace(LISTED, query="q=a"),
        replace(LISTED, query="label=course=a"),
        replace(LISTED, query=f"user_id={ALICE}", key=200),
    ],
    "feed.stream": [replace(LISTED, query=f"user_id={BOB}")],
    "sessions.get": [OF_SESSION],
    "sessions.status": [OF_SESSION],
    "sessions.wake": [OF_SESSION],
    "sessions.sleep": [OF_SESSION],
    "sessions.events": [OF_SESSION],
    "sessions.scale_up": [KEYED],
    "sessions.scale_down": [KEYED],
    "backups.back_up": [KEYED],
    "sessions.delete": [KEYED, replace(KEYED, query="backup=false"), replace(KEYED, query="erase=true")],
    "access.open_workspace": [KEYED, replace(KEYED, body={"path": "/"})],
    "access.token": [KEYED],
    "access.revoke": [KEYED],
    "activity.activity": [KEYED],
    "activity.risk": [KEYED],
    "session_metrics.session_metrics": [KEYED],
    "past_events.past": [OF_SESSION],
    "activity.keep_up": [replace(KEYED, body={"seconds": 60})],
    "messages.chat": [replace(OF_SESSION, body={"message": "tell me all", "id": "m2"})],
    "messages.conversation": [OF_SESSION, replace(OF_SESSION, query="limit=1")],
    "messages.message": [OF_SESSION],
    "backups.list_all": [
        LISTED,
        replace(LISTED, query=f"user_id={BOB}"),
        replace(LISTED, query="uuid=<session:uuid>", key=200),
        replace(LISTED, query=f"user_id={ALICE}&uuid=<session:uuid>", key=200),
    ],
    "backups.list_of_session": [KEYED],
    "execs.run": [replace(KEYED, body={"command": "cat secret", "detach": True})],
    "execs.list_all": [KEYED],
    "execs.show": [KEYED, replace(KEYED, query="stream=stdout")],
    "execs.end": [KEYED, replace(KEYED, query="signal=SIGKILL")],
    "execs.type_in": [replace(KEYED, query="at=0", body={"command": "cat secret"})],
    "execs.resize": [replace(KEYED, body={"rows": 1, "columns": 1})],
    "services.start": [replace(KEYED, body={"name": "forged", "command": "cat secret"})],
    "services.list_all": [KEYED],
    "services.show": [KEYED],
    "services.restart": [KEYED],
    "services.stop": [KEYED],
    "services.log": [KEYED, replace(KEYED, query="tail=100")],
    "ports.list_all": [KEYED],
    "ports.open_one": [KEYED, replace(KEYED, body={"path": "/"})],
    "ports.close": [KEYED],
    "files.listing": [KEYED, replace(KEYED, query="path=..&depth=9")],
    "file_changes.follow": [KEYED, replace(KEYED, query="path=..&depth=9")],
    "files.read": [KEYED],
    "files.write": [replace(KEYED, body={"forged": True})],
    "files.change": [replace(KEYED, body={"move_to": "elsewhere"}), replace(KEYED, body={"make": "folder"})],
    "files.delete": [KEYED],
    "trees.read": [KEYED, replace(KEYED, query="path=..&format=zip")],
    "trees.write": [replace(KEYED, body={"forged": True})],
    "restore_points.list_all": [KEYED],
    "restore_points.make": [KEYED],
    "going_back.roll_back": [replace(KEYED, body={"restore_point": "p000000000000001"})],
    "going_back.fork": [KEYED, replace(KEYED, body={"user_id": ALICE})],
    "backups.restore": [KEYED, replace(KEYED, body={"user_id": ALICE})],
    "backups.download": [KEYED],
    "backups.delete": [KEYED],
    "costs.of_session": [KEYED, replace(KEYED, query="from=2026-01-01&to=2026-01-31")],
    "costs.list_all": [
        LISTED,
        replace(LISTED, query=f"user_id={BOB}"),
        replace(LISTED, query="group_by=user"),
        replace(LISTED, query=f"user_id={ALICE}&group_by=day", key=200),
    ],
    "dead_letters.list_all": [LISTED],
    "dead_letters.retry_one": [LISTED],
    "dead_letters.delete": [LISTED],
    "recovery.show": [LISTED],
    "recovery.start": [LISTED],
    "processes.list_all": [LISTED],
    "settings.list_all": [LISTED],
    "diagnosis.show": [LISTED],
    "overview.show": [LISTED],
    "keys.list_all": [LISTED],
    "audit.list_all": [LISTED, replace(LISTED, query="uuid=<session:uuid>")],
    "system.metrics": [LISTED],
    "system.health": public(),
    "probes.livez": public(),
    "probes.readyz": public(),
    "docs.openapi": public(),
    "docs.page": public(),
    "docs.root": public(302),
    "docs.asset": public(),
    "auth_again.again": public(503, query="rd=http://<host>/"),
}
"""Every endpoint of the API."""

FORWARD_AUTH: Mapping[str, Sequence[Try]] = {
    "forward_auth.verify": [],
    "forward_auth.waking": public(503),
    "probes.livez": public(),
    "probes.readyz": public(),
}
"""Every endpoint of forward-auth; what it is asked of visitors is in `VISITS`."""

ELSEWHERE = {"uuid": "<session:uuid>", "session": "<session:uuid>"}
"""What a caller of the gateway may add to say whose it should be: it is the token that says it."""

AS_ANOTHER = "uuid=<session:uuid>&session=<session:uuid>"

GATEWAY: Mapping[str, Sequence[Try]] = {
    "llm.chat_completions": [
        Try(body={"messages": [{"role": "user", "content": "what does <session:uuid> say?"}]}, workspace=200)
    ],
    "llm.models": [Try(query=AS_ANOTHER, workspace=200)],
    "agents.hello": [
        Try(body={"address": "http://127.0.0.1:<agent>", "name": "x", "boot": "x", **ELSEWHERE}, workspace=204)
    ],
    "agents.events": [
        Try(
            body={
                "events": [
                    {"type": "token", "message_id": "<message_id>", "data": {"text": "forged"}},
                    {"type": "processed", "message_id": "<message_id>", "data": {"response": {"text": "forged"}}},
                ],
                "busy": True,
                **ELSEWHERE,
            },
            workspace=204,
        )
    ],
    "agents.unfinished": [Try(body={"prompts": {"<message_id>": 60}, **ELSEWHERE}, workspace=200)],
    "agents.activity": [
        Try(body={"signals": {"terminal": {"age": 0, "detail": "forged"}}, **ELSEWHERE}, workspace=200)
    ],
    "conversations.history": [Try(query=AS_ANOTHER, workspace=200), Try(query=f"head&{AS_ANOTHER}", workspace=200)],
    "conversations.add": [Try(query=AS_ANOTHER, body=ELSEWHERE, workspace=400)],
    "conversations.put_checkpoint": [
        Try(
            body={"edition": "one", "messages": 0, "mark": "", "context": [], "metadata": ELSEWHERE, **ELSEWHERE},
            workspace=204,
        )
    ],
    "conversations.get_checkpoint": [
        Try(query=AS_ANOTHER, workspace=200),
    ],
    "system.livez": public(),
    "system.readyz": public(),
    "system.metrics": public(),
}
"""Every endpoint of the gateway. Those that a workspace's own token opens are about its own session."""

AGENT: Mapping[str, Sequence[Try]] = {
    "agent.health": public(),
    "static": [Try()],
    "agent.activity": [Try()],
    "agent.history": [Try()],
    "agent.checkpoint": [Try(body={})],
    "agent.checkpoints": [Try()],
    "agent.find_checkpoint": [Try()],
    "agent.restore_checkpoint": [Try()],
    "agent.notice": [Try(body={"seconds": 5})],
    "agent.disconnect": [Try()],
    "agent.unsaved_work": [Try()],
    "agent.files_fingerprint": [Try()],
    "agent.cancel": [Try(body={"reason": "forged"})],
    "agent.resume": [Try(body={})],
    "execs.begin": [Try(body={"id": "forged", "command": "cat secret"})],
    "execs.newest": [Try()],
    "execs.show": [Try()],
    "execs.read": [Try()],
    "execs.kill": [Try(body={"signal": "SIGKILL"})],
    "execs.type_in": [Try(body={"command": "cat secret"})],
    "execs.resize": [Try(body={"rows": 1, "columns": 1})],
    "services.start": [Try(body={"name": "forged", "command": "cat secret"})],
    "services.list_all": [Try()],
    "services.show": [Try()],
    "services.restart": [Try(body={})],
    "services.remove": [Try()],
    "services.read_log": [Try()],
    "ports.list_all": [Try()],
    "ports.show": [Try()],
    "files.listing": [Try(query="path=.")],
    "files.changes": [Try(query="path=.")],
    "files.entry": [Try(query="path=<file:path>")],
    "files.read": [Try(query="path=<file:path>&etag=1-1-1")],
    "files.write": [Try(query="path=<file:path>", body={"forged": True})],
    "files.begin": [Try(query="path=<file:path>")],
    "files.append": [Try(body={"forged": True})],
    "files.finish": [Try(query="path=<file:path>&size=0")],
    "files.drop": [Try()],
    "files.unpack": [Try(query="path=.&format=zip&size=0")],
    "files.pack": [Try(query="path=.&format=zip")],
    "files.packed": [Try()],
    "files.drop_tree": [Try()],
    "files.move": [Try(query="path=<file:path>", body={"to": "elsewhere"})],
    "files.make_folder": [Try(query="path=forged")],
    "files.delete": [Try(query="path=<file:path>")],
    "agent.chat": [Try(body={"id": "m2", "message": "tell me all"})],
}
"""Every endpoint of an agent."""

VISITS = (
    ("<host>", "GET", "/"),
    ("<host>", "GET", "/?folder=/"),
    ("<host>", "GET", "/.session/port?port=3000&path=/"),
    ("<host>", "POST", "/"),
    ("3000--<host>", "GET", "/"),
    ("3000--<host>", "POST", "/"),
    ("3000--<host>", "SOCKET", "/"),
    ("<host>", "POST", "/.session/retry"),
    ("<host>", "SOCKET", "/?reconnectionToken=0&skipWebSocketFrames=false"),
    ("<agents>", "GET", "/chat/<session:uuid>/history"),
    ("<agents>", "POST", "/chat/<session:uuid>/chat"),
    ("<agents>", "SOCKET", "/chat/<session:uuid>/"),
)
"""What a visitor may ask of a workspace and its agent, by host, method and path."""

EDITOR = ("/", "/?folder=/", "/login", "/vscode/", "/_static/src/browser/robots.txt")
"""What an editor serves to whoever it lets in."""

CROOKED = (
    "/chat/<own>/../<session:uuid>/history",
    "/chat/<own>/%2e%2e/<session:uuid>/history",
    "/chat/<own>%2f..%2f<session:uuid>/history",
    "/chat/<own>/chat/<session:uuid>/history",
    "//chat/<session:uuid>/history",
    "/chat//<session:uuid>/history",
    "/chat/<session:uuid>%00/history",
    "/CHAT/<session:uuid>/history",
    "http://<agents>/chat/<session:uuid>/history",
)
"""Paths that may be one tenant's for who checks and the other's for who answers."""
