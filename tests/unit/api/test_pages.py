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
from tests.unit.api.helpers import AppMaker, move
from tests.unit.api.visitors import NAVIGATION, POLL, Visitor

MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;{{ 7*7 }}</style>"
PNG = "data:image/png;base64,iVBORw0KGgo="
HOME = "https://app.example.com/?a=1&b=2"


pytestmark = pytest.mark.settings(product_name="A <b>Product</b>", product_url=HOME, product_color="#AA3300")


def answer(page: str, status: int = 200, product: Product | None = None, **values: Any) -> tuple[str, str]:
    """The document of a page with these values, and its policy."""
    with Flask("test").test_request_context():
        made = Pages(product).show(page, status, **values)
        return str(made.get_data(as_text=True)), made.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["page.html", "waking.html", "again.html", "onward.html"])
def test_markup_in_any_value_is_text(name: str) -> None:
    step = {"name": MARKUP, "words": MARKUP, "state": MARKUP, "took": MARKUP}
    texts: dict[str, Any] = dict.fromkeys(
        ("title", "text", "hint", "detail", "back", "href", "label", "state", "retry"), MARKUP
    )
    numbers: dict[str, Any] = {"elapsed_ms": MARKUP, "estimate_ms": MARKUP, "steps": [step], "shows_steps": True}
    text, _ = answer(name, product=Product(name=MARKUP, url=MARKUP), **texts, **numbers)
    # Each quote and bracket of it is escaped, wherever it stands.
    assert "<img" not in text and "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&gt;&lt;img src=x onerror=alert(1)&gt;&amp;amp;" in text
    assert text.count("</style>") == 1


def test_the_product_is_named_and_every_page_leads_back(visitor: Visitor) -> None:
    for page in (visitor.navigate(), visitor.client.get("/auth/waking", headers=NAVIGATION)):
        assert "A &lt;b&gt;Product&lt;/b&gt;" in page.text
        assert "#AA3300" in page.text
        assert page.text.count('href="https://app.example.com/?a=1&amp;b=2"') == 2
        assert re.findall(r"src=", page.text) == []


def test_without_a_way_back_there_is_no_link() -> None:
    text, _ = answer("page.html", product=Product(name="Mine"), title="T", text="t")
    assert "href" not in text
    assert "<title>T – Mine</title>" in text


def test_a_page_in_any_pages_frame_leads_nowhere() -> None:
    text, policy = answer("page.html", 403, Product(url=HOME), by_any_page=True, title="T", text="t")
    assert "href" not in text
    assert "frame-ancestors" not in policy


@pytest.mark.parametrize("logo", ["", PNG])
def test_a_logo_is_in_the_page_and_in_its_policy_and_nothing_else_is_loaded(logo: str) -> None:
    text, policy = answer("page.html", product=Product(logo=logo), title="T", text="t")
    assert ("img-src data:" in policy, f'src="{PNG}"' in text) == (bool(logo), bool(logo))
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
    text, _ = answer("page.html", title=refused.title, text=refused.text, hint=refused.hint)
    assert ("<details>" in text) == bool(refused.hint)


def failed(core: Core, uuid: str, **why: Any) -> None:
    move(core, uuid, Status.FAILED)
    core.store.change(uuid, time.time(), **why)


def test_the_step_that_failed_looks_failed(core: Core, uuid: str, entered: Visitor) -> None:
    """The steps before it are done, and those after it are not."""
    failed(core, uuid, phases={"enqueued": 120}, reason="It is at /srv/x: y", reason_code="editor_ended")
    page = entered.navigate()
    states = re.findall(r'id="phase-(\w+)" class="(\w*)"', page.text)
    assert states == [("enqueued", "done"), ("started", "failed"), ("ready", "")]
    assert ">0.1 s<" in page.text
    assert "The workspace did not start" in page.text
    assert "Its editor ended unexpectedly" in page.text
    assert "/srv" not in page.text
    polled = entered.visit(**POLL)
    told = polled.json["for_people"]
    assert told.keys() == {"title", "text", "detail"}
    assert (told["title"], told["detail"]) == ("The workspace did not start", "It is at … Code: editor_ended.")
    assert (polled.json["reason"], polled.json["reason_code"]) == ("It is at …", "editor_ended")
    assert "/srv" not in polled.text


def test_no_step_is_shown_of_one_that_stopped_later(core: Core, uuid: str, entered: Visitor) -> None:
    failed(core, uuid, phases={"enqueued": 1, "started": 2, "ready": 3})
    page = entered.navigate()
    assert '<ol id="phases" hidden>' in page.text
    assert "The workspace has stopped" in page.text


def test_a_step_takes_the_time_since_the_one_before(core: Core, uuid: str, entered: Visitor) -> None:
    move(core, uuid, Status.SLEEPING)
    entered.navigate()
    core.store.change(uuid, time.time(), phases={"enqueued": 400, "started": 1_500})
    page = entered.navigate()
    assert re.findall(r'class="took">([^<]*)<', page.text) == ["0.4 s", "1.1 s", ""]
    assert re.findall(r'id="phase-(\w+)" class="now"', page.text) == ["ready"]


def test_a_logo_that_cant_be_shown_keeps_the_service_from_starting(make_app: AppMaker) -> None:
    with pytest.raises(Exception, match="PRODUCT_LOGO"):
        make_app(product_logo="/nowhere/logo.png")


def test_whoever_asks_by_program_is_told_all_of_a_refusal(visitor: Visitor) -> None:
    detail = visitor.visit(**POLL).json["detail"]
    assert "session" in detail and "token" in detail
