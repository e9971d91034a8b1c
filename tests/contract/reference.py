"""What the base says with a mix added to its weights by hand: torch, no engine, no PEFT."""

from __future__ import annotations

import json
import os
from pathlib import Path

from adapters.engines.base import Message, TokenLogprob
from adapters.mix import Mix
from tests.contract.shipped import SHIPPED

POSITIONS = 3  # the first tokens of the greedy answer
CANDIDATES = 50  # likeliest tokens kept at each


class Reference:
    """W + sum(weight * alpha / rank * B @ A), in float32, a whole forward pass for each token."""

    def __init__(self, hf_base: Path) -> None:
        # Spinning OpenMP threads would starve the engine, whose process has threads of its own.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(hf_base)
        self._model = AutoModelForCausalLM.from_pretrained(hf_base, dtype=torch.float32).eval()
        self._found: dict[tuple[tuple[Message, ...], Mix], list[dict[str, float]]] = {}

    def prompt(self, messages: tuple[Message, ...]) -> list[int]:
        """The token ids of the rendered messages."""
        rendered = [{"role": message.role, "content": message.content} for message in messages]
        ids: list[int] = self._tokenizer.apply_chat_template(
            rendered, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return ids

    def logprobs(self, messages: tuple[Message, ...], mix: Mix) -> list[dict[str, float]]:
        """For each position the likeliest tokens, by their text, and their log-probabilities."""
        key = (messages, mix)
        if key not in self._found:
            self._found[key] = self._greedy(self.prompt(messages), mix)
        return self._found[key]

    def _greedy(self, ids: list[int], mix: Mix) -> list[dict[str, float]]:
        import torch

        weights = self._model.state_dict()
        kept: dict[str, torch.Tensor] = {}
        positions = []
        with torch.no_grad():
            for name, weight in mix.weights:
                for module, update in _updates(name).items():
                    kept.setdefault(module, weights[module].clone())
                    weights[module].add_(weight * update)
            for _ in range(POSITIONS):
                logits = self._model(torch.tensor([ids]), use_cache=False).logits[0, -1]
                best = torch.log_softmax(logits, -1).topk(CANDIDATES)
                found = best.indices.tolist()
                texts = [self._tokenizer.decode([token]) for token in found]
                positions.append(dict(zip(texts, best.values.tolist(), strict=True)))
                ids = [*ids, found[0]]
            for module, original in kept.items():
                weights[module].copy_(original)
        return positions


def _updates(name: str):
    from safetensors.torch import load_file

    folder = SHIPPED / name
    config = json.loads((folder / "adapter_config.json").read_bytes())
    halves = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    return {
        key.removeprefix("base_model.model.").replace(".lora_A", ""): scale
        * (halves[key.replace("lora_A", "lora_B")].float() @ a.float())
        for key, a in halves.items()
        if "lora_A" in key
    }


def largest_difference(found: tuple[TokenLogprob, ...], expected: list[dict[str, float]]) -> float:
    """Of log-probabilities, over the tokens that the engine listed where the reference looked."""
    return max(
        abs(logprob - there[token])
        for entry, there in zip(found, expected, strict=False)
        for token, logprob in entry.top
    )


def largest_odds_difference(
    found: tuple[TokenLogprob, ...], expected: list[dict[str, float]]
) -> float:
    """The same between log-odds to the likeliest token, which need no sum over the vocabulary."""
    return max(
        abs((logprob - entry.top[0][1]) - (there[token] - there[entry.top[0][0]]))
        for entry, there in zip(found, expected, strict=False)
        for token, logprob in entry.top
    )
