"""PEFT's own sums of adapters on the real base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adapters.mix import Mix


def first_logprobs(
    base: Path, folders: Mapping[str, Path], mixes: Sequence[Mix], prompt: str
) -> list[list[float]]:
    """For each mix, the log-probabilities of the answer's first token, by id, computed in f64.

    PEFT adds the adapters of a mix up one by one, each scaled by its weight.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    messages = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    first, *others = folders
    peft = PeftModel.from_pretrained(model, folders[first], adapter_name=first)
    for name in others:
        peft.load_adapter(folders[name], adapter_name=name)
    peft.double()
    layers = [module for module in peft.modules() if isinstance(module, LoraLayer)]
    scales = [dict(layer.scaling) for layer in layers]
    found = []
    for mix in mixes:
        peft.base_model.set_adapter(list(mix.names))
        for layer, scale in zip(layers, scales, strict=True):
            for name, weight in mix.weights:
                layer.scaling[name] = scale[name] * weight
        with torch.no_grad():
            logprobs = torch.log_softmax(peft(**ids).logits[0, -1], -1)
        found.append(logprobs.tolist())
    return found
