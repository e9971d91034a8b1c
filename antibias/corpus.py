"""The texts that the detector learns from and is measured on."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antibias.detector import TYPES
from antibias.passages import blank, fixed_spans, sentences
from kiki.errors import EvaluationError

OWN = Path(__file__).parent / "data"
"""Hand-written: pairs of everyday sentences, which the pairs from templates have none of, and
harmless texts that share their wording; `OUTSIDE` was written before the detector saw any."""
OUTSIDE = OWN / "outside.jsonl"
NEAR = 0.5
"""Word-and-pair Jaccard from which two biased texts are near-duplicates, mostly of one template;
groups are the connected components."""
NEUTRAL_TEXTS = 4000

FAIR, NEUTRAL = -1, -2
"""Targets of the fair wordings and of the harmless texts."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts, their targets (a place in `TYPES`, `FAIR` or `NEUTRAL`), and whether each was written
    for the package. ``pair`` is a number that the two wordings of a pair share."""

    texts: tuple[str, ...]
    targets: NDArray[np.int64]
    own: NDArray[np.bool_]
    pair: NDArray[np.int64]


def read_texts(pairs_file: Path, neutral_files: Sequence[Path], seed: int) -> Texts:
    """The pairs of the file and the package's own, and neutral texts.

    Raises EvaluationError, naming the line that can't be read.
    """
    given, own = read_pairs(pairs_file), read_pairs(OWN / "pairs.jsonl")
    pairs = [*given, *own]
    harmless = read_neutral([OWN / "neutral.jsonl"])
    others = _sample(read_neutral(neutral_files), seed)
    kinds = [kind for _, _, kind in pairs]
    numbers = np.arange(len(pairs))
    return Texts(
        (*(b for b, _, _ in pairs), *(f for _, f, _ in pairs), *harmless, *others),
        np.array(kinds + [FAIR] * len(pairs) + [NEUTRAL] * (len(harmless) + len(others)), np.int64),
        np.array(
            ([False] * len(given) + [True] * len(own)) * 2
            + [True] * len(harmless)
            + [False] * len(others)
        ),
        np.concatenate(
            [numbers, numbers, len(pairs) + np.arange(len(harmless) + len(others))]
        ).astype(np.int64),
    )


def read_pairs(path: Path) -> list[tuple[str, str, int]]:
    """Biased wording, fair wording and the type's place, of JSON lines that name them so."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            kind = TYPES.index(row["bias_type"])
            pairs.append((str(row["biased_prompt"]), str(row["fair_prompt"]), kind))
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                f"{path}, line {number} is no pair: {error!r}.",
                fix="Give JSON lines with biased_prompt, fair_prompt, and bias_type, which is one "
                f"of {', '.join(TYPES)}.",
            ) from error
    return pairs


def read_neutral(paths: Sequence[Path]) -> list[str]:
    """The prompts, and the answers' sentences, of JSON lines that have them."""
    texts: dict[str, None] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts |= dict.fromkeys(_strings(row.get("prompt")))
            for answer in _strings(row.get("answer")):
                prose = blank(answer, fixed_spans(answer))
                texts |= dict.fromkeys(span.of(prose) for span in sentences(prose))
    return list(texts)


def read_outside(path: Path = OUTSIDE) -> list[tuple[str, str | None]]:
    """Sentences and their type; None for those that carry no bias."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(row["text"], row["bias_type"]) for row in rows]


def near_groups(texts: Sequence[str]) -> NDArray[np.int64]:
    """The group of each text: near-duplicates, and theirs, share one."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    rows: list[int] = []
    columns: list[int] = []
    known: dict[str, int] = {}
    for row, text in enumerate(texts):
        words = re.findall(r"[a-z']+", text.lower())
        grams = {*words, *(" ".join(pair) for pair in itertools.pairwise(words))}
        for gram in sorted(grams):
            rows.append(row)
            columns.append(known.setdefault(gram, len(known)))
    shape = (len(texts), len(known))
    present = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
    shared = (present @ present.T).tocoo()
    sizes = np.asarray(present.sum(axis=1)).ravel()
    near = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data) >= NEAR
    edges = csr_matrix(
        (np.ones(int(near.sum())), (shared.row[near], shared.col[near])), (len(texts),) * 2
    )
    groups: NDArray[np.int64] = connected_components(edges, directed=False)[1]
    return groups


def _sample(texts: Sequence[str], seed: int) -> list[str]:
    chosen = np.random.default_rng(seed).permutation(len(texts))[:NEUTRAL_TEXTS]
    return [texts[place] for place in sorted(chosen)]


def _strings(value: object) -> list[str]:
    return [value] if isinstance(value, str) else []
