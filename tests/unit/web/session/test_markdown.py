"""What an agent wrote is shown with simple formatting, and none of it is markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from app.web.session.markdown import MOST, Formatter

ALLOWED = {
    "p": {"class"},
    "pre": {"tabindex"},
    "a": {"href", "rel", "target", "title"},
    "div": {"class"},
    "ol": {"start"},
    "th": set(),
    "td": set(),
} | dict.fromkeys(
    ("code", "em", "strong", "s", "ul", "li", "blockquote", "hr", "br", "table", "thead", "tbody", "tr"), set()
)


class Reader(HTMLParser):
    """The elements of a text, and the targets of its links."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        assert {name for name, _ in attrs} <= ALLOWED[tag], (tag, attrs)
        self.links += [value or "" for name, value in attrs if name == "href"]


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a <b onclick=alert(1)>b</b>",
    "<!-- --><svg/onload=alert(1)>",
    "```<script>\nalert(1)\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "`<script>alert(1)</script>`",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](vbscript:x) [b](/sign-out) [c](//evil.example)",
    "<javascript:alert(1)>",
    "![x](http://evil.example/pixel.png)",
    "![x](javascript:alert(1))",
    '[a](http://a.example "onmouseover=alert(1) \\"><script>")',
    "[a]: javascript:alert(1)\n\n[a]",
    "&lt;script&gt; &#60;script&#62;",
    "| a | <script> |\n|---|---|\n| <img> | b |",
    "| a | b |\n|:--|:-:|\n| 1 | 2 |",
    "# <script>alert(1)</script>",
    "[" * 2_000 + "](x)" * 2_000,
    ("> " * 500) + "x",
    "*" * 10_000 + "a",
    "<" * 15_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_of_a_text_is_markup(text: str) -> None:
    """Only elements and attributes that are made here, and links to http(s)."""
    for link in Reader(Formatter()(text)).links:
        assert link.startswith(("http://", "https://")), link


def test_formatting_is_simple_and_links_tell_nothing_of_the_page() -> None:
    shown = Formatter()("# Done\n\n**a** `b` [c](https://c.example)\n\n```sh\nls <x>\n```")
    assert '<p class="heading">Done</p>' in shown
    assert "<strong>a</strong> <code>b</code>" in shown
    assert '<a href="https://c.example" rel="noopener noreferrer nofollow" target="_blank">c</a>' in shown
    assert '<pre tabindex="0"><code>ls &lt;x&gt;\n</code></pre>' in shown


def test_only_so_much_of_a_page_is_formatted() -> None:
    """A hostile text may take long to read."""
    formatter = Formatter()
    assert "<strong>" in formatter("**a** <b>" + "x" * (MOST - 100))
    assert str(formatter("**b** <b>" + "x" * 100)).startswith('<div class="plain">**b** &lt;b&gt;xxx')


def test_a_table_of_very_many_cells_is_shown_as_it_is() -> None:
    wide = "| a " * 100 + "\n" + "|-" * 100 + "\n"
    assert "<table>" in Formatter()(wide + "| x \n" * 10)
    assert "<table>" not in Formatter()(wide + "| x \n" * 1_000)
