"""The manager hears of everything that counts, also when it was away."""

import threading

import pytest

from app.agent import gateway_client as calls
from app.agent import reports as module
from app.agent.events import Bus, outcome_event, truncated
from app.agent.gateway_client import Gateway, GatewayDown, call_home, waits
from app.agent.protocol import Event
from app.agent.reports import Reports
from tests.unit.agent.fake_gateway import TOKEN

EVENTS = "/agent/v1/events"
HELLO = "/agent/v1/hello"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Waits between tries as short as they get."""
    monkeypatch.setattr(calls, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(calls, "LONGEST_WAIT", 0.002)


@pytest.fixture
def line(gateway):
    connection = Gateway(gateway.url, lambda: TOKEN)
    yield connection
    connection.close()


class Reporting:
    """Reports with their thread."""

    def __init__(self, line, busy=lambda: True):
        self.taken: list[str] = []
        self.reports = Reports(line, self.taken.extend, busy)
        self.thread = threading.Thread(target=self.reports.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.reports.stop(30)
        self.thread.join(30)
        assert not self.thread.is_alive()


def token(text, id_="m1"):
    return Event("token", id_, {"text": text})


def processed(id_="m1"):
    return outcome_event(id_, {"status": "processed", "response": {"text": id_}})


def test_hello_is_said_until_it_is_taken(gateway, line):
    """A manager that doesn't know the session yet, one that fails, one that refuses: asked again."""
    gateway.failures[HELLO].extend([404, 500, 503, 401])
    call_home(line, {"address": "http://x:1", "name": "n", "boot": "b"}, threading.Event())
    assert gateway.hellos == [{"address": "http://x:1", "name": "n", "boot": "b"}]


def test_hello_to_nobody_ends_with_the_process(line):
    """Nobody listens; it goes on trying until it is told to stop."""
    stopping = threading.Event()
    thread = threading.Thread(target=call_home, args=(Gateway("http://127.0.0.1:1", lambda: TOKEN), {}, stopping))
    thread.start()
    stopping.set()
    thread.join(30)
    assert not thread.is_alive()


def test_waits_grow_to_a_limit(monkeypatch):
    monkeypatch.setattr(calls, "FIRST_WAIT", 1.0)
    monkeypatch.setattr(calls, "LONGEST_WAIT", 5.0)
    next_wait = waits(lambda: 1.0)
    assert [next_wait() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert waits(lambda: 0.0)() == 0.5


def test_events_arrive_in_order_and_text_is_joined(gateway, line):
    events = [token("a"), token("b"), Event("tool_call", "m1", {"name": "x"}), token("c"), processed()]
    reporting = Reporting(line)
    for event in events:
        reporting.reports.add(event)
    with reporting:
        gateway.outcome("m1")
    assert [event["type"] for event in gateway.events] == ["token", "tool_call", "token", "processed"]
    assert gateway.events[0]["data"]["text"] == "ab" and gateway.batches[0]["busy"] is True
    assert reporting.taken == ["m1"]


@pytest.mark.parametrize("status", [500, 503, 401, 404, 429])
def test_an_outcome_is_kept_until_the_gateway_takes_it(gateway, line, status):
    """Whatever it says meanwhile; nothing is lost, nothing comes twice."""
    gateway.failures[EVENTS].extend([status] * 5)
    with Reporting(line) as reporting:
        reporting.reports.add(token("a"))
        reporting.reports.add(processed())
        gateway.outcome("m1")
    assert [event["type"] for event in gateway.events] == ["token", "processed"] and reporting.taken == ["m1"]


def test_an_event_the_gateway_will_never_take_is_dropped_alone(gateway, line):
    reporting = Reporting(line)
    for n in range(3):
        reporting.reports.add(processed(f"m{n}"))
    # The batch of three, then the first alone.
    gateway.failures[EVENTS].extend([400, 400])
    with reporting:
        gateway.outcome("m2")
    assert [event["message_id"] for event in gateway.events] == ["m1", "m2"]
    assert reporting.taken == ["m0", "m1", "m2"]


def test_while_the_gateway_is_away_only_outcomes_are_kept(gateway, monkeypatch):
    monkeypatch.setattr(module, "KEPT_EVENTS", 10)
    reports = Reports(Gateway("http://127.0.0.1:1", lambda: TOKEN), lambda ids: None, lambda: True)
    reports.add(processed("m0"))
    for n in range(100):
        reports.add(Event("tool_call", "m1", {"n": n}))
    reports.add(processed("m1"))
    assert [e.message_id for e in reports._events if e.ends] == ["m0", "m1"] and len(reports._events) <= 12


def test_a_turn_without_events_is_heard_of(gateway, line, monkeypatch):
    """Empty lists say that it is busy; an idle agent says nothing."""
    monkeypatch.setattr(module, "BEAT", 0.01)
    busy = [True]
    with Reporting(line, lambda: busy[0]):
        gateway.wait(lambda: len(gateway.batches) >= 3)
        assert gateway.batches[0] == {"events": [], "busy": True}
        busy[0] = False
    with Reporting(Gateway(gateway.url, lambda: TOKEN), lambda: False) as idle:
        sent = len(gateway.batches)
        idle.reports.add(token("x"))
        gateway.wait(lambda: gateway.events)
    assert [batch["busy"] for batch in gateway.batches[sent:]] == [False]


def test_a_connection_the_gateway_closed_is_opened_again(gateway, line):
    assert line.call("POST", EVENTS, {"events": [], "busy": False}).ok
    line._connection.sock.close()
    with pytest.raises(GatewayDown) as raised:
        line.call("POST", EVENTS, {"events": [], "busy": False})
    assert TOKEN not in str(raised.value)
    assert line.call("POST", EVENTS, {"events": [], "busy": False}).ok


def test_who_watches_a_message_sees_its_events_only():
    """From the moment on it watches; closing ends it."""
    heard: list[Event] = []
    bus = Bus(heard.append)
    with bus.watch("m1") as events:
        for id_ in ("m1", "m2", "m1"):
            bus.publish(token("x", id_))
        bus.close()
        seen = [events.get_nowait() for _ in range(3)]
        assert [event and event.message_id for event in seen] == ["m1", "m1", None]
    assert len(heard) == 3 and bus._watchers == {}
    with bus.watch("m1") as events:
        assert events.get_nowait() is None


def test_a_watcher_that_does_not_read_is_let_go(monkeypatch):
    """It costs a bounded queue, and nobody waits for it."""
    monkeypatch.setattr("app.agent.events.WATCHER_EVENTS", 3)
    bus = Bus()
    with bus.watch("m1") as events:
        for _ in range(10):
            bus.publish(token("x"))
        assert events.qsize() == 3


def test_events_carry_the_beginning_and_the_end_of_long_values():
    cut = truncated({"path": "x", "content": "y" * 100_000, "n": 3})
    assert cut["path"] == "x" and cut["n"] == 3 and len(cut["content"]) < 2100


def test_an_outcome_waits_for_no_batch(gateway, line, monkeypatch):
    """Somebody waits for it; the pieces of an answer may be collected."""
    monkeypatch.setattr(module, "BATCH_SECONDS", 3600.0)
    with Reporting(line) as reporting:
        reporting.reports.add(token("first"))
        gateway.wait(lambda: gateway.events)
        reporting.reports.add(token("second"))
        reporting.reports.add(processed())
        gateway.wait(lambda: len(gateway.events) == 3)
        assert [event["type"] for event in gateway.events] == ["token", "token", "processed"]
