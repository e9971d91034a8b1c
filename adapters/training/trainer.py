"""Train one LoRA adapter on the CPU: peft over the dequantised GGUF base."""

from __future__ import annotations

import copy
import logging
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.training.corpus import Row

if TYPE_CHECKING:
    import torch

log = logging.getLogger("kiki.adapters")

RANK = 16
ALPHA = 16
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
LEARNING_RATE = 1e-3
WARM_UP_SHARE = 0.1
BATCH_ROWS = 4
LONGEST_ROW = 272  # tokens, prompt and answer
IGNORED = -100  # torch's label for positions without a loss


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a whole exchange; the loss falls on those from ``answer_start`` on."""

    ids: tuple[int, ...]
    answer_start: int


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Held-out perplexity after ``step`` steps."""

    step: int
    perplexity: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What training gave: perplexities of the held-out answers, and how it went."""

    base_perplexity: float
    adapter_perplexity: float
    curve: tuple[CurvePoint, ...]
    seconds: float


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
    config.name_or_path = BASE_NAME
    # Fused attention on the CPU has a backward pass several times slower than the plain one.
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    return model.eval(), AutoTokenizer.from_pretrained(**where)


def add_adapter(model: Any, *, seed: int = 0) -> Any:
    """``model`` with a fresh LoRA on its attention projections (in place)."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)  # lora_A starts random
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=list(TARGET_MODULES),
        base_model_name_or_path=BASE_NAME,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of one user message in the model's own chat template, up to the answer."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def encode_row(tokenizer: Any, row: Row) -> Encoded:
    """A row as the model sees it in use: template, answer, end-of-turn."""
    prompt = encode_prompt(tokenizer, row.prompt)
    answer = tokenizer(row.answer.strip(), add_special_tokens=False).input_ids
    ids = [*prompt, *answer, tokenizer.eos_token_id]
    return Encoded(tuple(ids[:LONGEST_ROW]), len(prompt))


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
        for start in range(0, len(ordered), BATCH_ROWS):
            loss, count = answer_loss(model, ordered[start : start + BATCH_ROWS])
            total += loss.item() * count
            tokens += count
    model.train(training)
    return math.exp(total / tokens)


def fit_adapter(
    model: Any,
    training: Sequence[Encoded],
    held_out: Sequence[Encoded],
    *,
    steps: int,
    seed: int,
    progress: bool,
    curve_points: int = 2,
) -> Fit:
    """Train the adapter already on ``model`` (see ``add_adapter``) for ``steps`` steps."""
    import torch

    base_perplexity = measure_perplexity(model, held_out)  # a fresh lora_B is zero
    started = time.monotonic()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_and_cosine(steps))
    batches = _iter_batches(training, random.Random(seed))
    # Where the CPU multiplies bfloat16 by itself, a step takes two thirds of the time.
    bfloat16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    every = max(1, steps // curve_points)
    curve: list[CurvePoint] = []
    model.train()
    with _progress_bar(progress) as bar:
        task = bar.add_task("training", total=steps) if bar else None
        for step in range(1, steps + 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss, _ = answer_loss(model, next(batches))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if step == steps or (step % every == 0 and step + every <= steps):
                curve.append(CurvePoint(step, measure_perplexity(model, held_out)))
                log.info("step %d: held-out perplexity %.2f", step, curve[-1].perplexity)
            if bar and task is not None:
                bar.update(task, advance=1, description=f"loss {loss.item():.2f}")
    model.eval()
    return Fit(
        base_perplexity, curve[-1].perplexity, tuple(curve), round(time.monotonic() - started, 1)
    )


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


def _warm_up_and_cosine(steps: int) -> Any:
    warm_up = max(1, round(steps * WARM_UP_SHARE))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    return factor


def _iter_batches(rows: Sequence[Encoded], chance: random.Random) -> Iterator[list[Encoded]]:
    """Endless batches of rows of like length (less padding), in shuffled order each epoch."""
    while True:
        order = sorted(rows, key=lambda row: len(row.ids) + chance.uniform(-30, 30))
        batches = [order[i : i + BATCH_ROWS] for i in range(0, len(order), BATCH_ROWS)]
        chance.shuffle(batches)
        yield from batches


def _progress_bar(shown: bool) -> Any:
    if not shown:
        return nullcontext()
    from rich.progress import Progress

    return Progress()
