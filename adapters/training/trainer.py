"""Train one LoRA adapter on the CPU: peft over the dequantised GGUF base."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.recipes import Hyperparameters
from adapters.training.checkpoint import FILE, State, start_state, write_whole
from adapters.training.corpus import Message, Row
from adapters.training.fit import CurvePoint, Fit
from adapters.training.job import Job
from adapters.training.progress import Report
from adapters.training.rows import Encoded, curve_steps, iter_batches, learning_rate_share

if TYPE_CHECKING:
    import torch

log = logging.getLogger("kiki.adapters")

IGNORED = -100  # torch's label for positions without a loss
MEASURED_ROWS = 4  # at a time, when perplexity is measured


def load_base(base_gguf: Path) -> tuple[Any, Any]:
    """The base as a plain fp32 transformers model, and its tokenizer, from one GGUF file.

    The weights move into a fresh model, because transformers refuses to save one that still
    knows it was read from GGUF.
    """
    # Spinning OpenMP threads make a step ten times slower on a machine that does other work too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {
        "pretrained_model_name_or_path": str(base_gguf.parent),
        "gguf_file": base_gguf.name,
    }
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = copy.deepcopy(read.config)
    del config.quantization_config
    config.name_or_path = base_gguf.stem
    # Fused attention on the CPU has a backward pass several times slower than the plain one.
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    return model.eval(), AutoTokenizer.from_pretrained(**where)


def add_adapter(model: Any, hyper: Hyperparameters, *, seed: int = 0) -> Any:
    """``model`` with a fresh LoRA on the modules and layers of ``hyper`` (in place)."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)  # lora_A starts random
    model.name_or_path = hyper.base  # what peft writes as the adapter's base
    total = int(model.config.num_hidden_layers)
    last = range(max(0, total - hyper.layers), total)
    config = LoraConfig(
        r=hyper.rank,
        lora_alpha=hyper.alpha,
        target_modules=[module.rpartition(".")[2] for module in hyper.modules],
        layers_to_transform=None if hyper.layers < 0 else list(last),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def encode_prompt(tokenizer: Any, prompt: str, context: Sequence[Message] = ()) -> list[int]:
    """Token ids of a user message, and what was said before, in the model's own chat template."""
    messages = [*context, Message("user", prompt)]
    text = tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in messages],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def encode_row(tokenizer: Any, row: Row, longest: int) -> Encoded:
    """A row as the model sees it in use: template, answer, end-of-turn; ``longest`` tokens."""
    prompt = encode_prompt(tokenizer, row.prompt, row.context)
    answer = tokenizer(row.answer.strip(), add_special_tokens=False).input_ids
    ids = [*prompt, *answer, tokenizer.eos_token_id]
    return Encoded(tuple(ids[:longest]), len(prompt))


def answer_loss(model: Any, batch: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
    """Mean cross-entropy (nats) over the batch's answer tokens, and how many there are.

    Logits are computed at those positions only: the vocabulary is a fifth of the model.
    """
    import torch

    length = max(len(row.ids) for row in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for index, row in enumerate(batch):
        tokens = torch.tensor(row.ids)
        ids[index, : len(tokens)] = tokens
        mask[index, : len(tokens)] = 1
        labels[index, row.answer_start : len(tokens)] = tokens[row.answer_start :]
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    predicts = labels[:, 1:] != IGNORED
    logits = causal.lm_head(hidden[:, :-1][predicts])
    targets = labels[:, 1:][predicts]
    return torch.nn.functional.cross_entropy(logits, targets), len(targets)


def measure_perplexity(model: Any, rows: Sequence[Encoded]) -> float:
    """Perplexity of the rows' answers, each token counting the same."""
    import torch

    total, tokens = 0.0, 0
    training = model.training
    model.eval()
    with torch.inference_mode():
        ordered = sorted(rows, key=lambda row: len(row.ids))
        for start in range(0, len(ordered), MEASURED_ROWS):
            loss, count = answer_loss(model, ordered[start : start + MEASURED_ROWS])
            total += loss.item() * count
            tokens += count
    model.train(training)
    return math.exp(total / tokens)


def fit_adapter(
    model: Any, training: Sequence[Encoded], held_out: Sequence[Encoded], job: Job, report: Report
) -> Fit:
    """Train the adapter already on ``model`` (see ``add_adapter``) as the job says.

    A checkpoint is written every so many steps; a resumed job gives the same adapter as one that
    was never interrupted.
    """
    import torch

    hyper = job.hyper
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=hyper.learning_rate, weight_decay=0.0)
    state = start_state(job.work, job.fingerprint, resume=job.resume)
    # A fresh lora_B is zero, so this is the base.
    base_perplexity = state.base_perplexity or measure_perplexity(model, held_out)
    if state.step:
        _restore(job.work / FILE, weights, optimizer, state.step)
    started = time.monotonic() - state.seconds
    batches = islice(iter_batches(training, hyper.batch_rows, job.seed), state.step, None)
    measured = curve_steps(hyper.iterations)
    curve = list(state.curve)
    # Where the CPU multiplies bfloat16 by itself, a step takes two thirds of the time.
    bfloat16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    model.train()
    for step in range(state.step + 1, hyper.iterations + 1):
        share = learning_rate_share(hyper.schedule, step, hyper.iterations)
        for group in optimizer.param_groups:
            group["lr"] = hyper.learning_rate * share
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss, _ = answer_loss(model, next(batches))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step in measured:
            curve.append(CurvePoint(step, measure_perplexity(model, held_out)))
            log.info("step %d: held-out perplexity %.2f", step, curve[-1].perplexity)
        if step % job.checkpoint_every == 0:
            seconds = time.monotonic() - started
            reached = State(job.fingerprint, step, base_perplexity, tuple(curve), seconds)
            _save_checkpoint(job.work, weights, optimizer, reached)
        report(step, loss.item())
    model.eval()
    seconds = round(time.monotonic() - started, 1)
    return Fit(base_perplexity, curve[-1].perplexity, tuple(curve), seconds)


def save_adapter(model: Any, out: Path) -> None:
    """Write ``adapter_model.safetensors`` (f16) and ``adapter_config.json`` into ``out``."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    halves = {name: weight.to(torch.float16).contiguous() for name, weight in state.items()}
    save_file(halves, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"]
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # a set: its order would change
    config.save_pretrained(str(out))


def _save_checkpoint(work: Path, weights: list[Any], optimizer: Any, state: State) -> None:
    from safetensors.torch import save_file

    moments = optimizer.state_dict()["state"]
    tensors = {f"weight.{index}": weight.detach() for index, weight in enumerate(weights)}
    for index, moment in moments.items():
        tensors |= {f"{name}.{index}": moment[name] for name in ("exp_avg", "exp_avg_sq")}
    write_whole(work, lambda path: save_file(tensors, path, metadata=state.metadata()))


def _restore(path: Path, weights: list[Any], optimizer: Any, step: int) -> None:
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path)
    moments = {}
    for index, weight in enumerate(weights):
        weight.data.copy_(tensors[f"weight.{index}"])
        moments[index] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg.{index}"],
            "exp_avg_sq": tensors[f"exp_avg_sq.{index}"],
        }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
