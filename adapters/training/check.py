"""Does the converted adapter say in llama.cpp what PEFT says? Log-probabilities are compared."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.training.export import dequantize_gguf
from kiki.errors import AdapterError

POSITIONS = 6  # compared after each prompt: the first answer token and the ones after it
CANDIDATES = 5  # most likely tokens compared at each position
TOLERANCE = 0.01  # nats, on the dequantised base
_PROBED = 200  # candidates asked of llama.cpp, so that PEFT's are surely among them
_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Position:
    """Tokens so far, and the next token's log-probabilities by token id (the likeliest ones)."""

    prefix: tuple[int, ...]
    logprobs: dict[int, float]


def peft_positions(model: Any, prompts: Sequence[Sequence[int]]) -> list[Position]:
    """What the torch model says at the first positions of its own greedy answers."""
    import torch

    positions = []
    for prompt in prompts:
        prefix = list(prompt)
        for _ in range(POSITIONS):
            with torch.inference_mode():
                logits = model(torch.tensor([prefix]), use_cache=False).logits[0, -1]
            best = torch.log_softmax(logits.float(), dim=-1).topk(CANDIDATES)
            ids = best.indices.tolist()
            chances = dict(zip(ids, best.values.tolist(), strict=True))
            positions.append(Position(tuple(prefix), chances))
            prefix.append(ids[0])
    return positions


def llamacpp_positions(
    base_gguf: Path, adapter_gguf: Path, prefixes: Sequence[Sequence[int]]
) -> list[Position]:
    """What llama.cpp says after each prefix with the adapter at full scale.

    The server runs in a child process: its OpenMP threads and torch's don't share one well.
    Raises AdapterError when it doesn't answer.
    """
    question = {
        "base": str(base_gguf),
        "adapter": str(adapter_gguf),
        "prefixes": [list(prefix) for prefix in prefixes],
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "adapters.training.check"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )
    except subprocess.TimeoutExpired as error:
        raise AdapterError(f"llama.cpp gave no answer within {_TIMEOUT_S:g} s.") from error
    if done.returncode != 0 or not done.stdout.strip():
        raise AdapterError(f"llama.cpp refused {adapter_gguf}: {done.stderr[-500:].strip()}")
    answers = json.loads(done.stdout.splitlines()[-1])
    return [
        Position(tuple(prefix), {int(token): chance for token, chance in answer.items()})
        for prefix, answer in zip(prefixes, answers, strict=True)
    ]


def max_logprob_difference(expected: Sequence[Position], found: Sequence[Position]) -> float:
    """Largest difference in nats over the candidates of ``expected``.

    A candidate that ``found`` doesn't list counts with the lowest chance that it does list.
    """
    worst = 0.0
    for ours, theirs in zip(expected, found, strict=True):
        floor = min(theirs.logprobs.values())
        for token, chance in ours.logprobs.items():
            difference = abs(chance - theirs.logprobs.get(token, floor))
            worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


def check_conversion(
    model: Any,
    prompts: Sequence[Sequence[int]],
    base_gguf: Path,
    adapter_gguf: Path,
    *,
    tolerance: float = TOLERANCE,
) -> float:
    """The largest log-probability difference between PEFT and the converted adapter.

    ``prompts`` are token ids. The base is dequantised first, so that what is left is the
    conversion's own error. Raises AdapterError above ``tolerance``.
    """
    expected = peft_positions(model, prompts)
    with tempfile.TemporaryDirectory(prefix="kiki-check-") as folder:
        exact = Path(folder) / "base.gguf"
        dequantize_gguf(base_gguf, exact)
        found = llamacpp_positions(exact, adapter_gguf, [p.prefix for p in expected])
    difference = max_logprob_difference(expected, found)
    if difference > tolerance:
        raise AdapterError(
            f"{adapter_gguf} differs from PEFT by {difference:.3f} nats; "
            f"{tolerance} is the most that rounding explains.",
            fix="The conversion is wrong for this base: look at the order of q's and k's rows.",
        )
    return difference


def _answer_probe(question: dict[str, Any]) -> list[dict[int, float]]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = question["base"]
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cache_ram_mib = 0
    params.warmup = False
    params.port = 0
    # Flash attention rounds to f16, which costs a hundred times the conversion's own error.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(question["adapter"], 0.0)]
    server = xllamacpp.Server(params)
    answers = []
    for prefix in question["prefixes"]:
        reply = server.handle_completions(
            {
                "prompt": prefix,
                "n_predict": 1,
                "n_probs": _PROBED,
                "temperature": 0.0,
                "cache_prompt": False,
                "lora": [{"id": 0, "scale": 1.0}],
            }
        )
        best = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        answers.append({entry["id"]: entry["logprob"] for entry in best})
    return answers


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_answer_probe(json.load(sys.stdin))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # llama.cpp's threads may outlive the answer; nothing is left to save
