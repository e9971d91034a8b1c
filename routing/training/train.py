"""From labelled prompts to the router's weights and their card."""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.card import Card
from routing.domains import DomainTable, load_domains
from routing.head import (
    WEIGHTS_FILE,
    Head,
    Index,
    Layers,
    scope_features,
    several_features,
    sigmoid,
)
from routing.lexicon import Lexicon
from routing.neighbours import fingerprint
from routing.neighbours import write as write_neighbours
from routing.router import PACKAGED, Router
from routing.training import calibrate, rows
from routing.training.corpus import Corpus, read_corpus
from routing.training.evaluate import Report, evaluate
from routing.training.fit import Recipe, fit
from routing.training.rows import Row
from routing.training.vectors import Embeds, Progress, VectorCache
from routing.training.words import fit_lexicon

log = logging.getLogger("kiki.routing")

CENTRES = 24
"""Centres a domain at most; more of them take space and separate no better."""
ROWS_PER_CENTRE = 4
PACKAGED_SOURCE = "routing/data, Apache-2.0"
CLINC_SOURCE = "CLINC150, CC BY 3.0"

Array = NDArray[np.float32]
Rows = NDArray[np.int64]


def train(
    embedder: Embeds,
    *,
    output: Path = PACKAGED,
    data: Path = rows.DATA,
    extra: Sequence[Path] = (),
    clinc: Path | None = None,
    cache: Path | None = None,
    table: DomainTable | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    date: datetime.date | None = None,
    progress: Progress | None = None,
) -> Report:
    """Trains, calibrates, measures on the test part, and writes weights and card to `output`.

    The same data, seed and machine give the same weights. The shipped head is fitted on the train
    and calibration parts; the test part's rows are in nothing but the report.

    Args:
        embedder: whose vectors the router will be given.
        data: a folder like `routing/data`.
        extra: folders with further labelled prompts, by other people than those in `data`.
        clinc: CLINC150's `data_full.json`, for prompts that are out of scope.
        cache: keeps the vectors between runs.

    Raises:
        RoutingError: a row names no domain of the table.
    """
    recipe = recipe or Recipe()
    corpus = read_corpus(
        VectorCache(embedder, cache), data, extra, clinc, table or load_domains(), seed, progress
    )
    head, limits, pool = _learn(corpus, recipe, seed)
    output.mkdir(parents=True, exist_ok=True)
    head.save(output / WEIGHTS_FILE)
    card = Card(
        embedding_id=embedder.id,
        outputs=corpus.table.outputs,
        domains=tuple(domain.name for domain in corpus.table.domains),
        threshold=limits.threshold,
        scope_threshold=limits.scope_threshold,
        several_threshold=limits.several_threshold,
        weights_sha256=hashlib.sha256((output / WEIGHTS_FILE).read_bytes()).hexdigest(),
        date=(date or datetime.date.today()).isoformat(),
        seed=seed,
        data=_data(corpus, data, extra, clinc),
        calibration={"rows": pool, "recipe": asdict(recipe), **asdict(limits)},
        metrics={},
        held_out=_held_out(corpus),
    )
    write_index(output, corpus, embedder.id)
    test = corpus.parts.test
    measured = evaluate(
        [corpus.rows[row] for row in test], corpus.vectors[test], Router(card, head, corpus.table)
    )
    replace(card, metrics={"test": measured.summary()}).write(output)
    log.info("trained on %d rows, test top-1 %s", len(corpus.rows) - len(test), measured.top1)
    return measured


def write_index(output: Path, corpus: Corpus, embedding_id: str) -> None:
    """Writes the prompts that come with the project and were fitted on, for explanations."""
    fitted = np.zeros(len(corpus.rows), bool)
    fitted[np.concatenate([corpus.parts.train, corpus.parts.calibration])] = True
    chosen = np.flatnonzero(fitted & corpus.packaged)
    prompts = [corpus.rows[row].prompt for row in chosen.tolist()]
    write_neighbours(output, prompts, corpus.vectors[chosen], embedding_id=embedding_id)


def _held_out(corpus: Corpus) -> tuple[str, ...]:
    """The fingerprints of the test part's prompts that come with the project."""
    test = (corpus.rows[row] for row in corpus.parts.test)
    return tuple(sorted(fingerprint(row.prompt) for row in test if row.source == "packaged"))


def _learn(
    corpus: Corpus, recipe: Recipe, seed: int
) -> tuple[Head, calibrate.Limits, dict[str, int]]:
    """The head for serving, its limits, and how many rows each was calibrated on.

    Calibration takes the scores of rows that a head wasn't fitted on: those of the calibration
    part and, where there are prompts from elsewhere, those that a head sees which knows `data`
    alone, for calibration on one's own prompts doesn't carry over to other people's.
    """
    parts, packaged = corpus.parts, corpus.packaged
    held = [(parts.train, parts.calibration)]
    elsewhere = _elsewhere(corpus)
    if elsewhere.size:
        own = parts.train[~np.isin(parts.train, elsewhere)]
        held.append((own[_out_of_scope(corpus, own) | packaged[own]], elsewhere))
    logits, near, targets, weights, words = [], [], [], [], []
    for fitted, unseen in held:
        layers, lexicon = _fit(corpus, fitted, recipe, seed)
        index = build_index(corpus, fitted, seed)
        prompts = [corpus.rows[row].prompt for row in unseen.tolist()]
        known = np.stack([lexicon.logits(prompt) for prompt in prompts])[:, : len(layers.out_bias)]
        logits.append(layers.logits(corpus.vectors[unseen]) + known)
        near.append(index.similarities(corpus.vectors[unseen]))
        targets.append(corpus.targets[unseen])
        words.append(np.array([len(prompt.split()) for prompt in prompts], np.float32))
        # Prompts from elsewhere have no label for some outputs, so they are no evidence there.
        present = corpus.targets[unseen].any(axis=0)
        weights.append(np.tile(present / len(unseen), (len(unseen), 1)))
    total = sum(len(part) for part in targets)
    weight = (np.concatenate(weights) * total / len(held)).astype(np.float32)
    target = np.concatenate(targets)
    calibrate.require_all_kinds(target)
    calibration = calibrate.platt(np.concatenate(logits), target, weight)
    odds = [calibration.log_odds(part) for part in logits]
    scopes = np.concatenate(
        [scope_features(part, close) for part, close in zip(odds, near, strict=True)]
    )
    counts = several_features(np.concatenate(odds), np.concatenate(words))
    labels = target.sum(axis=1)
    scope = calibrate.scope(scopes, labels > 0)
    several = calibrate.several(counts[labels > 0], labels[labels > 0] > 1)
    limits = calibrate.limits(
        sigmoid(np.concatenate(odds)), scope.in_domain(scopes), several.probability(counts), target
    )
    final = np.concatenate([parts.train, parts.calibration])
    layers, lexicon = _fit(corpus, final, recipe, seed)
    head = Head(layers, lexicon, calibration, build_index(corpus, final, seed), scope, several)
    return head, limits, {"held_out": len(targets[0]), "elsewhere": total - len(targets[0])}


def _fit(corpus: Corpus, chosen: Rows, recipe: Recipe, seed: int) -> tuple[Layers, Lexicon]:
    """Both parts of the logits, fitted on these rows."""
    targets = corpus.targets[chosen]
    prompts = [corpus.rows[row].prompt for row in chosen.tolist()]
    layers = fit(corpus.vectors[chosen], targets, seed=seed, recipe=recipe)
    members = member_matrix([corpus.rows[row] for row in chosen.tolist()], corpus.table)
    return layers, fit_lexicon(prompts, np.concatenate([targets, members], axis=1), seed=seed)


def member_matrix(rows: Sequence[Row], table: DomainTable) -> Array:
    """(rows, members of merged outputs): 1 where the row names the member, 0 where it names only
    others of that output, else NaN."""
    matrix = np.full((len(rows), len(table.merged)), np.nan, np.float32)
    for number, row in enumerate(rows):
        for place, name in enumerate(table.merged):
            if set(row.domains) & set(table.members(table.output_of(name))):
                matrix[number, place] = name in row.domains
    return matrix


def _out_of_scope(corpus: Corpus, chosen: Rows) -> NDArray[np.bool_]:
    """Which of the rows are out of scope: every head needs them."""
    return np.asarray(corpus.targets[chosen].sum(axis=1) == 0)


def _elsewhere(corpus: Corpus) -> Rows:
    """Labelled rows from outside `data`, no near-duplicate of any in it, outside the test part."""
    packaged = corpus.packaged
    own_groups = np.unique(corpus.groups[packaged])
    labelled = corpus.targets.sum(axis=1) > 0
    chosen = np.asarray(labelled & ~packaged & ~np.isin(corpus.groups, own_groups))
    chosen[corpus.parts.test] = False
    return np.flatnonzero(chosen)


def build_index(corpus: Corpus, chosen: Rows, seed: int) -> Index:
    """K-means centres of each domain's prompts; rows that name only a merged output count for
    none of its members."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    centres: list[Array] = []
    domains: list[int] = []
    for place, domain in enumerate(corpus.table.domains):
        own = [int(row) for row in chosen if domain.name in corpus.rows[row].domains]
        if not own:
            continue
        count = min(CENTRES, max(1, len(own) // ROWS_PER_CENTRE))
        with threadpool_limits(1):
            means = KMeans(count, n_init=1, random_state=seed).fit(corpus.vectors[own])
        unit = means.cluster_centers_
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        centres.append(unit.astype(np.float32))
        domains += [place] * count
    return Index(np.concatenate(centres), np.array(domains, np.int64))


def _data(corpus: Corpus, data: Path, extra: Sequence[Path], clinc: Path | None) -> dict[str, Any]:
    given = [f"{folder.name}, a folder given with --extra" for folder in extra]
    return {
        "sources": [PACKAGED_SOURCE, *given, *([CLINC_SOURCE] if clinc else [])],
        "rows": len(corpus.rows),
        "rows_by_source": dict(sorted(Counter(row.source for row in corpus.rows).items())),
        "groups": len(np.unique(corpus.groups)),
        "parts": {
            "train": len(corpus.parts.train),
            "calibration": len(corpus.parts.calibration),
            "test": len(corpus.parts.test),
        },
        "sha256": rows.digest(corpus.rows),
        "packaged": rows.digest(rows.read_packaged(corpus.table, data)),
        "shifted": rows.digest(rows.read_shifted(corpus.table, data)),
    }
