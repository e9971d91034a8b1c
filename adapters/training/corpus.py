"""The text an adapter is trained on: question-answer rows, split by group."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from kiki.errors import AdapterError

CORPORA = Path(__file__).resolve().parent.parent / "corpora"
HELD_OUT_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One exchange. Rows of one ``group`` (a page, a topic) stay on one side of the split.

    ``context`` is what was said before the prompt. Only the answer is learnt.
    """

    prompt: str
    answer: str
    source: str
    group: str
    context: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """The rows of one domain, from the file or folder ``path``. ``sha256`` is its bytes'."""

    domain: str
    path: Path
    training: tuple[Row, ...]
    held_out: tuple[Row, ...]
    sha256: str

    @property
    def sources(self) -> tuple[str, ...]:
        """The distinct sources by name, without the page that may follow it."""
        rows = self.training + self.held_out
        return tuple(sorted({re.sub(r" \S+\.html$", "", row.source) for row in rows}))


def list_domains(folder: Path = CORPORA) -> list[str]:
    """The domains that have a corpus."""
    return sorted(path.stem for path in folder.glob("*.jsonl"))


def read_corpus(domain: str, *, folder: Path = CORPORA) -> Corpus:
    """Read ``folder/DOMAIN.jsonl``, the held-out part chosen by the hash of each row's group.

    Raises AdapterError when the file is missing, a row is wrong, or a side of the split is empty.
    """
    path = folder / f"{domain}.jsonl"
    if not path.is_file():
        known = ", ".join(list_domains(folder)) or "none"
        raise AdapterError(
            f"There is no corpus for {domain!r} in {folder}.", fix=f"Corpora: {known}."
        )
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AdapterError(f"{path} isn't UTF-8: {error}.") from error
    # Not splitlines: it also splits at signs that a JSON string may hold.
    rows = [
        _parse_row(line, path, number)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    held_out = tuple(row for row in rows if _is_held_out(row.group))
    training = tuple(row for row in rows if not _is_held_out(row.group))
    if not training or not held_out:
        raise AdapterError(
            f"{path} has {len(training)} training and {len(held_out)} held-out rows.",
            fix="Add rows of more groups: each group falls on one side of the split.",
        )
    return Corpus(domain, path, training, held_out, sha256(data).hexdigest())


def _is_held_out(group: str) -> bool:
    return int.from_bytes(sha256(group.encode()).digest()[:4]) / 2**32 < HELD_OUT_SHARE


def _parse_row(line: str, path: Path, number: int) -> Row:
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise AdapterError(f"{path} line {number} isn't JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise AdapterError(f"{path} line {number} isn't a JSON object.")
    for name in ("prompt", "answer", "source"):
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise AdapterError(f"{path} line {number} has no text under {name!r}.")
    group = str(fields.get("group") or fields["prompt"])
    return Row(fields["prompt"], fields["answer"], fields["source"], group)
