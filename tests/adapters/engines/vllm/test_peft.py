from __future__ import annotations

import json
import shutil

import pytest

from adapters.catalog import SHIPPED
from adapters.engines.vllm.compose import compose
from adapters.engines.vllm.sources import Source
from adapters.mix import Mix
from tests.adapters.engines.vllm.peft_sum import first_logprobs

# PEFT and transformers warn of what they will change themselves.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def test_a_composed_mix_answers_as_pefts_weighted_sum(hf_base, tmp_path):
    """Two shipped adapters on the real base, composed in f32."""
    mix = Mix.of({"shell": 0.7, "python": -0.4})
    for name in mix.names:
        shutil.copytree(SHIPPED / name, tmp_path / name)
    parts = [(Source.open(tmp_path / name, "model."), weight) for name, weight in mix.weights]
    compose(parts, tmp_path / "mix", kind="F32")
    assert json.loads((tmp_path / "mix" / "adapter_config.json").read_text())["r"] == 32
    folders = {name: tmp_path / name for name in (*mix.names, "mix")}
    expected, found = first_logprobs(
        hf_base, folders, [mix, Mix.single("mix")], "How do I list files?"
    )
    likely = sorted(range(len(expected)), key=lambda token: -expected[token])[:100]
    for token in likely:
        assert found[token] == pytest.approx(expected[token], abs=1e-5)
