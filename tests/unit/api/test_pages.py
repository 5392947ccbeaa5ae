"""The pages as documents: what is in them, whatever is put into them, and what their policy allows."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from typing import Any

import pytest
from flask import Flask

from app.api.pages import Pages
from app.api.refusals import REFUSALS
from app.core.access.access_policy import Outcome
from app.core.composition import Core
from app.core.sessions.model import Status
from app.look.product import Product
from tests.unit.api.helpers import ADMIN_KEY, AppMaker, Client, keyed, move, new_session
from tests.unit.api.visitors import NAVIGATION, POLL, Visitor, link
from tests.world import SECRET_KEY

MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;{{ 7*7 }}</style>"
PNG = "data:image/png;base64,iVBORw0KGgo="
HOME = "https://app.example.com/?a=1&b=2"


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(
        rate_limit_default="10000/minute",
        secret_key=SECRET_KEY,
        product_name="A <b>Product</b>",
        product_url=HOME,
        product_color="#AA3300",
    )


def shown(page: str, product: Product | None = None, **values: Any) -> str:
    """The document of a page with these values."""
    with Flask("test").test_request_context():
        return str(Pages(product).show(page, 200, **values).get_data(as_text=True))


@pytest.mark.parametrize("name", ["page.html", "waking.html", "again.html", "onward.html"])
def test_markup_in_any_value_is_text(name: str) -> None:
    step = {"name": MARKUP, "words": MARKUP, "state": MARKUP, "took": MARKUP}
    texts = dict.fromkeys(("title", "text", "hint", "detail", "back", "href", "label", "state", "retry"), MARKUP)
    numbers = {"elapsed_ms": MARKUP, "estimate_ms": MARKUP, "steps": [step], "steps_are_over": False}
    text = shown(name, Product(name=MARKUP, url=MARKUP), **texts, **numbers)
    # Each quote and bracket of it is escaped, wherever it stands.
    assert "<img" not in text and "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&gt;&lt;img src=x onerror=alert(1)&gt;&amp;amp;" in text
    assert text.count("</style>") == 1


def test_the_product_is_named_and_every_page_leads_back(client: Client, uuid: str, visitor: Visitor) -> None:
    visitor.navigate(link(client, uuid))
    pages = [
        Visitor(visitor.client.application, uuid).navigate(),
        visitor.client.get("/auth/waking", headers=NAVIGATION),
    ]
    for page in pages:
        assert "A &lt;b&gt;Product&lt;/b&gt;" in page.text
        assert "#AA3300" in page.text
        assert page.text.count('href="https://app.example.com/?a=1&amp;b=2"') == 2
        assert re.findall(r"src=", page.text) == []


def test_without_a_way_back_there_is_no_link() -> None:
    text = shown("page.html", Product(name="Mine"), title="T", text="t")
    assert "href" not in text
    assert "<title>T – Mine</title>" in text


def test_a_page_in_any_pages_frame_leads_nowhere() -> None:
    with Flask("test").test_request_context():
        page = Pages(Product(url=HOME)).show("page.html", 403, by_any_page=True, title="T", text="t")
    assert "href" not in page.get_data(as_text=True)
    assert "frame-ancestors" not in page.headers["Content-Security-Policy"]


def test_a_logo_is_in_the_page_and_in_its_policy_and_nothing_else_is_loaded() -> None:
    for logo in ("", PNG):
        with Flask("test").test_request_context():
            page = Pages(Product(logo=logo)).show("page.html", 200, title="T", text="t")
        policy = page.headers["Content-Security-Policy"]
        assert ("img-src data:" in policy, f'src="{PNG}"' in page.get_data(as_text=True)) == (bool(logo), bool(logo))
        assert "default-src 'none'" in policy and "unsafe" not in policy


def test_the_policy_names_the_style_and_the_script_that_are_shown(visitor: Visitor) -> None:
    page = visitor.client.get("/auth/waking", headers=NAVIGATION)
    for kind in ("style", "script"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("outcome", REFUSALS)
def test_each_refusal_is_in_plain_words_and_what_operators_need_is_folded(outcome: Outcome) -> None:
    refused = REFUSALS[outcome]
    assert refused.text.endswith(".")
    assert not re.search(r"[A-Z]{2,}_|POST|\{", refused.title + refused.text)
    text = shown("page.html", title=refused.title, text=refused.text, hint=refused.hint)
    assert ("<details>" in text) == bool(refused.hint)


def failed(core: Core, uuid: str, **why: Any) -> None:
    move(core, uuid, Status.FAILED)
    core.store.change(uuid, time.time(), **why)


def test_the_step_that_failed_looks_failed(client: Client, core: Core, uuid: str, visitor: Visitor) -> None:
    """The steps before it are done, and those after it are not."""
    visitor.navigate(link(client, uuid))
    failed(core, uuid, phases={"enqueued": 120}, reason="It is at /srv/x: y", reason_code="editor_ended")
    page = visitor.navigate()
    states = re.findall(r'id="phase-(\w+)" class="(\w*)"', page.text)
    assert states == [("enqueued", "done"), ("started", "failed"), ("ready", "")]
    assert ">0.1 s<" in page.text
    assert "The workspace did not start" in page.text
    assert "Its editor ended unexpectedly" in page.text
    assert "/srv" not in page.text
    polled = visitor.visit(**POLL)
    assert polled.json["for_people"] == {
        "title": "The workspace did not start",
        "text": polled.json["for_people"]["text"],
        "detail": "It is at … Code: editor_ended.",
    }
    assert (polled.json["reason"], polled.json["reason_code"]) == ("It is at …", "editor_ended")
    assert "/srv" not in polled.text


def test_no_step_is_shown_of_one_that_stopped_later(client: Client, core: Core, uuid: str, visitor: Visitor) -> None:
    visitor.navigate(link(client, uuid))
    failed(core, uuid, phases={"enqueued": 1, "started": 2, "ready": 3})
    page = visitor.navigate()
    assert '<ol id="phases" hidden>' in page.text
    assert "The workspace has stopped" in page.text


def test_a_step_takes_the_time_since_the_one_before(client: Client, core: Core, uuid: str, visitor: Visitor) -> None:
    visitor.navigate(link(client, uuid))
    move(core, uuid, Status.SLEEPING)
    visitor.navigate()
    core.store.change(uuid, time.time(), phases={"enqueued": 400, "started": 1_500})
    page = visitor.navigate()
    assert re.findall(r'class="took">([^<]*)<', page.text) == ["0.4 s", "1.1 s", ""]
    assert re.findall(r'id="phase-(\w+)" class="now"', page.text) == ["ready"]


def test_a_logo_that_cant_be_shown_keeps_the_service_from_starting(make_app: AppMaker) -> None:
    with pytest.raises(Exception, match="PRODUCT_LOGO"):
        make_app(product_logo="/nowhere/logo.png")


def test_whoever_asks_by_program_is_told_all_of_a_refusal(make_app: AppMaker) -> None:
    app = make_app(secret_key=SECRET_KEY)
    told = Visitor(app, new_session(keyed(app, ADMIN_KEY))).visit(**POLL)
    assert "session" in told.json["detail"] and "token" in told.json["detail"]
