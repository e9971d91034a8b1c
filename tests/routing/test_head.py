from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from routing.head import NEIGHBOURS, scope_features, sigmoid

ODDS = arrays(np.float32, (7, 31), elements=st.floats(-50, 50, width=32))
COSINES = arrays(np.float32, (7, 40), elements=st.floats(-1, 1, width=32))


@given(log_odds=ODDS, similarities=COSINES)
def test_scope_reads_the_highest_score_and_the_nearest_centres(
    log_odds: NDArray[np.float32], similarities: NDArray[np.float32]
) -> None:
    best = np.clip(1 / (1 + np.exp(-log_odds.max(axis=1).astype(np.float64))), 1e-6, 1 - 1e-6)
    nearest = np.sort(similarities.astype(np.float64), axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    features = scope_features(log_odds, similarities)
    assert features[:, 0] == pytest.approx(np.log(best / (1 - best)), abs=0.02)
    assert features[:, 1] == pytest.approx(nearest, abs=1e-6)
    for row in range(len(log_odds)):
        assert scope_features(log_odds[row], similarities[row]).tolist() == pytest.approx(
            features[row].tolist(), abs=1e-6
        )


@given(logits=ODDS)
def test_the_sigmoid_never_overflows(logits: NDArray[np.float32]) -> None:
    exact = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -30, 30)))
    assert sigmoid(logits) == pytest.approx(exact, abs=1e-6)
    assert sigmoid(logits).dtype == np.float32
