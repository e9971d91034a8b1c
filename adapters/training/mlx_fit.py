"""The training loop on mlx: mlx_lm's LoRA layers, with a checkpoint that holds everything."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from adapters.training.checkpoint import FILE, State, start_state, write_whole
from adapters.training.fit import CurvePoint, Fit
from adapters.training.mlx_job import MlxJob
from adapters.training.progress import Report
from adapters.training.rows import Encoded, curve_steps, iter_batches, learning_rate_share

PADDING = 32  # lengths are multiples of it, so that few shapes are compiled


def fit_adapter(
    model: Any,
    training: Sequence[Encoded],
    held_out: Sequence[Encoded],
    job: MlxJob,
    report: Report,
) -> Fit:
    """Train the LoRA already on ``model`` as the job says.

    A checkpoint is written every so many steps; a resumed job gives the same adapter as one that
    was never interrupted.
    """
    import mlx.optimizers as optim
    from mlx_lm.tuner.trainer import grad_checkpoint

    hyper = job.hyper
    optimizer = optim.Adam(learning_rate=hyper.learning_rate)
    optimizer.init(model.trainable_parameters())
    state = start_state(job.work, job.run, resume=job.resume)
    # A fresh lora_b is zero, so this is the base.
    base_perplexity = state.base_perplexity or measure_perplexity(model, held_out, hyper.batch_rows)
    if state.step:
        _restore(job.work / FILE, model, optimizer)
    if job.gradient_checkpoints:
        # It changes the class, so all layers.
        grad_checkpoint(model.layers[0])  # type: ignore[no-untyped-call]
    started = time.monotonic() - state.seconds
    batches = islice(iter_batches(training, hyper.batch_rows, job.seed), state.step, None)
    measured = curve_steps(hyper.iterations)
    curve = list(state.curve)
    take_step = _step_function(model, optimizer)
    model.train()
    for step in range(state.step + 1, hyper.iterations + 1):
        share = learning_rate_share(hyper.schedule, step, hyper.iterations)
        optimizer.learning_rate = hyper.learning_rate * share
        loss = take_step(*_to_arrays(next(batches)))
        if step in measured:
            perplexity = measure_perplexity(model, held_out, hyper.batch_rows)
            curve.append(CurvePoint(step, perplexity))
        if step % job.checkpoint_every == 0:
            seconds = time.monotonic() - started
            reached = State(job.run, step, base_perplexity, tuple(curve), seconds)
            _save_checkpoint(job.work, model, optimizer, reached)
        report(step, loss)
    seconds = round(time.monotonic() - started, 1)
    return Fit(base_perplexity, curve[-1].perplexity, tuple(curve), seconds)


def measure_perplexity(model: Any, rows: Sequence[Encoded], batch_rows: int) -> float:
    """Perplexity of the rows' answers, each token counting the same."""
    total, tokens = 0.0, 0
    training = model.training
    model.eval()
    ordered = sorted(rows, key=lambda row: len(row.ids))
    for start in range(0, len(ordered), batch_rows):
        loss, count = answer_loss(
            model, *_to_arrays(ordered[start : start + batch_rows]), exact=True
        )
        total += loss.item() * count.item()
        tokens += count.item()
    model.train(training)
    return math.exp(total / tokens)


def answer_loss(model: Any, ids: Any, mask: Any, *, exact: bool = False) -> tuple[Any, Any]:
    """Mean cross-entropy (nats) over the answers' tokens, and how many there are.

    ``ids`` and ``mask`` are (rows, length); ``mask`` is 1 where a token is learnt. mlx_lm's own
    loss counts the padding after each answer too, which any adapter learns at once and which then
    passes for a better perplexity. ``exact`` computes in float32, where the logits aren't.
    """
    import mlx.core as mx
    import mlx.nn as nn

    logits = model(ids[:, :-1])
    if exact:
        logits = logits.astype(mx.float32)
    learnt = mask[:, 1:]
    losses = nn.losses.cross_entropy(logits, ids[:, 1:]).astype(mx.float32) * learnt
    count = learnt.sum()
    return losses.sum() / count, count


def _to_arrays(rows: Sequence[Encoded]) -> tuple[Any, Any]:
    import mlx.core as mx
    import numpy as np

    longest = max(len(row.ids) for row in rows)
    length = 1 + PADDING * math.ceil((longest - 1) / PADDING)
    ids = np.zeros((len(rows), length), np.int32)
    mask = np.zeros((len(rows), length), np.float32)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = row.ids
        mask[index, row.answer_start : len(row.ids)] = 1
    return mx.array(ids), mx.array(mask)


def _step_function(model: Any, optimizer: Any) -> Callable[[Any, Any], float]:
    import mlx.core as mx
    from mlx.nn.utils import value_and_grad

    loss_and_gradients = value_and_grad(model, answer_loss)
    state = [model.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def update(ids: Any, mask: Any) -> Any:
        (loss, _), gradients = loss_and_gradients(model, ids, mask)
        optimizer.update(model, gradients)
        return loss

    def take_step(ids: Any, mask: Any) -> float:
        loss = update(ids, mask)
        mx.eval(state, loss)
        return float(loss.item())

    return take_step


def _save_checkpoint(work: Path, model: Any, optimizer: Any, state: State) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten

    trees = {"weight": model.trainable_parameters(), "optimizer": optimizer.state}
    arrays = dict(tree_flatten(trees))
    write_whole(work, lambda path: mx.save_safetensors(str(path), arrays, state.metadata()))


def _restore(path: Path, model: Any, optimizer: Any) -> None:
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    arrays: Any = mx.load(str(path))  # by name, as it was saved
    trees: dict[str, list[tuple[str, Any]]] = {"weight": [], "optimizer": []}
    for name, array in arrays.items():
        tree, _, rest = name.partition(".")
        trees[tree].append((rest, array))
    model.load_weights(trees["weight"], strict=False)
    optimizer.state = tree_unflatten(trees["optimizer"])
    optimizer.init(model.trainable_parameters())
    mx.eval(model.parameters(), optimizer.state)  # the file is replaced while it is mapped
