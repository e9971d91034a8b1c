"""Any GGUF as it comes: what people do to models, done to the small one here, and served."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter

from adapters.engines.base import GenerateRequest, Message, Sampling, complete
from adapters.engines.llamacpp import EXACT, LlamaCppEngine, Precision
from adapters.engines.llamacpp.precision import DEFAULT
from adapters.mix import BASE, Mix
from kiki.errors import SettingsError
from tests.adapters.engines.llamacpp.models import rebuilt
from tests.contract.shipped import shipped

PROMPT = "How do I count the lines of a file?"


@asynccontextmanager
async def serving(
    model: Path, cache: Path, precision: Precision = DEFAULT
) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(
        model, cache_dir=cache, slots=1, context_tokens=256, precision=precision
    )
    yield engine
    await engine.stop()


async def first(engine: LlamaCppEngine, mix: Mix) -> dict[str, float]:
    sampling = Sampling(max_tokens=1, temperature=0.0, top_logprobs=20)
    request = GenerateRequest((Message("user", PROMPT),), mix, sampling)
    return dict((await complete(engine, [request]))[0].logprobs[0].top)


def distance(a: dict[str, float], b: dict[str, float]) -> float:
    return max(abs(a[token] - b[token]) for token in a.keys() & b.keys())


def mixed(name: str) -> Type:
    """Fragile tensors in full, the attention in 8 bits, most of the rest in 4."""
    if name == "token_embd.weight":
        return Type.Q8_0
    if ".ffn_down." in name:
        return Type.F32 if name.startswith(("blk.0.", "blk.29.")) else Type.F16
    return Type.Q8_0 if ".attn_" in name else Type.Q4_1


async def test_a_mixed_precision_build_is_served_with_and_without_adapters(base_gguf, tmp_path):
    model = rebuilt(base_gguf, tmp_path / "SmolLM2-Cerebellum.gguf", types=mixed)
    answers = []
    for served in (base_gguf, model):
        async with serving(served, tmp_path / "cache") as engine:
            assert await engine.set_adapters(shipped("shell")) == ()
            await engine.start()
            answers.append([await first(engine, mix) for mix in (BASE, Mix.single("shell"))])
    for same, other in zip(*answers, strict=True):
        assert distance(same, other) < 0.5  # the same model, rounded once more
    assert distance(*answers[1]) > 1  # and the adapter does what it does


async def test_a_model_with_layers_taken_out_is_served_without_adapters_for_the_whole(
    base_gguf, tmp_path
):
    layers = [*range(10), *range(16, 30)]
    model = rebuilt(base_gguf, tmp_path / "SmolLM2-24-layers.gguf", layers=layers)
    async with serving(model, tmp_path / "cache") as engine:
        (refusal,) = await engine.set_adapters(shipped("shell"))
        assert refusal.name == "shell"
        assert "blk.24" in refusal.reason
        assert "which the base doesn't have" in refusal.reason
        assert "another base model" in refusal.reason
        await engine.start()
        assert engine.adapters == ()
        assert len(await first(engine, BASE)) == 20


async def test_a_model_with_layers_doubled_and_swapped_is_served(base_gguf, tmp_path):
    layers = [*range(12), 12, 13, 12, 13, *range(14, 20), 21, 20, *range(22, 30)]
    model = rebuilt(base_gguf, tmp_path / "SmolLM2-32-layers.gguf", layers=layers)
    async with serving(model, tmp_path / "cache") as engine:
        await engine.start()
        assert len(await first(engine, BASE)) == 20


async def test_a_tiny_model_of_another_architecture_is_served_and_llama_adapters_refused(
    base_gguf, tmp_path
):
    """Qwen3's, random, with the small model's tokenizer."""
    model = tiny_qwen3(base_gguf, tmp_path / "memory.gguf")
    async with serving(model, tmp_path / "cache") as engine:
        (refusal,) = await engine.set_adapters(shipped("shell"))
        assert "the base" in refusal.reason
        await engine.start()
        assert len(await first(engine, BASE)) == 20


async def test_the_same_model_in_other_precisions_says_nearly_the_same(base_gguf, models_dir):
    chosen = [Precision(), Precision("q8_0"), Precision(flash_attention=True), EXACT]
    found = []
    for precision in chosen:
        async with serving(base_gguf, models_dir / "adapters", precision) as engine:
            assert await engine.set_adapters(shipped("shell")) == ()
            await engine.start()
            found.append(await first(engine, Mix.of({"shell": 0.5})))
    assert found[0] != found[1]
    for other in found[1:]:
        for token in found[0].keys() & other.keys():
            assert math.exp(other[token]) == pytest.approx(math.exp(found[0][token]), abs=0.05)


def test_a_quantised_cache_without_flash_attention_is_refused_with_the_fix():
    with pytest.raises(SettingsError, match="flash attention"):
        Precision("q8_0", flash_attention=False)


def tiny_qwen3(base_gguf: Path, out: Path) -> Path:
    from gguf import GGUFReader, GGUFValueType

    width, heads, head, inner, layers = 64, 4, 16, 128, 2
    reader = GGUFReader(base_gguf)
    writer = GGUFWriter(out, "qwen3")
    for key, field in reader.fields.items():
        if key.startswith("tokenizer."):
            items = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], items)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    words = int(next(t for t in reader.tensors if t.name == "token_embd.weight").shape[1])
    shapes = {"token_embd.weight": (words, width), "output_norm.weight": (width,)}
    for layer in range(layers):
        block = {
            **dict.fromkeys(("attn_norm", "ffn_norm"), (width,)),
            **dict.fromkeys(("attn_q_norm", "attn_k_norm"), (head,)),
            **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (width, heads * head)),
            **dict.fromkeys(("ffn_gate", "ffn_up"), (inner, width)),
            "ffn_down": (width, inner),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    chance = np.random.default_rng(5)
    for name, shape in shapes.items():
        noise = chance.normal(0, 0.05, shape).astype(np.float32)
        writer.add_tensor(name, noise + 1 if len(shape) == 1 else noise)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
