from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.catalog import SHIPPED
from adapters.forms import read_lora
from adapters.health import MOE_KINDS, Finding, examine, is_sick
from adapters.lora import Lora, LoraWeight

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
MOE = "Qwen/Qwen3.6-35B-A3B"
Change = Callable[[LoraWeight], LoraWeight]


SHELL = read_lora(SHIPPED / "shell")


@pytest.fixture
def shell() -> Lora:
    return SHELL


def changed(lora: Lora, change: Change, *modules: str) -> Lora:
    """``lora`` with ``change`` made to some of its modules, or to all."""
    touched = modules or tuple(lora.weights)
    new = {name: change(lora.weights[name]) for name in touched}
    return replace(lora, weights={**lora.weights, **new})


def without(lora: Lora, *modules: str) -> Lora:
    return replace(lora, weights={n: w for n, w in lora.weights.items() if n not in modules})


def only(findings: tuple[Finding, ...]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def zero_b(weight: LoraWeight) -> LoraWeight:
    return replace(weight, b=np.zeros_like(weight.b))


def zero_a(weight: LoraWeight) -> LoraWeight:
    return replace(weight, a=np.zeros_like(weight.a))


def moe_lora(layers: range = range(8, 40), base: str = MOE) -> Lora:
    """A small adapter with the 17 kinds where the 35B has them: every fourth layer attends."""
    chance = np.random.default_rng(5)
    weights = {}
    for layer in layers:
        absent = "linear_attn" if layer % 4 == 3 else "self_attn"
        for kind in sorted(kind for kind in MOE_KINDS if not kind.startswith(absent)):
            experts = (6,) if "switch_mlp" in kind else ()
            name = f"layers.{layer}.{kind}"
            a = chance.normal(size=(*experts, 16, 8)).astype(np.float16)
            b = chance.normal(size=(*experts, 4, 16)).astype(np.float16)
            weights[name] = LoraWeight(name, a, b)
    return Lora("moe", base, 16, 16.0, weights)


@pytest.mark.parametrize("path", sorted(SHIPPED.iterdir()), ids=lambda path: path.name)
def test_a_shipped_adapter_is_healthy_for_its_base(path):
    assert examine(read_lora(path), base="SmolLM2-135M-Instruct-Q4_1.gguf") == ()


def test_an_untrained_adapter_is_sick_and_every_module_is_named(shell):
    found = only(examine(changed(shell, zero_b)))
    assert (found.level, found.code) == ("sick", "zero-b")
    assert set(found.where) == set(shell.weights)
    assert "every module" in found.detail


def test_a_single_module_of_zeros_makes_an_adapter_sick_and_is_named(shell):
    found = only(examine(changed(shell, zero_b, "layers.7.self_attn.v_proj")))
    assert (found.level, found.code) == ("sick", "zero-b")
    assert found.where == ("layers.7.self_attn.v_proj",)


def test_a_lora_b_of_next_to_nothing_counts_as_zeros(shell):
    tiny = changed(shell, lambda weight: replace(weight, b=weight.b * np.float32(1e-9)))
    assert only(examine(tiny)).code == "zero-b"


def test_a_lora_a_of_zeros_is_sick(shell):
    found = only(examine(changed(shell, zero_a, "layers.2.self_attn.k_proj")))
    assert (found.level, found.code) == ("sick", "zero-a")
    assert found.where == ("layers.2.self_attn.k_proj",)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@given(half=st.sampled_from("ab"), place=st.integers(0, 2**30), number=st.integers(0, 119))
def test_one_value_that_is_no_number_is_found_anywhere(dtype, value, half, place, number):
    name = list(SHELL.weights)[number]
    alone = replace(SHELL, weights={name: SHELL.weights[name]})

    def spoil(weight: LoraWeight) -> LoraWeight:
        array = getattr(weight, half).astype(dtype)
        array.flat[place % array.size] = value
        return replace(weight, **{half: array})

    found = only(examine(changed(alone, spoil)))
    assert (found.level, found.code) == ("sick", "not-finite")
    size = getattr(SHELL.weights[name], half).size
    assert found.where == (f"{name}.lora_{half.upper()} (1 of {size})",)


def test_large_but_finite_values_are_not_taken_for_infinite(shell):
    large = changed(shell, lambda weight: replace(weight, b=np.full(weight.b.shape, 1e30, "f4")))
    assert examine(large) == ()


def test_another_base_model_is_sick_and_an_unnamed_one_a_warning(shell):
    found = only(examine(shell, base="SmolLM2-360M-Instruct"))
    assert (found.level, found.code) == ("sick", "wrong-base")
    assert BASE in found.detail
    assert "360M" in found.detail
    found = only(examine(replace(shell, base=""), base=BASE))
    assert (found.level, found.code) == ("warning", "base-unnamed")


def test_an_adapter_without_weights_is_sick(shell):
    assert only(examine(replace(shell, weights={}))).code == "empty"


def test_another_rank_or_alpha_is_a_warning(shell):
    findings = examine(replace(shell, rank=32, alpha=64.0))
    assert [(one.level, one.code) for one in findings] == [
        ("warning", "rank"),
        ("warning", "alpha"),
    ]
    assert not is_sick(findings)


def test_a_module_that_the_other_layers_have_is_missed(shell):
    found = only(examine(without(shell, "layers.4.self_attn.o_proj")))
    assert (found.level, found.code) == ("warning", "uneven")
    assert found.where == ("layers.4.self_attn.o_proj",)


def test_kinds_that_the_base_has_are_missed_when_it_is_known(shell):
    kinds = {f"self_attn.{name}_proj" for name in "qkvo"} | {"mlp.up_proj", "mlp.down_proj"}
    found = only(examine(shell, kinds=kinds))
    assert (found.level, found.code) == ("warning", "missing-kinds")
    assert found.where == ("mlp.down_proj", "mlp.up_proj")
    no_v = without(shell, *(name for name in shell.weights if name.endswith("v_proj")))
    assert only(examine(no_v, kinds={w.kind for w in shell.weights.values()})).where == (
        "self_attn.v_proj",
    )


@pytest.mark.parametrize("base", [MOE, "mlx-community/Qwen3.6-35B-A3B-4bit"])
def test_the_35b_is_known_to_have_17_kinds_and_32_adapted_layers(base):
    assert len(MOE_KINDS) == 17
    assert examine(moe_lora(base=base), base=MOE) == ()
    full = moe_lora(range(40), base=base)
    assert only(examine(full)).code == "layers"
    gates = [name for name in full.weights if name.endswith("mlp.gate")]
    codes = {found.code: found for found in examine(without(moe_lora(), *gates))}
    assert codes["missing-kinds"].where == ("mlp.gate",)


def test_experts_that_no_token_reached_are_a_warning_until_it_is_all_of_them():
    module = "layers.9.mlp.switch_mlp.up_proj"

    def idle(*experts: int) -> Change:
        def change(weight: LoraWeight) -> LoraWeight:
            b = weight.b.copy()
            b[list(experts)] = 0
            return replace(weight, b=b)

        return change

    found = only(examine(changed(moe_lora(), idle(1, 4), module)))
    assert (found.level, found.code) == ("warning", "zero-experts")
    assert found.where == (f"{module} (2 of 6)",)
    found = only(examine(changed(moe_lora(), idle(*range(6)), module)))
    assert (found.level, found.code, found.where) == ("sick", "zero-b", (module,))


def test_sick_findings_come_before_warnings(shell):
    spoiled = changed(replace(shell, rank=8), zero_b, "layers.0.self_attn.q_proj")
    assert [found.level for found in examine(spoiled)] == ["sick", "warning"]


def test_weights_that_are_loaded_when_asked_for_are_asked_for_once(shell):
    asked: list[str] = []

    class Lazy(Mapping[str, LoraWeight]):
        def __getitem__(self, name):
            asked.append(name)
            return shell.weights[name]

        def __iter__(self):
            return iter(shell.weights)

        def __len__(self):
            return len(shell.weights)

    assert examine(replace(shell, weights=Lazy()), base=BASE) == ()
    assert asked == list(shell.weights)


def test_a_folder_read_from_disk_is_examined_as_what_it_is(tmp_path):
    from safetensors.numpy import load_file, save_file

    source = SHIPPED / "sql"
    tensors = load_file(source / "adapter_model.safetensors")
    dead = {k: np.zeros_like(v) if "lora_B" in k else v for k, v in tensors.items()}
    save_file(dead, tmp_path / "adapter_model.safetensors")
    config = (source / "adapter_config.json").read_text()
    Path(tmp_path / "adapter_config.json").write_text(config)
    assert is_sick(examine(read_lora(tmp_path)))
