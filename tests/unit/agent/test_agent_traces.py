"""The manager's traceparent goes back to it with the model calls of the prompt it came with."""

from __future__ import annotations

from app.agent.model import Model
from app.agent.traces import KEPT, Traces
from tests.model_server import Answer, ModelServer

ONE, OTHER = (f"00-{'0af7651916cd43dd8448eb211c80319c'}-{each}-01" for each in ("b7ad6b7169203331", "00f067aa0ba902b7"))


def test_a_turn_has_the_header_of_its_own_prompt() -> None:
    traces = Traces()
    traces.note("m1", ONE)
    traces.note("m2", OTHER)
    traces.note("m3", "no header\r\nX: y")
    found = []
    for id_ in ("m2", "m1", "m3", "m4"):
        traces.begin(id_)
        found.append(traces.headers())
    assert found == [{"traceparent": OTHER}, {"traceparent": ONE}, {}, {}]


def test_the_oldest_is_forgotten_beyond_the_limit() -> None:
    traces = Traces()
    for number in range(KEPT + 1):
        traces.note(str(number), ONE)
    traces.begin("0")
    assert traces.headers() == {}
    traces.begin("1")
    assert traces.headers() == {"traceparent": ONE}


def test_a_model_call_carries_the_header() -> None:
    traces = Traces()
    with ModelServer() as server:
        server.script(Answer(text="a"), Answer(text="b"))
        model = Model(server.url.removesuffix("/v1"), lambda: "t", "m", traces.headers)
        model._url = server.url
        traces.note("m1", ONE)
        for id_ in ("m1", "m2"):
            traces.begin(id_)
            model.answer([{"role": "user", "content": "x"}], (), lambda text: None, lambda: False)
        assert [each.headers.get("traceparent") for each in server.requests] == [ONE, None]
