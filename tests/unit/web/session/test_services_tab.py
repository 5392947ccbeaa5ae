"""Services and ports in the dashboard, with an agent behind them that keeps what it is told."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator

import pytest

from app.agent.protocol import ServiceState
from app.core.composition import Core
from app.core.sessions.model import Status
from app.core.sessions.reported_services import ReportedService
from app.web.session.services_shown import LOOKS, ending
from app.web.session.services_tab import FOLLOWED, TAIL
from tests.fake_agent import PORT, SERVICE, FakeAgent
from tests.unit.api.helpers import move
from tests.unit.web.conftest import HTMX, ORIGIN, Visitor, page
from tests.unit.web.session.conftest import HOSTILE

HOUR = 3_600
FAILED = {"state": "failed", "exit_code": 3, "starts": 4, "started_at": 1.0, "ended_at": 2.0}


@pytest.fixture
def workspace(core: Core, uuid: str, agent: FakeAgent) -> FakeAgent:
    """The agent of a session that is up, where a service listens."""
    assert core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    agent.services["web"] = dict(SERVICE)
    agent.ports[3_000] = dict(PORT)
    return agent


@pytest.fixture
def here(uuid: str) -> str:
    return f"/sessions/{uuid}/services"


def asleep(core: Core, uuid: str) -> None:
    """The session sleeps, with a service that ran."""
    service = ReportedService(name="web", port=3_000, state=ServiceState.RUNNING)
    move(core, uuid, Status.SLEEPING, services=(service,))


def row(shown: str, name: str) -> str:
    """What a row shows, as text."""
    (found,) = re.findall(rf'<tr id="{name}">(.*?)</tr>', shown, re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", found)).split())


def text(visitor: Visitor, path: str, **headers: str) -> Iterator[str]:
    """A stream's events."""
    answer = visitor.client.get(path, base_url=ORIGIN, headers=headers)
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    return (part.decode() for part in answer.response)


def test_services_are_shown_with_how_their_last_run_ended(visitor: Visitor, here: str, workspace: FakeAgent) -> None:
    workspace.services["old"] = {**SERVICE, **FAILED, "name": "old", "port": None, "autostart": True}
    shown = page(visitor, here)
    assert "web running 3000 true" in row(shown, "service-web")
    failed = row(shown, "service-old")
    assert "old failed exit code 3, run 4 – true" in failed
    assert "after a failure starts with the workspace" in failed
    assert "Open" not in failed
    for action in ("restart", "stop", "log"):
        assert f'"{here}/web/{action}"' in shown


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, ""),
        ({"exit_code": 0}, "exit code 0"),
        ({"signal": "SIGKILL"}, "ended by SIGKILL"),
        ({"reason": "sleep", "exit_code": 1}, "ended by the session's sleep"),
    ],
)
def test_an_end_is_told_in_words(told: dict[str, object], said: str) -> None:
    assert ending(told) == said


def test_nothing_of_a_tenant_is_markup(visitor: Visitor, uuid: str, here: str, workspace: FakeAgent) -> None:
    workspace.services["web"] |= {"command": HOSTILE, "cwd": HOSTILE}
    workspace.ports[3_000] |= {"process": HOSTILE}
    workspace.logs["web"] = HOSTILE.encode()
    shown = page(visitor, here) + page(visitor, f"{here}/web/log")
    shown += visitor.post(here, {"name": HOSTILE, "command": HOSTILE, "port": HOSTILE, "restart": HOSTILE}).text
    workspace.services["web"] |= {"state": "stopped"}
    shown += "".join(text(visitor, f"{here}/web/log/stream?opened={time.time():.0f}"))
    assert shown.count("&lt;img src=x onerror=alert(1)&gt;") >= 7
    assert "<img" not in shown
    assert "<script>" not in shown
    workspace.services["web"] |= {"name": HOSTILE}
    assert "img src" not in page(visitor, here), "it is no answer"


def test_an_onlooker_sees_it_and_can_change_nothing(
    onlooker: Visitor, core: Core, uuid: str, here: str, workspace: FakeAgent
) -> None:
    core.openings.open(uuid, 3_000, int(time.time()) + HOUR)
    shown = page(onlooker, here)
    assert "web running" in row(shown, "service-web")
    assert f'"{here}/web/log"' in shown
    assert "everybody until" in row(shown, "port-3000")
    assert not re.search(r"hx-post|<form (?!.*sign-out)|/start", shown[shown.index('id="services-live"') :])
    for path in ("", "/web/restart", "/web/stop", "/ports/3000/open", "/ports/3000/publish", "/ports/3000/close"):
        assert onlooker.post(f"{here}{path}", {"name": "web", "command": "x", "seconds": "9"}).status_code in (200, 403)
    assert {method for method, _, _ in workspace.requests} == {"GET"}
    assert [each.port for each in core.store.get(uuid).opened_ports] == [3_000]


def test_a_look_wakes_nothing(visitor: Visitor, core: Core, uuid: str, here: str) -> None:
    """What is known without the workspace is shown: its services, which are stopped, and its opened ports."""
    asleep(core, uuid)
    core.openings.open(uuid, 3_000)
    for path in (here, f"{here}/live"):
        shown = page(visitor, path)
        assert "The session sleeps" in shown
        assert row(shown, "service-web") == "web stopped 3000"
        assert "3000 stopped – web those who may open the workspace" in row(shown, "port-3000")
        assert f'"{here}/ports/3000/open"' in shown
        assert f'"{here}/web/restart"' not in shown
    assert visitor.get(f"{here}/web/log", headers=HTMX).status_code == 409
    assert visitor.get(f"{here}/web/log/download").status_code == 409
    assert "event: end" in "".join(text(visitor, f"{here}/web/log/stream?opened={time.time():.0f}"))
    assert "everybody" not in visitor.post(f"{here}/ports/3000/close").text
    assert core.store.get(uuid).status is Status.SLEEPING
    assert core.store.get(uuid).opened_ports == ()


def test_a_deleted_session_has_none(visitor: Visitor, core: Core, uuid: str, here: str) -> None:
    asleep(core, uuid)
    core.openings.open(uuid, 3_000)
    move(core, uuid, Status.TERMINATING)
    shown = page(visitor, here)
    assert "The session was deleted" in shown
    assert "service-web" not in shown
    assert "port-3000" not in shown


def test_a_service_is_started_from_the_dialogs_fields(visitor: Visitor, here: str, workspace: FakeAgent) -> None:
    workspace.services.clear()
    assert 'name="command"' in page(visitor, f"{here}/start", **HTMX)
    fields = {"name": " web ", "command": "npm run dev", "port": "3000", "cwd": " ", "restart": "always"}
    answer = visitor.post(here, fields | {"autostart": "true"}, headers=HTMX)
    assert answer.headers["HX-Retarget"] == "#services-live"
    assert "dialog-done" in answer.headers["HX-Trigger"]
    assert "npm run dev" in row(answer.text, "service-web")
    [sent] = [body for method, _, body in workspace.requests if method == "POST"]
    wanted = {"name": "web", "command": "npm run dev", "port": 3_000, "cwd": ".", "restart": "always"}
    assert sent == {**wanted, "autostart": True, "wait": 0}


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("name", "a b", "1 to 32 of"),
        ("name", "", "1 to 32 of"),
        ("command", " ", "Must not be blank"),
        ("port", "none", "Not a valid integer"),
        ("port", "70000", "65535"),
        ("port", "9" * 5_000, "Not a valid integer"),
        ("cwd", "a\0b", ""),
        ("restart", "sometimes", "never, on_failure, always"),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(
    visitor: Visitor, here: str, workspace: FakeAgent, field: str, typed: str, said: str
) -> None:
    answer = visitor.post(here, {"name": "web", "command": "npm", "port": "", field: typed}, headers=HTMX)
    assert answer.status_code == 200, answer.text
    assert "HX-Retarget" not in answer.headers
    assert re.search(rf'id="service-{field}-error">|<p class="bad small">{field}:', answer.text)
    assert said in answer.text
    assert field == "restart" or html.escape(typed) in answer.text, "what was typed stays"
    assert {method for method, _, _ in workspace.requests} <= {"GET"}


def test_what_the_workspace_refuses_is_said_in_the_dialog(visitor: Visitor, here: str, workspace: FakeAgent) -> None:
    said = b'{"detail": "It has too many."}'
    workspace.raw_response = b"HTTP/1.1 429 No\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
    answer = visitor.post(here, {"name": "web", "command": "npm"}, headers=HTMX)
    assert re.search(r'role="alert">[^<]*services', answer.text)


def test_a_service_is_restarted_and_stopped(visitor: Visitor, here: str, workspace: FakeAgent) -> None:
    assert "web running" in row(visitor.post(f"{here}/web/restart").text, "service-web")
    assert ("POST", "/services/web/restart", {"wait": 0}) in workspace.requests
    shown = visitor.post(f"{here}/web/stop", headers=HTMX | {"HX-Target": "tab"}).text
    assert "No service." in shown
    assert 'aria-current="page">Services and ports' in shown, "the tab, without a log"
    refused = visitor.post(f"{here}/web/stop", headers=HTMX)
    assert (refused.status_code, refused.headers["HX-Retarget"]) == (404, "#notices")


def test_a_name_leads_nowhere_else(visitor: Visitor, here: str, workspace: FakeAgent) -> None:
    for name in ("a%3Fwake=true", "%2e%2e", "a%0d%0ab", "a%2fb", "x" * 33):
        for path in ("log", "log/download"):
            assert visitor.get(f"{here}/{name}/{path}").status_code == 404
        for path in ("restart", "stop"):
            assert visitor.post(f"{here}/{name}/{path}").status_code == 404
    assert workspace.requests == []


def test_a_log_is_followed_from_its_tail_and_goes_on_where_it_was(
    visitor: Visitor, here: str, workspace: FakeAgent
) -> None:
    workspace.logs["web"] = b"x" * TAIL + b"one\n"
    shown = page(visitor, f"{here}/web/log")
    (stream,) = re.findall(r'sse-connect="([^"]+)"', shown)
    workspace.services["web"] |= FAILED
    first, last = text(visitor, stream)
    assert f"{'x' * (TAIL - 4)}one" in first
    assert "event: end" in last
    (seen,) = re.findall(r"^id: (\d+)", first)
    workspace.logs["web"] += b"two\n"
    first, _ = text(visitor, stream, **{"Last-Event-ID": seen})
    assert 'data: <span class="log">two\n' in first
    assert "one" not in first


def test_an_open_log_does_not_go_on_to_be_use(visitor: Visitor, here: str, workspace: FakeAgent) -> None:
    """Each connection is, and a browser makes it again and again."""
    for opened in ("", f"?opened={time.time() - FOLLOWED - 1:.0f}", "?opened=x"):
        assert "".join(text(visitor, f"{here}/web/log/stream{opened}")) == "id: \nevent: end\ndata: 1\n\n"
    assert workspace.requests == []


def test_a_log_is_downloaded(visitor: Visitor, here: str, workspace: FakeAgent) -> None:
    workspace.logs["web"] = HOSTILE.encode()
    answer = visitor.get(f"{here}/web/log/download")
    assert (answer.text, answer.mimetype) == (HOSTILE, "application/octet-stream")
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''web.log"


@pytest.mark.parametrize("told", [{"state": "starting"}, {"state": "stopped", "reason": "sleep", "autostart": True}])
def test_what_starts_is_looked_at_again_and_not_for_ever(
    visitor: Visitor, here: str, workspace: FakeAgent, told: dict[str, object]
) -> None:
    assert "again=" not in page(visitor, here)
    workspace.services["web"] |= told
    asked, path = 0, here
    while again := re.search(r'hx-get="([^"]+again=\d+)" hx-trigger="load delay', page(visitor, path)):
        asked, path = asked + 1, again[1]
    assert asked == LOOKS


def test_a_port_is_opened_in_a_tab_of_its_own(
    visitor: Visitor, core: Core, uuid: str, here: str, workspace: FakeAgent
) -> None:
    shown = page(visitor, here)
    assert "not opened" in row(shown, "port-3000")
    assert f'action="{here}/ports/3000/open" target="_blank" rel="noopener"' in shown
    for path, data in (("3000/open", {}), ("open", {"port": "3000"})):
        opening = visitor.post(f"{here}/ports/{path}", data).text
        link = html.unescape(re.findall(r'http-equiv="refresh" content="0; url=([^"]+)"', opening)[0])
        assert link.startswith(f"http://3000--vs-code-{uuid}.localhost/?workspace-link=")
    assert "those who may open the workspace" in row(page(visitor, here), "port-3000")
    for path, data in (("70000/open", {}), ("0/open", {}), ("open", {"port": "x"}), ("open", {"port": "-1"})):
        assert visitor.post(f"{here}/ports/{path}", data).status_code == 404
    assert [each.port for each in core.store.get(uuid).opened_ports] == [3_000]


def test_a_port_is_made_public_and_closed(
    visitor: Visitor, core: Core, uuid: str, here: str, workspace: FakeAgent
) -> None:
    shown = visitor.post(f"{here}/ports/3000/publish", {"seconds": str(HOUR)}).text
    (port,) = core.store.get(uuid).opened_ports
    assert port.public_until == pytest.approx(time.time() + HOUR, abs=5)
    address = f"http://3000--vs-code-{uuid}.localhost"
    assert f'data-copy="{address}"' in shown
    assert "everybody until" in row(shown, "port-3000")
    assert shown.count(f'href="{address}" target="_blank"') == 2, "a link would make it private again"
    core.openings.open(uuid, 3_000, int(time.time()) - 1)
    assert "those who may open the workspace" in row(page(visitor, here), "port-3000"), "its time is over"
    assert "not opened" in row(visitor.post(f"{here}/ports/3000/close").text, "port-3000")
    assert core.store.get(uuid).opened_ports == ()


def test_a_port_is_public_no_longer_than_it_may(visitor: Visitor, here: str, workspace: FakeAgent) -> None:
    for seconds in (str(366 * 24 * HOUR), "x", "-5"):
        refused = visitor.post(f"{here}/ports/3000/publish", {"seconds": seconds}, headers=HTMX)
        assert (refused.status_code, refused.headers["HX-Retarget"]) == (400, "#notices")
        assert "in the future and at most" in refused.text
