"""Which neurons carry the answer to yes/no questions: integrated gradients, and a vote.

KnowBias, arXiv:2601.21864, which takes the attribution from Dai et al. 2022, "Knowledge Neurons in
Pretrained Transformers": the activations of one feed-forward block at the prompt's last position
are scaled from 0 to 1 in 20 steps, and a neuron's score is its activation times the mean gradient
of the right answer's probability. The authors' code takes the gate's output for the activations;
here they are the inputs of ``down_proj``, which experts have too.
"""

# mypy: disable-error-code="no-untyped-call"
# mlx.nn and mlx_lm are typed in part only.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from adapters.engines.mlx.model import Base
from adapters.engines.mlx.probe import FEED_FORWARD
from kiki.errors import EngineError

STEPS = 20
OF_THE_MOST = 0.1
SHARED = 0.49
INSTRUCTION = "Answer the question with Yes or No only."

Scores = Mapping[str, NDArray[np.float32]]
"""By feed-forward module, one number a neuron: shape (inputs,), or (experts, inputs)."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about bias; ``yes`` says what someone who knows would answer."""

    text: str
    yes: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The marked neurons, the questions, and those for which the right word was the likelier."""

    marks: dict[str, NDArray[np.bool_]]
    questions: int
    right: int


def find_neurons(
    base: Base,
    questions: Sequence[Question],
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """The neurons that the questions share; ``progress`` is told the questions done and in all.

    Raises EngineError where the model has no feed-forward block of the kind that is known.
    """
    yes, no = (base.tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No"))
    right = 0

    def scored() -> Iterable[Scores]:
        nonlocal right
        for done, question in enumerate(questions, 1):
            attribution = Attribution(base, _tokens(base, question.text))
            target, other = (yes, no) if question.yes else (no, yes)
            right += bool(attribution.logits[target] > attribution.logits[other])
            yield attribution.scores(target)
            if progress:
                progress(done, len(questions))

    marks = choose(scored())
    return Found(marks, len(questions), right)


def choose(scored: Iterable[Scores]) -> dict[str, NDArray[np.bool_]]:
    """The neurons above `OF_THE_MOST` of a question's highest score in over `SHARED` of them."""
    votes: dict[str, NDArray[np.int32]] = {}
    count = 0
    for scores in scored:
        count += 1
        limit = OF_THE_MOST * max(float(each.max()) for each in scores.values())
        for name, each in scores.items():
            above = (each > limit) & (each > 0)
            votes[name] = votes.get(name, np.zeros(each.shape, np.int32)) + above
    return {name: each > SHARED * count for name, each in votes.items()}


class Attribution:
    """One prompt in the bare model. What comes before its last token is computed once."""

    def __init__(self, base: Base, tokens: Sequence[int]) -> None:
        self._base = base
        self._modules = [name for name in base.slots.modules if name.endswith(FEED_FORWARD)]
        if not self._modules:
            raise EngineError(
                f"The model has no {FEED_FORWARD}, so its neurons can't be found.",
                fix="Use a model whose feed-forward blocks are built as Llama's or Qwen's are.",
            )
        base.model.train()  # where a model has fused kernels, they have no gradient
        base.slots.scale({}, rows=1)
        self._cache = base.new_cache()
        base.model(mx.array([tokens[:-1]]), cache=self._cache)
        mx.eval([layer.state for layer in self._cache])
        self._last = tokens[-1]
        self.logits = np.array(self._run(1)[0], np.float32)
        base.model.eval()

    def scores(self, target: int, steps: int = STEPS) -> dict[str, NDArray[np.float32]]:
        """Every neuron's part in the probability of the token ``target``."""
        self._base.model.train()
        try:
            return {name: self._of_module(name, target, steps) for name in self._modules}
        finally:
            self._base.slots.scale({}, rows=1)
            self._base.model.eval()

    def _of_module(self, name: str, target: int, steps: int) -> NDArray[np.float32]:
        def probability(scale: mx.array) -> mx.array:
            self._base.slots.scale({name: scale}, rows=steps)
            return mx.softmax(self._run(steps), axis=-1)[:, target].sum()

        neurons = self._base.slots.neurons(name)
        part = mx.linspace(0, 1, steps).reshape(-1, *(1,) * len(neurons))
        gradient = mx.grad(probability)(mx.broadcast_to(part, (steps, *neurons)))
        # The gradient by the scale is the activation times the gradient by the activation.
        return np.array(gradient.mean(axis=0), np.float32)

    def _run(self, rows: int) -> mx.array:
        """The logits after the last token, (rows, vocabulary)."""
        cache = [layer.merge([layer] * rows) for layer in self._cache]
        logits: mx.array = self._base.model(mx.array([[self._last]] * rows), cache=cache)
        return logits[:, -1].astype(mx.float32)


def _tokens(base: Base, question: str) -> list[int]:
    chat = [{"role": "user", "content": f"{INSTRUCTION}\n{question}"}]
    return list(
        base.tokenizer.apply_chat_template(chat, add_generation_prompt=True, enable_thinking=False)
    )
