"""What agents tell the manager: where they are, how their work goes, and their conversation."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
import redis
from flask import Flask

from app.agent.protocol import REPORT_EVENTS, SERVICES_MOST, ServiceState
from app.core.agents.requests import AGENT_TIMEOUT
from app.core.redis import keys, task_queue
from app.core.sessions.model import Status
from app.core.sessions.reported_services import ReportedService
from app.core.sessions.resources import Sample
from app.gateway.activity_report import INSIDE
from app.gateway.parts import EXTENSION
from tests.unit.gateway.helpers import Workspace, event, parts_of

HELLO = {"address": "http://127.0.0.1:1111", "name": "pod-1", "boot": "b1"}
WEB = {"name": "web", "port": 3_000, "state": "running"}
RESTORED: dict[str, Any] = {"files_of": 1_000.0, "task": task_queue.RESTORE}


def hello(workspace: Workspace, **changes: Any) -> Any:
    return workspace.call("POST", "/agent/v1/hello", json=HELLO | changes)


def ask(workspace: Workspace, **ages: Any) -> Any:
    """Which of its prompts have not ended."""
    return workspace.call("POST", "/agent/v1/unfinished", json={"prompts": ages}).json


def tell(workspace: Workspace, **signals: Any) -> Any:
    return workspace.call("POST", "/agent/v1/activity", json={"signals": signals})


def used(workspace: Workspace, **told: Any) -> Any:
    return workspace.call("POST", "/agent/v1/activity", json={"signals": {}, "resources": told})


def serve(workspace: Workspace, *services: Any) -> Any:
    return workspace.call("POST", "/agent/v1/activity", json={"signals": {}, "services": services})


def test_hello_says_where_the_agent_is_and_starts_delivery(workspace: Workspace) -> None:
    """Without waiting for the cluster to call the pod ready."""
    workspace.take(delivered=False)
    assert hello(workspace).status_code == 204
    agent = workspace.core.inbox.agent(workspace.uuid)
    assert agent is not None
    assert (agent.address, agent.name, agent.boot) == ("http://127.0.0.1:1111", "pod-1", "b1")
    assert workspace.sent == [(task_queue.DELIVER, (workspace.uuid,))]


def test_a_prompt_that_was_delivered_is_enqueued_again_only_when_another_process_calls(workspace: Workspace) -> None:
    """It may be another volume, on which the prompt is not; an agent that has it drops it."""
    assert hello(workspace).status_code == 204
    workspace.take()
    assert hello(workspace).status_code == 204
    assert workspace.sent == []
    assert hello(workspace, boot="another").status_code == 204
    assert [task for task, *_ in workspace.sent] == [task_queue.DELIVER]


@pytest.mark.parametrize(
    ("changes", "sent"), [({}, [task_queue.DELIVER]), (RESTORED, [task_queue.TELL_FILES, task_queue.DELIVER])]
)
def test_an_agent_that_calls_on_and_on_sets_one_delivery_going_and_has_restored_files_told_once(
    workspace: Workspace, changes: dict[str, Any], sent: list[str]
) -> None:
    """Others' deliveries would stand behind its own, and a notice holds a worker as long as the agent likes."""
    workspace.core.store.change(workspace.uuid, time.time(), **changes)
    workspace.take(delivered=False)
    for _ in range(20):
        assert hello(workspace).status_code == 204
    assert workspace.sent == [(task, (workspace.uuid,)) for task in sent]


def test_an_agent_that_comes_again_later_has_the_restored_files_told_again(app: Flask) -> None:
    """The notice before may not have reached the one that called then."""
    now = 100.0
    app.extensions[EXTENSION] = dataclasses.replace(parts_of(app), ticks=lambda: now)
    workspace = Workspace(app)
    workspace.core.store.change(workspace.uuid, time.time(), **RESTORED)
    for _ in range(2):
        assert hello(workspace).status_code == 204
        now += AGENT_TIMEOUT
    assert [task for task, _ in workspace.sent] == [task_queue.TELL_FILES] * 2


def test_an_agent_comes_while_its_session_still_wakes(app: Flask) -> None:
    """That is the point of calling: it is there before anyone says that it is ready."""
    assert hello(Workspace(app, status=Status.WAKING)).status_code == 204


def test_an_agent_of_a_session_that_is_being_deleted_is_not_wanted(app: Flask) -> None:
    workspace = Workspace(app, status=Status.TERMINATING)
    answer = hello(workspace)
    assert (answer.status_code, answer.json["error"]) == (409, "illegal_state")
    assert workspace.core.inbox.agent(workspace.uuid) is None


def test_events_reach_the_sessions_stream_in_order(workspace: Workspace) -> None:
    """Tokens put together; a call and its result as they are."""
    call: dict[str, Any] = {"name": "read", "arguments": {"path": "a"}, "call_id": "c1"}
    result: dict[str, Any] = {"name": "read", "call_id": "c1", "ok": True, "text": "content"}
    tokens = (event("token", text=text) for text in ("Hel", "lo"))
    assert workspace.report(*tokens, event("tool_call", **call), event("tool_result", **result)).status_code == 204
    assert workspace.events() == [
        ("token", {"message_id": "m1", "text": "Hello"}),
        ("tool_call", {"message_id": "m1", **call}),
        ("tool_result", {"message_id": "m1", **result}),
    ]


def test_processed_ends_the_message_once(workspace: Workspace) -> None:
    """The report may come twice: the first end stands, and both are acknowledged."""
    workspace.take()
    assert workspace.report(event("processed", response={"text": "done", "steps": 2})).status_code == 204
    assert workspace.report(event("failed", reason="too late")).status_code == 204
    message = workspace.message()
    assert (message.state, message.reason, message.response) == ("processed", "", {"text": "done", "steps": 2})


@pytest.mark.parametrize(
    ("code", "counted"),
    [("model_unavailable", "model_unavailable"), ("my-own", "other"), ("", "other"), (7, "other"), (["disk"], "other")],
)
def test_a_failure_is_counted_by_its_code_and_no_code_makes_a_label(
    workspace: Workspace, code: object, counted: str
) -> None:
    """A program of the user's may report anything."""
    workspace.take()
    workspace.report(event("failed", reason="It failed.", code=code))
    assert workspace.core.counters.prompts()[1] == {counted: 1}


def test_failed_ends_the_message_with_its_reason_and_what_there_was_of_its_answer(workspace: Workspace) -> None:
    """One without a reason is not taken for a success."""
    workspace.take("m1", "m2")
    said = {"text": "half an", "usage": {"total_tokens": 9}}
    workspace.report(
        event("failed", reason="The workspace was put to sleep.", response=said),
        event("failed", "m2", reason="", response={"text": "x" * 100_000}),
    )
    first, second = workspace.message(), workspace.message("m2")
    assert (first.reason, first.response) == ("The workspace was put to sleep.", said)
    assert (second.state, second.response["truncated"]) == ("failed", True)
    assert workspace.report(event("failed", reason="No.", response="half")).status_code == 400


def test_a_message_that_was_undone_is_marked_so_though_it_had_ended(workspace: Workspace) -> None:
    """Who asked to undo it may have gone before the answer. The first end stands."""
    workspace.take("m1", "m2")
    workspace.report(event("processed", response={"text": "done"}))
    for _ in range(2):
        workspace.report(*(event("failed", each, reason="Undone.", code="rolled_back") for each in ("m1", "m2")))
    first, second = workspace.message(), workspace.message("m2")
    assert (first.state, first.response) == ("processed", {"text": "done"})
    assert (second.state, second.reason) == ("failed", "Undone.")
    assert first.rolled_back_at and second.rolled_back_at
    assert all(workspace.core.inbox.was_rolled_back(workspace.uuid, each) for each in ("m1", "m2"))


def test_an_undone_message_that_never_was_is_not_remembered(workspace: Workspace, redis_client: redis.Redis) -> None:
    """A workspace may report whatever ids it thinks of."""
    workspace.report(*(event("failed", f"m{n}", reason="Undone.", code="rolled_back") for n in range(9)))
    assert not redis_client.exists(keys.UNDONE.format(uuid=workspace.uuid))


def test_an_agent_cannot_end_another_sessions_message(app: Flask, workspace: Workspace) -> None:
    """The token says whose messages are meant."""
    workspace.take()
    other = Workspace(app, "other000", "bob")
    assert other.report(event("processed", response={"text": "mine now"})).status_code == 204
    assert workspace.message().state == "delivered"


def test_ends_of_unknown_messages_are_taken_and_not_logged(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis may have forgotten one, and an agent that is refused would report for ever; but a workspace may report
    whatever ids it thinks of. The end of a known one is logged once."""
    caplog.set_level("INFO")
    workspace.take()
    assert workspace.report(event("processed", "gone", response={"text": "x"})).status_code == 204
    ended = event("failed", reason="It failed.")
    workspace.report(ended, ended, *(event("failed", f"m{n}", reason="x") for n in range(2, 20)))
    assert [each.getMessage() for each in caplog.records if "message failed" in each.getMessage()] == ["message failed"]


def test_a_report_has_no_more_events_than_an_agent_sends_at_once(workspace: Workspace) -> None:
    """Each may be an end or a first token, which costs a call of Redis. An agent may have ends only, as after a time
    without a gateway."""
    workspace.take()
    most = [event("failed", f"m{n}", reason="x") for n in range(REPORT_EVENTS)]
    refused = workspace.report(*most, event("failed", f"m{REPORT_EVENTS}", reason="x"))
    assert (refused.status_code, refused.json["error"]) == (400, "invalid_request")
    assert workspace.message().state == "delivered"
    assert workspace.report(*most).status_code == 204
    assert workspace.message().state == "failed"


def test_a_wrong_event_leaves_the_whole_report_undone(workspace: Workspace) -> None:
    workspace.take()
    answer = workspace.report(event("processed", response={"text": "x"}), event("nonsense"))
    assert (answer.status_code, answer.json["error"]) == (400, "invalid_request")
    assert workspace.message().state == "delivered"


def test_only_a_busy_agent_keeps_its_session_awake_and_with_few_writes(workspace: Workspace) -> None:
    """The first report notes the use; those that follow at once cost Redis nothing."""
    before = workspace.record().last_activity
    workspace.report(event("token", text="x"), busy=False)
    assert workspace.record().last_activity == before
    workspace.report(busy=True)
    noted = workspace.record().last_activity
    assert noted > before
    for _ in range(20):
        workspace.report(busy=True)
    assert workspace.record().last_activity == noted


@pytest.mark.parametrize("said", [b'"\\ud800"', b'"\xed\xa0\x80"'], ids=["escaped", "raw"])
def test_half_a_character_in_a_report_is_a_question_mark(workspace: Workspace, said: bytes) -> None:
    """Neither Redis nor a log can have one. The report counts all the same: an agent that is refused would drop it."""
    workspace.take()
    greeting = b'{"address": "http://127.0.0.1:1111", "name": %b, "boot": %b}' % (said, said)
    ended = b'{"events": [{"type": "failed", "message_id": "m1", "data": {"reason": %b, "response": {"text": %b}}}]}'
    activity = b'{"signals": {"jobs": {"age": 1, "detail": %b}}}' % said
    for path, body in (("hello", greeting), ("events", ended % (said, said)), ("activity", activity)):
        assert workspace.call("POST", f"/agent/v1/{path}", data=body).status_code in (200, 204)
    agent, message = workspace.core.inbox.agent(workspace.uuid), workspace.message()
    assert agent is not None
    detail = workspace.core.activity.read(workspace.uuid)["jobs"].detail
    marks = [text.strip("?") for text in (agent.name, agent.boot, message.reason, message.response["text"], detail)]
    assert marks == [""] * 5


def test_an_agent_learns_which_of_its_prompts_have_not_ended_and_nothing_of_another_sessions(
    app: Flask, workspace: Workspace
) -> None:
    """One that waits, or that it has; not one that ended, and not one that ended so long ago that it is forgotten."""
    workspace.core.store.first_sight(time.time() - 1_000)
    workspace.take("m1", "m3")
    workspace.take("m2", delivered=False)
    workspace.report(event("processed", "m3", response={"text": "x"}))
    assert ask(workspace, m1=5, m2=5.5, m3=5, forgotten=900) == {"unfinished": ["m1", "m2"], "unknown": []}
    assert ask(Workspace(app, "other000", "bob"), m1=5) == {"unfinished": [], "unknown": []}


def test_what_redis_may_have_lost_is_not_called_ended(workspace: Workspace) -> None:
    """It remembers since then only; where nobody has looked yet, it isn't known since when."""
    assert ask(workspace, m1=0, m2=900) == {"unfinished": [], "unknown": ["m1", "m2"]}
    workspace.core.store.first_sight(time.time() - 1_000)
    assert not workspace.core.store.first_sight(time.time())
    assert ask(workspace, m1=900, m2=1_100) == {"unfinished": [], "unknown": ["m2"]}


def test_what_is_no_prompt_has_not_to_be_done(workspace: Workspace) -> None:
    """A user may write anything into the conversation on the disk; the agent is to go on all the same."""
    said = ask(workspace, **{"a b": 5, "x" * 65: 5, "m1": "old", "m2": True})
    assert said == {"unfinished": [], "unknown": ["m1", "m2"]}


def test_what_an_agent_sees_inside_is_noted_by_its_age(workspace: Workspace) -> None:
    """A job's name is cut to what a record should hold."""
    began = time.time()
    answer = tell(workspace, editor={"age": 2.5}, jobs={"age": 0, "detail": "make\n" + "x" * 500})
    assert (answer.status_code, answer.json) == (200, {"again": False, "opened_ports": []})
    signals = workspace.core.activity.read(workspace.uuid)
    assert began - 2.6 < signals["editor"].at < time.time() - 2.4
    assert signals["jobs"].detail == "make" + "x" * 91
    assert workspace.record().last_activity == signals["jobs"].at


@pytest.mark.parametrize(
    ("told", "until"),
    [
        ({"quiet": 600}, 6_600),
        ({"left": 300}, 300),
        ({"left": 1e12}, 28_800),
        ({"quiet": 600, "left": 300}, 6_600),
        ({"quiet": 7_000, "left": 9_000}, 9_000),
    ],
)
def test_a_quiet_job_counts_after_its_last_work_or_as_long_as_it_asks_and_never_beyond_what_the_settings_say(
    workspace: Workspace, told: dict[str, float], until: float
) -> None:
    began = time.time()
    assert tell(workspace, quiet_job={"age": 1, "detail": "curl", **told}).status_code == 200
    signal = workspace.core.activity.read(workspace.uuid)["quiet_job"]
    assert signal.detail == "curl"
    assert began + until <= signal.until + 0.01 <= time.time() + until + 0.01


@pytest.mark.parametrize("told", [{"quiet": 7_300}, {"quiet": 1e12}, {"quiet": 7_200, "left": 0}, {}])
def test_a_quiet_job_that_counts_no_more_is_no_activity(workspace: Workspace, told: dict[str, float]) -> None:
    before = workspace.record().last_activity
    assert tell(workspace, quiet_job={"age": 0, **told}).json == {"again": False, "opened_ports": []}
    assert workspace.core.activity.read(workspace.uuid) == {}
    assert workspace.record().last_activity == before


def test_reports_one_upon_the_other_cost_one_write_and_are_asked_for_again(workspace: Workspace) -> None:
    tell(workspace, editor={"age": 5})
    noted = workspace.core.activity.read(workspace.uuid)
    assert [tell(workspace, terminal={"age": 0}).json["again"] for _ in range(20)] == [True] * 20
    assert workspace.core.activity.read(workspace.uuid) == noted


def test_what_a_workspace_uses_is_noted_and_is_no_activity(workspace: Workspace) -> None:
    before = workspace.record().last_activity
    answer = used(workspace, cpu=0.5, memory_bytes=300_000_000, disk_bytes=3 * 2**30)
    assert (answer.status_code, answer.json) == (200, {"again": False, "opened_ports": []})
    assert list(workspace.core.resources.read(workspace.uuid).values()) == [Sample(0.5, 300_000_000, 3 * 2**30)]
    assert (workspace.record().disk_used_mib, workspace.record().last_activity) == (3_072, before)
    assert workspace.core.activity.read(workspace.uuid) == {}


def test_no_workspace_uses_more_than_a_machine_has(workspace: Workspace) -> None:
    """A program of the user's may report anything."""
    used(workspace, cpu=1e300, memory_bytes=1e300, disk_bytes=10**300)
    assert list(workspace.core.resources.read(workspace.uuid).values()) == [Sample(4_096.0, 2**50, 2**50)]


def test_an_agent_is_told_which_ports_are_opened(workspace: Workspace) -> None:
    workspace.core.openings.open(workspace.uuid, 3_000)
    workspace.core.openings.open(workspace.uuid, 5_173)
    assert tell(workspace, editor={"age": 0}).json["opened_ports"] == [3_000, 5_173]
    workspace.core.openings.close(workspace.uuid, 3_000)
    assert serve(workspace, WEB).json["opened_ports"] == [5_173]


def test_the_services_of_a_workspace_are_noted_and_are_no_activity(workspace: Workspace) -> None:
    """The newest report counts; one without them changes nothing."""
    before = workspace.record().last_activity
    worker = {"name": "worker", "port": None, "state": "failed"}
    assert serve(workspace, WEB, worker).json == {"again": False, "opened_ports": []}
    noted = (
        ReportedService("web", 3_000, ServiceState.RUNNING),
        ReportedService("worker", None, ServiceState.FAILED),
    )
    assert (workspace.record().services, workspace.record().last_activity) == (noted, before)
    assert workspace.core.activity.read(workspace.uuid) == {}
    tell(workspace, editor={"age": 5})
    assert workspace.record().services == noted
    assert serve(workspace).status_code == 200
    assert workspace.record().services == ()


def test_as_many_services_as_there_may_be_fit_into_a_report_and_a_record(workspace: Workspace) -> None:
    """With the longest names, beside all else that a report may have."""
    services = [{"name": f"{number:032}", "port": 65_535, "state": "starting"} for number in range(SERVICES_MOST)]
    signals = {name: {"age": 1.5, "detail": "x" * 96} for name in INSIDE}
    body = {"signals": signals, "resources": {"cpu": 1.0, "memory_bytes": 1, "disk_bytes": 1}, "services": services}
    assert workspace.call("POST", "/agent/v1/activity", json=body).status_code == 200
    assert [each.name for each in workspace.record().services] == [each["name"] for each in services]


NONSENSE: dict[str, list[Any]] = {
    "hello": [
        *(None, [], {}, {"address": 5}, {**HELLO, "name": None}),
        {**HELLO, "address": "http://10.0.0.1:6379/x"},
        {**HELLO, "address": "http://metadata.internal:80"},
    ],
    "unfinished": [None, [], {}, {"prompts": ["m1"]}, {"prompts": {f"m{n}": 0 for n in range(1_001)}}],
    "signals": [
        {"prompt": {"age": 0}},
        {"editor": 3},
        {"editor": {}},
        {"editor": {"age": -1}},
        {"editor": {"age": True}},
        {"editor": {"age": float("nan")}},
        {"jobs": {"age": 1, "detail": 1}},
        {"editor": {"age": 10**400}},
        {"quiet_job": {"age": 1, "quiet": 10**400}},
        {"quiet_job": {"age": 1, "quiet": -1}},
        {"quiet_job": {"age": 1, "quiet": "long"}},
        {"quiet_job": {"age": 1, "left": float("inf")}},
        {"quiet_job": {"age": 1, "left": True}},
    ],
    "resources": [
        {},
        {"cpu": 1.0, "memory_bytes": 1},
        {"cpu": -1.0, "memory_bytes": 1, "disk_bytes": 1},
        {"cpu": True, "memory_bytes": 1, "disk_bytes": 1},
        {"cpu": "1", "memory_bytes": 1, "disk_bytes": 1},
        {"cpu": float("nan"), "memory_bytes": 1, "disk_bytes": 1},
        {"cpu": 1.0, "memory_bytes": float("inf"), "disk_bytes": 1},
        {"cpu": 10**400, "memory_bytes": 1, "disk_bytes": 1},
    ],
}
NONSENSE["services"] = [
    {},
    "web",
    [{"name": "web", "port": 80, "state": "running"}] * 17,
    [7],
    [{"port": 80, "state": "running"}],
    [{"name": "web,x", "port": 80, "state": "running"}],
    [{"name": "x" * 33, "port": 80, "state": "running"}],
    [{"name": "web", "port": 0, "state": "running"}],
    [{"name": "web", "port": 65_536, "state": "running"}],
    [{"name": "web", "port": True, "state": "running"}],
    [{"name": "web", "port": "80", "state": "running"}],
    [{"name": "web", "port": 80, "state": "asleep"}],
    [{"name": "web", "port": 80, "state": ["running"]}],
    [{"name": "web", "port": 80}],
]
REFUSED = [(call, said) for call in ("hello", "unfinished") for said in NONSENSE[call]]
REFUSED += [("activity", {"signals": each}) for each in NONSENSE["signals"]]
REFUSED += [("activity", {"signals": {}, "resources": each}) for each in NONSENSE["resources"]]
REFUSED += [("activity", {"signals": {}, "services": each}) for each in NONSENSE["services"]]


@pytest.mark.parametrize(("call", "said"), REFUSED)
def test_what_makes_no_sense_is_refused_and_not_noted(workspace: Workspace, call: str, said: object) -> None:
    """Above all an address where no agent can be, as the manager would be sent there, and a signal that only the
    manager itself can see."""
    assert workspace.call("POST", f"/agent/v1/{call}", json=said).status_code == 400
    assert workspace.core.inbox.agent(workspace.uuid) is None
    assert workspace.core.activity.read(workspace.uuid) == {}
    assert workspace.core.resources.read(workspace.uuid) == {}
    assert workspace.record().services == ()


def test_reports_of_a_session_that_is_being_stopped_change_nothing(app: Flask) -> None:
    workspace = Workspace(app, status=Status.SLEEPING)
    before = workspace.record().last_activity
    assert workspace.report(busy=True).status_code == 204
    assert tell(workspace, editor={"age": 0}).json == {"again": False, "opened_ports": []}
    assert used(workspace, cpu=1.0, memory_bytes=1, disk_bytes=1).status_code == 200
    assert serve(workspace, WEB).status_code == 200
    assert workspace.record().services == ()
    assert workspace.record().last_activity == before
    assert workspace.core.activity.read(workspace.uuid) == {}
    assert workspace.core.resources.read(workspace.uuid) == {}


def test_no_content_is_logged(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    """Neither what an agent says, nor what it is asked."""
    caplog.set_level("DEBUG")
    workspace.take()
    workspace.report(event("token", text="private words"), event("failed", reason="private reason"))
    workspace.report(event("token", text=5))
    workspace.call("PUT", "/agent/v1/checkpoint", json={"edition": "e", "context": [{"content": "private talk"}]})
    piece = {"edition": "e", "after": 1, "mark": "", "then": "m", "messages": [{"content": "private piece"}]}
    workspace.call("POST", "/agent/v1/history", json=piece)
    logged = "".join(f"{record.getMessage()}{vars(record)}" for record in caplog.records)
    assert "message failed" in logged
    assert "private" not in logged
    assert workspace.headers["Authorization"] not in logged
