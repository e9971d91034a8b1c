from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routing import embedder as module
from routing import model_files
from routing.embedder import Embedder

PERSON, DOG, DAY = "That is a happy person", "That is a happy dog", "Today is a sunny day"

MEGABYTE = {
    "words": "word " * 200_000,
    "one word": "a" * 1_000_000,
    "white space": " \t\n" * 333_333,
    "emoji": "🙂" * 250_000,
    "combining marks": "a" + "\u0301" * 500_000,
    "binary": "\x00\xff\ud800\ufffe" * 250_000,
    "chinese": "漢字" * 160_000,
}


def test_vectors_have_unit_length_and_768_dimensions(embedder: Embedder) -> None:
    vectors = embedder.embed([PERSON, DOG])
    assert vectors.shape == (2, embedder.dimension) == (2, 768)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_similarities_are_those_of_the_published_model(embedder: Embedder) -> None:
    person, dog, day = embedder.embed([PERSON, DOG, DAY])
    assert person @ dog == pytest.approx(0.764, abs=0.01)
    assert person @ day == pytest.approx(0.315, abs=0.01)


def test_the_id_names_model_and_quantisation(embedder: Embedder) -> None:
    assert embedder.id == model_files.EMBEDDING_ID
    assert embedder.id.startswith("all-mpnet-base-v2:")


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 768)


def test_a_text_has_the_same_vector_alone_and_in_a_batch(models_dir: Path) -> None:
    texts = [
        "git rebase",
        *(f"{count} words: " + "word " * count for count in (1, 5, 20, 40, 90, 200)),
    ]
    folder = models_dir / model_files.NAME
    batched = Embedder(folder).embed(texts)
    fresh = Embedder(folder)
    alone = np.concatenate([fresh.embed([text]) for text in texts])
    assert (batched * alone).sum(axis=1).min() >= 0.999


def test_rows_come_in_the_order_of_the_texts(embedder: Embedder) -> None:
    texts = ["long " * 200, "short", "middle " * 20, "short", ""]
    rows = embedder.embed(texts)
    for text, row in zip(texts, rows, strict=True):
        assert row @ embedder.embed([text])[0] >= 0.999
    np.testing.assert_array_equal(rows[1], rows[3])


def test_a_repeated_text_comes_from_the_cache_and_cannot_be_spoiled(embedder: Embedder) -> None:
    first = embedder.embed(["a text to be kept"])
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(embedder.embed(["a text to be kept"]), kept)


def test_the_cache_is_bounded(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_TEXTS", 3)
    small = Embedder(models_dir / model_files.NAME)
    small.embed([f"text {number}" for number in range(5)])
    assert len(small._cache) == 3


def test_threads_get_their_own_texts_vectors(embedder: Embedder) -> None:
    texts = [f"thread {number} asks about topic {number % 7}" for number in range(24)]
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda text: embedder.embed([text])[0], texts))
    for row, expected in zip(rows, embedder.embed(texts), strict=True):
        np.testing.assert_array_equal(row, expected)


def test_special_tokens_that_a_caller_types_are_text(embedder: Embedder) -> None:
    ids = embedder._tokenizer.encode("<s> </s> <pad> <mask>").ids
    assert ids.count(0) == ids.count(2) == 1
    assert 1 not in ids
    assert 30526 not in ids


@pytest.mark.parametrize("kind", MEGABYTE)
def test_of_a_megabyte_the_first_384_tokens_count(embedder: Embedder, kind: str) -> None:
    text = MEGABYTE[kind]
    np.testing.assert_array_equal(embedder.embed([text]), embedder.embed([text[: len(text) // 2]]))
    cleaned = module._clean(text)
    assert len(cleaned) <= module.MAX_CHARACTERS
    assert len(embedder._tokenizer.encode(cleaned).ids) <= module.MAX_TOKENS


def test_leading_white_space_does_not_push_the_text_out(embedder: Embedder) -> None:
    padded, plain = embedder.embed([" \n" * 500_000 + PERSON, PERSON])
    np.testing.assert_array_equal(padded, plain)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(st.characters(), max_size=60), max_size=3))
def test_any_text_has_a_vector(embedder: Embedder, texts: list[str]) -> None:
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), 768)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@given(st.lists(st.integers(2, 384), max_size=80))
def test_batches_hold_each_row_once_and_stay_small(lengths: list[int]) -> None:
    batches = list(module._batches(lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * max(lengths[row] for row in batch) <= module.BATCH_TOKENS


def test_serving_imports_neither_torch_nor_onnx(models_dir: Path) -> None:
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from routing.embedder import Embedder\n"
        "early = 'onnxruntime' in sys.modules\n"
        "Embedder(Path(sys.argv[1])).embed(['hello'])\n"
        "heavy = {'torch', 'onnx', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "print(json.dumps([early, sorted(heavy)]))\n"
    )
    command = [sys.executable, "-c", program, str(models_dir / model_files.NAME)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [False, []]
