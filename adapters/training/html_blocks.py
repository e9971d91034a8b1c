"""Documentation pages as a flat list of blocks: headings, definitions, paragraphs, code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal

Kind = Literal["heading", "definition", "text", "code"]

_HEADINGS = {"h1", "h2", "h3", "h4"}
_PARAGRAPHS = {"p", "li", "dd", "td", "blockquote", "dl", "ul", "ol", "section"}
_VOID = {"br", "img", "hr", "meta", "link", "input", "col", "area", "wbr"}
_SKIPPED_TAGS = {"script", "style", "table", "nav", "svg", "button", "title"}
_SKIPPED_CLASSES = {
    *("headerlink", "versionadded", "versionchanged", "deprecated", "deprecated-removed"),
    *("seealso", "audit-hook", "footnote", "sphinxsidebar", "related", "footer", "admonition"),
    *("availability", "toctree-wrapper", "contents", "searchmenu", "pagename"),
}


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of a page. ``name`` is a definition's id (``shutil.copy``), else empty."""

    kind: Kind
    text: str
    name: str = ""


class _BlockParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._kind: Kind = "text"
        self._name = ""
        self._text: list[str] = []
        self._skip: list[str] = []
        self._in_term = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            if tag == "br" and self._kind == "code":
                self._text.append("\n")
            return
        named = {key: value or "" for key, value in attrs}
        classes = set(named.get("class", "").split())
        if self._skip or tag in _SKIPPED_TAGS or classes & _SKIPPED_CLASSES:
            # Only same-named tags are counted: unclosed <p> and <li> would unbalance a full stack.
            if not self._skip or tag == self._skip[0]:
                self._skip.append(tag)
            return
        if tag in _HEADINGS:
            self._start("heading")
        elif tag == "dt" and "sig" in classes:
            self._start("definition", named.get("id", ""))
        elif tag == "dt":
            self._in_term = True
            self._start("text")
        elif tag == "b" and self._in_term:  # SQLite sets what it defines in bold
            self._in_term = False
            self._start("definition")
        elif tag == "pre":
            self._start("code")
        elif tag in _PARAGRAPHS and self._kind != "definition":
            self._start("text")
        elif tag == "code" and self._kind == "text":
            self._text.append("`")

    def handle_endtag(self, tag: str) -> None:
        if self._skip:
            if tag == self._skip[0]:
                self._skip.pop()
            return
        if tag == "dt":
            self._in_term = False
        if tag in _HEADINGS or tag in {"pre", "dt", "p"}:
            self._start("text")
        elif tag == "code" and self._kind == "text":
            self._text.append("`")

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self._text.append(data)

    def _start(self, kind: Kind, name: str = "") -> None:
        self.finish()
        self._kind, self._name = kind, name

    def finish(self) -> None:
        raw = "".join(self._text)
        self._text = []
        text = raw.strip("\n").rstrip() if self._kind == "code" else " ".join(raw.split())
        if text.strip():
            self.blocks.append(Block(self._kind, text, self._name))


def parse_blocks(html: str) -> list[Block]:
    """The blocks of one page, in order; tables, asides and version notes are left out."""
    parser = _BlockParser()
    parser.feed(html)
    parser.finish()
    return parser.blocks


def render_answer(blocks: list[Block], *, language: str, limit: int) -> str:
    """Blocks as Markdown, cut at a block's end to at most ``limit`` characters.

    A paragraph that announces code ("for example:") is dropped when its code did not fit.
    """
    parts: list[str] = []
    size = 0
    for block in blocks:
        fenced = f"```{language}\n{block.text}\n```"
        part = fenced if block.kind == "code" else block.text
        if size + len(part) > limit:
            break
        parts.append(part)
        size += len(part)
    while parts and parts[-1].endswith(":"):
        parts.pop()
    return "\n\n".join(parts)


def iter_sections(blocks: list[Block]) -> Iterator[tuple[Block, list[Block]]]:
    """Each heading or definition with the text and code that follow it, up to the next one."""
    title: Block | None = None
    body: list[Block] = []
    for block in blocks:
        if block.kind in ("heading", "definition"):
            if title is not None and body:
                yield title, body
            title, body = block, []
        else:
            body.append(block)
    if title is not None and body:
        yield title, body


def plain_heading(text: str) -> str:
    """A heading without its number and pilcrow: ``"2.1. Examples¶"`` -> ``"Examples"``."""
    return re.sub(r"^[\d.]+\s+", "", text.replace("¶", "")).strip()
