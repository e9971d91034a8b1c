"""Between the bodies of ``/v1/memory`` and the memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from gateway.api.arrival import new_id
from gateway.api.fields import clean_text
from gateway.api.memory_schemas import (
    EpisodeDetail,
    EpisodeIn,
    EpisodeOut,
    FactOut,
    MemoryItem,
    SummaryOut,
)
from gateway.api.owner import owner_of
from gateway.api.schemas import ChatMessage
from kiki.errors import RequestError
from memory import NEXT_TURN, Episode
from memory.facts import Fact, Summary
from memory.rights import Remembered

MAX_LINE = 4_500_000
"""Bytes of an import's line: two texts of a million characters, mostly one byte each."""


def episodes_of(item: MemoryItem, at: str) -> list[Episode]:
    """The episodes that an item asks to keep. Raises `RequestError`; ``at`` is the item's place in
    the body, with the dot behind it."""
    if (item.text is None) == (item.messages is None):
        raise RequestError(
            "Give either text or messages.", param=f"{at}text", fix="Leave one of them out."
        )
    if item.messages is not None and item.answer:
        raise RequestError(
            "answer goes with text; messages hold their answers.", param=f"{at}answer"
        )
    id_ = item.id or new_id("mem")
    said = _turns(item.messages, at) if item.messages else [(item.text or "", item.answer)]
    created = item.time or datetime.now(UTC)
    owner = owner_of(item.user, f"{at}user")
    conversation = clean_text(item.conversation or f"conv-{id_}", f"{at}conversation")
    return [
        Episode(
            id=id_ if number == 0 else f"{id_}.{number + 1}",
            tenant=owner.tenant,
            user=owner.user,
            conversation=conversation,
            turn=NEXT_TURN,
            user_text=clean_text(text, f"{at}text"),
            answer_text=clean_text(answer, f"{at}answer"),
            domains=(),
            adapters=(),
            created=created + timedelta(microseconds=number),
        )
        for number, (text, answer) in enumerate(said)
    ]


def _turns(messages: Sequence[ChatMessage], at: str) -> list[tuple[str, str]]:
    """What the user said and what was answered, turn by turn; instructions are not kept."""
    turns: list[tuple[str, str]] = []
    for number, message in enumerate(messages):
        text = clean_text(message.text, f"{at}messages[{number}].content")
        if message.role == "user":
            turns.append((text, ""))
        elif message.role == "assistant":
            if not turns:
                raise RequestError(
                    "An assistant message needs one of the user before it.",
                    param=f"{at}messages[{number}]",
                )
            question, answer = turns[-1]
            turns[-1] = (question, f"{answer}\n{text}" if answer else text)
    if not turns:
        raise RequestError("No message has the role user.", param=f"{at}messages", fix="Add one.")
    return turns


def imported(lines: Iterable[bytes], user: str | None, first: int) -> Iterator[Episode | None]:
    """The episodes of exported lines, None for a line that is learnt anew; ``user`` takes the
    place of theirs. Raises `RequestError` with the line's number, counted from ``first``."""
    for number, line in enumerate(lines, start=first):
        if not line.strip():
            continue
        param = f"line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _bad_line(param, f"it is not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise _bad_line(param, "it is no JSON object")
        if row.get("object") in ("memory.fact", "memory.summary"):
            yield None
            continue
        try:
            one = EpisodeIn.model_validate(row)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(map(str, problem["loc"]))
            raise _bad_line(param, f"{field}: {problem['msg'].lower()}") from error
        yield _episode(one, user, param)


def _bad_line(param: str, reason: str) -> RequestError:
    return RequestError(
        f"The {param} of the import can't be kept: {reason}.",
        param=param,
        fix="Correct it and import again: what was kept is not doubled.",
    )


def _episode(one: EpisodeIn, user: str | None, param: str) -> Episode:
    owner = owner_of(one.user if user is None else user, param)
    return Episode(
        id=one.id,
        tenant=owner.tenant,
        user=owner.user,
        conversation=clean_text(one.conversation, param),
        turn=NEXT_TURN if one.turn is None else one.turn,
        user_text=clean_text(one.text, param),
        answer_text=clean_text(one.answer, param),
        domains=tuple(clean_text(name, param) for name in one.domains),
        adapters=tuple((clean_text(name, param), part) for name, part in one.adapters.items()),
        created=one.time,
        status=one.status,
    )


def told(one: Episode | Fact | Summary) -> EpisodeOut | FactOut | SummaryOut:
    if isinstance(one, Episode):
        return EpisodeOut.model_validate(episode_fields(one))
    if isinstance(one, Fact):
        return FactOut(
            id=one.id,
            user=one.owner.user,
            text=one.text,
            episode=one.source_episode,
            current=one.current,
            valid_from=one.valid_from,
            valid_to=one.valid_to,
            recorded_from=one.recorded_from,
            recorded_to=one.recorded_to,
            supersedes=list(one.supersedes),
            entities=list(one.entities),
            conflicts=list(one.conflicts),
        )
    return SummaryOut(
        id=one.id,
        user=one.owner.user,
        text=one.text,
        episodes=list(one.members),
        time=one.created,
    )


def told_whole(one: Remembered | Fact | Summary) -> EpisodeDetail | FactOut | SummaryOut:
    """With what was learnt from it, where it is an episode."""
    if not isinstance(one, Remembered):
        made = told(one)
        assert not isinstance(made, EpisodeOut)
        return made
    return EpisodeDetail.model_validate(
        episode_fields(one.episode)
        | {
            "facts": [told(fact) for fact in one.facts],
            "summaries": [told(summary) for summary in one.summaries],
        }
    )


def episode_fields(episode: Episode) -> dict[str, object]:
    return {
        "id": episode.id,
        "user": episode.user,
        "conversation": episode.conversation,
        "turn": episode.turn,
        "text": episode.user_text,
        "answer": episode.answer_text,
        "time": episode.created,
        "domains": list(episode.domains),
        "adapters": dict(episode.adapters),
        "status": episode.status,
    }
