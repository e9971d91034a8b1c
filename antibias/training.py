"""Trains the detector on pairs of a biased and a fair wording, and on neutral texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antibias.corpus import FAIR, NEUTRAL, Texts, near_groups, read_texts
from antibias.detector import CARD_FILE, SHORT, TYPES, WEIGHTS_FILE, features
from antibias.measure import metrics
from antibias.prompt import Embed
from antibias.screen import screened
from antibias.words import BUCKETS, classes_of, tokenize

FOLDS = 5
COST = 10.0
SCREEN_COST = 1.0
OWN_WEIGHT, OTHER_WEIGHT = 5.0, 0.3
"""The package's own sentences are few and of every kind; the others are many and alike. To the
screen, which is to let few harmless sentences through, the neutral ones count 1."""
LEARNT = 2500
"""Of the pairs' texts that are not the package's own."""
SCREENED_OUT = 0.07
"""Share of the package's own biased sentences that the screen may lose, out of fold."""
MAX_FALSE_ALARMS = 0.002
"""Of the neutral texts that aren't the package's own, for each type, out of fold."""
MAX_CLOSE_ALARMS = 0.01
"""Of the package's own fair and harmless ones, which share the biased ones' wording."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """``weight`` (BUCKETS + dimension, 6), ``bias`` (6,), ``screen`` (BUCKETS,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    screen: NDArray[np.float32]
    screen_bias: float


@dataclass(frozen=True, slots=True)
class Examples:
    """The texts as the models see them; rows in the order of ``texts``."""

    texts: Texts
    words: Any
    """Sparse (texts, BUCKETS): hashed words, as `Detector` weighs them."""
    vectors: NDArray[np.float32]
    presence: Any
    """Sparse (texts, BUCKETS): ones, as `Screen` counts."""


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What models that saw neither a text nor its group say of it: (texts, 6), and (texts,)."""

    logits: NDArray[np.float32]
    screen: NDArray[np.float32]


def train(
    pairs_file: Path,
    out: Path,
    embed: Embed,
    embedding_id: str,
    neutral_files: Sequence[Path] = (),
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Trains, writes the weights and their card to ``out``, and returns the card.

    Every figure on the card is out of fold. The screen's and the types' working points come from
    the folds that keep near-duplicates together, and are then moved to 0 and to a confidence of
    one half.
    """
    from safetensors.numpy import save_file

    examples = prepare(read_texts(pairs_file, neutral_files, seed), embed)
    grouped = out_of_fold(examples, _groups(examples.texts), seed)
    single = out_of_fold(examples, examples.texts.pair, seed)
    floor, limits = working_points(examples.texts, grouped)
    fitted = fit(examples, np.arange(len(examples.texts.texts)), seed)
    targets = examples.texts.targets
    card: dict[str, Any] = {
        "name": "bias detector",
        "types": list(TYPES),
        "embedding": embedding_id,
        "features": f"words, word pairs, word classes (crc32 into {BUCKETS} buckets); embedding",
        "data": "hypneum-lab/micro-kiki bias pairs, Apache-2.0; sentences of this package",
        "licence": "Apache-2.0",
        "texts": len(targets),
        "metrics": {
            "near_duplicates_held_out": metrics(_found(grouped, floor, limits), targets),
            "pairs_held_out": metrics(_found(single, floor, limits), targets),
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {
        "words": fitted.weight[:BUCKETS].astype(np.float16),
        "meaning": fitted.weight[BUCKETS:],
        "bias": (fitted.bias - limits).astype(np.float32),
        "screen": fitted.screen.astype(np.float16),
        "screen_bias": np.array([fitted.screen_bias - floor], np.float32),
    }
    save_file(tensors, out / WEIGHTS_FILE)
    (out / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def cross_validate(
    pairs_file: Path, embed: Embed, neutral_files: Sequence[Path] = (), *, seed: int = 0
) -> dict[str, Any]:
    """The card's metrics, computed anew with intervals: by pair, with near-duplicates together,
    and by pair for the package's own sentences alone."""
    examples = prepare(read_texts(pairs_file, neutral_files, seed), embed)
    texts = examples.texts
    grouped = out_of_fold(examples, _groups(texts), seed)
    single = out_of_fold(examples, texts.pair, seed)
    floor, limits = working_points(texts, grouped)
    found = _found(single, floor, limits)
    return {
        "pairs_held_out": metrics(found, texts.targets, intervals=True),
        "near_duplicates_held_out": metrics(
            _found(grouped, floor, limits), texts.targets, intervals=True
        ),
        "own_pairs_held_out": metrics(found[texts.own], texts.targets[texts.own], intervals=True),
    }


def prepare(texts: Texts, embed: Embed) -> Examples:
    """Counts the words of the texts and embeds them."""
    rows, shares, seen = [], [], []
    for text in texts.texts:
        tokens = tokenize(text)
        classes = classes_of(tokens)
        grams = features(tokens, classes)
        rows.append(grams)
        shares.append(max(len(grams), SHORT) ** -0.5)
        seen.append(sorted(screened(tokens)))
    words = _sparse(rows, shares)
    return Examples(texts, words, embed(texts.texts), _sparse(seen, [1.0] * len(seen)))


def fit(examples: Examples, rows: NDArray[np.int64], seed: int) -> Fitted:
    """One logistic regression a type and one for the screen, on some of ``rows``."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    learnt = _thinned(examples.texts, rows, seed)
    targets = examples.texts.targets[learnt]
    words, presence = examples.words[learnt], examples.presence[learnt]
    used, shown = np.unique(words.indices), np.unique(presence.indices)
    both = hstack([words[:, used], csr_matrix(examples.vectors[learnt])]).tocsr()
    dimension = examples.vectors.shape[1]
    columns = np.concatenate([used, BUCKETS + np.arange(dimension)])
    weight = np.zeros((BUCKETS + dimension, len(TYPES)), np.float32)
    bias = np.empty(len(TYPES), np.float32)
    screen = np.zeros(BUCKETS, np.float32)

    own = examples.texts.own[learnt]
    importance = np.where(own, OWN_WEIGHT, OTHER_WEIGHT)
    passing = np.where((targets == NEUTRAL) & ~own, 1.0, importance)

    # The solver's steps are too small to share: threads that wait for each other cost more.
    with threadpool_limits(1):
        for kind in range(len(TYPES)):
            model = LogisticRegression(C=COST, solver="liblinear")
            model.fit(both, targets == kind, sample_weight=importance)
            weight[columns, kind] = model.coef_[0]
            bias[kind] = model.intercept_[0]
        model = LogisticRegression(C=SCREEN_COST, solver="liblinear")
        model.fit(presence[:, shown], targets >= 0, sample_weight=passing)
    screen[shown] = model.coef_[0]
    return Fitted(weight, bias, screen, float(model.intercept_[0]))


def out_of_fold(examples: Examples, groups: NDArray[np.int64], seed: int) -> OutOfFold:
    from sklearn.model_selection import StratifiedGroupKFold

    targets = examples.texts.targets
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    logits = np.empty((len(targets), len(TYPES)), np.float32)
    screen = np.empty(len(targets), np.float32)
    for learn, test in splitter.split(targets, targets, groups):
        fitted = fit(examples, learn, seed)
        logits[test] = (
            examples.words[test] @ fitted.weight[:BUCKETS]
            + examples.vectors[test] @ fitted.weight[BUCKETS:]
            + fitted.bias
        )
        screen[test] = examples.presence[test] @ fitted.screen + fitted.screen_bias
    return OutOfFold(logits, screen)


def working_points(texts: Texts, seen: OutOfFold) -> tuple[float, NDArray[np.float32]]:
    """The screen's floor, and for each type the logit with the best F1 on the package's own
    sentences among those that keep false alarms down."""
    own = texts.own & (texts.targets >= 0)
    floor = float(np.quantile(seen.screen[own], SCREENED_OUT))
    passed = seen.screen >= floor
    other = (texts.targets == NEUTRAL) & ~texts.own
    close = (texts.targets < 0) & texts.own
    limits = []
    for kind in range(len(TYPES)):
        positive = texts.targets == kind
        best, best_f1 = 3.0, -1.0
        for limit in np.arange(-5.0, 3.0, 0.1):
            found = passed & (seen.logits[:, kind] >= limit)
            alarms, near = int(found[other].sum()), int(found[close].sum())
            if alarms > MAX_FALSE_ALARMS * other.sum() or near > MAX_CLOSE_ALARMS * close.sum():
                continue
            f1 = _f1(found[texts.own], positive[texts.own])
            if f1 > best_f1:
                best, best_f1 = float(limit), float(f1)
        limits.append(best)
    return floor, np.array(limits, np.float32)


def _found(seen: OutOfFold, floor: float, limits: NDArray[np.float32]) -> NDArray[np.bool_]:
    """As at serving: only what the screen lets through, and of the likeliest type: (texts, 6)."""
    over = seen.logits - limits
    found = (over >= 0) & (over == over.max(axis=1, keepdims=True))
    found &= (seen.screen >= floor)[:, None]
    return np.asarray(found, np.bool_)


def _groups(texts: Texts) -> NDArray[np.int64]:
    """The near-duplicates' groups; a fair text is in its partner's, a neutral one alone."""
    biased = np.flatnonzero(texts.targets >= 0)
    groups = near_groups([texts.texts[place] for place in biased])
    of_pair = dict(zip(texts.pair[biased].tolist(), groups.tolist(), strict=True))
    past = int(groups.max()) + 1
    return np.array([of_pair.get(int(pair), past + int(pair)) for pair in texts.pair], np.int64)


def _thinned(texts: Texts, rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """All own and all neutral texts of the rows, and `LEARNT` of the others."""
    mixed = np.random.default_rng(seed).permutation(rows)
    targets, own = texts.targets[mixed], texts.own[mixed]
    paired = mixed[~own & (targets >= FAIR)][:LEARNT]
    return np.sort(np.concatenate([mixed[own | (targets == NEUTRAL)], paired]))


def _sparse(rows: Sequence[Sequence[int]], values: Sequence[float]) -> Any:
    from scipy.sparse import csr_matrix

    ends = np.cumsum([0, *map(len, rows)])
    indices = np.concatenate([np.array(row, np.int64) for row in rows])
    data = np.repeat(np.array(values, np.float32), np.diff(ends))
    matrix = csr_matrix((data, indices, ends), (len(rows), BUCKETS))
    matrix.sum_duplicates()
    return matrix


def _f1(found: NDArray[np.bool_], positive: NDArray[np.bool_]) -> float:
    return 2 * int((found & positive).sum()) / int(found.sum() + positive.sum())
