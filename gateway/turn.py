"""One turn: what the caller asks, and what each stage adds to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adapters.engines.base import (
    CallPiece,
    FinishReason,
    Message,
    Sampling,
    TokenLogprob,
    ToolCall,
    Tools,
    Usage,
)
from adapters.mix import BASE, Mix
from antibias.review import Review
from kiki.budget import Budget
from memory import Owner, Recollection
from negotiator.verdict import Verdict
from routing.router import RouteDecision

Plan = Literal["single", "blend", "panel"]
MemoryState = Literal["ok", "off", "unavailable"]
SEEDS = 2**32 - 1
"""llama.cpp's seeds have 32 bits, and the last one means "random"."""
STAGES = ("route", "mount", "recall", "infer", "negotiate", "antibias", "write")


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller forces; None leaves the choice to kiki."""

    plan: Plan | None = None
    adapters: Mix | None = None
    intent: frozenset[str] | None = None
    adapter_missing: str | None = None
    threshold: float | None = None
    top_k: int = 4
    memory: bool = True
    negotiate: bool | None = None
    antibias: bool | None = None
    strip_thinking: bool = True


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key and a fingerprint of the request it was sent with."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked request, free of HTTP.

    ``choices`` is how many answers are asked for. ``prompt`` is a text to go on with, which no
    chat template sees; ``messages`` hold it too, for the router.
    """

    id: str
    model: str
    owner: Owner
    conversation: str
    messages: tuple[Message, ...]
    sampling: Sampling
    options: Options
    created: float
    stream: bool = False
    idempotency: IdempotencyKey | None = None
    choices: int = 1
    tools: Tools | None = None
    variables: Mapping[str, object] | None = None
    prompt: str | None = None
    received: float = field(default_factory=time.perf_counter)

    @property
    def question(self) -> str:
        """The last user message: what is routed, recalled for, and remembered."""
        return self.messages[self._asked].content

    @property
    def verbatim(self) -> bool:
        """Whether the answer is given as one model wrote it: no panel, no vote, no revision.

        Calls and JSON would not survive a rewrite, log-probabilities would belong to another text,
        and of several answers each is wanted.
        """
        sampling = self.sampling
        return (
            self.tools is not None
            or self.choices > 1
            or sampling.logprobs
            or sampling.json_schema is not None
            or self.prompt is not None
        )

    @property
    def before(self) -> tuple[Message, ...]:
        """What was said before the question."""
        return self.messages[: self._asked]

    @property
    def _asked(self) -> int:
        return max(place for place, said in enumerate(self.messages) if said.role == "user")


@dataclass(frozen=True, slots=True)
class Mount:
    """The decision of stage 2: what is active for this request alone.

    ``base_only`` are domains that the base answers; ``left_out`` are adapters for which the engine
    had no room beside the others.
    """

    plan: Plan
    mix: Mix
    reason: str
    base_only: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecondLook:
    """Which of stages 5 and 6 look at the answer, and what both together may spend.

    ``deep``: a domain asks for the deep judge.
    """

    negotiate: bool = False
    antibias: bool = False
    deep: bool = False
    budget: Budget = field(default_factory=lambda: Budget(0, 0.0))


@dataclass(frozen=True, slots=True)
class Answered:
    """One candidate of stage 4, or one choice of several; ``reasoning`` was taken out of it."""

    adapter: str | None
    text: str
    finish_reason: FinishReason
    usage: Usage
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What comes of choice number ``choice`` while it is written."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallPiece, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0


@dataclass(frozen=True, slots=True)
class StageReport:
    """A stage's name, its time, the part of it spent waiting, and its decision in words.

    It ``began`` at a moment of ``perf_counter``.
    """

    name: str
    ms: float
    waited_ms: float
    decision: dict[str, object]
    began: float = 0.0


@dataclass(slots=True)
class Turn:
    """Walks through the stages; each one reads it and adds its own result."""

    ask: Ask
    vector: NDArray[np.float32] | None = None
    route: RouteDecision | None = None
    mount: Mount = Mount("single", BASE, "not mounted yet")
    recollection: Recollection | None = None
    prompt: tuple[Message, ...] = ()
    memory: MemoryState = "ok"
    look: SecondLook = field(default_factory=SecondLook)
    held: bool = False
    candidates: list[Answered] = field(default_factory=list)
    verdict: Verdict | None = None
    review: Review | None = None
    others: list[Answered] = field(default_factory=list)
    answer: str = ""
    finish_reason: FinishReason = "stop"
    aborted: bool = False
    usage: Usage = field(default_factory=Usage)
    spent: dict[str, Usage] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)
    first_text: float | None = None
    ended: float | None = None
    _waited: float = 0.0

    def waiting(self) -> _Waiting:
        """Time spent outside the gateway: in the embedder, a store or the engine."""
        return _Waiting(self)

    def waited(self, seconds: float) -> None:
        self._waited += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, object]]:
        """Time a stage; it writes its decision into the dict it is given."""
        decision: dict[str, object] = {}
        began, waited_before = time.perf_counter(), self._waited
        yield decision
        ended = time.perf_counter()
        waited = (self._waited - waited_before) * 1e3
        self.reports.append(StageReport(name, (ended - began) * 1e3, waited, decision, began))
        self.ended = ended

    def spend(self, part: str, usage: Usage) -> None:
        """Count tokens that ``part`` of the turn took: draft, votes, judge or revision."""
        self.usage += usage
        self.spent[part] = self.spent.get(part, Usage()) + usage

    @property
    def choices(self) -> tuple[Answered, ...]:
        """The answers to give: one, or as many as were asked for."""
        if len(self.candidates) == 1:
            (draft,) = self.candidates
            first = replace(draft, text=self.answer, finish_reason=self.finish_reason)
            return (first, *self.others)
        return (Answered(None, self.answer, self.finish_reason, self.usage),)

    @property
    def rewritable(self) -> bool:
        """Whether the caller has seen nothing of the answer yet when it is whole."""
        return self.held or not self.ask.stream

    @property
    def gateway_ms(self) -> float:
        """Milliseconds that were the gateway's own, from the request's first byte on."""
        until = self.ended if self.ended is not None else time.perf_counter()
        return (until - self.ask.received - self._waited) * 1e3


class _Waiting:
    """A class, since each token passes here: contextlib takes three times as long."""

    __slots__ = ("_began", "_turn")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        self._turn.waited(time.perf_counter() - self._began)
