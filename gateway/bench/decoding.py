"""Decoding with one adapter: slots against mlx_lm's own LoRA layers, on the same weights."""

# mypy: disable-error-code="no-untyped-call"
# mlx.nn and mlx_lm are typed in part only.

from __future__ import annotations

import copy
import time

import mlx.core as mx
import mlx_lm
from mlx.nn.layers.base import Module
from mlx_lm.generate import generate_step
from mlx_lm.tuner.utils import load_adapters

from adapters.engines.mlx.slots import Slots
from adapters.forms import read_lora
from adapters.mix import Mix
from gateway.bench.options import Options, Progress
from gateway.bench.pairs import in_turn, ratio
from gateway.bench.random_base import RandomBase
from gateway.bench.report import Metric, median
from kiki.errors import EngineError

PROMPT_TOKENS = 32


def measure(base: RandomBase, options: Options, progress: Progress) -> dict[str, Metric]:
    """Milliseconds a token after the first, greedy, by mlx_lm's own ``generate_step`` on each.

    Raises EngineError if the two sides don't generate the same tokens: then they did not do the
    same work.
    """
    bare = mlx_lm.load(str(base.model))[0]
    # Copies of the modules; the arrays are shared.
    stock, ours = copy.deepcopy(bare), copy.deepcopy(bare)
    load_adapters(stock, str(base.adapters[0]))
    stock.eval()
    slots = Slots.patch(ours)
    slots.bind("one", read_lora(base.adapters[0]))
    slots.use([Mix.single("one")])
    if _generate(ours, options.tokens)[1] != _generate(stock, options.tokens)[1]:
        raise EngineError("Slots and mlx_lm's LoRA layers generate different tokens.")
    done = 0

    def side(model: Module) -> float:
        nonlocal done
        took = _generate(model, options.tokens)[0]
        done += 1
        progress("decode", done, 3 * options.rounds)
        return took

    ours_ms, stock_ms, bare_ms = in_turn(
        options.rounds, lambda: side(ours), lambda: side(stock), lambda: side(bare)
    )
    return {
        "decode_ms_per_token": median(ours_ms, "ms"),
        "decode_mlx_lm_ms_per_token": median(stock_ms, "ms"),
        "decode_base_ms_per_token": median(bare_ms, "ms"),
        "decode_over_mlx_lm": ratio(ours_ms, stock_ms),
    }


def _generate(model: Module, tokens: int) -> tuple[float, list[int]]:
    """Milliseconds a token, and the tokens."""
    steps = generate_step(mx.arange(1, 1 + PROMPT_TOKENS), model, max_tokens=tokens + 1)
    found = [int(next(steps)[0])]
    began = time.perf_counter()
    found += [int(token) for token, _ in steps]
    return (time.perf_counter() - began) / tokens * 1e3, found
