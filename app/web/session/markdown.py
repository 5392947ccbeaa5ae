"""What an agent wrote, as markup made here: nothing of the text itself is markup.

HTML in the text is shown as text, links lead to http(s) only and tell nothing of this page, and there are no images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

MOST = 40_000
"""Characters of a page that are read as Markdown: about 0.1 s for ordinary text, 1 s for the worst. What is beyond is
shown as it is."""

MOST_CELLS = 5_000
"""Cells that a text's tables may have: a row of one cell is filled up to the widest."""


class Formatter:
    """Formats the texts of one page."""

    def __init__(self) -> None:
        self._left = MOST

    def __call__(self, text: str) -> Markup:
        """Markdown as HTML."""
        self._left -= len(text)
        if self._left < 0 or _cells(text) > MOST_CELLS:
            return Markup('<div class="plain">{}</div>').format(text)
        return Markup(_reader().render(text))


def _cells(text: str) -> int:
    lines = text.splitlines()
    return len(lines) * max((line.count("|") for line in lines), default=0)


@cache
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=Renderer)
    reader.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])
    reader.validateLink = lambda url: url.lower().startswith(("http://", "https://"))  # type: ignore[method-assign]
    return reader


class Renderer(RendererHTML):
    """Links open elsewhere; headings are paragraphs, as a page has its own; code can be scrolled by keys."""

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        tokens[idx].attrs |= {"rel": "noopener noreferrer nofollow", "target": "_blank"}
        return self.renderToken(tokens, idx, options, env)

    def heading_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return '<p class="heading">'

    def heading_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return "</p>\n"

    def th_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        # Alignment is an inline style, which no page takes.
        return f"<{tokens[idx].tag}>"

    def td_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return self.th_open(tokens, idx, options, env)

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return f'<pre tabindex="0"><code>{escapeHtml(tokens[idx].content)}</code></pre>\n'

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return self.fence(tokens, idx, options, env)
