"""The bodies of ``/v1/memory``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
)

from gateway.api.schemas import MAX_TEXT, ChatMessage

MAX_ITEMS = 1000
ID = r"^[A-Za-z0-9._:@-]{1,200}$"


def _aware(time: datetime) -> datetime:
    # In another zone the first and the last year reach past what a datetime holds.
    if not 1 < time.year < 9999:
        raise ValueError("the year must be from 2 to 9998")
    return time if time.tzinfo else time.replace(tzinfo=UTC)


Time = Annotated[datetime, AfterValidator(_aware)]
"""ISO 8601, or seconds since 1970; without a zone it is UTC."""


class MemoryItem(BaseModel):
    """What to keep: ``text`` that the user said (with its ``answer``), or ``messages`` of a
    conversation, whose turns become an episode each. The same ``id`` is kept once."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(None, min_length=1, max_length=MAX_TEXT)
    answer: str = Field("", max_length=MAX_TEXT)
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=2000)
    id: str | None = Field(None, pattern=ID)
    conversation: str | None = Field(None, min_length=1, max_length=200)
    time: Time | None = None
    user: str | None = Field(None, max_length=200)


def _kind(body: object) -> str:
    return "many" if isinstance(body, list) else "one"


MemoryItems = Annotated[
    Annotated[MemoryItem, Tag("one")]
    | Annotated[list[MemoryItem], Field(min_length=1, max_length=MAX_ITEMS), Tag("many")],
    Discriminator(_kind),
]


class MemoryEdit(BaseModel):
    """Other texts; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(None, min_length=1, max_length=MAX_TEXT)
    answer: str | None = Field(None, max_length=MAX_TEXT)


class MemorySearch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    q: str = Field(min_length=1, max_length=MAX_TEXT)
    limit: int = Field(10, ge=1, le=100)
    user: str | None = Field(None, max_length=200)


class EpisodeOut(BaseModel):
    """An episode, as it is listed and exported."""

    object: Literal["memory.episode"] = "memory.episode"
    id: str
    user: str
    conversation: str
    turn: int
    text: str
    answer: str
    time: datetime
    domains: list[str] = []
    adapters: dict[str, float] = {}
    status: Literal["complete", "aborted"] = "complete"


class EpisodeIn(EpisodeOut):
    """A line of an import; exported fields that are missing get their defaults."""

    id: str = Field(pattern=ID)
    user: str = Field("", max_length=200)
    conversation: str = Field(min_length=1, max_length=200)
    turn: int | None = Field(None, ge=0, lt=2**53)  # type: ignore[assignment]
    text: str = Field(min_length=1, max_length=MAX_TEXT)
    answer: str = Field("", max_length=MAX_TEXT)
    time: Time
    adapters: dict[str, FiniteFloat] = {}


class FactOut(BaseModel):
    """What was learnt; ``current`` until something superseded it. ``entities`` are the names and
    quantities in it, in lower case; ``conflicts`` are current facts that the last sleep found to
    contradict it."""

    object: Literal["memory.fact"] = "memory.fact"
    id: str
    user: str
    text: str
    episode: str
    current: bool
    valid_from: datetime
    valid_to: datetime | None
    recorded_from: datetime
    recorded_to: datetime | None
    supersedes: list[str]
    entities: list[str] = []
    conflicts: list[str] = []


class SummaryOut(BaseModel):
    """What stands for several episodes."""

    object: Literal["memory.summary"] = "memory.summary"
    id: str
    user: str
    text: str
    episodes: list[str]
    time: datetime


class EpisodeDetail(EpisodeOut):
    """An episode with what was learnt from it."""

    facts: list[FactOut]
    summaries: list[SummaryOut]


class Kept(BaseModel):
    """``new`` is false where the id was there already; nothing was changed then."""

    object: Literal["memory.episode"] = "memory.episode"
    id: str
    new: bool


class KeptList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Kept]


class MemoryList(BaseModel):
    """A page, the last written first. ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[EpisodeOut] | list[FactOut] | list[SummaryOut]
    has_more: bool
    next: str | None


class Found(EpisodeOut):
    """``in_prompt``: chat would put it before the model for this question."""

    score: float
    reasons: list[str]
    in_prompt: bool


class FoundNote(BaseModel):
    """A fact or a summary that chat would put before the model."""

    object: Literal["memory.fact", "memory.summary"]
    id: str
    text: str
    score: float
    reasons: list[str]


class FoundList(BaseModel):
    """Best first; ``notes`` and the episodes ``in_prompt`` make up ``prompt``."""

    object: Literal["list"] = "list"
    data: list[Found]
    notes: list[FoundNote]
    prompt: str


class Deleted(BaseModel):
    """How much was deleted. ``followed``: the stores have done it too, and no file of this gateway
    holds any of it; false while a store is down: it follows when it is back."""

    object: Literal["memory.deleted"] = "memory.deleted"
    episodes: int
    facts: int
    summaries: int
    replies: int
    users: int
    followed: bool


class Imported(BaseModel):
    """``known`` were there already; ``skipped`` are facts and summaries, which are learnt anew
    from the episodes."""

    object: Literal["memory.imported"] = "memory.imported"
    new: int
    known: int
    skipped: int


class MemoryCounts(BaseModel):
    """How the memory is, and how much there is of the caller."""

    object: Literal["memory.status"] = "memory.status"
    state: Literal["ok", "degraded"]
    lag: int
    last_error: str | None
    episodes: int
    facts: int
    summaries: int
    users: int
