"""The card of a trained adapter: README.md for people, card.json for programs."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from adapters.training.fit import CurvePoint
from kiki.errors import AdapterError

CARD_FILE = "card.json"
README_FILE = "README.md"
LICENCE = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class Source:
    """Where training text comes from, and the licence it is used under."""

    name: str
    title: str
    licence: str


SOURCES = (
    Source("kiki examples", "examples written for this project", "Apache-2.0"),
    Source(
        "python3.11-doc",
        "the Python 3.11 documentation, Debian package python3.11-doc",
        "PSF-2.0, its code examples also 0BSD",
    ),
    Source("sqlite3-doc", "the SQLite documentation, Debian package sqlite3-doc", "public domain"),
)


@dataclass(frozen=True, slots=True)
class Card:
    """What was trained, on what, how, and how well. Perplexities are those of held-out answers.

    ``layers`` counts from the last, -1 is all. ``data`` is where the text came from, "" for the
    domain's own corpus. ``max_logprob_difference`` is None where nothing was converted.
    """

    domain: str
    base: str
    licence: str
    sources: tuple[Source, ...]
    rows: int
    held_out_rows: int
    data_sha256: str
    rank: int
    alpha: int
    modules: tuple[str, ...]
    steps: int
    batch_rows: int
    learning_rate: float
    seed: int
    base_perplexity: float
    adapter_perplexity: float
    curve: tuple[CurvePoint, ...]
    max_logprob_difference: float | None
    seconds: float
    date: str
    backend: str = "peft"
    layers: int = -1
    data: str = ""


def find_sources(names: tuple[str, ...]) -> tuple[Source, ...]:
    """The licensed sources of a corpus. Raises AdapterError for one without a known licence."""
    known = {source.name: source for source in SOURCES}
    for name in names:
        if name not in known:
            raise AdapterError(
                f"The licence of the training text {name!r} isn't known.",
                fix=f"Name the source in {Path(__file__).name}, or use one of: {', '.join(known)}.",
            )
    return tuple(known[name] for name in names)


def write_card(card: Card, folder: Path) -> None:
    """Write ``card.json`` and ``README.md`` into ``folder``."""
    text = json.dumps(asdict(card), ensure_ascii=False, indent=2)
    (folder / CARD_FILE).write_text(text + "\n", "utf-8")
    (folder / README_FILE).write_text(_render(card), "utf-8")


def read_card(folder: Path) -> Card:
    """The card in ``folder``. Raises AdapterError when it is missing or incomplete."""
    path = folder / CARD_FILE
    try:
        values = json.loads(path.read_text("utf-8"))
        needed = {field.name for field in fields(Card) if field.default is MISSING}
        missing = needed - values.keys()
        if missing:
            raise AdapterError(f"{path} lacks {', '.join(sorted(missing))}.")
        values["sources"] = tuple(Source(**source) for source in values["sources"])
        values["curve"] = tuple(CurvePoint(**point) for point in values["curve"])
        values["modules"] = tuple(values["modules"])
        return Card(**values)
    except FileNotFoundError as error:
        raise AdapterError(f"{path} is missing.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AdapterError(f"{path} isn't a card: {error}.") from error


def _render(card: Card) -> str:
    sources = "\n".join(f"- {s.title} ({s.licence})" for s in card.sources)
    curve = ", ".join(f"{p.perplexity:.2f} after {p.step} steps" for p in card.curve)
    modules = ", ".join(f"`{module}`" for module in card.modules)
    again = f"kiki adapters train {card.domain} --steps {card.steps} --seed {card.seed}"
    if card.backend != "peft":
        again += f" --backend {card.backend} --base {card.base}"
    on_hub = "/" in card.base
    base = f"[{card.base}](https://huggingface.co/{card.base})" if on_hub else f"`{card.base}`"
    layers = "all layers" if card.layers < 0 else f"the last {card.layers} layers"
    data = card.data or f"split by topic, from `adapters/corpora/{card.domain}.jsonl`"
    return f"""# {card.domain}

A LoRA adapter for {base}, trained on {card.date}.
Licence: {card.licence}. To train it again (rounding differs between machines):
`{again}`.

| held-out answers | perplexity |
|---|---|
| base | {card.base_perplexity:.2f} |
| with this adapter | {card.adapter_perplexity:.2f} |

On the way: {curve}.

## Data

{card.rows} question-answer pairs for training and {card.held_out_rows} measured held-out ones,
{data} (SHA-256 `{card.data_sha256}`):

{sources}

## Training

Rank {card.rank}, alpha {card.alpha}, on {modules} of {layers}. {card.steps} steps of
{card.batch_rows} rows, learning rate {card.learning_rate:g}, seed {card.seed}, loss on the answer
tokens only, with {card.backend} in {card.seconds:.0f} s.
{_conversion(card)}
## Limits

The adapter moves the base's style and vocabulary to the domain; it does not make its facts
reliable, least of all on a small base.
"""


def _conversion(card: Card) -> str:
    if card.max_logprob_difference is None:
        return ""
    return f"""
Converted to GGUF, its log-probabilities differ from PEFT's by at most
{card.max_logprob_difference:.4f} nats.
"""
