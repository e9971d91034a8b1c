"""Everything of the router that must agree: table, weights, card, index and prompts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kiki.errors import RoutingError
from routing.card import Card
from routing.domains import PACKAGED as TABLE
from routing.domains import DomainTable, load_domains
from routing.model_files import EMBEDDING_ID
from routing.neighbours import Neighbours, fingerprint
from routing.router import PACKAGED, Router

PER_DOMAIN = 80
LANGUAGES = frozenset({"en", "fr", "mixed"})
EVERY_LANGUAGE = frozenset({"en", "fr"})
"""Languages that each domain has prompts in; one whose prompts are of one alone is no mirror."""
MONOLINGUAL = frozenset({"chat-fr"})
OTHER_FILES = frozenset({"multi", "out-of-scope", "followups"})
DATA = Path(__file__).with_name("data")
RETRAIN = "Train the router again: kiki router train"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that doesn't agree; a note is no mistake, but worth knowing."""

    level: Literal["wrong", "note"]
    rule: str
    where: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} {self.fix} [{self.rule}]"


def validate(
    *, table_file: Path = TABLE, weights: Path = PACKAGED, data: Path = DATA
) -> tuple[DomainTable | None, list[Finding]]:
    """The domain table, if it can be read, and what is wrong; nothing is embedded or trained."""
    try:
        table = load_domains(table_file)
    except RoutingError as error:
        return None, [_wrong("table", str(table_file), error.message, error.fix or "")]
    rows, findings = _read(data, table)
    findings += _weights(table, weights)
    findings += _domain_files(table, data, rows)
    findings += _repeats(rows)
    findings += _card(weights, data, rows)
    return table, findings


@dataclass(frozen=True, slots=True)
class _Line:
    """A prompt of the data folder, and where it stands."""

    path: Path
    number: int
    prompt: str
    domains: tuple[str, ...]
    lang: str
    shifted: bool

    @property
    def where(self) -> str:
        return f"{self.path}, line {self.number}"

    @property
    def key(self) -> str:
        """Equal for prompts that differ in case or white space alone."""
        return " ".join(self.prompt.casefold().split())


def _read(data: Path, table: DomainTable) -> tuple[list[_Line], list[Finding]]:
    """Every prompt, and the lines that are none."""
    rows: list[_Line] = []
    findings: list[Finding] = []
    known = {domain.name for domain in table.domains}
    for path in sorted(data.rglob("*.jsonl")):
        for number, text in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if not text.strip():
                continue
            row, problem = _line(path, number, text, path.parent != data)
            if row is None:
                fix = 'Write {"prompt": "...", "domains": [...], "lang": "en", "kind": "..."}.'
                findings.append(_wrong("row", f"{path}, line {number}", problem, fix))
                continue
            rows.append(row)
            for name in sorted(set(row.domains) - known - set(table.outputs)):
                message = f"there is no domain {name!r}."
                fix = "Use the names in routing/domains.toml."
                findings.append(_wrong("domain-name", row.where, message, fix))
            if row.lang not in LANGUAGES and path.stem != "followups":
                message = f"the language {row.lang!r} is none of {', '.join(sorted(LANGUAGES))}."
                findings.append(_wrong("language", row.where, message, "Correct it."))
    return rows, findings


def _line(path: Path, number: int, text: str, shifted: bool) -> tuple[_Line | None, str]:
    try:
        raw: dict[str, Any] = json.loads(text)
        if "messages" in raw:
            turns = [(str(turn["role"]), str(turn["content"])) for turn in raw["messages"]]
            if not turns or turns[-1][0] != "user":
                return None, "the conversation doesn't end with a user turn."
            prompt = "\n".join(content for _, content in turns)
        else:
            prompt = raw["prompt"]
        domains = raw["domains"]
        if not isinstance(prompt, str) or not prompt.strip():
            return None, "the prompt is empty or no text."
        if not isinstance(domains, list) or len(set(map(str, domains))) != len(domains):
            return None, "domains is no list of different names."
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"no labelled prompt: {error!r}."
    names = tuple(map(str, domains))
    return _Line(path, number, prompt, names, str(raw.get("lang", "")), shifted), ""


def _weights(table: DomainTable, weights: Path) -> Iterator[Finding]:
    """Weights, card and table, as a start would check them; and the index beside them."""
    load: tuple[tuple[str, Callable[[], object]], ...] = (
        ("weights", lambda: Router.load(weights, table, embedding_id=EMBEDDING_ID)),
        ("index", lambda: Neighbours.read(weights, embedding_id=EMBEDDING_ID)),
    )
    for rule, read in load:
        try:
            read()
        except RoutingError as error:
            yield _wrong(rule, str(weights), error.message, error.fix or RETRAIN)


def _domain_files(table: DomainTable, data: Path, rows: list[_Line]) -> Iterator[Finding]:
    names = {domain.name for domain in table.domains}
    for path in sorted(data.glob("*.jsonl")):
        if path.stem not in names | OTHER_FILES:
            yield _wrong(
                "file", str(path), "it is named after no domain.", "Rename it, or add the domain."
            )
    for name in sorted(names):
        path = data / f"{name}.jsonl"
        own = [row for row in rows if row.path == path]
        if len(own) < PER_DOMAIN:
            message = f"{len(own)} prompts; a domain has {PER_DOMAIN} at least."
            yield _wrong("prompts", str(path), message, "Write more.")
        for row in own:
            if name not in row.domains:
                message = f"the prompt isn't labelled {name!r}, as its file says."
                yield _wrong("label", row.where, message, "Add the label, or move the prompt.")
        missing = EVERY_LANGUAGE - {row.lang for row in own}
        if own and missing and name not in MONOLINGUAL:
            message = f"no prompt in {', '.join(sorted(missing))}."
            yield _wrong("languages", str(path), message, "Write some.")


def _repeats(rows: list[_Line]) -> Iterator[Finding]:
    first: dict[str, _Line] = {}
    for row in rows:
        seen = first.setdefault(row.key, row)
        if seen is not row:
            yield _wrong("repeat", row.where, f"it stands in {seen.where} too.", "Remove one.")


def _card(weights: Path, data: Path, rows: list[_Line]) -> Iterator[Finding]:
    try:
        card = Card.read(weights)
    except RoutingError:
        return  # said already
    there = {fingerprint(row.prompt) for row in rows if not row.shifted}
    gone = len(set(card.held_out) - there)
    if gone:
        message = f"{gone} of {len(card.held_out)} held-out prompts are no longer in {data}."
        yield Finding("note", "held-out", str(weights), message, RETRAIN)
    repeated = [name for name, count in Counter(card.held_out).items() if count > 1]
    if repeated:
        message = f"the held-out prompt {repeated[0]} stands there twice."
        yield _wrong("held-out", str(weights), message, RETRAIN)
    for part, digest in _digests(data).items():
        if card.data.get(part) != digest:
            message = f"the {part} prompts in {data} have changed since the weights were made."
            yield Finding("note", "older-weights", str(weights), message, RETRAIN)


def _digests(data: Path) -> dict[str, str]:
    from routing.training.rows import digest, read_packaged, read_shifted

    table = load_domains()
    try:
        return {
            "packaged": digest(read_packaged(table, data)),
            "shifted": digest(read_shifted(table, data)),
        }
    except RoutingError:
        return {}  # said already, by line


def _wrong(rule: str, where: str, message: str, fix: str) -> Finding:
    return Finding("wrong", rule, where, message, fix)
