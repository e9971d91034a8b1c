"""``/v1/memory``: what is remembered of the caller, and their rights over it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, Literal, ParamSpec, Protocol, TypeVar

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse

from gateway.api.fields import clean_text
from gateway.api.memory_schemas import (
    Deleted,
    EpisodeDetail,
    EpisodeOut,
    FactOut,
    Found,
    FoundList,
    FoundNote,
    Imported,
    Kept,
    KeptList,
    MemoryCounts,
    MemoryEdit,
    MemoryItems,
    MemoryList,
    MemorySearch,
    SummaryOut,
    Time,
)
from gateway.api.owner import owner_of
from gateway.api.remembering import (
    MAX_LINE,
    episode_fields,
    episodes_of,
    imported,
    told,
    told_whole,
)
from gateway.api.schemas import ErrorEnvelope
from gateway.settings import Settings
from kiki.errors import RequestError
from memory import Aeon, Owner
from memory.pages import Counts, Filter
from routing.embedder import Embedder

router = APIRouter(responses={status: {"model": ErrorEnvelope} for status in (400, 404, 500, 503)})

WAIT_S = 30.0
WAIT_STEP_S = 0.02
BATCH = 256
P = ParamSpec("P")
Result = TypeVar("Result")
_FOLLOWING = ThreadPoolExecutor(4, thread_name_prefix="kiki-rights")
User = Annotated[str | None, Query(max_length=200, description="Whose memory; as in chat.")]
Scope = Annotated[
    Literal["user", "tenant"], Query(description="One user's memory, or that of all the tenant's.")
]
Id = Annotated[str, Path(max_length=300)]


class MemoryServices(Protocol):
    """What these endpoints need; ``kiki memory`` gives it without a gateway."""

    @property
    def aeon(self) -> Aeon: ...

    @property
    def embedder(self) -> Embedder: ...

    @property
    def settings(self) -> Settings: ...


def _services(request: Request) -> MemoryServices:
    services: MemoryServices = request.app.state.services
    return services


@router.post("/v1/memory", response_model=KeptList)
async def write(request: Request, body: MemoryItems, wait: bool = False) -> KeptList:
    """Keep an episode, or a list of them, all or none; durable before the answer. ``wait`` gives
    the stores half a minute to hold them too, so that a search finds them at once."""
    aeon = _services(request).aeon
    many = isinstance(body, list)
    items = body if isinstance(body, list) else [body]
    episodes = [
        one
        for number, item in enumerate(items)
        for one in episodes_of(item, f"[{number}]." if many else "")
    ]
    kept = await asyncio.to_thread(aeon.rights.keep, episodes)
    if wait:
        await _projected(aeon)
    return KeptList(data=[Kept(id=id_, new=new) for id_, new in kept])


async def _projected(aeon: Aeon) -> None:
    """Waits until the stores hold what is in the journal now. In the loop: threads that wait would
    be missing where chat recalls."""
    goal = await asyncio.to_thread(aeon.newest)
    for _ in range(round(WAIT_S / WAIT_STEP_S)):
        if aeon.holds(goal):
            return
        await asyncio.sleep(WAIT_STEP_S)


@router.get("/v1/memory", response_model=MemoryList)
async def list_(
    request: Request,
    user: User = None,
    kind: Literal["episodes", "facts", "summaries"] = "episodes",
    conflicts: Annotated[
        bool, Query(description="Only facts that another current fact contradicts.")
    ] = False,
    conversation: str | None = None,
    since: Time | None = None,
    until: Time | None = None,
    contains: Annotated[str | None, Query(min_length=1, max_length=1000)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(pattern=r"^\d{1,18}$")] = None,
) -> MemoryList:
    """A page of episodes, or of what was learnt (all other filters are for episodes)."""
    rights = _services(request).aeon.rights
    owner = owner_of(user)
    if conflicts and kind != "facts":
        raise RequestError(
            "Only facts have conflicts.", param="conflicts", fix="Send kind=facts with it."
        )
    if kind != "episodes":
        made: list[Any] = await asyncio.to_thread(getattr(rights, kind), owner)
        if conflicts:
            made = [one for one in made if one.conflicts]
        start = int(after or 0)
        page = made[::-1][start : start + limit]
        more = start + limit < len(made)
        return MemoryList(
            data=[told(one) for one in page],
            has_more=more,
            next=str(start + limit) if more else None,
        )
    wanted = Filter(conversation, since, until, contains)
    start_ = None if after is None else int(after)
    rows = await asyncio.to_thread(rights.page, owner, limit + 1, wanted=wanted, start=start_)
    more = len(rows) > limit
    return MemoryList(
        data=[EpisodeOut.model_validate(episode_fields(row.episode)) for row in rows[:limit]],
        has_more=more,
        next=str(rows[limit - 1].seq) if more else None,
    )


@router.get("/v1/memory/status", response_model=MemoryCounts)
async def status(request: Request, user: User = None, scope: Scope = "user") -> MemoryCounts:
    """How the memory is, and how much there is of the caller."""
    aeon = _services(request).aeon

    def look() -> MemoryCounts:
        state = aeon.status()
        owners = _owners(aeon, owner_of(user), scope)
        counts = sum((aeon.rights.counts(one) for one in owners), Counts())
        return MemoryCounts(
            state=state.state,
            lag=state.lag,
            last_error=state.last_error,
            episodes=counts.episodes,
            facts=counts.facts,
            summaries=counts.summaries,
            users=len(owners),
        )

    return await asyncio.to_thread(look)


@router.get("/v1/memory/search", response_model=FoundList)
async def search(
    request: Request,
    q: Annotated[str, Query(min_length=1)],
    user: User = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> FoundList:
    """What chat would recall for a question, and the next best, with scores and reasons."""
    return await _search(_services(request), MemorySearch(q=q, user=user, limit=limit))


@router.post("/v1/memory/search", response_model=FoundList)
async def search_by_body(request: Request, body: MemorySearch) -> FoundList:
    """The same, for a question too long for an address."""
    return await _search(_services(request), body)


async def _search(services: MemoryServices, asked: MemorySearch) -> FoundList:
    question, owner = clean_text(asked.q, "q"), owner_of(asked.user)
    vector = (await asyncio.wrap_future(services.embedder.submit([question])))[0]
    found = await asyncio.to_thread(
        services.aeon.search, owner, question, vector, limit=asked.limit
    )
    recalled = await asyncio.to_thread(
        services.aeon.recall,
        owner,
        question,
        vector,
        budget_tokens=services.settings.recall_tokens,
        limit=services.settings.recall_limit,
        count_tokens=services.embedder.count_tokens,
    )
    chosen = {one.episode.id for one in recalled.episodes}
    return FoundList(
        data=[
            Found.model_validate(
                episode_fields(one.episode)
                | {
                    "score": round(one.score, 4),
                    "reasons": one.reasons,
                    "in_prompt": one.episode.id in chosen,
                }
            )
            for one in found
        ],
        notes=[
            FoundNote.model_validate(
                {
                    "object": f"memory.{note.kind}",
                    "id": note.id,
                    "text": note.text,
                    "score": round(note.score, 4),
                    "reasons": note.reasons,
                }
            )
            for note in recalled.notes
        ],
        prompt=recalled.block,
    )


@router.get(
    "/v1/memory/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {}}}},
)
async def export(request: Request, user: User = None, scope: Scope = "user") -> StreamingResponse:
    """All there is as JSON lines: episodes in the order in which they were written, then facts
    and summaries."""
    aeon = _services(request).aeon
    owners = await asyncio.to_thread(_owners, aeon, owner_of(user), scope)

    def lines() -> Iterator[str]:
        for owner in owners:
            for one in aeon.rights.export(owner):
                yield told(one).model_dump_json() + "\n"

    # A chunk at a time: a line at a time would cost a change of threads each.
    async def chunks() -> AsyncIterator[str]:
        source = lines()
        while chunk := await asyncio.to_thread(lambda: "".join(itertools.islice(source, BATCH))):
            yield chunk

    return StreamingResponse(chunks(), media_type="application/jsonl")


@router.post("/v1/memory/import", response_model=Imported)
async def import_(request: Request, user: User = None) -> Imported:
    """Keep exported JSON lines; ``user`` takes the place of the lines' own. What is there already
    is not doubled."""
    aeon = _services(request).aeon
    counts = {"new": 0, "known": 0, "skipped": 0}
    number = 1
    async for lines in _batches(request.stream()):
        batch = list(imported(lines, user, number))
        number += len(lines)
        episodes = [one for one in batch if one is not None]
        counts["skipped"] += len(batch) - len(episodes)
        for _, new in await asyncio.to_thread(aeon.rights.keep, episodes):
            counts["new" if new else "known"] += 1
    return Imported(**counts)


@router.get(
    "/v1/memory/{id}", response_model=EpisodeDetail | FactOut | SummaryOut, name="read_memory"
)
async def show(request: Request, id: Id, user: User = None) -> EpisodeDetail | FactOut | SummaryOut:
    """An episode with what was learnt from it, or a fact, or a summary."""
    rights = _services(request).aeon.rights
    return told_whole(await asyncio.to_thread(rights.get, owner_of(user), id))


@router.patch("/v1/memory/{id}", response_model=EpisodeOut)
async def edit(request: Request, id: Id, body: MemoryEdit, user: User = None) -> EpisodeOut:
    """Put other texts in an episode; what was learnt from the old ones goes, and the new ones are
    learnt from."""
    if body.text is None and body.answer is None:
        raise RequestError("Nothing to change.", param="text", fix="Give text or answer.")
    rights = _services(request).aeon.rights
    edited = await _followed(
        rights.edit,
        owner_of(user),
        id,
        user_text=None if body.text is None else clean_text(body.text, "text"),
        answer_text=None if body.answer is None else clean_text(body.answer, "answer"),
    )
    return EpisodeOut.model_validate(episode_fields(edited))


@router.delete("/v1/memory/{id}", response_model=Deleted)
async def delete(request: Request, id: Id, user: User = None) -> Deleted:
    """Delete an episode with all that was learnt from it, or a single fact or summary."""
    rights = _services(request).aeon.rights
    erased = await _followed(rights.delete, owner_of(user), [id])
    return _deleted(erased.counts, 1, followed=erased.followed)


@router.delete("/v1/memory", response_model=Deleted)
async def delete_all(
    request: Request,
    all: bool = False,
    confirm: str | None = None,
    user: User = None,
    scope: Scope = "user",
) -> Deleted:
    """Delete all that is remembered of a user, or of everyone of the tenant: from the journal,
    both stores and the kept replies, and look that it is gone."""
    aeon = _services(request).aeon
    owners = await asyncio.to_thread(_owners, aeon, owner_of(user), scope)
    if not all or confirm != "delete":
        counts = await asyncio.to_thread(lambda: sum(map(aeon.rights.counts, owners), Counts()))
        whose = "everyone" if scope == "tenant" else f"the user {user!r}" if user else "no user"
        raise RequestError(
            f"This would delete all {counts.episodes} episodes of {whose}.",
            param="confirm" if all else "all",
            code="confirmation_needed",
            fix="To mean it, send all=true and confirm=delete.",
        )
    erased = await _followed(aeon.rights.delete_all, owners)
    return _deleted(erased.counts, len(owners), followed=erased.followed)


async def _followed(change: Callable[P, Result], *args: P.args, **options: P.kwargs) -> Result:
    """A change that waits for the stores, in a thread that chat doesn't need."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_FOLLOWING, partial(change, *args, **options))


def _owners(aeon: Aeon, owner: Owner, scope: Literal["user", "tenant"]) -> list[Owner]:
    return aeon.rights.users(owner.tenant) if scope == "tenant" else [owner]


def _deleted(counts: Counts, users: int, *, followed: bool) -> Deleted:
    return Deleted(
        episodes=counts.episodes,
        facts=counts.facts,
        summaries=counts.summaries,
        replies=counts.replies,
        users=users,
        followed=followed,
    )


async def _batches(body: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """The body's lines, at most `BATCH` at a time, while it is still coming in."""
    lines: list[bytes] = []
    rest = b""
    async for chunk in body:
        *whole, rest = (rest + chunk).split(b"\n")
        lines += whole
        if len(rest) > MAX_LINE:
            raise RequestError(
                f"A line is over {MAX_LINE} bytes.", param="body", fix="Send one object a line."
            )
        while len(lines) >= BATCH:
            yield lines[:BATCH]
            lines = lines[BATCH:]
    if rest:
        lines.append(rest)
    if lines:
        yield lines
