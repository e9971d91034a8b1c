"""What the memory keeps and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kiki.errors import RequestError

EpisodeStatus = Literal["complete", "aborted"]
NEXT_TURN = -1
"""As an episode's turn: the journal gives it the one after the conversation's last, so that two
that are written at once don't get the same."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose memory: ``user`` divides a tenant further. Nothing crosses an owner."""

    tenant: str
    user: str


@dataclass(frozen=True, slots=True)
class Episode:
    """One turn: what the user said and what was answered.

    ``id`` is given by the caller, unique and sortable by time (UUIDv7 or ULID). ``adapters`` are
    (name, weight) pairs; ``created`` is an aware UTC time. Raises `RequestError` on text that
    isn't valid Unicode (a lone surrogate), an empty ``id`` or ``tenant``, or a naive ``created``.
    """

    id: str
    tenant: str
    user: str
    conversation: str
    turn: int
    user_text: str
    answer_text: str
    domains: tuple[str, ...]
    adapters: tuple[tuple[str, float], ...]
    created: datetime
    status: EpisodeStatus = "complete"

    def __post_init__(self) -> None:
        texts = ("id", "tenant", "user", "conversation", "user_text", "answer_text")
        for name in texts:
            check_text(getattr(self, name), param=name)
        for name in ("id", "tenant"):
            if not getattr(self, name):
                raise RequestError(f"An episode's {name} is empty.", param=name)
        if self.created.tzinfo is None:
            raise RequestError("An episode's time has no time zone.", param="created")

    @property
    def owner(self) -> Owner:
        return Owner(self.tenant, self.user)


@dataclass(frozen=True, slots=True)
class IdempotentReply:
    """A reply kept under its Idempotency-Key. ``reply`` is the response body as JSON text;
    ``fingerprint`` tells whether a later request with the key is the same request."""

    key: str
    fingerprint: str
    reply: str


@dataclass(frozen=True, slots=True)
class RecalledEpisode:
    """An episode with its fused score and why it came, e.g. ``('vector 0.71', 'text 3.2')``."""

    episode: Episode
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecalledNote:
    """A current fact, or the summary of episodes, with the time from which it holds or tells."""

    id: str
    kind: Literal["fact", "summary"]
    text: str
    since: datetime
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recollection:
    """What recall found, best first. ``block`` is ready for the prompt (empty when nothing was
    relevant) and costs ``tokens`` by the caller's count; ``notes`` stand in it before the
    episodes."""

    episodes: tuple[RecalledEpisode, ...] = ()
    notes: tuple[RecalledNote, ...] = ()
    block: str = ""
    tokens: int = 0


def check_text(text: str, *, param: str) -> None:
    """Raises `RequestError` when ``text`` can't be stored faithfully as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{param} holds a lone surrogate at character {error.start}: it isn't valid Unicode.",
            param=param,
            fix="Send the text as valid UTF-8.",
        ) from error
