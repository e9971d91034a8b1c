"""The process that trains with mlx_lm: a job on stdin, events on stdout.

A process of its own, because Metal's memory limits must stand before anything is allocated, and a
GPU that hangs takes its process with it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from adapters.recipes import Hyperparameters
from adapters.recipes.loading import QLORA
from adapters.training.mlx_fit import fit_adapter
from adapters.training.mlx_job import Chat, MlxJob
from adapters.training.rows import Encoded
from kiki.errors import AdapterError

Emit = Callable[[dict[str, Any]], None]
GIB = 1024**3
MEMORY_SHARE = 0.9  # of a machine that has less than the recipe's limit


def train(job: MlxJob, emit: Emit) -> None:
    """Train the job's adapter into ``job.made``. Raises AdapterError for what doesn't fit."""
    _set_limits(job)
    model, tokenizer = _load(job.base)
    refuse_quantised_experts(model)
    add_lora(model, job.hyper, job.seed)
    training = _encode_all(tokenizer, job.training, job.hyper)
    held_out = _encode_all(tokenizer, job.held_out, job.hyper)
    emit({"rows": len(training), "held_out_rows": len(held_out)})
    fit = fit_adapter(
        model, training, held_out, job, lambda step, loss: emit({"step": step, "loss": loss})
    )
    _save(model, job)
    emit({"fit": asdict(fit)})


def _set_limits(job: MlxJob) -> None:
    import mlx.core as mx

    limit = job.memory_limit_gb * GIB
    if mx.metal.is_available():
        limit = min(limit, int(int(mx.device_info()["memory_size"]) * MEMORY_SHARE))
    mx.set_memory_limit(limit)
    mx.set_cache_limit(job.cache_limit_gb * GIB)
    if not mx.metal.is_available():
        mx.disable_compile()  # on a CPU it calls a C++ compiler for each kernel


def _load(base: str) -> tuple[Any, Any]:
    from mlx_lm.utils import load

    try:
        model, tokenizer = load(base)[:2]
    except Exception as error:  # the hub's, the file's and the model's errors share no class
        raise AdapterError(
            f"mlx_lm can't load the base {base!r}: {type(error).__name__}: {error}",
            fix="Give the folder of a model in Hugging Face form with --base.",
        ) from error
    return model, tokenizer


def refuse_quantised_experts(model: Any) -> None:
    """Raise AdapterError for a mixture of experts in 4 or 8 bits."""
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear

    if any(isinstance(module, QuantizedSwitchLinear) for module in model.modules()):
        raise AdapterError(f"The base's experts are quantised. {QLORA}", fix="Give the BF16 base.")


def add_lora(model: Any, hyper: Hyperparameters, seed: int) -> None:
    """Put a fresh LoRA on the kinds of modules and the last layers that ``hyper`` names.

    Raises AdapterError where the model lacks a kind, or has fewer layers.
    """
    import mlx.core as mx
    from mlx_lm.tuner.utils import linear_to_lora_layers

    layers = len(model.layers)
    if hyper.layers > layers:
        raise AdapterError(
            f"The recipe adapts {hyper.layers} layers; this base has {layers}.",
            fix="Give the recipe's base, or --small for the recipe's table for small bases.",
        )
    adapted = model.layers if hyper.layers < 0 else model.layers[layers - hyper.layers :]
    present = {name for layer in adapted for name, _ in layer.named_modules()}
    if missing := sorted(set(hyper.modules) - present):
        raise AdapterError(
            f"This base has no {', '.join(missing)} in the layers to adapt.",
            fix="Give the recipe's base, or --small for the recipe's table for small bases.",
        )
    mx.random.seed(seed)  # lora_a starts random
    model.freeze()
    linear_to_lora_layers(model, hyper.layers, _lora_parameters(hyper))


def _lora_parameters(hyper: Hyperparameters) -> dict[str, Any]:
    """As mlx_lm writes them: its ``scale`` multiplies the update as it is, so alpha / rank."""
    keys = list(hyper.modules)
    return {"rank": hyper.rank, "scale": hyper.scale, "dropout": 0.0, "keys": keys}


def _encode_all(tokenizer: Any, chats: tuple[Chat, ...], hyper: Hyperparameters) -> list[Encoded]:
    """The chats that still teach something once cut. Raises AdapterError where none does."""
    rows = [encode_chat(tokenizer, chat, hyper.longest_row) for chat in chats]
    kept = [row for row in rows if row.teaches]
    if not kept:
        raise AdapterError(
            f"No answer begins within {hyper.longest_row} tokens.", fix="Give shorter prompts."
        )
    return kept


def encode_chat(tokenizer: Any, chat: Chat, longest: int) -> Encoded:
    """A chat in the model's own template, up to the end of its answer, cut to ``longest`` tokens.

    The answer starts where the template with and without it part, so that an empty thinking block
    that the template writes counts as prompt.
    """
    messages = [asdict(message) for message in chat]
    options = {"tokenize": True, "return_dict": False, "enable_thinking": False}
    whole = list(tokenizer.apply_chat_template(messages, **options))
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, **options)
    ends = [place for place, token in enumerate(whole) if token == tokenizer.eos_token_id]
    if ends and ends[-1] >= len(prompt):
        whole = whole[: ends[-1] + 1]  # what follows is the template's own
    start = next((n for n, (a, b) in enumerate(zip(whole, prompt, strict=False)) if a != b), None)
    return Encoded(tuple(whole[:longest]), len(prompt) if start is None else start)


def _save(model: Any, job: MlxJob) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten

    job.made.mkdir(parents=True, exist_ok=True)
    weights = dict(tree_flatten(model.trainable_parameters()))
    mx.save_safetensors(str(job.made / "adapters.safetensors"), weights)
    config = {
        "model": job.hyper.base,
        "fine_tune_type": "lora",
        "num_layers": job.hyper.layers,
        "lora_parameters": _lora_parameters(job.hyper),
    }
    (job.made / "adapter_config.json").write_text(json.dumps(config, indent=4) + "\n", "utf-8")


def main() -> None:
    """Run the job on stdin. What libraries print on stdout goes to stderr."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    try:
        train(MlxJob.from_json(sys.stdin.read()), emit)
    except AdapterError as error:
        emit({"error": error.message, "fix": error.fix})


if __name__ == "__main__":
    main()
