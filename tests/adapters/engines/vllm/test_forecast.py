"""What adapters will take, told from their headers, against what they take."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.catalog import SHIPPED
from adapters.engines.vllm.base_model import BaseModel
from adapters.engines.vllm.capacity import Size
from adapters.engines.vllm.forecast import expected_size
from adapters.engines.vllm.sources import open_source
from adapters.forms import write_lora
from kiki.errors import AdapterError
from tests.adapters.forms_lora import LLAMA, QWEN3MOE, QWEN35MOE, make_lora
from tests.contract.shipped import adapter_at

PLANS = {"llama": LLAMA, "qwen3moe": QWEN3MOE, "qwen35moe": QWEN35MOE}


@pytest.mark.parametrize("kind", [None, "BF16", "F32"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("form", ["mlx", "gguf", "peft"])
@pytest.mark.parametrize("plan", PLANS)
def test_what_is_expected_is_what_the_adapter_takes_in_peft_form(plan, form, dtype, kind, tmp_path):
    lora, base = make_lora(PLANS[plan], dtype=dtype), BaseModel(kind=kind)
    out = tmp_path / ("mine.gguf" if form == "gguf" else "mine")
    write_lora(lora, form, out, base=PLANS[plan].base(2))
    adapter = adapter_at(out)
    taken = open_source(adapter, base, tmp_path / "converted")
    assert expected_size(adapter, base) == Size(taken.rank, taken.bytes_as(kind))


def test_experts_trained_apart_take_twice_the_rank(tmp_path):
    write_lora(make_lora(QWEN35MOE, rank=16), "mlx", tmp_path / "mine")
    assert expected_size(adapter_at(tmp_path / "mine"), BaseModel()).rank == 32


def test_a_damaged_adapter_is_named(tmp_path):
    write_lora(make_lora(LLAMA), "mlx", tmp_path / "mine")
    adapter = adapter_at(tmp_path / "mine")
    weights = tmp_path / "mine" / "adapters.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(AdapterError, match=r"adapters\.safetensors"):
        expected_size(adapter, BaseModel())


def test_a_shipped_adapter_has_its_rank(tmp_path):
    assert expected_size(adapter_at(SHIPPED / "shell"), BaseModel()).rank == 16
