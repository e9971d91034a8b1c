"""Question-answer pairs out of Debian's python3-doc (PSF licence) and sqlite3-doc (public domain).

Usage: ``python -m adapters.training.docs_pairs python|sql HTML_FOLDER OUT.jsonl``
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from adapters.training.corpus import Row
from adapters.training.html_blocks import (
    Block,
    iter_sections,
    parse_blocks,
    plain_heading,
    render_answer,
)

_SHORTEST, _LONGEST = 140, 850  # characters: about 40 to 250 tokens
_PER_PAGE = {"python": 8, "sql": 24}  # SQLite has few pages, and long ones
_MOST_ROWS = 300
_PYTHON_FOLDERS = ("library", "tutorial", "howto", "faq")
# Dull or obsolete for someone who asks how to write Python.
_PYTHON_LEFT_OUT = re.compile(
    r"^(msi|nis|imp|asynchat|asyncore|smtpd|distutils|2to3|crypt|spwd|ossaudiodev|aifc|chunk|"
    r"sunau|xdrlib|uu|telnetlib|nntplib|cgi|cgitb|pipes|turtle|idle|tkinter.*|winreg|gui|windows|"
    r"pyporting|cporting|installed|clinic|isolating-extensions|instrumentation|index|audioop)$"
)
_PLAIN_TITLES = re.compile(
    r"(?i)^(examples?|notes?|history|introduction|overview|summary|see also|footnotes|contents|"
    r"references?|functions?|constants|limitations|background|what now|.*objects|"
    r"(general|further) .*|module .*|acknowledgements|other|logging)$"
)
_SQL_PLAIN_TITLES = re.compile(r"(?i)^(details|frequently asked questions|syntax|typical use)$")
_SQL_PAGES = re.compile(
    r"^(lang_.*|json1|windowfunctions|datatype3|foreignkeys|gencol|partialindex|expridx|"
    r"withoutrowid|autoinc|nulls|rowvalue|printf|stricttables|fts5|rtree|faq|quirks|"
    r"queryplanner|optoverview|eqp|lang|series|csv|isolation|rowidtable|inmemorydb|"
    r"wal|cli|json|conflict)$"
)
_FUNCTION_QUESTIONS = (
    "What does `{name}()` do in Python?",
    "How do I use `{name}()` in Python?",
    "Explain the Python function `{signature}`.",
    "When would I call `{name}()`?",
)
_TYPE_QUESTIONS = (
    "What is `{name}` in Python?",
    "How do I use `{name}` in Python?",
    "Explain `{signature}` in Python.",
)
_TOPIC_QUESTIONS = (
    "Explain {topic} in {language}.",
    "How does {topic} work in {language}?",
    "{language} question: {topic}. Can you help, with an example?",
    "Show me {topic} in {language}.",
)
_SQL_QUESTIONS = (
    "Explain {topic} in SQLite, with an example.",
    "SQL question: {topic}. Can you help, with an example?",
    "Show me {topic} in SQL.",
)


def _pick(choices: tuple[str, ...], key: str) -> str:
    return choices[int(sha256(key.encode()).hexdigest(), 16) % len(choices)]


def _topic(heading: str) -> str:
    """A heading as it stands inside a sentence: title case is undone, names and acronyms stay."""
    words = [
        word.lower() if word[1:].islower() and word != "Python" else word
        for word in heading.split()
    ]
    return " ".join(["a" if word == "A" else word for word in words])


def _python_question(title: Block, page: str) -> str | None:
    if title.kind == "heading":
        heading = plain_heading(title.text)
        if heading.endswith("?"):
            return heading
        if "—" in heading or _PLAIN_TITLES.match(heading):
            return None
        return _pick(_TOPIC_QUESTIONS, page + heading).format(
            topic=_topic(heading), language="Python"
        )
    signature = re.sub(r"^(class|exception|async|classmethod|static) ", "", title.text)
    choices = _FUNCTION_QUESTIONS if "(" in signature else _TYPE_QUESTIONS
    return _pick(choices, title.name).format(
        name=title.name, signature=signature.replace("¶", "").strip()
    )


def _sql_question(title: Block, page: str) -> str | None:
    heading = plain_heading(title.text)
    if heading.endswith("?"):
        return heading
    call = re.match(r"(?:The )?(\w+\(.*?\))", heading)
    if call:
        return f"What does the SQL function `{call[1]}` do in SQLite?"
    if title.kind == "definition" or _PLAIN_TITLES.match(heading):
        return None
    if _SQL_PLAIN_TITLES.match(heading):
        return None
    return _pick(_SQL_QUESTIONS, page + heading).format(topic=_topic(heading))


def _pages(domain: str, folder: Path) -> Iterator[tuple[str, Path]]:
    if domain == "sql":
        for path in sorted(folder.glob("*.html")):
            if _SQL_PAGES.match(path.stem):
                yield path.stem, path
        return
    for part in _PYTHON_FOLDERS:
        for path in sorted((folder / part).glob("*.html")):
            if not _PYTHON_LEFT_OUT.match(path.stem):
                yield f"{part}/{path.stem}", path


def extract_pairs(domain: str, folder: Path) -> list[Row]:
    """Rows for ``python`` or ``sql``, those with a code example first, some a page.

    A row's group is its page, so that a page never stands on both sides of the split.
    """
    per_page = _PER_PAGE[domain]
    ask = _python_question if domain == "python" else _sql_question
    by_page: dict[str, list[tuple[bool, Row]]] = defaultdict(list)
    seen: set[str] = set()
    for page, path in _pages(domain, folder):
        for title, body in iter_sections(parse_blocks(path.read_text("utf-8", "replace"))):
            answer = render_answer(body, language=domain, limit=_LONGEST)
            prompt = ask(title, page)
            if prompt is None or len(answer) < _SHORTEST or prompt in seen:
                continue
            has_code = "```" in answer
            asked = plain_heading(title.text).endswith("?")
            if title.kind == "heading" and not (has_code or asked):
                continue
            seen.add(prompt)
            source = f"{'python3.11-doc' if domain == 'python' else 'sqlite3-doc'} {page}.html"
            by_page[page].append((has_code, Row(prompt, answer, source, page)))
    rows: list[Row] = []
    for found in by_page.values():
        found.sort(key=lambda pair: not pair[0])
        rows += [row for _, row in found[:per_page]]
    rows.sort(key=lambda row: ("```" not in row.answer, sha256(row.prompt.encode()).hexdigest()))
    return sorted(rows[:_MOST_ROWS], key=lambda row: (row.group, row.prompt))


def main(domain: str, folder: str, out: str) -> None:
    rows = extract_pairs(domain, Path(folder))
    lines = [
        json.dumps(
            {"prompt": r.prompt, "answer": r.answer, "source": r.source, "group": r.group},
            ensure_ascii=False,
        )
        for r in rows
    ]
    Path(out).write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:4])
