"""Trains the detector on pairs of a biased and a fair wording, and on neutral texts."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antibias.detector import BUCKETS, CARD_FILE, SHORT, TYPES, WEIGHTS_FILE, features
from antibias.passages import blank, fixed_spans, sentences
from antibias.screen import suspects
from antibias.words import classes_of, tokenize

OWN = Path(__file__).parent / "data"
"""Hand-written: answers of each type, which the pairs (questions, from templates) have none of,
and harmless texts that share their wording."""
FOLDS = 5
NEAR = 0.5
"""Word-and-pair Jaccard from which two biased texts are near-duplicates, here always of one
template; groups are the connected components."""
MAX_FALSE_ALARMS = 0.001
"""Of the neutral texts, for each type, out of fold."""
NEUTRAL_TEXTS = 8000
COST = 10.0


@dataclass(frozen=True, slots=True)
class Pairs:
    """Biased and fair wordings side by side, and the place of each pair's type in `TYPES`."""

    biased: tuple[str, ...]
    fair: tuple[str, ...]
    kinds: NDArray[np.int64]


def read_pairs(*paths: Path) -> Pairs:
    """Reads JSON lines of biased_prompt, fair_prompt, bias_type."""
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in lines]
    return Pairs(
        tuple(row["biased_prompt"] for row in rows),
        tuple(row["fair_prompt"] for row in rows),
        np.array([TYPES.index(row["bias_type"]) for row in rows], np.int64),
    )


def read_neutral(paths: Sequence[Path], seed: int) -> list[str]:
    """The prompts, and the answers' sentences, of JSON lines that have them."""
    texts: dict[str, None] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts |= dict.fromkeys(_strings(row.get("prompt")))
            for answer in _strings(row.get("answer")):
                prose = blank(answer, fixed_spans(answer))
                texts |= dict.fromkeys(span.of(prose) for span in sentences(prose))
    kept = list(texts)
    chosen = np.random.default_rng(seed).permutation(len(texts))[:NEUTRAL_TEXTS]
    return [kept[place] for place in sorted(chosen)]


def train(
    pairs_file: Path, out: Path, neutral_files: Sequence[Path] = (), *, seed: int = 0
) -> dict[str, Any]:
    """Trains, writes the weights and their card to ``out``, and returns the card.

    ``pairs_file`` and ``neutral_files`` are JSON lines, as `read_pairs` and `read_neutral` say;
    the package's own few are added.

    Every figure on the card is out of fold. Thresholds come from the folds that keep
    near-duplicates together: the best F1 at no more than `MAX_FALSE_ALARMS`; they are then moved
    to a confidence of one half.
    """
    from safetensors.numpy import save_file

    pairs = read_pairs(pairs_file, OWN / "pairs.jsonl")
    neutral = read_neutral([OWN / "neutral.jsonl", *neutral_files], seed)
    grouped = _out_of_fold(pairs, neutral, near_groups(pairs.biased), seed)
    single = _out_of_fold(pairs, neutral, np.arange(len(pairs.biased)), seed)
    targets = _targets(pairs, neutral)
    limits = [
        _threshold(grouped[:, kind], np.equal(targets, kind), np.equal(targets, -2))
        for kind in range(6)
    ]
    weight, bias = _fit(_matrix(_texts(pairs, neutral)), targets)
    bias = bias - np.array(limits, np.float32)

    card: dict[str, Any] = {
        "name": "bias detector",
        "types": list(TYPES),
        "features": f"words, word pairs, word classes; crc32 into {BUCKETS} buckets",
        "data": "hypneum-lab/micro-kiki bias pairs, Apache-2.0",
        "licence": "Apache-2.0",
        "pairs": len(pairs.biased),
        "neutral_texts": len(neutral),
        "metrics": {
            "near_duplicates_held_out": _metrics(grouped, targets, limits),
            "pairs_held_out": _metrics(single, targets, limits),
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file({"weight": weight.astype(np.float16), "bias": bias}, out / WEIGHTS_FILE)
    (out / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


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


def _strings(value: object) -> list[str]:
    return [value] if isinstance(value, str) else []


def _texts(pairs: Pairs, neutral: Sequence[str]) -> list[str]:
    return [*pairs.biased, *pairs.fair, *neutral]


def _targets(pairs: Pairs, neutral: Sequence[str]) -> NDArray[np.int64]:
    """A type's place for the biased texts, -1 for the fair ones, -2 for the neutral ones."""
    fair = np.full(len(pairs.fair), -1)
    return np.concatenate([pairs.kinds, fair, np.full(len(neutral), -2)])


def _matrix(texts: Sequence[str]) -> Any:
    """Sparse, shape (len(texts), BUCKETS): counts over the root of their number."""
    from scipy.sparse import csr_matrix

    tokens = [tokenize(text) for text in texts]
    buckets = [features(row, classes_of(row)) for row in tokens]
    indptr = np.cumsum([0, *map(len, buckets)])
    indices = np.concatenate([np.array(row, np.int64) for row in buckets])
    values = np.concatenate([np.full(len(row), max(len(row), SHORT) ** -0.5) for row in buckets])
    matrix = csr_matrix((values, indices, indptr), (len(texts), BUCKETS))
    matrix.sum_duplicates()
    return matrix


def _gate(texts: Sequence[str]) -> NDArray[np.float32]:
    """0 where the screen suspects the text of the type, minus infinity elsewhere: (texts, 6)."""
    gate = np.full((len(texts), len(TYPES)), -np.inf, np.float32)
    for row, text in enumerate(texts):
        for kind in suspects(classes_of(tokenize(text))):
            gate[row, TYPES.index(kind)] = 0.0
    return gate


def _fit(
    matrix: Any, targets: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One logistic regression a type, over the buckets that occur; the others weigh nothing."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    used = np.unique(matrix.indices)
    seen = matrix[:, used]
    weight = np.zeros((BUCKETS, len(TYPES)), np.float32)
    bias = np.empty(len(TYPES), np.float32)
    # The solver's steps are too small to share: threads that wait for each other cost more.
    with threadpool_limits(1):
        for kind in range(len(TYPES)):
            model = LogisticRegression(C=COST, solver="liblinear").fit(seen, targets == kind)
            weight[used, kind] = model.coef_[0]
            bias[kind] = model.intercept_[0]
    return weight, bias


def _out_of_fold(
    pairs: Pairs, neutral: Sequence[str], groups: NDArray[np.int64], seed: int
) -> NDArray[np.float32]:
    """Each text's logits by the model that saw neither it nor its group: shape (texts, 6).

    A fair text is in its biased partner's group. The screen applies, as it does at serving.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    matrix = _matrix(_texts(pairs, neutral))
    targets = _targets(pairs, neutral)
    alone = groups.max() + 1 + np.arange(len(neutral))
    every = np.concatenate([groups, groups, alone])
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    logits = np.empty((matrix.shape[0], len(TYPES)), np.float32)
    for learn, test in splitter.split(matrix, targets, every):
        weight, bias = _fit(matrix[learn], targets[learn])
        logits[test] = matrix[test] @ weight + bias
    return logits + _gate(_texts(pairs, neutral))


def _threshold(
    logits: NDArray[np.float32], positive: NDArray[np.bool_], neutral: NDArray[np.bool_]
) -> float:
    """The logit with the best F1 among those that keep the false alarms down."""
    best, best_f1 = 0.0, -1.0
    for limit in np.arange(-6.0, 3.0, 0.1):
        found: NDArray[np.bool_] = np.greater_equal(logits, limit)
        if found[neutral].mean() > MAX_FALSE_ALARMS:
            continue
        f1 = 2 * (found & positive).sum() / (found.sum() + positive.sum())
        if f1 > best_f1:
            best, best_f1 = float(limit), float(f1)
    return best


def _metrics(
    logits: NDArray[np.float32], targets: NDArray[np.int64], limits: Sequence[float]
) -> dict[str, Any]:
    found: NDArray[np.bool_] = np.greater_equal(logits, np.array(limits))
    types: dict[str, Any] = {}
    for kind, name in enumerate(TYPES):
        positive = np.equal(targets, kind)
        right = int((found[:, kind] & positive).sum())
        precision = right / max(int(found[:, kind].sum()), 1)
        recall = right / int(positive.sum())
        f1 = 2 * right / int(found[:, kind].sum() + positive.sum())
        types[name] = {
            "precision": round(precision, 3),
            "recall": round(recall, 3),
            "f1": round(f1, 3),
        }
    flagged: NDArray[np.bool_] = np.asarray(found.any(axis=1))
    return {
        "types": types,
        "macro_f1": round(float(np.mean([entry["f1"] for entry in types.values()])), 3),
        "any_bias_recall": round(float(flagged[np.greater_equal(targets, 0)].mean()), 3),
        "fair_false_alarms": round(float(flagged[np.equal(targets, -1)].mean()), 4),
        "neutral_false_alarms": round(float(flagged[np.equal(targets, -2)].mean()), 4),
    }
