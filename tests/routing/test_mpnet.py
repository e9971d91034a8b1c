"""The graph built here against the same model in torch, and against its own 8-bit form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kiki.errors import AssetError
from routing import model_files, mpnet
from routing.embedder import MAX_TOKENS, Embedder
from routing.quantise import BLOCK, ZERO_POINT, quantise_blocks

SUBJECTS = (
    "a binary search tree in Rust",
    "the decoupling capacitors of an STM32 board",
    "un contrat de travail à durée déterminée",
    "SELECT name FROM users WHERE id = ? ORDER BY created_at DESC",
    'for f in *.log; do gzip -9 "$f"; done',
    "la cuisson du pain au levain 🍞",
    "ein Kubernetes-Cluster mit drei Knoten",
    "快速排序的时间复杂度",
    "the eigenvalues of a 3x3 symmetric matrix, λ₁ ≥ λ₂ ≥ λ₃",
    '{"name": "kiki", "tags": [1, 2, null]}',
)
FORMS = (
    "{}",
    "Explain {} to a beginner.",
    "What is wrong with {}?",
    "Écris un poème sur {}.",
    "{} {} {}",
    'def test():\n    """{}"""\n    return None\n',
    "Compare {} with what we said yesterday; be brief, give two sources and one counterexample.",
    "PLEASE FIX {} NOW!!!",
    "  - {}\n  - and the rest of the list\n\n> quoted\n",
    "{}, step by step. " + "Then check every assumption again. " * 6,
)
TEXTS = [form.replace("{}", subject) for form in FORMS for subject in SUBJECTS]
AGAINST_TORCH = list(range(0, len(TEXTS), 7))
"""Enough to meet every form and most subjects; torch is slow where the cores are shared."""


@pytest.fixture(scope="module")
def source(models_dir: Path) -> Path:
    """The float32 weights. Fetched where the cache doesn't keep them."""
    return model_files.pull_source(models_dir)


@pytest.fixture(scope="module")
def token_ids(embedder: Embedder) -> list[list[int]]:
    return [encoding.ids for encoding in embedder._tokenizer.encode_batch(TEXTS)]


@pytest.fixture(scope="module")
def float32_session(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import onnxruntime

    weights = mpnet.read_safetensors(source / model_files.WEIGHTS.file)
    path = tmp_path_factory.mktemp("float32") / "model.onnx"
    path.write_bytes(mpnet.build(weights, quantised=False).SerializeToString())
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    path.unlink()
    return session


@pytest.fixture(scope="module")
def float32_vectors(float32_session: Any, token_ids: list[list[int]]) -> NDArray[np.float32]:
    """What the float32 graph says of each text alone, in the order of `TEXTS`."""
    return np.concatenate([run(float32_session, [ids]) for ids in token_ids])


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Torch's threads wait for each other by spinning, which is slow on cores that are shared."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(session: Any, sequences: list[list[int]]) -> NDArray[np.float32]:
    """All sequences as one padded batch."""
    lengths = np.array([len(ids) for ids in sequences], np.int32)
    padded = np.ones((len(sequences), int(lengths.max())), np.int64)
    for row, ids in enumerate(sequences):
        padded[row, : len(ids)] = ids
    output: NDArray[np.float32] = session.run(None, {"input_ids": padded, "lengths": lengths})[0]
    return output


@pytest.mark.usefixtures("one_torch_thread")
def test_the_float32_graph_equals_torch(
    source: Path, token_ids: list[list[int]], float32_vectors: NDArray[np.float32]
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = transformers.MPNetModel(transformers.MPNetConfig(max_position_embeddings=514))
    weights = load_file(source / model_files.WEIGHTS.file)
    weights.pop("embeddings.position_ids")
    model.load_state_dict(weights, assign=True)
    model.eval()
    for row in AGAINST_TORCH:
        ids = torch.tensor([token_ids[row]])
        with torch.inference_mode():
            hidden = model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            expected = torch.nn.functional.normalize(hidden.mean(1))[0].numpy()
        assert np.abs(float32_vectors[row] - expected).max() < 1e-4, TEXTS[row]


def test_padding_changes_nothing_in_float32(
    float32_session: Any, token_ids: list[list[int]], float32_vectors: NDArray[np.float32]
) -> None:
    batch = run(float32_session, [token_ids[row] for row in AGAINST_TORCH])
    assert np.abs(batch - float32_vectors[AGAINST_TORCH]).max() < 1e-4


def test_the_8_bit_vectors_stay_by_the_float32_ones(
    embedder: Embedder, float32_vectors: NDArray[np.float32]
) -> None:
    cosines = (embedder.embed(TEXTS) * float32_vectors).sum(axis=1)
    assert len(TEXTS) == 100
    assert cosines.min() >= 0.998, TEXTS[int(cosines.argmin())]
    assert cosines.mean() >= 0.9993


def test_the_graph_holds_every_length_up_to_the_longest(embedder: Embedder) -> None:
    vectors = embedder.embed(["word " * (count - 2) for count in (3, 128, 129, 256, MAX_TOKENS)])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_distance_buckets_equal_the_reference() -> None:
    torch = pytest.importorskip("torch")
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    relative = torch.arange(-(mpnet.POSITIONS - 1), mpnet.POSITIONS)
    expected = MPNetEncoder.relative_position_bucket(relative).numpy()
    np.testing.assert_array_equal(mpnet.distance_buckets(), expected)


def test_quantised_blocks_give_each_weight_back_within_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(size=(7, 4 * BLOCK)).astype(np.float32)
    weight[3] = 0
    weight[4, 5] = 100
    codes, scales = quantise_blocks(weight)
    back = (codes.astype(np.float32) - ZERO_POINT) * scales[..., None]
    error = np.abs(back - weight.reshape(back.shape))
    assert (error <= scales[..., None] * 0.5001).all()
    assert not back[3].any()


def test_the_model_is_built_alike_every_time(source: Path, models_dir: Path) -> None:
    """So that the vectors of two installations are comparable."""
    weights = mpnet.read_safetensors(source / model_files.WEIGHTS.file)
    again = mpnet.build(weights, quantised=True).SerializeToString(deterministic=True)
    assert again == (models_dir / model_files.NAME / model_files.MODEL_FILE).read_bytes()


@pytest.mark.parametrize("name", [model_files.MODEL_FILE, model_files.TOKENIZER_FILE])
def test_a_changed_file_is_refused_by_name(models_dir: Path, tmp_path: Path, name: str) -> None:
    folder = copy_of(models_dir, tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(AssetError, match=rf"{name} is damaged.*kiki models pull"):
        Embedder(folder)
    assert not model_files.is_ready(tmp_path)


@pytest.mark.parametrize(
    "name", [model_files.MODEL_FILE, model_files.TOKENIZER_FILE, model_files.META_FILE]
)
def test_a_missing_file_is_refused(models_dir: Path, tmp_path: Path, name: str) -> None:
    folder = copy_of(models_dir, tmp_path)
    (folder / name).unlink()
    with pytest.raises(AssetError, match="kiki models pull"):
        Embedder(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"embedding_id": "x"}', '{"files": 3}', "\x00"])
def test_a_broken_meta_file_is_refused(models_dir: Path, tmp_path: Path, text: str) -> None:
    folder = copy_of(models_dir, tmp_path)
    (folder / model_files.META_FILE).unlink()
    (folder / model_files.META_FILE).write_text(text)
    with pytest.raises(AssetError, match="kiki models pull"):
        Embedder(folder)


def test_another_versions_model_is_refused(models_dir: Path, tmp_path: Path) -> None:
    folder = copy_of(models_dir, tmp_path)
    meta = model_files.Meta.read(folder)
    (folder / model_files.META_FILE).unlink()
    model_files.Meta("all-mpnet-base-v2:older", meta.files).write(folder)
    with pytest.raises(AssetError, match=r"all-mpnet-base-v2:older"):
        Embedder(folder)


def test_a_damaged_model_is_built_anew(source: Path, models_dir: Path, tmp_path: Path) -> None:
    folder = copy_of(models_dir, tmp_path)
    (folder / model_files.MODEL_FILE).unlink()
    kept = tmp_path / source.name
    kept.mkdir()
    for path in source.glob("[!.]*"):
        (kept / path.name).hardlink_to(path)

    assert model_files.pull(tmp_path) == folder
    assert model_files.is_ready(tmp_path)
    assert not kept.exists()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [model_files.MODEL_FILE, model_files.TOKENIZER_FILE, model_files.META_FILE]
    )


def copy_of(models_dir: Path, target: Path) -> Path:
    """The model's folder again; its files are linked, so unlink one before writing it."""
    folder = target / model_files.NAME
    folder.mkdir()
    for path in (models_dir / model_files.NAME).iterdir():
        (folder / path.name).symlink_to(path)
    return folder
